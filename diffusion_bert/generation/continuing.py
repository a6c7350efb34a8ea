"""A text continued sentence by sentence: what was written is the source of what comes next."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ..text.english import split_sentences
from .ranking import Answer, words_of
from .tracing import join_traces

_END = re.compile(r"[.!?\u2026][\"'\u201d\u2019)\]]*\s*$")


def gone_on(
    given: Sequence[str],
    answers: Sequence[Answer],
    wanted: int,
    write: Callable[[list[str], list[tuple[int, int, int]]], list[Answer]],
    on_part: Callable[[str], None] | None = None,
) -> list[Answer]:
    """The continuations ``answers`` of the ``given`` texts, each gone on with until it has ``wanted`` finished
    sentences, in at most as many rounds, or would only say a sentence again.

    ``write`` continues texts, told (number of the given text, round, number of the candidate) of each; ``on_part`` gets
    what is added to the first text of each answer.
    """
    answers, ended = list(answers), set()
    for turn in range(1, wanted):
        chosen = [
            (index, number)
            for index, answer in enumerate(answers)
            for number, text in enumerate(answer.texts)
            if (index, number) not in ended and finished_sentences(text[len(given[index]) :]) < wanted
        ]
        if not chosen:
            break
        texts = [answers[index].texts[number] for index, number in chosen]
        written = write(texts, [(index, turn, number) for index, number in chosen])
        for (index, number), longer in zip(chosen, written):
            before = answers[index].texts[number]
            if echoes(before, longer.texts[0]):
                ended.add((index, number))
                continue
            answers[index] = _with_next(answers[index], number, longer)
            if number == 0 and on_part is not None:
                on_part(longer.texts[0][len(before) :])
    return answers


def finished_sentences(added: str) -> int:
    """How many sentences of a continuation have an end."""
    return sum(_END.search(sentence) is not None for sentence in split_sentences(added))


def echoes(given: str, text: str) -> bool:
    """Whether a sentence of a continuation of ``given`` is one of it, perhaps with words left out."""
    said, added = split_sentences(given), split_sentences(text[len(given) :])
    return any(_leaves_out_words(words_of(sentence), words_of(other)) for sentence in added for other in said)


def _leaves_out_words(words: list[str], said: list[str]) -> bool:
    """Whether all words are among those said, in this order."""
    rest = iter(said)
    return all(word in rest for word in words)


def _with_next(answer: Answer, number: int, longer: Answer) -> Answer:
    """The answer with its text ``number`` gone on with, and the trace of its first text."""
    given, trace = answer.texts[number], answer.trace
    texts = [longer.texts[0] if place == number else text for place, text in enumerate(answer.texts)]
    if number == 0 and trace is not None and longer.trace is not None:
        trace = join_traces([trace, longer.trace.behind(given)])
    return Answer(texts, trace)
