"""Text in, text out: fill masked words, write the other sentence of a pair, continue a text.

What the user typed outside the masked places comes back exactly; generated sentences get normal spacing and, with an uncased
vocabulary, capitals. A text longer than the model can take is worked on sentence by sentence, or refused; it is never cut.
"""

from __future__ import annotations

import dataclasses
import math
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from .casing import sentence_case
from .checkpoint import load_checkpoint
from .config import SamplingConfig, build
from .data import CONTINUE, PAIR, Collator
from .decoding import Decoded, blank_canvas, decode, length_log_probs, requested_length, spread_lengths
from .errors import UserError, nearest
from .finding import checkpoint_file
from .infilling import mask_text, splice, tokenize_masked
from .model import DiffusionModel, pick_device
from .reading import unencodable
from .text import MASK, detokenize, split_sentences

RETRIES = 3  # more rounds for candidates that came out twice, each hotter


class DiffusionTextGenerator:
    """Generation with one model. Options (:class:`SamplingConfig`) are set once and may be overridden by keyword in every call.

    >>> g = DiffusionTextGenerator.from_checkpoint("runs/.../best_model.pt")
    >>> g.paraphrase_text("How can I learn to cook?", num_samples=3)
    """

    def __init__(self, model: DiffusionModel, options: SamplingConfig | None = None):
        self.model = model
        self.options = options or SamplingConfig()
        self.tokenizer = model.tokenizer
        self.collator = Collator(model.tokenizer, model.task.prompt)

    @classmethod
    def from_checkpoint(cls, path: str | Path | None = None, device: str = "auto", **options) -> DiffusionTextGenerator:
        """Load a checkpoint file (default: the newest best_model.pt below runs/)."""
        checked = checked_options({**options, "device": device})
        return cls(load_checkpoint(checkpoint_file(path)).to(pick_device(device)), checked)

    # ---- the three skills -----------------------------------------------------------------------------------------------------------

    def paraphrase_text(self, text: str | Sequence[str], **options):
        """The other sentence of the checkpoint's task (a paraphrase, a question, a reply ...): candidates, the likeliest by the model first.

        A string gives a list of strings; a list of strings gives a list of such lists, generated in batches. Candidates are distinct where possible.
        """
        return self._for_each(text, self._paraphrase, options)

    def complete_text(self, text: str | Sequence[str], **options):
        """The text with a continuation; returns as in ``paraphrase_text``."""
        return self._for_each(text, self._complete, options)

    def fill_masks(self, text: str | Sequence[str], **options):
        """Every [MASK] filled; in a text without one, about a third of the words is masked first, others for every candidate.

        All else comes back as it was typed. Returns as in ``paraphrase_text``.
        """
        return self._for_each(text, self._fill, options)

    def _for_each(self, text: str | Sequence[str], work, overrides: dict):
        options = checked_options({**vars(self.options), **overrides})
        if not isinstance(text, Iterable):
            raise UserError(f"the text is of type {type(text).__name__}: expected a string or a list of strings")
        texts = [text] if isinstance(text, str) else list(text)
        for item in texts:
            if not isinstance(item, str):
                raise UserError(f"the text is of type {type(item).__name__}: expected a string")
            if problem := unencodable(item):
                raise UserError(f"the text {problem}")
            if not self.tokenizer.encode(item):
                raise UserError("the text is empty: expected some words")
        results = work(texts, options) if texts else []
        return results[0] if isinstance(text, str) else results

    # ---- paraphrase and complete ----------------------------------------------------------------------------------------------------

    def _paraphrase(self, texts: list[str], options: SamplingConfig) -> list[list[str]]:
        parts = [[text] if self._fits_as_source(text) else split_sentences(text) for text in texts]
        for part in (part for pieces in parts for part in pieces):
            if not self._fits_as_source(part):
                raise UserError(
                    f"a sentence of {len(self.tokenizer.encode(part))} word pieces is too long: this model takes {self.source_limit()}; shorten it"
                )
        flat = [part for pieces in parts for part in pieces]

        def finish(index: int, ids: list[int]) -> str:
            return self.sentence(ids, flat[index])

        written = iter(self._candidates([(PAIR, self.tokenizer.encode(part)) for part in flat], options, finish, avoid=flat))
        return [_join([next(written) for _ in pieces]) for pieces in parts]

    def _complete(self, texts: list[str], options: SamplingConfig) -> list[list[str]]:
        sources = [self.tokenizer.encode(text) for text in texts]
        limit = self.model.config.data.max_length - 4 - len(self.collator.prompts[CONTINUE])
        for source in sources:
            if len(source) > limit:
                raise UserError(f"the text has {len(source)} word pieces: this model can continue at most {limit}; shorten it")

        def finish(index: int, ids: list[int]) -> str:
            text = texts[index].rstrip()
            added = detokenize(self.tokenizer.words(ids))
            joined = text + ("" if re.match(r"[.,;:?!)\]%]", added) else " ") + added
            cased = self.cased(joined, text)
            return text + (cased if len(cased) == len(joined) else joined)[len(text) :]

        return self._candidates([(CONTINUE, source) for source in sources], options, finish)

    def _candidates(self, examples: list[tuple[int, list[int]]], options: SamplingConfig, finish, avoid: list[str] | None = None) -> list[list[str]]:
        """``num_samples`` texts per (skill, source), likeliest first, distinct and different from ``avoid`` where possible.

        ``best_of`` times as many are written and ranked; ``finish(index, ids)`` makes the text.
        """
        scores: list[dict[str, float]] = [{} for _ in examples]
        wanted = list(range(len(examples)))
        for attempt in range(1 + RETRIES):
            # later rounds are for candidates that came out twice: hotter, and with other lengths, which helps even at temperature 0
            tuned = dataclasses.replace(hotter(options, attempt), length_beam=options.length_beam + 2 * attempt)
            counts = [options.num_samples * options.best_of] * len(wanted)
            decoded = self.generate_ids([examples[index] for index in wanted], tuned, counts, options.seed + 7919 * attempt)
            for index, outputs in zip(wanted, decoded):
                for output in outputs:
                    text = finish(index, output.ids)
                    same = avoid is not None and text.casefold() == avoid[index].strip().casefold()
                    scores[index].setdefault(text, float("-inf") if same else output.score)
            wanted = [index for index in wanted if sum(map(math.isfinite, scores[index].values())) < options.num_samples]
            if not wanted:
                break
        return [sorted(texts, key=texts.__getitem__, reverse=True)[: options.num_samples] for texts in scores]

    def generate_ids(
        self, examples: Sequence[tuple[int, Sequence[int]]], options: SamplingConfig, counts: Sequence[int], seed: int, progress=None
    ) -> list[list[Decoded]]:
        """Raw candidates for (skill, source) examples, ``counts[i]`` for the i-th, over the likeliest lengths, or of the one asked for."""
        log_probs = length_log_probs(self.model, examples, self.collator)
        canvases = []
        for (skill, source), row, count in zip(examples, log_probs, counts):
            if options.length is None:
                lengths = spread_lengths(row, count, options.length_beam)
            else:
                lengths = [requested_length(options.length, len(source), int(row.isfinite().sum()))] * count
            canvases += [blank_canvas(skill, source, length, self.tokenizer.mask_id, float(row[length - 1])) for length in lengths]
        outputs = iter(decode(self.model, canvases, options, self.collator, seed, progress=progress))
        return [[next(outputs) for _ in range(count)] for count in counts]

    # ---- fill -----------------------------------------------------------------------------------------------------------------------

    def _fill(self, texts: list[str], options: SamplingConfig) -> list[list[str]]:
        parts: list[list[tuple[str, bool]]] = []  # (sentence, is there something to write in it)
        for text in texts:
            given = MASK in text
            parts.append([])
            for piece in [text] if self._fits_as_target(text) else split_sentences(text):
                if not self._fits_as_target(piece):
                    raise UserError(
                        f"a sentence of {len(tokenize_masked(piece, self.tokenizer)[0])} word pieces is too long: "
                        f"this model takes {self.target_limit()}; shorten it"
                    )
                # a sentence may hold nothing that the vocabulary can see
                parts[-1].append((piece, MASK in piece if given else bool(tokenize_masked(piece, self.tokenizer)[0])))
        written = iter(self._fill_pieces([piece for pieces in parts for piece, work in pieces if work], options))
        return [_join([next(written) if work else [piece] for piece, work in pieces], separator="") for pieces in parts]

    def _fill_pieces(self, pieces: list[str], options: SamplingConfig) -> list[list[str]]:
        """``num_samples`` versions of each sentence, distinct and different from what was typed where possible."""
        scores: list[dict[str, float]] = [{} for _ in pieces]
        wanted = list(range(len(pieces)))
        for attempt in range(1 + RETRIES):
            masked, owner = [], []
            for index in wanted:
                rng = random.Random(f"{options.seed} {attempt} {pieces[index]}")
                masked += [mask_text(pieces[index], self.tokenizer, self.model.schedule, rng) for _ in range(options.num_samples * options.best_of)]
                owner += [index] * (len(masked) - len(owner))
            # the user chose the places, not the noise: no time correction
            outputs = decode(
                self.model,
                [item.canvas for item in masked],
                hotter(options, attempt),
                self.collator,
                options.seed + 7919 * attempt,
                time_correction=False,
            )
            for index, item, output in zip(owner, masked, outputs):
                text = splice(item, output.ids, self.tokenizer, self.cased)
                scores[index].setdefault(text, float("-inf") if text == pieces[index] else output.score)
            wanted = [index for index in wanted if sum(map(math.isfinite, scores[index].values())) < options.num_samples]
            if not wanted:
                break
        return [sorted(texts, key=texts.__getitem__, reverse=True)[: options.num_samples] for texts in scores]

    # ---- limits and looks -----------------------------------------------------------------------------------------------------------

    def sentence(self, ids: list[int], source: str = "") -> str:
        """Generated ids as a normal English sentence; names take their spelling from the source."""
        return self.cased(detokenize(self.tokenizer.words(ids)), source)

    def cased(self, text: str, source: str) -> str:
        return sentence_case(text, source) if self.tokenizer.is_uncased else text

    def source_limit(self) -> int:
        """Longest source in word pieces: half as many places again must be left for the target, and no more than two targets long."""
        room = self.model.config.data.max_length - 3 - len(self.collator.prompts[PAIR])
        return min(room * 2 // 3, 2 * self.model.denoiser.max_target_length)

    def target_limit(self) -> int:
        """Longest text that can be worked on as a target, in word pieces."""
        return min(self.model.config.data.max_length - 3, self.model.denoiser.max_target_length)

    def _fits_as_source(self, text: str) -> bool:
        return len(self.tokenizer.encode(text)) <= self.source_limit()

    def _fits_as_target(self, text: str) -> bool:
        return len(tokenize_masked(text, self.tokenizer)[0]) <= self.target_limit()


def checked_options(options: dict) -> SamplingConfig:
    """Options by name; a UserError names an unknown or invalid one."""
    known = [f.name for f in dataclasses.fields(SamplingConfig)]
    for name in options:
        if name not in known:
            raise UserError(f"unknown option '{name}'{nearest(name, known)}; expected one of {', '.join(known)}")
    return build(SamplingConfig, options, "options")


def hotter(options: SamplingConfig, attempt: int) -> SamplingConfig:
    """Options for another attempt at candidates that came out twice: twice as hot each time, and without top_p, which would leave
    a sure word alone."""
    if attempt == 0:
        return options
    return dataclasses.replace(options, temperature=min(100.0, max(options.temperature, 0.5) * 2.0**attempt), top_p=1.0)


def _join(versions: list[list[str]], separator: str = " ") -> list[str]:
    """Candidate j of a text = candidate j of each of its sentences (the last one where a sentence has fewer)."""
    return [separator.join(options[min(j, len(options) - 1)] for options in versions) for j in range(max(map(len, versions)))]
