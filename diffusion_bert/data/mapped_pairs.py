"""Pairs of texts that stay on disk: a sequence like a list of them, for files larger than memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from .cache import Cache, Entry, EntryWriter, fingerprint, open_entry
from .pairs import Pair, StyledPair

BLOCK = 10_000  # pairs that are written or read together


class MappedPairs(Sequence):
    """Some rows of a cache entry, in any order; row ``~r`` (negative) is row r the other way round.

    The entry holds the UTF-8 bytes of all texts one after the other (``text``, source i from offsets[2i], target i from
    offsets[2i + 1]), ``has_source``, a 64-bit ``hashes`` and the number of its ``style`` (-1: none; the names are in
    the meta data) of each row.
    """

    def __init__(self, entry: Entry, rows: np.ndarray | None = None):
        self.entry = entry
        self.rows = np.arange(len(entry.arrays["has_source"])) if rows is None else rows

    @classmethod
    def write(cls, cache: Cache, name: str, pairs: Iterable[Pair], meta) -> MappedPairs:
        """Write pairs to the cache, or open what is there under this name; ``meta()`` gives plain values once all pairs
        are read.
        """

        def build(writer: EntryWriter) -> dict:
            stream, end, styles = iter(pairs), 0, {}
            writer.append("offsets", np.zeros(1, dtype=np.int64))
            for name, dtype in (("text", np.uint8), ("has_source", bool), ("hashes", np.uint64), ("style", np.int16)):
                writer.append(name, np.zeros(0, dtype=dtype))
            while block := list(islice(stream, BLOCK)):
                texts = [text.encode() for source, target in block for text in (source or "", target)]
                offsets = end + np.cumsum([len(text) for text in texts])
                end = int(offsets[-1])
                writer.append("offsets", offsets)
                writer.append("text", np.frombuffer(b"".join(texts), dtype=np.uint8))
                writer.append("has_source", np.array([source is not None for source, _ in block]))
                writer.append("hashes", np.array([row_hash(pair) for pair in block], dtype=np.uint64))
                numbers = [
                    -1 if pair.style is None else min(styles.setdefault(pair.style, len(styles)), 2**15 - 1)
                    for pair in block
                ]
                writer.append("style", np.array(numbers, dtype=np.int16))
            return {**meta(), "styles": list(styles)[: 2**15]}

        return cls(cache.get(name, build))

    def __reduce__(self):
        return _reopen, (self.entry.folder, self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        """A pair, or for a slice a list of pairs."""
        return self._pairs(self.rows[index]) if isinstance(index, slice) else self._pairs(self.rows[[index]])[0]

    def __iter__(self) -> Iterator[Pair]:
        for start in range(0, len(self), BLOCK):
            yield from self[start : start + BLOCK]

    def __add__(self, other: MappedPairs) -> MappedPairs:
        return MappedPairs(self.entry, np.concatenate([self.rows, other.rows]))

    def take(self, places: np.ndarray) -> MappedPairs:
        """The pairs at these places."""
        return MappedPairs(self.entry, self.rows[places])

    def turned(self) -> MappedPairs:
        """Those that have a source with a letter in it, the other way round."""
        number = np.where(self.rows < 0, ~self.rows, self.rows)
        offsets = self.entry.arrays["offsets"]
        return MappedPairs(self.entry, ~self.rows[offsets[2 * number + 1] > offsets[2 * number]])

    @property
    def hashes(self) -> np.ndarray:
        """A 64-bit hash of each pair (before any turning): equal for equal pairs."""
        return self.entry.arrays["hashes"][np.where(self.rows < 0, ~self.rows, self.rows)]

    @property
    def styles(self) -> tuple[list[str], np.ndarray]:
        """(names, the number of each row's style [n], -1 for none). A style is that of the target, so a turned pair has
        none.
        """
        return self.entry.meta["styles"], np.where(
            self.rows < 0, -1, self.entry.arrays["style"][np.where(self.rows < 0, ~self.rows, self.rows)]
        )

    @property
    def fingerprint(self) -> str:
        """A digest of content and selection."""
        return fingerprint(self.entry.folder.name, self.rows)

    def _pairs(self, rows: np.ndarray) -> list[Pair]:
        arrays = self.entry.arrays
        number = np.where(rows < 0, ~rows, rows)
        begin, middle, end = (arrays["offsets"][2 * number + part].tolist() for part in range(3))
        text, pairs, names = memoryview(arrays["text"]), [], self.entry.meta["styles"]
        for row, has_source, style, a, b, c in zip(
            rows.tolist(), arrays["has_source"][number].tolist(), arrays["style"][number].tolist(), begin, middle, end
        ):
            source, target = str(text[a:b], "utf-8") if has_source else None, str(text[b:c], "utf-8")
            pairs.append(
                Pair(target, source)
                if row < 0
                else Pair(source, target)
                if style < 0
                else StyledPair(source, target, names[style])
            )
        return pairs


def _reopen(folder, rows) -> MappedPairs:
    return MappedPairs(open_entry(folder), rows)


def row_hash(pair: Pair) -> int:
    """64 bits of a pair. No text holds a zero byte, so it can divide source and target; where there is no source, there
    is none.
    """
    text = pair.target if pair.source is None else f"{pair.source}\0{pair.target}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
