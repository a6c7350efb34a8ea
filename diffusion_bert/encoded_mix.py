"""Encoded pairs of several tasks and styles: every example knows its skill."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from .config.schema import DataConfig
from .encoding import BLOCK, EncodedPairs, encode_pairs
from .mapped_pairs import MappedPairs
from .mixed_pairs import MixedPairs, parts_of
from .reading import Pair
from .skills import Skills
from .tokenization import TextTokenizer


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
            within = np.arange(int(count.sum())) - np.repeat(
                np.cumsum(count) - count, count
            )  # 0, 1, ... in each example
            ids[np.repeat(begin[chosen], count) + within] = np.asarray(part.ids)[
                np.repeat(part.offsets[2 * own], count) + within
            ]
        return ids, begin, begin + self.source_lengths[indices], end

    def target_blocks(self, size: int = BLOCK) -> Iterator[np.ndarray]:
        """The ids of all targets of all tasks, as ``EncodedPairs.target_blocks``."""
        return itertools.chain.from_iterable(part.target_blocks(size) for part in self.parts)


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
    if task not in {skill.task for skill in skills.table}:  # plain texts
        return dataclasses.replace(data, pair_skills=np.zeros(len(data), dtype=np.int16))
    names, styles = row_styles(pairs)
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
