"""Text in, text out: fill masked words, write the other sentence of a pair, continue a text.

What the user typed outside the masked places comes back exactly (but a sign that fill writes in the place of a word
takes the space before it along); generated sentences get normal spacing and, with an uncased vocabulary, capitals. A
text longer than the model can take is worked on sentence by sentence, or refused; it is never cut.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from .config.fields import build
from .config.paths import checkpoint_file
from .config.schema import SamplingConfig
from .config.tasks import TASKS
from .data.batching import Collator
from .data.pairs import Pair
from .data.skills import CONTINUE, is_pair
from .decoding import Decoded, blank_canvas, decode, drawn_lengths, length_log_probs, requested_length, spread_lengths
from .errors import UserError, nearest
from .infilling import mask_text, splice, tokenize_masked
from .machine.device import pick_device
from .model.checkpoint import load_checkpoint
from .model.diffusion_model import DiffusionModel
from .ranking import Answer, Ranking, join_answers, leaves_out_words
from .text.casing import sentence_case
from .text.english import MASK, split_sentences, unencodable
from .tracing import Trace, Tracer, align, trace_of

OnTrace = Callable[[Trace], None]
RETRIES = 3  # more rounds for candidates that came out twice, each hotter


class DiffusionTextGenerator:
    """Generation with one model. Options (:class:`SamplingConfig`) are set once and may be overridden by keyword in
    every call.

    ``on_trace`` of every skill is called, text by text, with the :class:`Trace` of its first candidate.

    >>> g = DiffusionTextGenerator.from_checkpoint("runs/.../best_model.pt")
    >>> g.paraphrase_text("How can I learn to cook?", num_samples=3)
    """

    def __init__(self, model: DiffusionModel, options: SamplingConfig | None = None, task: str | None = None):
        """``task``: what ``paraphrase_text`` writes with a model of several tasks (default: its first)."""
        self.model = model
        self.options = options or SamplingConfig()
        self.tokenizer = model.tokenizer
        self.task = model.skills.first if task is None else task
        self.collator = Collator(model.tokenizer, model.skills.prompts)

    @classmethod
    def from_checkpoint(cls, path: str | Path | None = None, device: str = "auto", **options) -> DiffusionTextGenerator:
        """Load a checkpoint file (default: the newest best_model.pt below runs/)."""
        checked = checked_options({**options, "device": device})
        return cls(load_checkpoint(checkpoint_file(path)).to(pick_device(device)), checked)

    # ---- the three skills -------------------------------------------------------------------------------------------

    def paraphrase_text(self, text: str | Sequence[str], on_trace: OnTrace | None = None, **options):
        """The other sentence of the checkpoint's task (a paraphrase, a question, a reply ...): candidates, the
        likeliest by the model first.

        A string gives a list of strings; a list of strings gives a list of such lists, generated in batches. Candidates
        are distinct where possible.
        """
        return self.rewrite(text, on_trace=on_trace, **options)

    def rewrite(self, text: str | Sequence[str], task: str | None = None, on_trace: OnTrace | None = None, **options):
        """The other sentence of a ``task`` of the checkpoint (default: that of the generator), in the ``style`` that
        the options name, if any.

        Returns as ``paraphrase_text``; a task or style that the checkpoint does not know is refused, and those it knows
        are named.
        """
        return self._for_each(
            text, lambda texts, checked, traced: self._rewrite(texts, checked, traced, task), options, on_trace
        )

    def skill_of(self, pair: Pair, style: str | None = None) -> int:
        """The skill for a pair of the generator's task: in ``style``, or else in its own if the model knows that."""
        skills = self.model.skills
        return skills.number(self.task, style or (pair.style if pair.style in skills.styles(self.task) else None))

    def complete_text(self, text: str | Sequence[str], on_trace: OnTrace | None = None, **options):
        """The text with a continuation; returns as in ``paraphrase_text``."""
        return self._for_each(text, self._complete, options, on_trace)

    def fill_masks(self, text: str | Sequence[str], on_trace: OnTrace | None = None, **options):
        """Every [MASK] filled; in a text without one, about a third of the words is masked first, others for every
        candidate.

        All else comes back as it was typed, but for the space before a sign that takes the place of an unmasked word.
        Returns as in ``paraphrase_text``.
        """
        return self._for_each(text, self._fill, options, on_trace)

    def _for_each(self, text: str | Sequence[str], work, overrides: dict, on_trace: OnTrace | None):
        options = checked_options({**vars(self.options), **overrides})
        if not isinstance(text, Iterable):
            raise UserError(f"the text is of type {type(text).__name__}: expected a string or a list of strings")
        texts = [text] if isinstance(text, str) else list(text)
        for item in texts:
            self.check_text(item)
        answers: list[Answer] = work(texts, options, on_trace is not None) if texts else []
        for answer in answers if on_trace is not None else []:
            on_trace(answer.trace)
        return answers[0].texts if isinstance(text, str) else [answer.texts for answer in answers]

    def check_text(self, text: str) -> None:
        """Refuse what no skill can work on: no string, no characters, no words."""
        if not isinstance(text, str):
            raise UserError(f"the text is of type {type(text).__name__}: expected a string")
        if problem := unencodable(text):
            raise UserError(f"the text {problem}")
        if not self.tokenizer.encode(text):
            raise UserError("the text is empty: expected some words")

    # ---- rewrite and complete ---------------------------------------------------------------------------------------

    def _rewrite(self, texts: list[str], options: SamplingConfig, traced: bool, task: str | None) -> list[Answer]:
        task = task or self.task
        skill = self.model.skills.number(task, options.style)
        parts = [self.source_parts(text) for text in texts]
        flat = [part for pieces in parts for part in pieces]

        def finish(index: int, ids: list[int]) -> str:
            return self.sentence(ids, flat[index])

        examples = [(skill, self.tokenizer.encode(part)) for part in flat]
        written = iter(
            self._candidates(examples, options, finish, traced, avoid=flat, reversible=TASKS[task].reversible)
        )
        return [join_answers([next(written) for _ in pieces]) for pieces in parts]

    def source_parts(self, text: str) -> list[str]:
        """The text as a source, or sentence by sentence where it is too long for one; refused where a sentence is."""
        parts = [text] if self._fits_as_source(text) else split_sentences(text)
        for part in parts:
            if not self._fits_as_source(part):
                raise UserError(
                    f"a sentence of {len(self.tokenizer.encode(part))} word pieces is too long: this model takes"
                    f" {self.source_limit()}; shorten it"
                )
        return parts

    def complete_source(self, text: str) -> list[int]:
        """The ids of a text to be continued; refused where it is too long."""
        source = self.tokenizer.encode(text)
        limit = self.model.config.data.max_length - 4 - len(self.collator.prompts[CONTINUE])
        if len(source) > limit:
            raise UserError(
                f"the text has {len(source)} word pieces: this model can continue at most {limit}; shorten it"
            )
        return source

    def _complete(self, texts: list[str], options: SamplingConfig, traced: bool) -> list[Answer]:
        sources = [self.complete_source(text) for text in texts]

        def finish(index: int, ids: list[int]) -> str:
            text = texts[index].rstrip()
            added = self.tokenizer.text(ids)
            joined = text + ("" if re.match(r"[.,;:?!)\]%]", added) else " ") + added
            cased = self.cased(joined, text)
            return text + (cased if len(cased) == len(joined) else joined)[len(text) :]

        return self._candidates(
            [(CONTINUE, source) for source in sources], options, finish, traced, given=[text.rstrip() for text in texts]
        )

    def _candidates(
        self,
        examples: list[tuple[int, list[int]]],
        options: SamplingConfig,
        finish,
        traced: bool = False,
        avoid: list[str] | None = None,
        given: list[str] | None = None,
        reversible: bool = False,
    ) -> list[Answer]:
        """``num_samples`` texts per (skill, source), likeliest first, distinct and different from ``avoid`` where
        possible.

        ``best_of`` times as many are written and ranked; ``finish(index, ids)`` makes the text, which begins with
        ``given[index]``. For a ``reversible`` task a text that only leaves out words of ``avoid`` says less than a
        paraphrase should, and comes after the others.
        """
        ranking = Ranking(len(examples), options.num_samples)
        wanted = ranking.missing()
        for attempt in range(1 + RETRIES):
            # later rounds are for candidates that came out twice: hotter, and with other lengths, which helps even at
            # temperature 0
            tuned = dataclasses.replace(hotter(options, attempt), length_beam=options.length_beam + 2 * attempt)
            counts = [options.num_samples * options.best_of] * len(wanted)
            tracer = Tracer() if traced else None
            decoded = self.generate_ids(
                [examples[index] for index in wanted], tuned, counts, options.seed + 7919 * attempt, tracer=tracer
            )
            numbered = enumerate((index, output) for index, outputs in zip(wanted, decoded) for output in outputs)
            for number, (index, output) in numbered:
                text = finish(index, output.ids)
                same = avoid is not None and text.casefold() == avoid[index].strip().casefold()
                start = len(given[index]) if given else 0
                shortened = reversible and leaves_out_words(text, avoid[index])
                ranking.add(
                    index,
                    text,
                    output.score,
                    same,
                    tracer and self._trace(tracer, number, text, output.ids, start),
                    shortened,
                )
            if not (wanted := ranking.missing()):
                break
        return ranking.answers()

    def _trace(self, tracer: Tracer, number: int, text: str, ids: list[int], start: int) -> Callable[[], Trace]:
        """The trace of canvas ``number``, made only if it is asked for."""
        history = tracer.histories[number]
        return lambda: trace_of(history, align(text, ids, self.tokenizer, start), self.tokenizer)

    def generate_ids(
        self,
        examples: Sequence[tuple[int, Sequence[int]]],
        options: SamplingConfig,
        counts: Sequence[int],
        seed: int,
        progress=None,
        tracer: Tracer | None = None,
        independent: bool = False,
    ) -> list[list[Decoded]]:
        """Raw candidates for (skill, source) examples, ``counts[i]`` for the i-th: of the likeliest lengths in turn, of
        the one asked for, or (``independent``) each of a length of its own draw.
        """
        draw = partial(drawn_lengths, temperature=options.temperature, rng=random.Random(seed))
        log_probs = length_log_probs(self.model, examples, self.collator)
        canvases = []
        for (skill, source), row, count in zip(examples, log_probs, counts):
            if options.length is None:
                lengths = (draw if independent else spread_lengths)(row, count, options.length_beam)
            else:
                lengths = [requested_length(options.length, len(source), int(row.isfinite().sum()))] * count
            canvases += [
                blank_canvas(skill, source, length, self.tokenizer.mask_id, float(row[length - 1]))
                for length in lengths
            ]
        outputs = iter(decode(self.model, canvases, options, self.collator, seed, progress=progress, tracer=tracer))
        return [[next(outputs) for _ in range(count)] for count in counts]

    # ---- fill -------------------------------------------------------------------------------------------------------

    def fill_parts(self, text: str) -> list[tuple[str, bool]]:
        """(sentence, is there something to write in it) for a text to be filled; refused where a sentence is too
        long.
        """
        parts = [text] if self._fits_as_target(text) else split_sentences(text)
        for part in parts:
            if not self._fits_as_target(part):
                raise UserError(
                    f"a sentence of {len(tokenize_masked(part, self.tokenizer)[0])} word pieces is too long: "
                    f"this model takes {self.target_limit()}; shorten it"
                )
        # a sentence may hold nothing that the vocabulary can see
        return [
            (part, MASK in part if MASK in text else bool(tokenize_masked(part, self.tokenizer)[0])) for part in parts
        ]

    def masked_parts(self, text: str) -> list[tuple[str, bool]]:
        """``fill_parts`` of a text that must hold a [MASK]."""
        if MASK not in text:
            raise UserError(f"no {MASK} in the text: write {MASK} where a word is wanted, or use fill")
        return self.fill_parts(text)

    def _fill(self, texts: list[str], options: SamplingConfig, traced: bool) -> list[Answer]:
        parts = [self.fill_parts(text) for text in texts]
        written = iter(
            self._fill_pieces([piece for pieces in parts for piece, work in pieces if work], options, traced)
        )
        return [
            join_answers(
                [next(written) if work else Answer([piece], Trace([(piece, None)])) for piece, work in pieces],
                separator="",
            )
            for pieces in parts
        ]

    def _fill_pieces(self, pieces: list[str], options: SamplingConfig, traced: bool) -> list[Answer]:
        """``num_samples`` versions of each sentence, distinct and different from what was typed where possible."""
        ranking = Ranking(len(pieces), options.num_samples)
        wanted = ranking.missing()
        for attempt in range(1 + RETRIES):
            masked, owner = [], []
            for index in wanted:
                rng = random.Random(f"{options.seed} {attempt} {pieces[index]}")
                masked += [
                    mask_text(pieces[index], self.tokenizer, self.model.schedule, rng)
                    for _ in range(options.num_samples * options.best_of)
                ]
                owner += [index] * (len(masked) - len(owner))
            canvases, tracer = [item.canvas for item in masked], Tracer() if traced else None
            seed = options.seed + 7919 * attempt
            # the user chose the places, not the noise: no time correction
            outputs = decode(
                self.model,
                canvases,
                hotter(options, attempt),
                self.collator,
                seed,
                time_correction=False,
                tracer=tracer,
            )
            for number, (index, item, output) in enumerate(zip(owner, masked, outputs)):
                parts = splice(item, output.ids, self.tokenizer, self.cased)
                text = "".join(part for part, _ in parts)
                trace = tracer and partial(trace_of, tracer.histories[number], parts, self.tokenizer)
                ranking.add(index, text, output.score, text == pieces[index], trace)
            if not (wanted := ranking.missing()):
                break
        return ranking.answers()

    # ---- limits and looks -------------------------------------------------------------------------------------------

    def sentence(self, ids: list[int], source: str = "") -> str:
        """Generated ids as a normal English sentence; names take their spelling from the source."""
        return self.cased(self.tokenizer.text(ids), source)

    def cased(self, text: str, source: str) -> str:
        return sentence_case(text, source) if self.tokenizer.is_uncased else text

    def source_limit(self) -> int:
        """Longest source in word pieces: half as many places again must be left for the target, and no more than two
        targets long.
        """
        prompts = (ids for skill, ids in self.collator.prompts.items() if is_pair(skill))
        room = self.model.config.data.max_length - 3 - max(map(len, prompts))
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
    """Options for another attempt at candidates that came out twice: twice as hot each time, and without top_p, which
    would leave a sure word alone.
    """
    if attempt == 0:
        return options
    return dataclasses.replace(options, temperature=min(100.0, max(options.temperature, 0.5) * 2.0**attempt), top_p=1.0)
