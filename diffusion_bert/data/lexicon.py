"""The words of several pieces that are known: a continuation piece may stand only where it makes one of them.

Words are tuples of ids. In a checkpoint they are one flat array of ids: a piece that is no continuation begins a word.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

MOST_WORDS = 60_000  # kept of the training targets, the most frequent ones
LONGEST_WORD = 12  # pieces of a word that is kept
MOST_ANSWERS = 100_000  # remembered
ANY = 99  # room for as many pieces as there may be

Word = tuple[int, ...]


def words_of(ids: Sequence[int], continuation: Sequence[bool]) -> list[Word]:
    """The words of two pieces and more in a sequence of ids."""
    words: list[list[int]] = []
    for index in ids:
        if not 0 <= index < len(continuation):
            words.append([])
        elif continuation[index]:
            if words and words[-1]:
                words[-1].append(index)
        else:
            words.append([index])
    return [tuple(word) for word in words if len(word) > 1]


class WordCounts:
    """Counts the words of several pieces in sequences of ids as they go by."""

    def __init__(self, continuation: Tensor):
        self.continuation = continuation.numpy()
        self.counts: Counter[Word] = Counter()

    def watched(self, sequences: Iterable) -> Iterator:
        """The sequences, unchanged, each counted."""
        for ids in sequences:
            self.add(ids)
            yield ids

    def add(self, ids: Sequence[int]) -> None:
        """Count the words of one flat sequence."""
        ids = np.asarray(ids, dtype=np.int64)
        starts = np.flatnonzero(~self.continuation[ids])
        sizes = np.diff(np.append(starts, len(ids)))
        several = (sizes > 1) & (sizes <= LONGEST_WORD)
        for start, size in zip(starts[several].tolist(), sizes[several].tolist()):
            self.counts[tuple(ids[start : start + size].tolist())] += 1
        if len(self.counts) > 20 * MOST_WORDS:  # bounds the memory
            self.counts = Counter(dict(self.counts.most_common(10 * MOST_WORDS)))

    def flat(self, known: Iterable[Word] = ()) -> Tensor:
        """The ``MOST_WORDS`` most frequent words, flat, int32; words ``known`` before come first."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        words = list(dict.fromkeys([*known, *(word for word, _ in ranked)]))[:MOST_WORDS]
        return torch.tensor([index for word in words for index in word], dtype=torch.int32)


class Lexicon:
    """Known words of several pieces, and what may stand between pieces that stand already; answers are remembered."""

    def __init__(self, words: Iterable[Word] = ()):
        self.words = frozenset(words)
        self._beginning: dict[int, list[Word]] = defaultdict(list)
        self._holding: dict[int, list[Word]] = defaultdict(list)
        for word in sorted(self.words):
            self._beginning[word[0]].append(word)
            for index in set(word[1:]):
                self._holding[index].append(word)
        self._found: dict[tuple, tuple[int, ...]] = {}

    def between(self, before: Word, lead: int, after: Word, room: int, beginning: Word = ()) -> tuple[int, ...]:
        """The pieces v for which ``before`` + v + ``after`` is part of a known word that has at most ``room`` more
        pieces behind.

        lead 0: ``before`` is the word's beginning. Otherwise 1 to ``lead`` unknown pieces stand ahead of it; or the
        word has this ``beginning``, and then exactly ``lead`` unknown pieces.
        """
        return self._answer(True, before, lead, after, room, ()) + (
            self._answer(True, before, lead, after, room, beginning) if beginning else ()
        )

    def going_on(self, beginning: Word, lead: int, room: int) -> tuple[int, ...]:
        """Of ``between`` with nothing at either side the pieces of the words with this ``beginning``."""
        return self._answer(True, (), lead, (), room, beginning)

    def has(self, part: Word, lead: int, room: int, beginning: Word = ()) -> bool:
        """Whether ``part`` may be a part of a known word, as in ``between``; a single first piece is always a word."""
        if len(part) == 1 and not lead:
            return True
        return bool(
            self._answer(False, part, lead, (), room, ())
            or (beginning and self._answer(False, part, lead, (), room, beginning))
        )

    def _answer(self, gap: bool, before: Word, lead: int, after: Word, room: int, beginning: Word) -> tuple[int, ...]:
        """What stands in the gap of the words that fit, or without a gap one number where any word fits."""
        key = (gap, before, lead, after, room, beginning)
        if key not in self._found:
            if len(self._found) > MOST_ANSWERS:
                self._found.clear()
            matches = self._matches(gap, before, lead, after, room, beginning)
            if gap:
                self._found[key] = tuple(sorted({word[at + len(before)] for word, at in matches}))
            else:
                self._found[key] = next(((1,) for _ in matches), ())
        return self._found[key]

    def _matches(
        self, gap: bool, before: Word, lead: int, after: Word, room: int, beginning: Word
    ) -> Iterator[tuple[Word, int]]:
        """(word, place of ``before`` in it) for all words that fit."""
        first = beginning or (() if lead else before)
        if first:
            words = self._beginning.get(first[0], ())
        elif before or after:
            words = self._holding.get((before or after)[-1], ())
        else:
            words = self.words
        behind = len(before) + gap
        size = behind + len(after)
        for word in words:
            most = len(word) - size
            if beginning:
                places = [len(beginning) + lead] if word[: len(beginning)] == beginning else []
            else:
                places = range(min(1, lead), min(lead, most) + 1)
            for at in places:
                fits = word[at : at + len(before)] == before and word[at + behind : at + size] == after
                if fits and 0 <= most - at <= room:
                    yield word, at
