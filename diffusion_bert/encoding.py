"""From pairs of texts to word pieces in flat arrays: encoded once, nothing cut, what does not fit counted."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from .cache import Cache, CacheUnwritable, EntryWriter, fingerprint
from .config.schema import DataConfig
from .config.tasks import CONTINUE_PROMPT
from .mapped_pairs import MappedPairs
from .reading import Pair
from .tokenization import TextTokenizer

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


@dataclass(frozen=True)
class Limits:
    """What an example may measure, in word pieces: ``room`` is for source and target together."""

    max_length: int
    max_target_length: int
    room: int

    @classmethod
    def of(cls, tokenizer: TextTokenizer, config: DataConfig, prompt: str) -> Limits:
        """Room is what [CLS], two [SEP] and the longer of the prompts leave."""
        longest = max(len(tokenizer.encode(text)) for text in (prompt, CONTINUE_PROMPT))
        return cls(config.max_length, config.max_target_length, config.max_length - 3 - longest)

    def notes(self, left_out: np.ndarray, rows: int) -> list[str]:
        """Lines that tell the numbers of ``Block.left_out``, reason by reason."""
        reasons = (
            f"targets longer than max_target_length {self.max_target_length}",
            f"pairs longer than max_length {self.max_length}",
            "targets without a single word piece",
        )
        return [
            f"{int(count):,} of {rows:,} rows left out: {reason}" for count, reason in zip(left_out, reasons) if count
        ]


@dataclass
class Block:
    """Some encoded pairs: flat ids, lengths [n, 2] of source and target, and which rows were kept; ``left_out`` counts
    the three reasons.
    """

    ids: np.ndarray
    lengths: np.ndarray
    has_source: np.ndarray
    keep: np.ndarray
    left_out: np.ndarray


def encode_block(pairs: Sequence[Pair], tokenizer: TextTokenizer, limits: Limits) -> Block:
    """Tokenise some pairs; what does not fit the limits is left out, never cut."""
    pieces = tokenizer.encode_many([text for source, target in pairs for text in (source or "", target)])
    lengths = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces)).reshape(-1, 2)
    ids = np.fromiter(chain.from_iterable(pieces), dtype=np.int32, count=int(lengths.sum()))
    long_target = lengths[:, 1] > limits.max_target_length
    long_pair = (lengths.sum(axis=1) > limits.room) & ~long_target
    empty = lengths[:, 1] == 0
    keep = ~(long_target | long_pair | empty)
    has_source = np.fromiter((source is not None for source, _ in pairs), dtype=bool, count=len(pairs))
    left_out = np.array([long_target.sum(), long_pair.sum(), empty.sum()])
    return Block(ids[np.repeat(keep, lengths.sum(axis=1))], lengths[keep], has_source[keep], keep, left_out)


def encode_pairs(pairs: Sequence[Pair], tokenizer: TextTokenizer, config: DataConfig, prompt: str) -> EncodedPairs:
    """Tokenise all pairs; what does not fit the limits is left out and counted in ``notes``, never cut.

    Pairs that are mapped from the cache give arrays that are mapped from the cache.
    """
    limits = Limits.of(tokenizer, config, prompt)
    extra = []
    if isinstance(pairs, MappedPairs):
        try:
            return _encode_mapped(pairs, tokenizer, limits, config)
        except CacheUnwritable as error:
            extra = [f"cannot write to the cache {error}; the word pieces are held in memory"]
    blocks = [
        encode_block(pairs[start : start + BLOCK], tokenizer, limits) for start in range(0, max(1, len(pairs)), BLOCK)
    ]
    lengths = np.concatenate([block.lengths for block in blocks])
    return EncodedPairs(
        np.concatenate([block.ids for block in blocks]),
        np.concatenate([[0], np.cumsum(lengths.reshape(-1))]),
        np.concatenate([block.has_source for block in blocks]),
        [*extra, *limits.notes(sum(block.left_out for block in blocks), len(pairs))],
        np.flatnonzero(np.concatenate([block.keep for block in blocks])),
    )


def _encode_mapped(pairs: MappedPairs, tokenizer: TextTokenizer, limits: Limits, config: DataConfig) -> EncodedPairs:
    """The encoded form out of the cache, where it stands under a fingerprint of content, selection, tokenizer and
    limits.
    """

    def build(writer: EntryWriter) -> dict:
        left_out, end, start = np.zeros(3, dtype=np.int64), 0, 0
        writer.append("offsets", np.zeros(1, dtype=np.int64))
        for block in _blocks(pairs, tokenizer, limits, config.preprocessing_num_workers):
            offsets = end + np.cumsum(block.lengths.reshape(-1))
            end = int(offsets[-1]) if len(offsets) else end
            writer.append("ids", block.ids)
            writer.append("offsets", offsets)
            writer.append("has_source", block.has_source)
            writer.append("kept", start + np.flatnonzero(block.keep))
            left_out += block.left_out
            start += len(block.keep)
        return {"left_out": left_out.tolist()}

    entry = Cache(config.cache_dir).get(f"ids-{fingerprint(pairs.fingerprint, tokenizer.json, limits)}", build)
    arrays = entry.arrays
    notes = limits.notes(np.array(entry.meta["left_out"]), len(pairs))
    return EncodedPairs(arrays["ids"], arrays["offsets"], arrays["has_source"], notes, arrays["kept"])


def _blocks(pairs: MappedPairs, tokenizer: TextTokenizer, limits: Limits, processes: int) -> Iterator[Block]:
    """Encoded blocks in order, made by this process or by several."""
    slices = [slice(start, start + BLOCK) for start in range(0, len(pairs), BLOCK)]
    if processes < 2:
        yield from (encode_block(pairs[part], tokenizer, limits) for part in slices)
        return
    # spawned, not forked: the tokenizer's threads do not survive a fork
    with multiprocessing.get_context("spawn").Pool(processes, _start_worker, (pairs, tokenizer.json, limits)) as pool:
        yield from pool.imap(_work, slices)


_worker: tuple[MappedPairs, TextTokenizer, Limits]  # of a worker process


def _start_worker(pairs: MappedPairs, tokenizer_json: str, limits: Limits) -> None:
    global _worker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _worker = (pairs, TextTokenizer(tokenizer_json), limits)


def _work(part: slice) -> Block:
    pairs, tokenizer, limits = _worker
    return encode_block(pairs[part], tokenizer, limits)
