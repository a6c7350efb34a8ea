"""From pairs of texts to batches: encode once, choose each example's skill, bucket by length, collate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from .config import DataConfig
from .layout import Batch
from .reading import Pair
from .tasks import CONTINUE_PROMPT, Task
from .tokenization import TextTokenizer

PAIR, NO_SOURCE, CONTINUE = 0, 1, 2  # skills of an example


@dataclass
class EncodedPairs:
    """Word pieces of many examples in flat arrays: example i is ``source(i)``, ``target(i)``."""

    ids: np.ndarray  # int32, all sources and targets one after the other
    offsets: np.ndarray  # int64 [2 n + 1], source i at offsets[2i], target i at offsets[2i + 1]
    has_source: np.ndarray  # bool [n]; False for plain texts
    notes: list[str] = field(default_factory=list)
    kept: np.ndarray | None = None  # indices of the pairs that fitted

    def __len__(self) -> int:
        return len(self.has_source)

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


def encode_pairs(pairs: Sequence[Pair], tokenizer: TextTokenizer, config: DataConfig, prompt: str) -> EncodedPairs:
    """Tokenise all pairs; what does not fit the limits is left out and counted in ``notes``, never cut."""
    sources = tokenizer.encode_many([pair.source or "" for pair in pairs])
    targets = tokenizer.encode_many([pair.target for pair in pairs])
    room = config.max_length - 3 - max(len(tokenizer.encode(text)) for text in (prompt, CONTINUE_PROMPT))
    long_target = np.array([len(target) > config.max_target_length for target in targets], dtype=bool)
    empty = np.array([len(target) == 0 for target in targets], dtype=bool)
    long_pair = np.array([len(source) + len(target) > room for source, target in zip(sources, targets)], dtype=bool) & ~long_target
    notes = []
    for mask, reason in (
        (long_target, f"targets longer than max_target_length {config.max_target_length}"),
        (long_pair, f"pairs longer than max_length {config.max_length}"),
        (empty, "targets without a single word piece"),
    ):
        if mask.any():
            notes.append(f"{int(mask.sum()):,} of {len(pairs):,} rows left out: {reason}")
    kept = np.flatnonzero(~(long_target | long_pair | empty))
    pieces = [piece for index in kept for piece in (sources[index], targets[index])]
    lengths = np.fromiter((len(piece) for piece in pieces), dtype=np.int64, count=len(pieces))
    ids = np.fromiter((token for piece in pieces for token in piece), dtype=np.int32, count=int(lengths.sum()))
    has_source = np.array([pairs[index].source is not None for index in kept], dtype=bool)
    return EncodedPairs(ids, np.concatenate([[0], np.cumsum(lengths)]), has_source, notes, kept)


class Collator:
    """Sequences -> :class:`Batch`. ``skill`` says whether the prompt and source, an empty source, or a prefix of the target comes first."""

    def __init__(self, tokenizer: TextTokenizer, prompt: str):
        self.tokenizer = tokenizer
        self.prompts = {PAIR: tokenizer.encode(prompt), NO_SOURCE: [], CONTINUE: tokenizer.encode(CONTINUE_PROMPT)}

    def batch(self, examples: Sequence[tuple[int, Sequence[int], Sequence[int]]]) -> Batch:
        """``examples`` are (skill, source ids, target ids)."""
        tokenizer = self.tokenizer
        rows = []
        for skill, source, target in examples:
            first = [tokenizer.cls_id, *self.prompts[skill], *source, tokenizer.sep_id]
            rows.append((first, len(self.prompts[skill]), target))
        width = max(len(first) + len(target) + 1 for first, _, target in rows)
        ids = np.full((len(rows), width), tokenizer.pad_id, dtype=np.int64)
        for row, (first, _, target) in enumerate(rows):
            ids[row, : len(first)] = first
            ids[row, len(first) : len(first) + len(target)] = target
            ids[row, len(first) + len(target)] = tokenizer.sep_id
        return Batch(
            torch.from_numpy(ids),
            torch.tensor([len(first) for first, _, _ in rows]),
            torch.tensor([prompt for _, prompt, _ in rows]),
            torch.tensor([len(target) for _, _, target in rows]),
            tokenizer.pad_id,
            tokenizer.mask_id,
        )

    def example(self, data: EncodedPairs, index: int, skill: int = PAIR, cut: float = 0.5) -> tuple[int, Sequence[int], Sequence[int]]:
        """One example in the form ``batch`` takes; ``cut`` in [0, 1) places the end of a CONTINUE prefix at a word boundary."""
        target = data.target(index)
        if skill == PAIR:
            return PAIR, data.source(index), target
        if skill == CONTINUE:
            starts = np.flatnonzero(~self.tokenizer.continuation.numpy()[target])  # where words begin
            starts = starts[starts > 0]
            if len(starts):
                place = starts[int(cut * len(starts))]
                return CONTINUE, target[:place], target[place:]
        return NO_SOURCE, (), target


class EpochBatches(torch.utils.data.Dataset):
    """The batches of one epoch, wholly determined by (seed, epoch): neither workers nor a resume change them.

    Each example gets a skill (pair / no source / continue) and joins a bucket of similar length. Every example occurs once.
    """

    BUCKET = 64  # batches sorted by length together

    def __init__(self, data: EncodedPairs, collator: Collator, config: DataConfig, batch_size: int, seed: int, epoch: int):
        self.data, self.collator = data, collator
        rng = np.random.default_rng([seed, epoch])
        draw, self.cuts = rng.random(len(data)), rng.random(len(data))
        self.skills = np.where(
            draw < config.source_dropout, NO_SOURCE, np.where(draw < config.source_dropout + config.continue_share, CONTINUE, PAIR)
        )
        # plain texts have no pair to learn: some are continued, the others written without a source
        self.skills = np.where(data.has_source, self.skills, np.where(draw < 1 - config.text_continue_share, NO_SOURCE, CONTINUE))
        # the length as a pair, whatever the skill: else whole batches would hold one skill only
        lengths = data.target_lengths + data.source_lengths
        order = rng.permutation(len(data))
        window = batch_size * self.BUCKET
        batches = []
        for start in range(0, len(order), window):
            part = order[start : start + window]
            part = part[np.argsort(lengths[part], kind="stable")]
            batches += [rng.permutation(part[first : first + batch_size]) for first in range(0, len(part), batch_size)]
        self.batches = [batches[index] for index in rng.permutation(len(batches))]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Batch:
        return self.collator.batch([self.collator.example(self.data, index, self.skills[index], self.cuts[index]) for index in self.batches[number]])


def spread_choice(count: int, limit: int | None) -> np.ndarray:
    """Indices of at most ``limit`` of ``count`` examples, evenly spread."""
    return np.arange(count) if limit is None or count <= limit else np.linspace(0, count - 1, limit).astype(int)


def fixed_batches(data: EncodedPairs, collator: Collator, batch_size: int = 64, limit: int | None = None) -> list[Batch]:
    """Batches for validation: the same examples (``spread_choice``) in the same batches every time, sorted by length.

    Plain texts are taken without source.
    """
    chosen = spread_choice(len(data), limit)
    chosen = chosen[np.argsort((data.source_lengths + data.target_lengths)[chosen], kind="stable")]
    groups = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    return [collator.batch([collator.example(data, index, PAIR if data.has_source[index] else NO_SOURCE) for index in group]) for group in groups]


def describe(task: Task, data: EncodedPairs) -> str:
    """One line of statistics."""
    source, target = data.source_lengths.mean(), data.target_lengths.mean()
    return f"{task.name}: {len(data):,} examples, mean length source {source:.1f}, target {target:.1f} word pieces"
