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
            self.add(np.asarray(ids, dtype=np.int64))
            yield ids

    def add(self, ids: np.ndarray) -> None:
        """Count the words of one flat array."""
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

    def between(self, before: Word, is_open: bool, after: Word, room: int) -> tuple[int, ...]:
        """The pieces v for which ``before`` + v + ``after`` is part of a known word that has at most ``room`` more
        pieces behind.

        ``before`` is the word's beginning, or with ``is_open`` there are unknown pieces ahead of it (at least one).
        """
        key = (before, is_open, after, room)
        if key not in self._found:
            found = {word[at + len(before)] for word, at in self._matches(before, is_open, 1, after, room)}
            self._found[key] = tuple(sorted(found))
        return self._found[key]

    def has(self, part: Word, is_open: bool, room: int) -> bool:
        """Whether ``part`` may be a part of a known word, as in ``between``; a single first piece is always a word."""
        if len(part) == 1 and not is_open:
            return True
        key = (part, is_open, room)
        if key not in self._found:
            self._found[key] = next(((1,) for _ in self._matches(part, is_open, 0, (), room)), ())
        return bool(self._found[key])

    def _matches(self, before: Word, is_open: bool, gap: int, after: Word, room: int):
        """(word, place of ``before`` in it) for all words that fit."""
        if before and not is_open:
            words = self._beginning.get(before[0], ())
        elif before or after:
            words = self._holding.get((before or after)[-1], ())
        else:
            words = self.words
        size = len(before) + gap + len(after)
        for word in words:
            for at in range(1 if is_open else 0, (len(word) - size if is_open else 0) + 1):
                tail = len(word) - at - size
                if (
                    0 <= tail <= room
                    and word[at : at + len(before)] == before
                    and word[at + len(before) + gap : at + size] == after
                ):
                    yield word, at
