"""Shards of a file of texts: which rows are whose."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True)
class Shard:
    """Part ``number`` (from 1 on) of ``count`` parts that together, in order, are the whole."""

    number: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def rows(self, total: int, chunk: int) -> range:
        """Its rows of ``total``: whole chunks, which therefore begin at the same rows as without shards."""
        chunks = -(-total // chunk)
        start, stop = (min(total, chunks * number // self.count * chunk) for number in (self.number - 1, self.number))
        return range(start, stop)


def shard_of(text: str) -> Shard:
    """The shard that ``--shard`` names, k/n."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise UserError(f"--shard is '{text}': expected k/n with k from 1 to n, such as 2/4")
    return Shard(number, count)
