"""The different texts written for a request, ranked by the model's own score."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..text.english import has_negation
from .tracing import Trace, join_traces

LESS = 1e6  # This is more than any difference of scores.
NEAR_COPY = 0.85  # A longer sentence with one word exchanged shares more than this.
COST = 0.5  # in nats per word piece, of each fault: docs/ablations.md has what it brings
LONGEST_PHRASE = 4  # words that may not stand twice in a row


class Answer(NamedTuple):
    """Candidates for one text, the likeliest first, and how the first came into being, if that was asked for."""

    texts: list[str]
    trace: Trace | None = None


class Ranking:
    """Collects texts for ``size`` requests until each has ``wanted`` different ones with a finite score."""

    def __init__(self, size: int, wanted: int):
        self.wanted = wanted
        self.scores: list[dict[str, float]] = [{} for _ in range(size)]
        self.traces: list[dict[str, Callable[[], Trace]]] = [{} for _ in range(size)]

    def add(self, index: int, text: str, score: float, trace: Callable[[], Trace] | None = None) -> None:
        """A text for request ``index``; of equal texts the first counts."""
        if text not in self.scores[index]:
            self.scores[index][text] = score
            if trace is not None:
                self.traces[index][text] = trace

    def missing(self) -> list[int]:
        """Requests that still want a text."""
        return [
            index for index, scores in enumerate(self.scores) if sum(map(math.isfinite, scores.values())) < self.wanted
        ]

    def answers(self) -> list[Answer]:
        """The best of each request."""
        best = [sorted(scores, key=scores.__getitem__, reverse=True)[: self.wanted] for scores in self.scores]
        return [Answer(texts, traces[texts[0]]() if traces else None) for texts, traces in zip(best, self.traces)]


class Piece(NamedTuple):
    """A stretch of a text that is to be worked on: of which text, counted from 0, and what its random numbers are made
    of (numbering.py).
    """

    text: str
    number: int = 0
    key: tuple = (0, 0)


def as_typed(text: str) -> Answer:
    """A stretch of a text that stays."""
    return Answer([text], Trace([(text, None)]))


def join_answers(answers: Sequence[Answer]) -> Answer:
    """Candidate j of a text = candidate j of each of its parts (the last one where a part has fewer)."""
    count = max(len(answer.texts) for answer in answers)
    texts = ["".join(answer.texts[min(j, len(answer.texts) - 1)] for answer in answers) for j in range(count)]
    traces = [answer.trace for answer in answers if answer.trace is not None]
    return Answer(texts, join_traces(traces) if len(traces) == len(answers) else None)


def in_parts(
    parts: Sequence[Sequence[tuple[str, bool]]],
    numbers: Sequence[int],
    write: Callable[[list[Piece]], list[Answer]],
    on_part: Callable[[str], None] | None = None,
) -> list[Answer]:
    """The answers for texts in parts, (stretch, is it to be worked on): ``write`` gives one for each stretch that is.
    ``numbers`` are those of the texts (numbering.py).

    All are written together; with ``on_part`` one after the other, and it gets each stretch of each first candidate as
    soon as it is finished.
    """
    chosen = []
    for number, row in enumerate(parts):
        work = [part for part, is_work in row if is_work]
        chosen += [Piece(part, number, (numbers[number], place)) for place, part in enumerate(work)]
    groups = [chosen] if on_part is None else [[piece] for piece in chosen]
    written = (answer for group in groups for answer in write(group))
    answers: list[Answer] = []
    for row in parts:
        finished = []
        for part, is_work in row:
            finished.append(next(written) if is_work else as_typed(part))
            if on_part is not None:
                on_part(finished[-1].texts[0])
        answers.append(join_answers(finished))
    return answers


def unwrapped(text: str | Sequence[str], answers: list[Answer], on_trace: Callable[[Trace], None] | None):
    """The texts of the answers: a list for one text, a list of lists for several; their traces go to ``on_trace``."""
    for answer in answers if on_trace is not None else []:
        on_trace(answer.trace)
    return answers[0].texts if isinstance(text, str) else [answer.texts for answer in answers]


def ranking_score(text: str, score: float, source: str, reversible: bool) -> float:
    """The score by which candidates are ranked: the source again comes last (-inf); a phrase twice in a row costs
    ``COST``, and so does, where the task is ``reversible``, a near copy, since a paraphrase should use other words, and
    a negation that only one of the two has, since it should say the same.
    """
    if text.casefold() == source.strip().casefold():
        return -math.inf
    faults = bool(repeated_phrases(text) - repeated_phrases(source))
    if reversible:
        faults += is_near_copy(text, source) + (has_negation(text) != has_negation(source))
    return score - COST * faults


def completion_score(text: str, given: str, added: Sequence[str], score: float, least: int) -> float:
    """The score by which continuations of ``given`` are ranked: those whose ``added`` pieces hold fewer than ``least``
    words come last; a phrase twice in a row costs ``COST``.
    """
    words = sum(any(map(str.isalnum, word)) for word in added)
    return score - LESS * (words < least) - COST * bool(repeated_phrases(text) - repeated_phrases(given))


def is_near_copy(text: str, source: str) -> bool:
    """Whether a text has hardly a word of its own: its words are some of the source's, the source's and some more, or
    more than ``NEAR_COPY`` of all words of the two are in both. Case, order, repetition and punctuation do not count.
    """
    ours, theirs = set(words_of(text)), set(words_of(source))
    return ours <= theirs or ours >= theirs or len(ours & theirs) > NEAR_COPY * len(ours | theirs)


def repeated_phrases(text: str) -> set[tuple[str, ...]]:
    """The phrases of up to ``LONGEST_PHRASE`` words that stand twice in a row."""
    words = words_of(text)
    return {
        tuple(words[start : start + size])
        for size in range(1, LONGEST_PHRASE + 1)
        for start in range(len(words) - 2 * size + 1)
        if words[start : start + size] == words[start + size : start + 2 * size]
    }


def words_of(text: str) -> list[str]:
    """The words of a text without case and punctuation."""
    return re.findall(r"\w+", text.casefold())
