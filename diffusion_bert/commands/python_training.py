"""``diffusion_bert.train``: what the two training scripts do, as one call in Python."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from ..config.paths import CONFIG_FILE, checkpoint_file
from ..config.run_config import RunConfig
from ..config.schema import BUILT_IN_SIZES, TrainingConfig
from ..data.reading import SOURCE_NAMES, STYLE_NAMES, TARGET_NAMES, named_as
from ..errors import UserError
from ..generation.generator import DiffusionTextGenerator
from ..machine.device import pick_device
from ..machine.hub import is_repo, local_copy, settings_of_repo
from ..machine.storage import write_atomically
from ..machine.streams import on_reader_gone
from ..model.payload import FORMAT
from ..training.interruption import random_state, restore_random_state
from .child_settings import BELONGS_TO_WEIGHTS, child_config
from .cli import settings_of
from .training_run import trained

DATA = ("train_file", "data_dir", "dataset_name")
EXPECTED = "expected (source, target), {'src': ..., 'trg': ...}, or a plain text"


def train(pairs_or_file, base: str | Path = "tiny", quiet: bool = False, **settings) -> DiffusionTextGenerator:
    """Train a model, and return the generator of its best checkpoint; ``run_directory`` of it says where the run is.

    >>> g = diffusion_bert.train([("How do I bake bread?", "What is the way to bake bread?"), ...], epochs=20)
    >>> g.paraphrase_text("How do I bake a cake?")

    It shows and leaves what the scripts do. Pairs that are given as a list are also written to ``output_dir``, as
    pairs_DIGEST.jsonl, so that the run can be resumed and evaluated. Ctrl-C (in a notebook, the stop button) finishes
    the step, saves, and then raises KeyboardInterrupt. Random states, threads and signal handlers are afterwards what
    they were.

    Args:
        pairs_or_file: (source, target) tuples, {"src", "trg"} dictionaries (perhaps with "style"), or plain texts; or
            a file (.jsonl, .csv, .tsv, .txt) or folder, as the scripts take it.
        base: what training begins with: a built-in size (tiny, mini, small), a BERT (folder or hub id), or a
            checkpoint to train on from (file, run directory, folder or hub id).
        quiet: show nothing.
        settings: ``preset``, and every setting of docs/training.md by its name.

    Raises:
        UserError: no such data, base or setting, or values that do not fit.
    """
    _refuse(settings)
    parent = _parent(base)
    source, text = _data(pairs_or_file, settings.get("output_dir", TrainingConfig.output_dir))
    preset = settings.get("preset")
    if parent is None:
        start = {"model_name_or_path": os.fspath(base)}
        config = RunConfig.from_flat(settings_of({**settings, **source, **start}))
    else:
        for name in (name for name in settings if name in BELONGS_TO_WEIGHTS):
            raise UserError(f"{name} belongs to the weights of {base}: leave it out, or train from a built-in size")
        config = child_config(parent, {**settings, **source})
    if text is not None:
        _write(Path(source["train_file"]), text)
    with _left_as_it_was(pick_device(config.training.device)), _silence() if quiet else contextlib.nullcontext():
        _, run, result = trained(config, parent, preset=preset)
        generator = DiffusionTextGenerator.from_checkpoint(run.best, device=config.training.device)
    if result.reason == "interrupted" and result.signal is not None:
        signal.raise_signal(result.signal)  # to whoever handles it outside: Ctrl-C raises KeyboardInterrupt
    generator.run_directory = run.path
    return generator


def _refuse(settings: dict) -> None:
    """Settings that the two arguments stand for, or that leave no model."""
    for name in DATA:
        if settings.get(name) is not None:
            raise UserError(f"{name} is given, but the data is the first argument: a list, a file or a folder")
    if settings.get("model_name_or_path") is not None:
        raise UserError("model_name_or_path is given: say base=... instead")
    if settings.get("dry_run"):
        raise UserError("dry_run leaves no model to return: drop it, or use run_conditional_training.py --dry_run")


def _parent(base: str | Path) -> Path | None:
    """The checkpoint that is meant by ``base``, or None where that is a built-in size or a BERT."""
    if not isinstance(base, (str, os.PathLike)):
        raise UserError(f"base is of type {type(base).__name__}: expected a built-in size, a path or a hub id")
    path, name = Path(base), os.fspath(base)
    if name in BUILT_IN_SIZES:
        return None
    if path.is_dir():
        ours = (path / "best_model.pt").is_file() or _format(path / CONFIG_FILE) == FORMAT
        return checkpoint_file(path) if ours else None
    if path.is_file() or path.suffix == ".pt":
        return checkpoint_file(path)
    if is_repo(name) and settings_of_repo(name).get("format") == FORMAT:
        return checkpoint_file(local_copy(name))
    return None


def _format(path: Path) -> str | None:
    """What a config.json says its folder is; None where it says nothing."""
    try:
        return json.loads(path.read_bytes()).get("format")
    except (OSError, ValueError, AttributeError):
        return None


def _data(pairs_or_file, output_dir: str | Path) -> tuple[dict, str | None]:
    """The setting that names the data, and what is to be written there first, if it is given as a list."""
    if isinstance(pairs_or_file, (str, os.PathLike)):
        path = Path(pairs_or_file)
        return {"data_dir" if path.is_dir() else "train_file": str(path)}, None
    if isinstance(pairs_or_file, (Mapping, bytes)) or not isinstance(pairs_or_file, Iterable):
        raise UserError(f"the data is of type {type(pairs_or_file).__name__}: expected a list of pairs, or a path")
    if hasattr(pairs_or_file, "columns"):
        raise UserError("the data is a table with columns: expected a list, such as table.to_dict('records') gives")
    rows = [_row(item, number) for number, item in enumerate(pairs_or_file)]
    if not rows:
        raise UserError("the list of pairs is empty: expected at least one")
    for number, row in enumerate(rows):
        if ("text" in row) != ("text" in rows[0]):
            raise UserError(
                f"item {number} of the list is {_kind(row)}, but the first is {_kind(rows[0])}: give one kind"
            )
    text = "".join(json.dumps(row) + "\n" for row in rows)
    name = f"pairs_{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"
    return {"train_file": str(Path(output_dir) / name)}, text


def _row(item, number: int) -> dict:
    """One item of a list as the row of a file; an empty source is legal, an empty target teaches nothing."""
    if isinstance(item, Mapping):
        row = {str(name): value for name, value in item.items()}
        names = (SOURCE_NAMES, TARGET_NAMES, STYLE_NAMES, ("text",))
        source, target, style, text = (named_as(row, known) for known in names)
    elif isinstance(item, str):
        source = target = style = None
        text = item
    elif isinstance(item, (tuple, list)) and len(item) == 2:
        (source, target), style, text = item, None, None
    else:
        size = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
        raise UserError(f"item {number} of the list is a {type(item).__name__}{size}: {EXPECTED}")
    row = {"text": text} if source is None and target is None else {"src": source, "trg": target}
    for name, value in row.items():
        if not isinstance(value, str):
            what = "missing" if value is None else f"of type {type(value).__name__}"
            raise UserError(f"item {number} of the list: {name} is {what}; {EXPECTED}")
    if not [*row.values()][-1].strip():
        raise UserError(f"item {number} of the list: {[*row][-1]} is empty; {EXPECTED}")
    return row if style is None else {**row, "style": style}


def _kind(row: dict) -> str:
    return "a plain text" if "text" in row else "a pair"


def _write(path: Path, text: str) -> None:
    """Write the rows of a list; its name says what is in it, so that a file which is there is the same."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {path.parent}: {error.strerror}; choose another output_dir") from None
    if not path.is_file():
        write_atomically(path, lambda file: file.write(text.encode()))


@contextlib.contextmanager
def _left_as_it_was(device: torch.device) -> Iterator[None]:
    """After this block the random generators and torch's threads are what they were, and nobody listens to stdout."""
    state, threads = random_state(device), torch.get_num_threads()
    try:
        yield
    finally:
        restore_random_state(state, device)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        on_reader_gone(None)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Nothing is shown in this block, neither lines nor bars."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
