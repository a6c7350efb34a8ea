"""From pairs of texts to word pieces in flat arrays: encoded once, nothing cut, what does not fit counted."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ..config.schema import DataConfig
from ..config.tasks import CONTINUE_PROMPT, TASKS
from .cache import Cache, CacheUnwritable, EntryWriter, fingerprint
from .encoded import BLOCK, EncodedMix, EncodedPairs
from .mapped_pairs import MappedPairs
from .pairs import MixedPairs, Pair, parts_of
from .skills import Skills
from .tokenizer import TextTokenizer


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
        """Lines that report the numbers of ``Block.left_out``, reason by reason."""
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


def encode_tasks(
    pairs: Sequence[Pair], tokenizer: TextTokenizer, config: DataConfig, skills: Skills, task: str | None = None
):
    """Encoded pairs with the skill of every example: ``EncodedMix`` of mixed pairs, else ``EncodedPairs`` of the pairs
    of ``task`` (default: the model's first).
    """
    parts = parts_of(pairs, task or skills.first)
    encoded = {name: _encode_task(part, tokenizer, config, skills, name) for name, part in parts.items()}
    return (
        EncodedMix(encoded, [len(part) for part in parts.values()])
        if isinstance(pairs, MixedPairs)
        else next(iter(encoded.values()))
    )


def _encode_task(
    pairs: Sequence[Pair], tokenizer: TextTokenizer, config: DataConfig, skills: Skills, task: str
) -> EncodedPairs:
    longest = max(skills.prompts_of(task), key=lambda prompt: len(tokenizer.encode(prompt)))
    data = encode_pairs(pairs, tokenizer, config, longest)
    if len(skills.table) == 1 and len(skills.tasks) == 1:
        return data
    names, styles = row_styles(pairs)
    if not TASKS[task].prompt:  # plain texts
        origins = skills.row_skills(task, names, styles[data.kept]) if skills.styles(task) else None
        return dataclasses.replace(data, pair_skills=np.zeros(len(data), dtype=np.int16), continue_skills=origins)
    known = skills.styles(task)
    for name in names:
        if name not in known:
            data.notes.append(f"style {name} is unknown to this model: its rows count as rows without a style")
    row_skills = skills.row_skills(task, names, styles[data.kept])
    plain = np.full(len(data), skills.number(task), dtype=np.int16)
    return dataclasses.replace(data, pair_skills=row_skills, plain_skills=plain if known else None)


def row_styles(pairs: Sequence[Pair]) -> tuple[list[str], np.ndarray]:
    """The names of all styles in order of the alphabet, and the number of each row's style [n], -1 for none."""
    if isinstance(pairs, MappedPairs):
        names, numbers = pairs.styles
    else:
        found: dict[str, int] = {}
        numbers = np.full(len(pairs), -1, dtype=np.int32)
        for index, pair in enumerate(pairs):
            if pair.style is not None:
                numbers[index] = found.setdefault(pair.style, len(found))
        names = list(found)
    order = sorted({names[number] for number in np.unique(numbers[numbers >= 0])})
    place = {name: number for number, name in enumerate(order)}
    return order, np.array([*(place.get(name, -1) for name in names), -1], dtype=np.int32)[numbers]


def styles_of(pairs: Sequence[Pair], task: str) -> dict[str, list[str]]:
    """The styles in the data, by task."""
    return {name: styles for name, part in parts_of(pairs, task).items() if (styles := row_styles(part)[0])}
