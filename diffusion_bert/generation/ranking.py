"""The different texts written for a request, ranked by the model's own score."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .tracing import Trace, join_traces

LESS = 1e6  # This is more than any difference of scores.


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


def join_answers(answers: Sequence[Answer], separator: str = " ") -> Answer:
    """Candidate j of a text = candidate j of each of its sentences (the last one where a sentence has fewer)."""
    count = max(len(answer.texts) for answer in answers)
    texts = [separator.join(answer.texts[min(j, len(answer.texts) - 1)] for answer in answers) for j in range(count)]
    traces = [answer.trace for answer in answers if answer.trace is not None]
    return Answer(texts, join_traces(traces, separator) if len(traces) == len(answers) else None)


def unwrapped(text: str | Sequence[str], answers: list[Answer], on_trace: Callable[[Trace], None] | None):
    """The texts of the answers: a list for one text, a list of lists for several; their traces go to ``on_trace``."""
    for answer in answers if on_trace is not None else []:
        on_trace(answer.trace)
    return answers[0].texts if isinstance(text, str) else [answer.texts for answer in answers]


def ranking_score(text: str, score: float, source: str, reversible: bool) -> float:
    """The score by which candidates are ranked: the source again comes last (-inf), and before it, where the task is
    ``reversible``, what only leaves out words of the source, since it says less than a paraphrase should.
    """
    if text.casefold() == source.strip().casefold():
        return -math.inf
    return score - LESS * (reversible and leaves_out_words(text, source))


def completion_score(added: Sequence[str], score: float, least: int) -> float:
    """The score by which continuations are ranked: those of fewer than ``least`` words (no marks) come last."""
    return score - LESS * (sum(any(map(str.isalnum, word)) for word in added) < least)


def leaves_out_words(text: str, source: str) -> bool:
    """Whether all words of the text stand in the source in this order; case and punctuation do not count."""
    rest = iter(re.findall(r"\w+", source.casefold()))
    return all(word in rest for word in re.findall(r"\w+", text.casefold()))
