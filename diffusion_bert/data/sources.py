"""Where rows come from: files, a folder, the bundled grammar, or the Hugging Face hub, each as three splits."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..config.schema import DataConfig
from ..config.tasks import CONTINUE_PROMPT as CONTINUE_PROMPT
from ..config.tasks import PROMPTS as PROMPTS
from ..config.tasks import Task
from ..errors import UserError
from .cache import Cache, CacheUnwritable, file_digest, fingerprint
from .hub_rows import VALIDATION_NAMES, HubRows, load_splits
from .mapped_pairs import MappedPairs
from .pairs import Pair
from .reading import ReadReport, stream_file
from .skills import commands_of as commands_of

HOLD_OUT_SEED = 42


@dataclass
class Splits:
    """Pairs of the three splits, in memory or mapped from a file, and lines that say what was left out or
    substituted.
    """

    train: Sequence[Pair]
    valid: Sequence[Pair]
    test: Sequence[Pair]
    notes: list[str] = field(default_factory=list)


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


def from_files(config: DataConfig, seed: int) -> Splits:
    """The splits of ``--train_file``, ``--valid_file`` and ``--test_file``."""
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
        if len(valid) == 1 and train[0] == valid[0]:
            notes.append(f"the one row of {name} is its own validation data: the NELBO says nothing about other texts")
        else:
            rows = "1 row" if len(valid) == 1 else f"{len(valid):,} rows"
            notes.append(f"{rows} of {name} held out for validation")
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


def from_folder(config: DataConfig, seed: int) -> Splits:
    """The splits of ``--data_dir``: train, valid and perhaps test, .jsonl of pairs; of plain texts .txt, or .jsonl
    with text and perhaps style.
    """
    folder = Path(config.data_dir)
    text = config.task_name == "text"
    first = "train.txt" if text else "train.jsonl"
    if not (folder / first).is_file() and (folder / config.task_name / first).is_file():
        folder /= config.task_name  # the folder that holds those of several tasks
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; --data_dir expects one with"
            f" {'train.txt (or train.jsonl with text and style)' if text else 'train.jsonl and valid.jsonl'}"
        )
    if text:
        endings = [ending for ending in (".txt", ".jsonl") if (folder / f"train{ending}").is_file()]
        ending = (*endings, ".txt")[0]
        given = {"train": None, "valid": config.valid_file, "test": config.test_file}
        found = {split: file or folder / f"{split}{ending}" for split, file in given.items()}
        files = {
            f"{split}_file": str(path) if split == "train" or given[split] or path.is_file() else None
            for split, path in found.items()
        }
        return from_files(replace(config, **files), seed)
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


def from_grammar() -> Splits:
    """The splits of the bundled task."""
    from .grammar import Grammar

    grammar = Grammar.load()
    return Splits(*([Pair(*pair) for pair in grammar.pairs(name)] for name in ("train", "valid", "test")))


def from_dataset(config: DataConfig, seed: int) -> Splits:
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


def from_hub(task: Task) -> Splits:
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
