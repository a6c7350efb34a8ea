"""From encoded pairs to batches: choose each example's skill, bring like lengths together, lay the rows out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..config.schema import DataConfig
from ..config.tasks import CONTINUE_PROMPT
from .batch import Batch
from .encoded import EncodedMix, EncodedPairs
from .skills import CONTINUE, NO_SOURCE, PAIR, is_continuing, is_pair
from .tokenizer import TextTokenizer


class Collator:
    """Sequences -> :class:`Batch`. ``skill`` says whether a prompt and source, an empty source, or a prefix of the
    target comes first.

    ``prompt`` is that of PAIR, or several: those of the skills of a model in their order; ``continuing`` are those for
    continuing a text in a style, from -1 down (skills.py). A text that is continued leaves ``words_left`` words to
    write, of which the last may be its punctuation mark.
    """

    def __init__(
        self, tokenizer: TextTokenizer, prompt: str | Sequence[str], continuing: Sequence[str] = (), words_left: int = 1
    ):
        self.tokenizer, self.words_left = tokenizer, words_left
        first, *more = [prompt] if isinstance(prompt, str) else prompt
        self.prompts = {PAIR: tokenizer.encode(first), NO_SOURCE: [], CONTINUE: tokenizer.encode(CONTINUE_PROMPT)}
        self.prompts |= {CONTINUE + number: tokenizer.encode(text) for number, text in enumerate(more, 1)}
        self.prompts |= {-number: tokenizer.encode(text) for number, text in enumerate(continuing, 1)}
        # by skill: a negative one counts from the end, as everywhere in numpy
        order = [*range(len(self.prompts) - len(continuing)), *range(-len(continuing), 0)]
        self.prompt_lengths = np.array([len(self.prompts[skill]) for skill in order])
        # [CLS] prompt, by skill
        self.heads = np.full((len(self.prompts), 1 + self.prompt_lengths.max()), tokenizer.pad_id)
        self.heads[:, 0] = tokenizer.cls_id
        for skill, prompt_ids in self.prompts.items():
            self.heads[skill, 1 : 1 + len(prompt_ids)] = prompt_ids
        self.begins_word = ~tokenizer.continuation.numpy()  # [V]

    def batch(self, examples: Sequence[tuple[int, Sequence[int], Sequence[int]]]) -> Batch:
        """``examples`` are (skill, source ids, target ids)."""
        pieces = [np.asarray(ids, dtype=np.int64) for _, *both in examples for ids in both]
        offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
        skills = np.array([skill for skill, _, _ in examples])
        return self._lay_out(np.concatenate(pieces), offsets[0:-1:2], offsets[1::2], offsets[2::2], skills)

    def gather(
        self, data: EncodedPairs | EncodedMix, indices: np.ndarray, skills: np.ndarray, cuts: np.ndarray | None = None
    ) -> Batch:
        """The examples ``indices`` [B] of the data, each with its skill [B].

        ``cuts`` [B] in [0, 1) place the end of the prefix of a text to continue at one of the word boundaries of the
        target that leave enough to write; where there is none, the example is written without a source.
        """
        ids, begin, middle, end = data.rows(indices)
        begin, skills = np.where(is_pair(skills), begin, middle), skills.copy()
        rows = np.flatnonzero(is_continuing(skills))
        if len(rows):
            place = np.arange((end - middle)[rows].max())
            is_start = self.begins_word[ids.take(middle[rows, None] + place, mode="clip")]
            is_start &= (place > 0) & (place < (end - middle)[rows, None])
            nth = is_start.cumsum(axis=1)
            boundaries = np.maximum(nth[:, -1] + 1 - self.words_left, 0)
            chosen = (cuts[rows] * boundaries).astype(np.int64) + 1
            skills[rows[boundaries == 0]] = NO_SOURCE
            middle[rows] += np.where(boundaries > 0, (nth == chosen[:, None]).argmax(axis=1), 0)
        return self._lay_out(ids, begin, middle, end, skills)

    def _lay_out(
        self, ids: np.ndarray, begin: np.ndarray, middle: np.ndarray, end: np.ndarray, skills: np.ndarray
    ) -> Batch:
        """Row r is [CLS] prompt ids[begin:middle] [SEP] ids[middle:end] [SEP], padded: no loop over rows or words."""
        prompt_length = self.prompt_lengths[skills]
        source_length = 2 + prompt_length + middle - begin
        length = source_length + end - middle + 1
        column = np.arange(length.max())
        # the first [SEP] pushes the target on by one place
        place = (begin - 1 - prompt_length)[:, None] + column - (column >= source_length[:, None])
        rows = ids.take(place, mode="clip").astype(np.int64) if len(ids) else np.zeros(place.shape, dtype=np.int64)
        rows[column >= length[:, None]] = self.tokenizer.pad_id
        every = np.arange(len(rows))
        rows[every, source_length - 1] = rows[every, length - 1] = self.tokenizer.sep_id
        head = column[: self.heads.shape[1]]
        rows[:, : len(head)] = np.where(
            head <= prompt_length[:, None], self.heads[skills, : len(head)], rows[:, : len(head)]
        )
        lengths = (torch.from_numpy(values) for values in (source_length, prompt_length, end - middle))
        return Batch(torch.from_numpy(rows), *lengths, self.tokenizer.pad_id, self.tokenizer.mask_id)


class EpochBatches(torch.utils.data.Dataset):
    """The batches of one epoch, wholly determined by (seed, epoch): neither workers nor a resume change them.

    Each example gets a skill (pair / no source / continue) and occurs once, or with ``config.task_balance`` at most
    once. Within a window of ``WINDOW`` batches every skill (the pairs of all tasks together) is sorted by its own
    length and spread over the batches from short to long, so that every batch holds all skills; but examples without
    source, which are about half as long, are moved to the short end by the distribution ``PLACEMENT``, for there they
    need less padding. A batch has ``batch_size`` examples, or as many as ``config.tokens_per_batch`` allows (rows x
    width, padding included). The share ``config.style_dropout`` of the examples with a style gets the prompt without
    it. Each target stands ``config.noise_draws`` times in its row (``Batch.repeated``).
    """

    WINDOW = 64  # batches sorted by length together
    # share x of the way from short to long -> share of the examples without source below it: density 0.2 + 4 (1 - x)^4
    PLACES = np.linspace(0.0, 1.0, 1001)
    PLACEMENT = 0.2 * PLACES + 0.8 * (1 - (1 - PLACES) ** 5)

    def __init__(
        self,
        data: EncodedPairs | EncodedMix,
        collator: Collator,
        config: DataConfig,
        batch_size: int,
        seed: int,
        epoch: int,
    ):
        self.data, self.collator = data, collator
        rng = np.random.default_rng([seed, epoch])
        draw, self.cuts = rng.random(len(data), dtype=np.float32), rng.random(len(data), dtype=np.float32)
        # plain texts have no pair to learn: some are continued, the others written without a source
        no_source = np.where(data.has_source, config.source_dropout, 1 - config.text_continue_share)
        continued = np.where(data.has_source, config.source_dropout + config.continue_share, 1.0)
        pair = PAIR if data.pair_skills is None else data.pair_skills
        if data.plain_skills is not None:
            styleless = (
                np.random.default_rng([seed, epoch, 1]).random(len(data), dtype=np.float32) < config.style_dropout
            )
            pair = np.where(styleless, data.plain_skills, pair)
        going_on = CONTINUE if data.continue_skills is None else data.continue_skills
        self.skills = np.where(draw < no_source, NO_SOURCE, np.where(draw < continued, going_on, pair)).astype(np.int16)
        self.draws = config.noise_draws
        lengths = self.draws * (data.target_lengths + 1) + np.where(is_pair(self.skills), data.source_lengths, 0) + 2
        lengths += collator.prompt_lengths[self.skills]
        chosen = balanced_choice([len(part) for part in data.parts], config.task_balance, seed, epoch)
        self.order = rng.permutation(len(data)) if chosen is None else rng.permutation(chosen)
        starts = []
        window = batch_size * self.WINDOW
        for first in range(0, len(self.order), window):
            part = self.order[first : first + window]
            part[:] = part[np.argsort(self._places(self.skills[part], lengths[part]), kind="stable")]
            cuts = [first + cut for cut in _cut(lengths[part], batch_size, config.tokens_per_batch)]
            for start, stop in zip(cuts, [*cuts[1:], first + len(part)]):
                # times are spread evenly over the rows: their order must not be that of the lengths
                self.order[start:stop] = rng.permutation(self.order[start:stop])
            starts += cuts
        self.starts = np.array([*starts, len(self.order)])
        self.numbers = rng.permutation(len(starts))

    def _places(self, skills: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Where on the way from short (0) to long (1) each example of a window stands."""
        places = np.empty(len(skills))
        # the pairs of all tasks together: like lengths, whatever the task
        skills = np.where(is_pair(skills), PAIR, np.where(is_continuing(skills), CONTINUE, skills))
        for skill in (PAIR, NO_SOURCE, CONTINUE):
            members = np.flatnonzero(skills == skill)
            members = members[np.argsort(lengths[members], kind="stable")]
            place = (np.arange(len(members)) + 0.5) / max(1, len(members))
            places[members] = place if skill == PAIR else np.interp(place, self.PLACEMENT, self.PLACES)
        return places

    def __len__(self) -> int:
        return len(self.numbers)

    def indices(self, number: int) -> np.ndarray:
        """Which examples batch ``number`` holds."""
        place = self.numbers[number]
        return self.order[self.starts[place] : self.starts[place + 1]]

    def __getitem__(self, number: int) -> Batch:
        indices = self.indices(number)
        return self.collator.gather(self.data, indices, self.skills[indices], self.cuts[indices]).repeated(self.draws)


