"""Texts with holes, filled: [MASK]s, gaps of unknown length, or words that are chosen here."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from functools import partial

from ..config.schema import SamplingConfig
from ..machine.seeds import number_of
from ..text.masks import GAP
from .decoding import decode
from .gaps import Lengths, best_lengths, gap_score, length_evidence
from .infilling import MaskedText, mask_text, splice, tokenize_masked
from .limits import TextLimits
from .numbering import candidates_of
from .options import RETRIES, RETRY_STRIDE, hotter
from .ranking import Answer, Piece, Ranking
from .tracing import Tracer, trace_of


def filled(
    limits: TextLimits,
    pieces: Sequence[Piece],
    options: SamplingConfig,
    traced: bool = False,
    lengths: dict[int, list[Lengths]] | None = None,
) -> list[Answer]:
    """``num_samples`` versions of each sentence, distinct and different from what was typed where possible; those of
    a sentence with gaps are of the best ``lengths`` in turn (by default they are looked for), and ranked by
    ``gap_score``.
    """
    filler, ranking = Filler(limits, pieces, options), Ranking(len(pieces), options.num_samples)
    lengths = filler.gap_lengths() if lengths is None else lengths
    for attempt in range(1 + RETRIES):
        if not (wanted := ranking.missing()):
            break
        drafts = []
        for index in wanted:
            key = number_of(pieces[index].text, *pieces[index].key)
            rng = random.Random(f"{options.seed} {attempt} {key}")
            tried = lengths.get(index, [()])[: options.length_beam + 2 * attempt]
            count = options.num_samples * options.best_of
            masked = [filler.masked(index, rng, tried[number % len(tried)]) for number in range(count)]
            candidates_of(key, [item.canvas for item in masked])
            drafts += [(index, item) for item in masked]
        tracer = Tracer() if traced else None
        outputs = filler.finish(drafts, hotter(options, attempt), options.seed + RETRY_STRIDE * attempt, tracer)
        for number, ((index, item), (ids, score)) in enumerate(zip(drafts, outputs)):
            parts = splice(item, ids, limits.tokenizer, limits.cased)
            text = "".join(part for part, _ in parts)
            trace = tracer and partial(trace_of, tracer.histories[number], parts, limits.tokenizer)
            ranking.add(index, text, -math.inf if text == pieces[index].text else score, trace)
    return ranking.answers()


class Filler:
    """Makes and finishes drafts of some sentences: (number of the sentence, masked text)."""

    def __init__(self, limits: TextLimits, pieces: Sequence[Piece], options: SamplingConfig):
        self.limits, self.pieces, self.options = limits, pieces, options

    def masked(self, index: int, rng: random.Random, gap_lengths: Lengths = ()) -> MaskedText:
        """A sentence as a canvas."""
        model, options = self.limits.model, self.options
        rules = (options.allow_punctuation, self.limits.target_limit())
        return mask_text(self.pieces[index].text, model.tokenizer, model.schedule, rng, *rules, gap_lengths=gap_lengths)

    def gap_lengths(self) -> dict[int, list[Lengths]]:
        """The lengths of the gaps of each sentence that has some, the best first, by its likeliest text of each."""
        chosen = [index for index, piece in enumerate(self.pieces) if GAP in piece.text]
        sizes = []
        for index in chosen:
            room = self.limits.target_limit() - len(tokenize_masked(self.pieces[index].text, self.limits.tokenizer)[0])
            gaps = self.pieces[index].text.count(GAP)
            sizes.append((gaps, min(self.options.max_gap, 1 + room), gaps + room))
        likeliest = dataclasses.replace(self.options, temperature=0.0, revise=0, rank_by="revealed")

        def score(tried: Sequence[tuple[int, Lengths]]) -> list[float]:
            drafts = [(chosen[n], self.masked(chosen[n], random.Random(0), lengths)) for n, lengths in tried]
            for (index, item), (_, lengths) in zip(drafts, tried):
                candidates_of(number_of(self.pieces[index].text, *self.pieces[index].key, lengths), [item.canvas])
            return [score for _, score in self.finish(drafts, likeliest, self.options.seed)]

        return dict(zip(chosen, best_lengths(sizes, score)))

    def finish(
        self, drafts: list[tuple[int, MaskedText]], options: SamplingConfig, seed: int, tracer: Tracer | None = None
    ) -> list[tuple[list[int], float]]:
        """(ids, score) of each draft."""
        model, collator, masked = self.limits.model, self.limits.collator, [item for _, item in drafts]
        # the user chose the places, not the noise: no time correction
        canvases = [item.canvas for item in masked]
        outputs = decode(model, canvases, options, collator, seed, time_correction=False, tracer=tracer)
        scores = [output.score for output in outputs]
        with_gaps = [number for number, item in enumerate(masked) if GAP in item.text]
        chosen = [canvases[number] for number in with_gaps]
        evidence = length_evidence(model, chosen, collator, options.batch_size)
        read = options.rank_by != "revealed"
        for number, canvas, value in zip(with_gaps, chosen, evidence):
            pieces = canvas.words.count(model.tokenizer.mask_id)
            divisor = pieces if read else len(canvas.words)  # the score is a mean, the length counting as one more
            scores[number] = gap_score(scores[number] * (divisor + 1), pieces, value, read)
        return [(output.ids, score) for output, score in zip(outputs, scores)]
