"""Text in, text out: fill masked words, write the other sentence of a pair, continue a text.

What the user typed outside the masked places comes back exactly (but a punctuation mark that fill writes in the place
of a word takes the space before it along); generated sentences get normal spacing and, with an uncased vocabulary,
capitals. A text longer than the model can take is worked on sentence by sentence, or refused; it is never cut.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Sequence
from functools import partial

from ..config.schema import SamplingConfig
from ..config.tasks import TASKS
from ..data.pairs import Pair
from ..data.skills import is_continuing
from ..machine.seeds import number_of
from ..model.diffusion_model import DiffusionModel
from ..text.english import continued
from .canvas import Decoded, at_least, blank_canvas, chosen_lengths, length_log_probs
from .decoding import decode
from .files import GeneratorFiles
from .infilling import mask_text, splice
from .limits import TextLimits
from .numbering import candidates_of, numbers_of_examples, numbers_of_parts
from .options import checked_options, hotter
from .ranking import Answer, Ranking, completion_score, join_answers, ranking_score, unwrapped
from .tracing import Trace, Tracer, align, trace_of

OnTrace = Callable[[Trace], None]
Texts = str | Sequence[str]
RETRIES = 3  # more rounds for candidates that came out twice, each hotter
RETRY_STRIDE = 7919  # a prime between the seeds of two rounds


class DiffusionTextGenerator(GeneratorFiles, TextLimits):
    """Generation with one model. Options (:class:`SamplingConfig`) are set once and may be overridden by keyword in
    every call.

    ``on_trace`` of every skill is called, text by text, with the :class:`Trace` of its first candidate. A text is
    answered alike alone and among others: what is random in it is made of the seed, the text and its number (one of
    ``numbers`` each; default: how many equal texts stand before it).

    >>> g = DiffusionTextGenerator.from_checkpoint("runs/.../best_model.pt")
    >>> g.paraphrase_text("How can I learn to cook?", num_samples=3)
    """

    def __init__(self, model: DiffusionModel, options: SamplingConfig | None = None, task: str | None = None):
        """``task``: what ``paraphrase_text`` writes with a model of several tasks (default: its first)."""
        super().__init__(model)
        self.options = options or SamplingConfig()
        self.task = model.skills.first if task is None else task

    # ---- the three skills -------------------------------------------------------------------------------------------

    def paraphrase_text(self, text: Texts, on_trace: OnTrace | None = None, **options):
        """The other sentence of the checkpoint's task (a paraphrase, a question, a reply ...): candidates, the
        likeliest by the model first.

        A string gives a list of strings; a list of strings gives a list of such lists, generated in batches. Candidates
        are distinct where possible.
        """
        return self.rewrite(text, on_trace=on_trace, **options)

    def rewrite(self, text: Texts, task: str | None = None, on_trace: OnTrace | None = None, numbers=None, **options):
        """The other sentence of a ``task`` of the checkpoint (default: that of the generator), in the ``style`` that
        the options name, if any.

        Returns as ``paraphrase_text``; a task or style that the checkpoint does not know is refused, and those it knows
        are named.
        """
        texts, options = self._checked(text, options)
        task = task or self.task
        skill = self.model.skills.number(task, options.style)
        parts = [self.source_parts(item) for item in texts]
        flat, numbers = list(itertools.chain(*parts)), numbers_of_parts(texts, parts, numbers)

        def finish(index: int, ids: list[int]) -> str:
            return self.sentence(ids, flat[index])

        examples = [(skill, self.tokenizer.encode(part)) for part in flat]
        reversible, traced = TASKS[task].reversible, on_trace is not None
        written = iter(self._candidates(examples, options, finish, traced, flat, None, reversible, numbers))
        return unwrapped(text, [join_answers([next(written) for _ in pieces]) for pieces in parts], on_trace)

    def complete_text(self, text: Texts, on_trace: OnTrace | None = None, numbers=None, **options):
        """The text with a continuation; returns as in ``paraphrase_text``."""
        texts, options = self._checked(text, options)
        given = [item.rstrip() for item in texts]

        def finish(index: int, ids: list[int]) -> str:
            joined = continued(given[index], self.tokenizer.text(ids))
            cased = self.cased(joined, given[index])
            return given[index] + (cased if len(cased) == len(joined) else joined)[len(given[index]) :]

        examples = [(self.model.skills.continuing(options.style), self.complete_source(item)) for item in texts]
        numbers, traced = numbers_of_parts(texts, [[item] for item in texts], numbers), on_trace is not None
        written = self._candidates(examples, options, finish, traced, None, given, numbers=numbers)
        return unwrapped(text, written, on_trace)

    def fill_masks(self, text: Texts, on_trace: OnTrace | None = None, numbers=None, **options):
        """Every [MASK] filled; in a text without one, about a third of the words is masked first, a different third for
        every candidate.

        All else comes back as it was typed, but for the space before a punctuation mark that takes the place of an
        unmasked word. Returns as in ``paraphrase_text``.
        """
        texts, options = self._checked(text, options)
        parts = [self.fill_parts(item) for item in texts]
        flat = zip(itertools.chain(*parts), numbers_of_parts(texts, parts, numbers))
        pieces = [(piece, number) for (piece, has_work), number in flat if has_work]
        written = iter(self._filled(pieces, options, on_trace is not None))
        answers = [
            [next(written) if has_work else Answer([piece], Trace([(piece, None)])) for piece, has_work in row]
            for row in parts
        ]
        return unwrapped(text, [join_answers(row, separator="") for row in answers], on_trace)

    def _checked(self, text: str | Sequence[str], overrides: dict) -> tuple[list[str], SamplingConfig]:
        """The texts as a list, and the options with those of this call."""
        options = checked_options({**vars(self.options), **overrides})
        return self.checked_texts(text), options

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
        numbers: Sequence | None = None,
    ) -> list[Answer]:
        """``num_samples`` texts per (skill, source), likeliest first, distinct and different from ``avoid`` where
        possible.

        ``best_of`` times as many are written and ranked; ``finish(index, ids)`` makes the text, which begins with
        ``given[index]``. For a ``reversible`` task near copies of ``avoid`` cost something.
        """
        ranking = Ranking(len(examples), options.num_samples)
        numbers = range(len(examples)) if numbers is None else numbers
        for attempt in range(1 + RETRIES):
            if not (wanted := ranking.missing()):
                break
            # later rounds, for candidates that came out twice, also take other lengths: helps even at temperature 0
            tuned = dataclasses.replace(hotter(options, attempt), length_beam=options.length_beam + 2 * attempt)
            counts = [options.num_samples * options.best_of] * len(wanted)
            tracer = Tracer() if traced else None
            seed = options.seed + RETRY_STRIDE * attempt
            chosen, numbered = ([items[index] for index in wanted] for items in (examples, numbers))
            decoded = self.generate_ids(chosen, tuned, counts, seed, tracer=tracer, numbers=numbered)
            owned = enumerate((index, output) for index, outputs in zip(wanted, decoded) for output in outputs)
            for number, (index, output) in owned:
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
        numbers: Sequence | None = None,
    ) -> list[list[Decoded]]:
        """Raw candidates for (skill, source) examples, ``counts[i]`` for the i-th: of the likeliest lengths in turn, of
        the one asked for, or (``independent``) each of a length of its own draw. ``numbers`` as in
        ``numbers_of_examples``.
        """
        log_probs = length_log_probs(self.model, examples, self.collator)
        texts = numbers_of_examples(examples, numbers)
        canvases = []
        for (skill, source), text, row, count in zip(examples, texts, log_probs, counts):
            least = options.min_added_words if is_continuing(skill) and options.length is None else 0
            row = at_least(row, least + 1) if least else row
            rng = random.Random(f"{seed} {text}") if independent else None
            lengths = chosen_lengths(row, count, options, len(source), rng)
            blank = partial(blank_canvas, skill, source, mask_id=self.tokenizer.mask_id, no_sign=least)
            written = [blank(length, log_length=float(row[length - 1])) for length in lengths]
            canvases += candidates_of(text, written)
        outputs = iter(decode(self.model, canvases, options, self.collator, seed, progress=progress, tracer=tracer))
        return [[next(outputs) for _ in range(count)] for count in counts]

    def _filled(self, numbered: list[tuple[str, tuple]], options: SamplingConfig, traced: bool) -> list[Answer]:
        """``num_samples`` versions of each (sentence, its number), where possible distinct and not as it was typed."""
        pieces, texts = [piece for piece, _ in numbered], [number_of(*item) for item in numbered]
        ranking = Ranking(len(pieces), options.num_samples)
        rules = (options.allow_punctuation, self.target_limit())
        for attempt in range(1 + RETRIES):
            if not (wanted := ranking.missing()):
                break
            masked, owner = [], []
            for index in wanted:
                rng = random.Random(f"{options.seed} {attempt} {texts[index]}")
                masked += [
                    mask_text(pieces[index], self.tokenizer, self.model.schedule, rng, *rules)
                    for _ in range(options.num_samples * options.best_of)
                ]
                candidates_of(texts[index], [item.canvas for item in masked[len(owner) :]])
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
