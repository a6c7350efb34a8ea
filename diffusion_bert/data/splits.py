"""The data of the tasks: where it comes from, and its splits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..config.schema import DataConfig
from ..config.tasks import CONTINUE_PROMPT as CONTINUE_PROMPT
from ..config.tasks import PROMPTS as PROMPTS
from ..config.tasks import TASKS, task_names
from ..errors import UserError
from .mapped_pairs import MappedPairs
from .pairs import MixedPairs, Pair
from .skills import commands_of as commands_of
from .sources import Splits, from_dataset, from_files, from_folder, from_grammar, from_hub, take


def load_pairs(config: DataConfig, seed: int = 0) -> Splits:
    """The data of a run: own files, a folder, the bundled sample or the hub; then the seeded ``max_samples`` of the
    training split, in both directions if ``symmetric``. Several tasks give mixed pairs, with ``max_samples`` of each.

    Raises:
        UserError: anything missing, unreadable or too broken, or a task that only goes one way.
    """
    if "," in config.task_name:
        return _from_tasks(config, seed)
    if config.symmetric and not TASKS[config.task_name].reversible:
        raise UserError(
            f"symmetric is true but {config.task_name} goes one way only: drop it, or take a paraphrase task"
        )
    if config.train_file:
        splits = from_files(config, seed)
    elif config.data_dir:
        splits = from_folder(config, seed)
    elif config.dataset_name:
        splits = from_dataset(config, seed)
    elif config.task_name == "sample":
        splits = from_grammar()
    else:
        splits = from_hub(TASKS[config.task_name])
    if config.task_name == "text" and any(
        pair.source is not None for part in (splits.train, splits.valid, splits.test) for pair in part[:1]
    ):
        raise UserError("task text takes plain texts but its data has sources: give a .txt file, or take another task")
    if config.max_samples is not None and config.max_samples < len(splits.train):
        splits.notes.append(
            f"max_samples: {config.max_samples:,} of {len(splits.train):,} training rows, drawn with seed {seed}"
        )
        splits.train = take_sample(splits.train, config.max_samples, seed)
    if config.symmetric:
        mapped = isinstance(splits.train, MappedPairs)
        turned = (
            splits.train.turned()
            if mapped
            else [Pair(pair.target, pair.source) for pair in splits.train if pair.source]
        )
        splits.notes.append(f"symmetric: {len(turned):,} pairs are trained in the other direction as well")
        splits.train = splits.train + turned
    return splits


def _from_tasks(config: DataConfig, seed: int) -> Splits:
    """Several tasks, each from its own folder below ``data_dir``, or from where it would come on its own."""
    names = task_names(config.task_name)
    folder = None if config.data_dir is None else Path(config.data_dir)
    if folder is not None and not folder.is_dir():
        several = " (not several)" if "," in config.data_dir else ""
        raise UserError(
            f"{folder}: no such folder; several tasks expect one folder{several} that holds one per task:"
            f" {', '.join(names)}"
        )
    if config.symmetric and not any(TASKS[name].reversible for name in names):
        raise UserError(
            f"symmetric is true but {config.task_name} all go one way only: drop it, or add a paraphrase task"
        )
    notes: list[str] = []
    parts: dict[str, Splits] = {}
    for name in names:
        parts[name] = load_pairs(one_task(config, name), seed)
        notes += [f"{name}: {note}" for note in parts[name].notes]
    mixed = (
        MixedPairs({name: getattr(part, split) for name, part in parts.items()}) for split in ("train", "valid", "test")
    )
    return Splits(*mixed, notes)


def one_task(config: DataConfig, task: str) -> DataConfig:
    """The settings by which one of several tasks is loaded: from its folder below ``data_dir``, if there is one."""
    own = None if config.data_dir is None else Path(config.data_dir) / task
    if own is not None and task == "sample" and not own.is_dir():
        own = None
    return replace(
        config, task_name=task, data_dir=own and str(own), symmetric=config.symmetric and TASKS[task].reversible
    )


def take_sample(pairs: Sequence[Pair], size: int | None, seed: int) -> Sequence[Pair]:
    """A seeded sample in the original order; all of them when there are no more than ``size``."""
    if size is None or size >= len(pairs):
        return pairs
    return take(pairs, sorted(random.Random(seed).sample(range(len(pairs)), size)))
