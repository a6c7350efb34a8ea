"""The data of the tasks: where it comes from, and its splits."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..config.schema import DataConfig
from ..config.tasks import CONTINUE_PROMPT as CONTINUE_PROMPT
from ..config.tasks import PROMPTS as PROMPTS
from ..config.tasks import TASKS, Task, task_names
from ..errors import UserError
from .cache import Cache, CacheUnwritable, file_digest, fingerprint
from .hub_rows import VALIDATION_NAMES, HubRows, load_splits
from .mapped_pairs import MappedPairs
from .pairs import MixedPairs, Pair
from .reading import ReadReport, stream_file
from .skills import commands_of as commands_of

HOLD_OUT_SEED = 42


@dataclass
class Splits:
    """Pairs of the three splits, in memory or mapped from a file, and lines that tell what was left out or
    substituted.
    """

    train: Sequence[Pair]
    valid: Sequence[Pair]
    test: Sequence[Pair]
    notes: list[str] = field(default_factory=list)


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
        splits = _from_files(config, seed)
    elif config.data_dir:
        splits = _from_folder(config, seed)
    elif config.dataset_name:
        splits = _from_dataset(config, seed)
    elif config.task_name == "sample":
        splits = _from_grammar()
    else:
        splits = _from_hub(TASKS[config.task_name])
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


def take(pairs: Sequence[Pair], places: Iterable[int]) -> Sequence[Pair]:
    """The pairs at these places, in memory or mapped as they were."""
    return pairs.take(np.asarray(places)) if isinstance(pairs, MappedPairs) else [pairs[place] for place in places]


def read_pairs(path: str | Path, config: DataConfig, notes: list[str]) -> Sequence[Pair]:
    """The pairs of one file; malformed rows are left out and counted in ``notes``. A large file is read into the cache
    and mapped.
    """
    path = Path(path)
    report = ReadReport(path, config.max_bad_rows)
    large = path.is_file() and path.stat().st_size > config.cache_above_mb * 1e6
    return _read(
        stream_file, report, config, notes, (lambda: (path.suffix.lower(), file_digest(path))) if large else None
    )


def _read(stream, report: ReadReport, config: DataConfig, notes: list[str], content) -> Sequence[Pair]:
    """``stream(report)`` as a list; or, if ``content`` gives what identifies it, by way of the cache."""
    pairs = None
    if content is not None:
        try:
            name = f"rows-{fingerprint(config.max_bad_rows, *content())}"
            pairs = MappedPairs.write(
                Cache(config.cache_dir),
                name,
                stream(report),
                lambda: {"bad_rows": report.bad_rows, "path": str(report.path)},
            )
            meta = pairs.entry.meta  # the same content may have lain elsewhere
            report.bad_rows = [str(report.path) + row.removeprefix(meta["path"]) for row in meta["bad_rows"]]
        except CacheUnwritable as error:
            notes.append(f"cannot write to the cache {error}; {report.path} is held in memory")
            report.bad_rows.clear()
        except OSError as error:
            raise UserError(f"cannot read {report.path}: {error.strerror}; check its permissions") from None
    if pairs is None:
        pairs = list(stream(report))
    if report.bad_rows:
        notes.append(f"{len(report.bad_rows)} malformed rows left out, the first: {report.bad_rows[0]}")
    return pairs


def _from_files(config: DataConfig, seed: int) -> Splits:
    notes: list[str] = []
    train = read_pairs(config.train_file, config, notes)
    valid = read_pairs(config.valid_file, config, notes) if config.valid_file else []
    test = read_pairs(config.test_file, config, notes) if config.test_file else []
    return _complete(train, valid, test, config.train_file, seed, notes)


def _complete(train, valid, test, name: str, seed: int, notes: list[str]) -> Splits:
    """The three splits, with held-out rows for a missing validation split and the validation split for a missing test
    split.
    """
    if not valid:
        train, valid = _hold_out(train)
        notes.append(f"{len(valid):,} rows of {name} held out for validation")
    return _with_test(Splits(train, valid, test, notes))


def _hold_out(pairs: Sequence[Pair]) -> tuple[Sequence[Pair], list[Pair]]:
    """5 % (1 to 1,000 rows) for validation, the same whatever the seed of the training: a child with another one, or a
    student, must not be validated on what its parent or teacher learned. Identical rows stay on one side. A single
    distinct row has to serve for both.
    """
    if isinstance(pairs, MappedPairs):
        hashes = pairs.hashes
        first = np.sort(np.unique(hashes, return_index=True)[1])  # where each distinct row stands first
    else:
        where = {pair: place for place, pair in reversed(list(enumerate(pairs)))}
        hashes, first = None, np.sort(np.fromiter(where.values(), dtype=np.int64, count=len(where)))
    if len(first) < 2:
        return pairs, [pairs[place] for place in first]
    size = min(1000, max(1, len(first) // 20))
    chosen = first[sorted(random.Random(HOLD_OUT_SEED).sample(range(len(first)), size))]
    valid = [pairs[int(place)] for place in chosen]
    if hashes is not None:
        return pairs.take(np.flatnonzero(~np.isin(hashes, hashes[chosen]))), valid
    held = set(valid)
    return [pair for pair in pairs if pair not in held], valid


def _with_test(splits: Splits) -> Splits:
    if not splits.test:
        splits.test = splits.valid
        splits.notes.append("no test data: the validation data stands in for it")
    return splits


def _from_folder(config: DataConfig, seed: int) -> Splits:
    folder = Path(config.data_dir)
    text = config.task_name == "text"
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; --data_dir expects one with"
            f" {'train.txt' if text else 'train.jsonl and valid.jsonl'}"
        )
    if text:
        found = {
            split: config_file or path
            for split, config_file in (("valid", config.valid_file), ("test", config.test_file))
            if (path := folder / f"{split}.txt").is_file() or config_file
        }
        return _from_files(
            replace(
                config, train_file=str(folder / "train.txt"), valid_file=found.get("valid"), test_file=found.get("test")
            ),
            seed,
        )
    notes: list[str] = []
    paths = {
        "train": folder / "train.jsonl",
        "valid": Path(config.valid_file or folder / "valid.jsonl"),
        "test": Path(config.test_file or folder / "test.jsonl"),
    }
    splits = Splits(read_pairs(paths["train"], config, notes), read_pairs(paths["valid"], config, notes), [], notes)
    if config.test_file or paths["test"].is_file():
        splits.test = read_pairs(paths["test"], config, notes)
    return _with_test(splits)


def _from_grammar() -> Splits:
    from .grammar import Grammar

    grammar = Grammar.load()
    return Splits(*([Pair(*pair) for pair in grammar.pairs(name)] for name in ("train", "valid", "test")))


def _from_dataset(config: DataConfig, seed: int) -> Splits:
    """The splits of ``--dataset_name``: train (or the only one there is), validation and test."""
    name, notes = config.dataset_name, []
    advice = "check --dataset_name and --dataset_config, or pass --train_file or --data_dir"
    loaded = load_splits(name, config.dataset_config, f"the dataset {name}", advice)

    def rows(split: str) -> Sequence[Pair]:
        source = HubRows(loaded[split], f"{name}/{split}", config.source_column, config.target_column)
        report = ReadReport(Path(source.name), config.max_bad_rows, unit="row")
        large = source.size > config.cache_above_mb * 1e6
        return _read(source.stream, report, config, notes, (lambda: ("hub", source.fingerprint)) if large else None)

    train = "train" if "train" in loaded else next(iter(loaded)) if len(loaded) == 1 else None
    if train is None:
        raise UserError(
            f"{name} has no split train: its splits are {', '.join(loaded)}; make files of them for --train_file and"
            " --valid_file"
        )
    valid = next((split for split in VALIDATION_NAMES if split in loaded and split != train), None)
    return _complete(
        rows(train),
        rows(valid) if valid else [],
        rows("test") if "test" in loaded and train != "test" else [],
        name,
        seed,
        notes,
    )


def _from_hub(task: Task) -> Splits:
    """GLUE/QQP's positive pairs; its validation split is halved into valid and test, since the test labels are
    hidden.
    """
    if task.name in ("custom", "text"):
        raise UserError(f"task {task.name} has no data of its own: give --train_file or --data_dir")
    if task.hub is None:
        raise UserError(
            f"task {task.name} cannot be had from the hub without a loading script: pass --data_dir with train.jsonl"
            " and valid.jsonl (src, trg)"
        )
    name, configuration, source, target = task.hub
    advice = (
        "pass --data_dir with train.jsonl and valid.jsonl (src, trg), or try --task_name sample, which needs no"
        " download"
    )
    loaded = load_splits(name, configuration, f"the data of task {task.name} ({name})", advice)
    train, held_out = (
        [
            Pair(row[source].strip(), row[target].strip())
            for row in loaded[split]
            if row["label"] == 1 and row[target].strip()
        ]
        for split in ("train", "validation")
    )
    return Splits(
        train,
        held_out[0::2],
        held_out[1::2],
        ["GLUE validation pairs halved into valid and test (its test labels are hidden)"],
    )
