"""The tasks: which prompt, which data, and where it comes from."""

from __future__ import annotations

import http.client
import os
import random
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from .config import DataConfig
from .errors import UserError
from .reading import Pair, read_file

CONTINUE_PROMPT = "continue:"


@dataclass(frozen=True)
class Task:
    """One task. ``prompt`` chooses the skill, T5 style; ``product`` is what the REPL says it writes.

    ``hub`` is (dataset, configuration, source column, target column) on the Hugging Face hub, where it can be had
    without a loading script. ``reversible``: the source is as good a target.
    """

    name: str
    prompt: str
    product: str
    hub: tuple[str, str, str, str] | None = None
    reversible: bool = False


TASKS = {
    task.name: task
    for task in (
        Task("sample", "paraphrase:", "a paraphrase", reversible=True),
        Task("qqp", "paraphrase:", "a paraphrase", hub=("nyu-mll/glue", "qqp", "question1", "question2"), reversible=True),
        Task("QT", "question:", "a question about it"),
        Task("wiki_alignment", "simplify:", "a simpler version"),
        Task("CC", "reply:", "a reply to it"),
        Task("custom", "paraphrase:", "a new version", reversible=True),
    )
}
PROMPTS = tuple(dict.fromkeys([task.prompt for task in TASKS.values()] + [CONTINUE_PROMPT]))


@dataclass
class Splits:
    """Pairs of the three splits, and lines that tell what was left out or substituted."""

    train: list[Pair]
    valid: list[Pair]
    test: list[Pair]
    notes: list[str] = field(default_factory=list)


def load_pairs(config: DataConfig, seed: int = 0) -> Splits:
    """The data of a run: own files, a folder, the bundled sample or the hub; then the seeded ``max_samples`` of the training split,
    in both directions if ``symmetric``.

    Raises:
        UserError: anything missing, unreadable or too broken, or a task that only goes one way.
    """
    if config.symmetric and not TASKS[config.task_name].reversible:
        raise UserError(f"symmetric is true but {config.task_name} goes one way only: drop it, or take a paraphrase task")
    if config.train_file:
        splits = _from_files(config, seed)
    elif config.data_dir:
        splits = _from_folder(config)
    elif config.task_name == "sample":
        splits = _from_grammar()
    else:
        splits = _from_hub(TASKS[config.task_name])
    if config.max_samples is not None and config.max_samples < len(splits.train):
        splits.notes.append(f"max_samples: {config.max_samples:,} of {len(splits.train):,} training rows, drawn with seed {seed}")
        splits.train = take_sample(splits.train, config.max_samples, seed)
    if config.symmetric:
        turned = [Pair(pair.target, pair.source) for pair in splits.train if pair.source]
        splits.notes.append(f"symmetric: {len(turned):,} pairs are trained in the other direction as well")
        splits.train = splits.train + turned
    return splits


def take_sample(pairs: list[Pair], size: int | None, seed: int) -> list[Pair]:
    """A seeded sample in the original order; all of them when there are no more than ``size``."""
    if size is None or size >= len(pairs):
        return pairs
    return [pairs[index] for index in sorted(random.Random(seed).sample(range(len(pairs)), size))]


def read_pairs(path: str | Path, config: DataConfig, notes: list[str]) -> list[Pair]:
    """The pairs of one file; malformed rows are left out and counted in ``notes``."""
    report = read_file(path, config.max_bad_rows)
    if report.bad_rows:
        notes.append(f"{len(report.bad_rows)} malformed rows left out, the first: {report.bad_rows[0]}")
    return report.pairs


def _from_files(config: DataConfig, seed: int) -> Splits:
    notes: list[str] = []
    train = read_pairs(config.train_file, config, notes)
    valid = read_pairs(config.valid_file, config, notes) if config.valid_file else []
    test = read_pairs(config.test_file, config, notes) if config.test_file else []
    if not valid:
        train, valid = _hold_out(train, seed)
        notes.append(f"{len(valid):,} rows of {config.train_file} held out for validation")
    return _with_test(Splits(train, valid, test, notes))


def _hold_out(pairs: list[Pair], seed: int) -> tuple[list[Pair], list[Pair]]:
    """5 % (1 to 1,000 rows) for validation; identical rows stay on one side. A single distinct row has to serve for both."""
    distinct = list(dict.fromkeys(pairs))
    if len(distinct) < 2:
        return pairs, distinct
    chosen = set(random.Random(seed).sample(distinct, min(1000, max(1, len(distinct) // 20))))
    return [pair for pair in pairs if pair not in chosen], [pair for pair in distinct if pair in chosen]


def _with_test(splits: Splits) -> Splits:
    if not splits.test:
        splits.test = splits.valid
        splits.notes.append("no test data: the validation data stands in for it")
    return splits


def _from_folder(config: DataConfig) -> Splits:
    folder = Path(config.data_dir)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --data_dir expects one with train.jsonl and valid.jsonl")
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


def _from_hub(task: Task) -> Splits:
    """GLUE/QQP's positive pairs; its validation split is halved into valid and test, since the test labels are hidden."""
    if task.name == "custom":
        raise UserError("task custom has no data of its own: give --train_file or --data_dir")
    if task.hub is None:
        raise UserError(
            f"task {task.name} cannot be had from the hub without a loading script: pass --data_dir with train.jsonl and valid.jsonl (src, trg)"
        )
    name, configuration, source, target = task.hub
    advice = "pass --data_dir with train.jsonl and valid.jsonl (src, trg), or try --task_name sample, which needs no download"
    require_hub(f"the data of task {task.name} ({name})", advice)
    import datasets

    try:
        loaded = datasets.load_dataset(name, configuration)
    except Exception as error:  # the library lets errors of several network libraries through
        raise UserError(f"cannot load {name} from the Hugging Face hub ({type(error).__name__}: {str(error)[:100]}); {advice}") from None
    train, held_out = (
        [Pair(row[source].strip(), row[target].strip()) for row in loaded[split] if row["label"] == 1 and row[target].strip()]
        for split in ("train", "validation")
    )
    return Splits(train, held_out[0::2], held_out[1::2], ["GLUE validation pairs halved into valid and test (its test labels are hidden)"])


def require_hub(what: str, advice: str, timeout: float = 4.0) -> None:
    """Fail within ``timeout`` seconds when the hub cannot be reached; left alone the libraries retry for 23 s.

    Files already in the local cache still load: set HF_HUB_OFFLINE=1.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    answer: list[str] = []
    # in a thread, because a name lookup that hangs knows no timeout
    probe = threading.Thread(target=lambda: answer.append(_knock(endpoint, timeout)), daemon=True)
    probe.start()
    probe.join(timeout)
    problem = answer[0] if answer else f"no answer within {timeout:g} s"
    if problem:
        raise UserError(f"cannot reach {endpoint} for {what} ({problem}); {advice}")


def _knock(endpoint: str, timeout: float) -> str:
    """Empty when the server answers at all, else the reason."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError:
        return ""  # it answered
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    return ""
