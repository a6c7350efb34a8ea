"""Text in, text out: fill masked words, write the other sentence of a pair, continue a text.

What the user typed outside the masked places comes back exactly (but a punctuation mark that fill writes in the place
of a word takes the space before it along); generated sentences get normal spacing and, with an uncased vocabulary,
capitals. A text longer than the model can take is worked on sentence by sentence, or refused; it is never cut.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from ..config.schema import SamplingConfig
from ..config.tasks import TASKS
from ..data.pairs import Pair
from ..data.skills import is_continuing
from ..errors import UserError
from ..model.diffusion_model import DiffusionModel
from ..text.english import continued
from .canvas import Decoded, at_least, blank_canvas, drawn_lengths, length_log_probs, requested_length, spread_lengths
from .decoding import decode
from .files import GeneratorFiles
from .infilling import mask_text, splice
from .limits import TextLimits
from .options import checked_options, hotter
from .ranking import Answer, Ranking, completion_score, join_answers, ranking_score, unwrapped
from .tracing import Trace, Tracer, align, trace_of

OnTrace = Callable[[Trace], None]
RETRIES = 3  # more rounds for candidates that came out twice, each hotter
RETRY_STRIDE = 7919  # a prime between the seeds of two rounds


class DiffusionTextGenerator(GeneratorFiles, TextLimits):
    """Generation with one model. Options (:class:`SamplingConfig`) are set once and may be overridden by keyword in
    every call.

    ``on_trace`` of every skill is called, text by text, with the :class:`Trace` of its first candidate.

    >>> g = DiffusionTextGenerator.from_checkpoint("runs/.../best_model.pt")
    >>> g.paraphrase_text("How can I learn to cook?", num_samples=3)
    """

    def __init__(self, model: DiffusionModel, options: SamplingConfig | None = None, task: str | None = None):
        """``task``: what ``paraphrase_text`` writes with a model of several tasks (default: its first)."""
        super().__init__(model)
        self.options = options or SamplingConfig()
        self.task = model.skills.first if task is None else task

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
        texts, options = self._checked(text, options)
        task = task or self.task
        skill = self.model.skills.number(task, options.style)
        parts = [self.source_parts(item) for item in texts]
        flat = [part for pieces in parts for part in pieces]

        def finish(index: int, ids: list[int]) -> str:
            return self.sentence(ids, flat[index])

        examples = [(skill, self.tokenizer.encode(part)) for part in flat]
        reversible = TASKS[task].reversible
        traced = on_trace is not None
        written = iter(self._candidates(examples, options, finish, traced, avoid=flat, reversible=reversible))
        return unwrapped(text, [join_answers([next(written) for _ in pieces]) for pieces in parts], on_trace)

    def complete_text(self, text: str | Sequence[str], on_trace: OnTrace | None = None, **options):
        """The text with a continuation; returns as in ``paraphrase_text``."""
        texts, options = self._checked(text, options)
        given = [item.rstrip() for item in texts]

        def finish(index: int, ids: list[int]) -> str:
            joined = continued(given[index], self.tokenizer.text(ids))
            cased = self.cased(joined, given[index])
            return given[index] + (cased if len(cased) == len(joined) else joined)[len(given[index]) :]

        examples = [(self.model.skills.continuing(options.style), self.complete_source(item)) for item in texts]
        return unwrapped(text, self._candidates(examples, options, finish, on_trace is not None, given=given), on_trace)

    def fill_masks(self, text: str | Sequence[str], on_trace: OnTrace | None = None, **options):
        """Every [MASK] filled; in a text without one, about a third of the words is masked first, a different third for
        every candidate.

        All else comes back as it was typed, but for the space before a punctuation mark that takes the place of an
        unmasked word. Returns as in ``paraphrase_text``.
        """
        texts, options = self._checked(text, options)
        parts = [self.fill_parts(item) for item in texts]
        pieces = [piece for row in parts for piece, has_work in row if has_work]
        written = iter(self._filled(pieces, options, on_trace is not None))
        answers = [
            [next(written) if has_work else Answer([piece], Trace([(piece, None)])) for piece, has_work in row]
            for row in parts
        ]
        return unwrapped(text, [join_answers(row, separator="") for row in answers], on_trace)

    def _checked(self, text: str | Sequence[str], overrides: dict) -> tuple[list[str], SamplingConfig]:
        """The texts as a list, each one that a skill can work on, and the options with those of this call."""
        options = checked_options({**vars(self.options), **overrides})
        if not isinstance(text, Iterable) or isinstance(text, (dict, bytes)) or getattr(text, "ndim", 1) == 0:
            raise UserError(f"the text is of type {type(text).__name__}: expected a string or a list of strings")
        texts = [text] if isinstance(text, str) else list(text)
        for number, item in enumerate(texts):
            try:
                self.check_text(item)
            except UserError as error:
                raise error if isinstance(text, str) else UserError(f"item {number} of the list: {error}") from None
        return texts, options

    def skill_of(self, pair: Pair, style: str | None = None) -> int:
        """The skill for a pair of the generator's task: in ``style``, or else in its own if the model knows that."""
        skills = self.model.skills
        return skills.number(self.task, style or (pair.style if pair.style in skills.styles(self.task) else None))

    # ---- candidates -------------------------------------------------------------------------------------------------

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
        ``given[index]``. For a ``reversible`` task near copies of ``avoid`` cost something.
        """
        ranking = Ranking(len(examples), options.num_samples)
        for attempt in range(1 + RETRIES):
            if not (wanted := ranking.missing()):
                break
            # later rounds, for candidates that came out twice, also take other lengths: helps even at temperature 0
            tuned = dataclasses.replace(hotter(options, attempt), length_beam=options.length_beam + 2 * attempt)
            counts = [options.num_samples * options.best_of] * len(wanted)
            tracer = Tracer() if traced else None
            seed = options.seed + RETRY_STRIDE * attempt
            decoded = self.generate_ids([examples[index] for index in wanted], tuned, counts, seed, tracer=tracer)
            numbered = enumerate((index, output) for index, outputs in zip(wanted, decoded) for output in outputs)
            for number, (index, output) in numbered:
                text = finish(index, output.ids)
                start = len(given[index]) if given else 0
                trace = tracer and self._trace(tracer, number, text, output.ids, start)
                if avoid is not None:
                    score = ranking_score(text, output.score, avoid[index], reversible)
                else:
                    least = options.min_added_words if options.length is None else 0
                    words = self.tokenizer.words(output.ids)
                    score = completion_score(text, given[index] if given else "", words, output.score, least)
                ranking.add(index, text, score, trace)
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
            least = options.min_added_words if is_continuing(skill) and options.length is None else 0
            row = at_least(row, least + 1) if least else row
            if options.length is None:
                lengths = (draw if independent else spread_lengths)(row, count, options.length_beam)
            else:
                lengths = [requested_length(options.length, len(source), int(row.isfinite().sum()))] * count
            canvases += [
                blank_canvas(skill, source, length, self.tokenizer.mask_id, float(row[length - 1]), least)
                for length in lengths
            ]
        outputs = iter(decode(self.model, canvases, options, self.collator, seed, progress=progress, tracer=tracer))
        return [[next(outputs) for _ in range(count)] for count in counts]

    def _filled(self, pieces: list[str], options: SamplingConfig, traced: bool) -> list[Answer]:
        """``num_samples`` versions of each sentence, distinct and different from what was typed where possible."""
        ranking = Ranking(len(pieces), options.num_samples)
        rules = (options.allow_punctuation, self.target_limit())
        for attempt in range(1 + RETRIES):
            if not (wanted := ranking.missing()):
                break
            masked, owner = [], []
            for index in wanted:
                rng = random.Random(f"{options.seed} {attempt} {pieces[index]}")
                masked += [
                    mask_text(pieces[index], self.tokenizer, self.model.schedule, rng, *rules)
                    for _ in range(options.num_samples * options.best_of)
                ]
                owner += [index] * (len(masked) - len(owner))
            canvases, tracer = [item.canvas for item in masked], Tracer() if traced else None
            seed, tuned = options.seed + RETRY_STRIDE * attempt, hotter(options, attempt)
            # the user chose the places, not the noise: no time correction
            outputs = decode(self.model, canvases, tuned, self.collator, seed, time_correction=False, tracer=tracer)
            for number, (index, item, output) in enumerate(zip(owner, masked, outputs)):
                parts = splice(item, output.ids, self.tokenizer, self.cased)
                text = "".join(part for part, _ in parts)
                trace = tracer and partial(trace_of, tracer.histories[number], parts, self.tokenizer)
                ranking.add(index, text, -math.inf if text == pieces[index] else output.score, trace)
        return ranking.answers()
