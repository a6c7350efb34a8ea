"""Text in, text out: fill masked words and gaps, write the other sentence of a pair, continue a text. Scores and
corrections of finished texts are in reading.py.

What the user typed outside the masked places comes back exactly (but a punctuation mark that fill writes in the place
of a word takes the space before it along); generated sentences get normal spacing and, with an uncased vocabulary,
capitals. A text longer than the model can take is worked on sentence by sentence, or refused; it is never cut.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from functools import partial

from ..config.schema import SamplingConfig
from ..config.tasks import TASKS
from ..data.pairs import Pair
from ..data.skills import is_continuing
from ..text.english import continued
from ..text.paragraphs import fitted_in
from .canvas import Decoded, at_least, blank_canvas, chosen_lengths, length_log_probs
from .continuing import echoes, gone_on
from .decoding import decode
from .files import GeneratorFiles
from .filling import filled
from .numbering import candidates_of, numbers_of_examples, numbers_of_texts
from .options import RETRIES, RETRY_STRIDE, hotter
from .ranking import LESS, Answer, Piece, Ranking, completion_score, in_parts, ranking_score, unwrapped
from .reading import TextReader
from .tracing import Trace, Tracer, align, trace_of

OnTrace = Callable[[Trace], None]
OnPart = Callable[[str], None]
Texts = str | Sequence[str]


class DiffusionTextGenerator(GeneratorFiles, TextReader):
    """Generation with one model. Options (:class:`SamplingConfig`) are set once and may be overridden by keyword in
    every call.

    ``on_trace`` of every skill is called, text by text, with the :class:`Trace` of its first candidate; ``on_part``
    gets each stretch of the first candidate as soon as it is finished. A text is answered alike alone and among others:
    what is random in it is made of the seed, the text and its number (one of ``numbers`` each; default: how many equal
    texts stand before it).

    >>> g = DiffusionTextGenerator.from_checkpoint("runs/.../best_model.pt")
    >>> g.paraphrase_text("How can I learn to cook?", num_samples=3)
    """

    # ---- the three skills -------------------------------------------------------------------------------------------

    def paraphrase_text(self, text: Texts, on_trace: OnTrace | None = None, **options):
        """The other sentence of the checkpoint's task (a paraphrase, a question, a reply ...): candidates, the
        likeliest by the model first.

        A string gives a list of strings; a list of strings gives a list of such lists, generated in batches. Candidates
        are distinct where possible.
        """
        return self.rewrite(text, on_trace=on_trace, **options)

    def rewrite(
        self,
        text: Texts,
        task: str | None = None,
        on_trace: OnTrace | None = None,
        on_part: OnPart | None = None,
        numbers: Sequence[int] | None = None,
        **options,
    ):
        """The other sentence of a ``task`` of the checkpoint (default: that of the generator), in the ``style`` that
        the options name, if any. The sentences of a text are rewritten one by one (by a task that answers a text as a
        whole: only where it is too long), and what stands between them comes back as it was typed.

        Returns as ``paraphrase_text``; a task or style that the checkpoint does not know is refused, and those it knows
        are named.
        """
        texts, options = self._checked(text, options)
        task = task or self.task
        skill = self.model.skills.number(task, options.style)

        def write(pieces: list[Piece]) -> list[Answer]:
            def finish(index: int, ids: list[int]) -> str:
                piece = pieces[index]  # a name at the start of its sentence is known from another
                return fitted_in(self.sentence(ids, texts[piece.number]), piece.text, texts[piece.number])

            avoid, traced, reversible = [piece.text for piece in pieces], on_trace is not None, TASKS[task].reversible
            examples, keys = [(skill, self.tokenizer.encode(part)) for part in avoid], [piece.key for piece in pieces]
            return self._candidates(examples, keys, options, finish, traced, avoid=avoid, reversible=reversible)

        parts = [self.source_parts(item, TASKS[task].whole) for item in texts]
        return unwrapped(text, in_parts(parts, numbers_of_texts(texts, numbers), write, on_part), on_trace)

    def complete_text(
        self,
        text: Texts,
        on_trace: OnTrace | None = None,
        on_part: OnPart | None = None,
        numbers: Sequence[int] | None = None,
        **options,
    ):
        """The text with a continuation; returns as in ``paraphrase_text``. With ``max_sentences`` above 1 each
        candidate goes on (generation/continuing.py), with the last sentences that the model can read as its source.
        """
        texts, options = self._checked(text, options)
        windowed = options.max_sentences > 1
        given, sources = [item.rstrip() for item in texts], [self.complete_source(item, windowed) for item in texts]
        traced, numbers = on_trace is not None, numbers_of_texts(texts, numbers)
        answers = self._continued(given, sources, [(number, 0) for number in numbers], options, traced)
        for answer in answers if on_part is not None else []:
            on_part(answer.texts[0])

        def write(before: list[str], of: list[tuple[int, int, int]]) -> list[Answer]:
            more, keys = dataclasses.replace(options, num_samples=1), [(numbers[index], *rest) for index, *rest in of]
            last = [self.tokenizer.encode(self.last_sentences(item)) for item in before]
            return self._continued(before, last, keys, more, traced, fresh=True)

        return unwrapped(text, gone_on(given, answers, options.max_sentences, write, on_part), on_trace)

    def _continued(
        self,
        given: list[str],
        sources: list[list[int]],
        keys: list[tuple],
        options: SamplingConfig,
        traced: bool,
        fresh: bool = False,
    ) -> list[Answer]:
        """Each of the ``given`` texts with a continuation of its source, ``fresh``: rather nothing said again."""

        def finish(index: int, ids: list[int]) -> str:
            joined = continued(given[index], self.tokenizer.text(ids))
            cased = self.cased(joined, given[index])
            return given[index] + (cased if len(cased) == len(joined) else joined)[len(given[index]) :]

        examples = [(self.model.skills.continuing(options.style), source) for source in sources]
        return self._candidates(examples, keys, options, finish, traced, given=given, fresh=fresh)

    def fill_masks(self, text: Texts, on_trace: OnTrace | None = None, numbers=None, **options):
        """Every [MASK] filled by a word, and every gap [MASK*] by one to ``max_gap`` word pieces; in a text without
        one, about a third of the words is masked first, a different third for every candidate.

        All else comes back as it was typed, but for the space before a punctuation mark that takes the place of an
        unmasked word. Returns as in ``paraphrase_text``.
        """
        texts, options = self._checked(text, options)
        parts = [self.fill_parts(item, options.max_gap) for item in texts]

        def write(pieces: list[Piece]) -> list[Answer]:
            return filled(self, pieces, options, on_trace is not None)

        return unwrapped(text, in_parts(parts, numbers_of_texts(texts, numbers), write), on_trace)

    def skill_of(self, pair: Pair, style: str | None = None) -> int:
        """The skill for a pair of the generator's task: in ``style``, or else in its own if the model knows that."""
        skills = self.model.skills
        return skills.number(self.task, style or (pair.style if pair.style in skills.styles(self.task) else None))

    # ---- candidates -------------------------------------------------------------------------------------------------

    def _candidates(
        self,
        examples: list[tuple[int, list[int]]],
        keys: Sequence[tuple],
        options: SamplingConfig,
        finish,
        traced: bool = False,
        avoid: list[str] | None = None,
        given: list[str] | None = None,
        reversible: bool = False,
        fresh: bool = False,
    ) -> list[Answer]:
        """``num_samples`` texts per (skill, source), likeliest first, distinct and different from ``avoid`` where
        possible.

        ``best_of`` times as many are written and ranked; ``finish(index, ids)`` makes the text, which begins with
        ``given[index]``. For a ``reversible`` task near copies of ``avoid`` cost something. A ``fresh`` continuation
        repeats no sentence where possible.
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
            chosen, numbered = ([items[index] for index in wanted] for items in (examples, keys))
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
                    score -= LESS * (fresh and echoes(given[index], text))
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