def _cut(lengths: np.ndarray, batch_size: int, tokens: int | None) -> list[int]:
    """Where batches begin in a row of examples: after ``batch_size`` of them, or before rows x width exceeds
    ``tokens``.
    """
    if tokens is None:
        return list(range(0, len(lengths), batch_size))
    starts, width = [0], 0
    for place, length in enumerate(lengths.tolist()):
        rows, width = place - starts[-1] + 1, max(width, length)
        if rows > 1 and (rows > batch_size or rows * width > tokens):
            starts.append(place)
            width = length
    return starts


def balanced_choice(sizes: Sequence[int], balance: str, seed: int, epoch: int) -> np.ndarray | None:
    """The examples of an epoch when tasks of these sizes n are balanced; None stands for all.

    ``equal`` takes min n of each, ``sqrt`` sqrt(n min n): the whole smallest task and a part of the others. Successive
    epochs walk through a shuffled task part by part; when what is left no longer makes a part it is shuffled again, so
    that nothing occurs twice in an epoch.
    """
    if balance == "proportional" or len(sizes) < 2:
        return None
    smallest, chosen, start = min(sizes), [], 0
    for number, size in enumerate(sizes):
        count = smallest if balance == "equal" else min(size, round((size * smallest) ** 0.5))
        turn, part = divmod(epoch, size // count) if count else (0, 0)
        shuffled = np.random.default_rng([seed, 2, number, turn]).permutation(size)
        chosen.append(start + shuffled[part * count : (part + 1) * count])
        start += size
    return np.concatenate(chosen)


def spread_choice(count: int, limit: int | None) -> np.ndarray:
    """Indices of at most ``limit`` of ``count`` examples, evenly spread."""
    return np.arange(count) if limit is None or count <= limit else np.linspace(0, count - 1, limit).astype(int)


def fixed_choice(data: EncodedPairs | EncodedMix, limit: int | None = None) -> list[np.ndarray]:
    """The examples of a yardstick, by task: ``spread_choice`` of each, at most as many of one task as of another."""
    share = None if limit is None else limit // len(data.parts)
    starts = np.cumsum([0, *map(len, data.parts)])
    return [start + spread_choice(len(part), share) for start, part in zip(starts, data.parts)]


def fixed_batches(
    data: EncodedPairs | EncodedMix, collator: Collator, batch_size: int = 64, limit: int | None = None
) -> list[Batch]:
    """Batches for validation: the same examples (``fixed_choice``) in the same batches every time, sorted by length.

    Plain texts are taken without source. Every batch is of one task (``batch_tasks``).
    """
    lengths, batches = data.source_lengths + data.target_lengths, []
    pairs = np.full(len(data), PAIR) if data.pair_skills is None else data.pair_skills
    for chosen in fixed_choice(data, limit):
        chosen = chosen[np.argsort(lengths[chosen], kind="stable")]
        groups = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
        batches += [
            collator.gather(data, group, np.where(data.has_source[group], pairs[group], NO_SOURCE)) for group in groups
        ]
    return batches


def batch_tasks(data: EncodedPairs | EncodedMix, batch_size: int = 64, limit: int | None = None) -> list[int]:
    """The number of the task of each of ``fixed_batches``."""
    return [task for task, chosen in enumerate(fixed_choice(data, limit)) for _ in range(0, len(chosen), batch_size)]
