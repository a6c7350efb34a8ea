"""One example as text: a pair, a pair with a style, a plain text; and the pairs of several tasks as one sequence."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from typing import NamedTuple


class Pair(NamedTuple):
    """One example; source is None where there is only a text (no pair)."""

    source: str | None
    target: str
    style = None  # what a StyledPair has


class StyledPair(Pair):
    """A pair whose target is of a named style; as a tuple it is still two texts."""

    def __new__(cls, source: str | None, target: str, style: str | None = None):
        pair = super().__new__(cls, source, target)
        pair.style = style
        return pair


class MixedPairs(Sequence):
    """The rows of ``parts`` (by task, in order) one after the other, each part in memory or mapped as it is."""

    def __init__(self, parts: dict[str, Sequence[Pair]]):
        self.parts = parts
        self.starts = [0, *accumulate(map(len, parts.values()))]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index):
        """A pair, or for a slice a list of pairs."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        index = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self.starts, index) - 1
        return [*self.parts.values()][number][index - self.starts[number]]

    def task(self, index: int) -> str:
        """The task of the pair at ``index``."""
        return [*self.parts][bisect_right(self.starts, index) - 1]

    def __iter__(self) -> Iterator[Pair]:
        return chain.from_iterable(self.parts.values())


def parts_of(pairs: Sequence[Pair], task: str) -> dict[str, Sequence[Pair]]:
    """The pairs by task; ``task`` names those of a sequence that is not mixed."""
    return pairs.parts if isinstance(pairs, MixedPairs) else {task: pairs}
