"""Encoded examples: the word pieces of many texts in flat arrays, of one task or of several."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from .skills import CONTINUE

BLOCK = 10_000  # pairs that are worked on together


@dataclass
class EncodedPairs:
    """Word pieces of many examples in flat arrays, in memory or mapped from a file: example i is ``source(i)``,
    ``target(i)``.
    """

    ids: np.ndarray  # int32, all sources and targets one after the other
    offsets: np.ndarray  # int64 [2 n + 1], source i at offsets[2i], target i at offsets[2i + 1]
    has_source: np.ndarray  # bool [n]; False for plain texts
    notes: list[str] = field(default_factory=list)
    kept: np.ndarray | None = None  # indices of the pairs that fitted
    pair_skills: np.ndarray | None = None  # int16 [n], the skill of each as a pair; None: PAIR (skills.py)
    plain_skills: np.ndarray | None = None  # int16 [n], the same without styles; None: there are none
    continue_skills: np.ndarray | None = None  # int16 [n], the skill of each as a text to continue; None: CONTINUE

    def __len__(self) -> int:
        return len(self.has_source)

    @property
    def parts(self) -> list[EncodedPairs]:
        return [self]

    def rows(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(ids, begin, middle, end): the source of example indices[r] is ids[begin[r] : middle[r]], its target
        ids[middle[r] : end[r]].
        """
        return np.asarray(self.ids), *(np.asarray(self.offsets[2 * indices + part]) for part in range(3))

    def source(self, index: int) -> np.ndarray:
        return self.ids[self.offsets[2 * index] : self.offsets[2 * index + 1]]

    def target(self, index: int) -> np.ndarray:
        return self.ids[self.offsets[2 * index + 1] : self.offsets[2 * index + 2]]

    @property
    def source_lengths(self) -> np.ndarray:
        return self.offsets[1::2] - self.offsets[0:-1:2]

    @property
    def target_lengths(self) -> np.ndarray:
        return self.offsets[2::2] - self.offsets[1::2]

    def target_blocks(self, size: int = BLOCK) -> Iterator[np.ndarray]:
        """The ids of all targets, those of ``size`` examples at a time in one flat array."""
        for start in range(0, len(self), size):
            offsets = self.offsets[2 * start : 2 * (start + size) + 1]
            is_target = np.repeat(np.arange(len(offsets) - 1) % 2 == 1, np.diff(offsets))
            yield self.ids[offsets[0] : offsets[-1]][is_target]


class EncodedMix:
    """The encoded pairs of several tasks one after the other, each part in memory or mapped as it is; otherwise like
    ``EncodedPairs``.
    """

    def __init__(self, parts: dict[str, EncodedPairs], sizes: Sequence[int]):
        """``sizes``: how many pairs each part was made from."""
        self.names, self.parts = list(parts), list(parts.values())
        self.starts = np.array([0, *itertools.accumulate(map(len, self.parts))])
        self.has_source = np.concatenate([part.has_source for part in self.parts])
        self.source_lengths = np.concatenate([part.source_lengths for part in self.parts])
        self.target_lengths = np.concatenate([part.target_lengths for part in self.parts])
        self.pair_skills = np.concatenate([part.pair_skills for part in self.parts])
        plain = [part.pair_skills if part.plain_skills is None else part.plain_skills for part in self.parts]
        self.plain_skills = np.concatenate(plain) if any(part.plain_skills is not None for part in self.parts) else None
        of_text = [
            np.full(len(part), CONTINUE, dtype=np.int16) if part.continue_skills is None else part.continue_skills
            for part in self.parts
        ]
        styled = any(part.continue_skills is not None for part in self.parts)
        self.continue_skills = np.concatenate(of_text) if styled else None
        self.notes = [f"{name}: {note}" for name, part in parts.items() for note in part.notes]
        first = [0, *itertools.accumulate(sizes)]
        self.kept = np.concatenate([start + part.kept for start, part in zip(first, self.parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def rows(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As ``EncodedPairs.rows``, with the ids of these examples alone."""
        owner = np.searchsorted(self.starts, indices, side="right") - 1
        lengths = self.source_lengths[indices] + self.target_lengths[indices]
        end = np.cumsum(lengths)
        begin = end - lengths
        ids = np.empty(int(lengths.sum()), dtype=np.int32)
        for number in np.unique(owner):
            part, chosen = self.parts[number], np.flatnonzero(owner == number)
            own = indices[chosen] - self.starts[number]
            count = lengths[chosen]
            # 0, 1, ... in each example
            within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
            ids[np.repeat(begin[chosen], count) + within] = np.asarray(part.ids)[
                np.repeat(part.offsets[2 * own], count) + within
            ]
        return ids, begin, begin + self.source_lengths[indices], end

    def target_blocks(self, size: int = BLOCK) -> Iterator[np.ndarray]:
        """The ids of all targets of all tasks, as ``EncodedPairs.target_blocks``."""
        return itertools.chain.from_iterable(part.target_blocks(size) for part in self.parts)
