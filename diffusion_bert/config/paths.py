"""Where checkpoints are found, and which run is meant when none is named. It needs no torch, so that a wrong path is
refused at once.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from ..errors import UserError

RUN_STATE = "state.json"  # where a training stands, in its run directory
CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "config.json", "model.safetensors", "tokenizer.json"
FOLDER_FILES = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE)  # a model as a folder cannot do without them
ROOT = Path(__file__).resolve().parent.parent.parent


def beside_or_inside(name: str) -> Path:
    """A folder that came with the program: inside the package where it is installed, in a checkout beside it."""
    package = Path(__file__).resolve().parent.parent
    return package / name if (package / name).is_dir() else package.parent / name


BUNDLED = beside_or_inside("checkpoints")


def shown(path: str | Path) -> str:
    """A path as it is shown: from where the user stands if it lies below, else whole; a folder in the cache of the hub
    by the name of its repository.
    """
    if repo := hub_name(path):
        return repo
    whole, here = Path(path).absolute(), Path.cwd()
    return os.path.relpath(whole, here) if whole.is_relative_to(here) else str(path)


def hub_name(path: str | Path) -> str | None:
    """``owner/name`` for the folder of a repository in the cache of the hub
    (.../models--owner--name/snapshots/COMMIT).
    """
    parts = Path(path).parts[-3:]
    if len(parts) == 3 and parts[0].startswith("models--") and parts[1] == "snapshots":
        return "/".join(parts[0].split("--", 2)[1:])
    return None


def script(name: str) -> str:
    """``python NAME.py`` with the path that it takes from where the user stands."""
    path = ROOT / f"{name}.py"
    return f"python {quoted(shown(path) if path.is_relative_to(Path.cwd()) else path)}"


def quoted(path: str | Path) -> str:
    """A path as it is typed in a shell, as ``shown`` shows it."""
    import shlex

    return shlex.quote(shown(path))


def resume_command(run: str | Path) -> str:
    """What to type to go on with an interrupted run, from where the user stands."""
    return f"{script('continue_training')} --resume --model_dir {quoted(run)}"


def checkpoint_file(run_or_file: str | Path | None, output_dir: str | Path = "runs") -> Path:
    """The checkpoint that is meant: the file itself, the best_model.pt of a run directory, or a folder that holds a
    model as the hub has it. None stands for the newest best_model.pt of a finished run below ``output_dir``, or else
    for the bundled checkpoint.

    Raises:
        UserError: no such file, a folder without a model, or one that lacks a part of it.
    """
    if run_or_file is None:
        bundled = bundled_checkpoint()
        has_runs = any(not run_state(path.parent) for path in Path(output_dir).glob("*/best_model.pt"))
        return bundled if bundled is not None and not has_runs else latest_checkpoint(output_dir)
    path = Path(run_or_file)
    if path.is_dir():
        there = [name for name in FOLDER_FILES if (path / name).is_file()]
        if there and not (path / "best_model.pt").is_file():
            if missing := [name for name in FOLDER_FILES if name not in there]:
                raise UserError(f"{path} lacks {' and '.join(missing)}: download or write it again")
            return path
        path = best_of_run(path, f"{path} is a folder: expected a checkpoint file such as {path / 'best_model.pt'}")
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; train one with run_conditional_training.py")
    return path


def best_of_run(run: str | Path, otherwise: str) -> Path:
    """The best_model.pt of a run directory.

    Raises:
        UserError: there is none: how to go on with a run that was killed in its first validation, else ``otherwise``.
    """
    best = Path(run) / "best_model.pt"
    if not best.is_file():
        to_resume = best.with_name("last.pt").is_file()
        raise UserError(
            f"{shown(run)} has no best_model.pt yet, its first validation was cut off: {resume_command(run)} goes on"
            if to_resume
            else otherwise
        )
    return best


def last_of_run(run: str | Path) -> Path:
    """The last.pt of a run directory.

    Raises:
        UserError: there is none: how to start a run again that was killed before its first save, else what is expected.
    """
    last = Path(run) / "last.pt"
    if not last.is_file():
        settings = last.with_name("config.yaml")
        killed = settings.is_file() and not last.with_name("best_model.pt").exists()
        raise UserError(
            f"{shown(run)} was killed before its first save, so nothing is lost: {_start_again(settings)}"
            if killed
            else f"{run} holds no last.pt: expected the directory of an interrupted run"
        )
    return last


def _start_again(settings: Path) -> str:
    """What to do for a run of which only its config.yaml is left."""
    if re.search(r"^parent:", settings.read_text(encoding="utf-8", errors="replace"), flags=re.M):
        return "give the command again that began it"
    return f"{script('run_conditional_training')} --config {quoted(settings)} starts it again"


def bundled_checkpoint() -> Path | None:
    """The checkpoint that came with the program: the last one by name in ``checkpoints/``, or None."""
    return max(BUNDLED.glob("*.pt"), default=None)


def bundled_test_set() -> tuple[Path, Path] | None:
    """Pairs and sentences of our own writing that no checkpoint was trained on, where they came with the program."""
    found = BUNDLED / "held_out.jsonl", BUNDLED / "held_out_sentences.txt"
    return found if all(path.is_file() for path in found) else None


def is_bundled(path: Path) -> bool:
    """Whether this is the bundled checkpoint, however it is named."""
    return path.resolve() == bundled_checkpoint()


def report_folder(checkpoint: Path) -> Path:
    """Where the evaluation of a checkpoint goes by default: beside it; that of the bundled one, and of a folder to pass
    on, below runs/.
    """
    if checkpoint.is_dir():
        name = (hub_name(checkpoint) or checkpoint.resolve().name).replace("/", "--")
        return Path("runs") / f"evaluation_{name}"
    return Path("runs") / f"evaluation_{checkpoint.stem}" if is_bundled(checkpoint) else checkpoint.parent


def origin(path: Path) -> str:
    """Prefix for messages about a checkpoint that ``checkpoint_file`` chose by itself."""
    return "The bundled checkpoint " if is_bundled(path) else "The newest run, "


def run_state(run: Path) -> str:
    """Empty for a finished run, and for a folder that says nothing of it; else "interrupted at step 41"."""
    if (run / "training_results.json").is_file() or not (run / "last.pt").is_file():
        return ""
    try:
        state = json.loads((run / RUN_STATE).read_text(encoding="utf-8"))
        if state["finished"]:
            return ""
        what = "interrupted" if state["interrupted"] else "not finished: it was saved"
        return f"{what} at step {int(state['step']):,}"
    except (OSError, ValueError, KeyError, TypeError):
        return "not finished"


def state_remark(checkpoint: Path) -> str:
    """What a checkpoint of an unfinished run should be introduced with, or nothing."""
    state = "" if checkpoint.is_dir() else run_state(checkpoint.parent)
    return f"{state}, --resume goes on" if state else ""


def newest(output_dir: str | Path, name: str) -> list[Path]:
    """The files of that name in the runs below ``output_dir``, newest first."""
    found = Path(output_dir).glob(f"*/{name}")
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.parent.name), reverse=True)


def latest_checkpoint(output_dir: str | Path = "runs", name: str = "best_model.pt") -> Path:
    """The most recently written checkpoint of that name below ``output_dir``, chosen by its use: a last.pt is of an
    unfinished run, any other of a finished one, if there is such a one.

    Raises:
        UserError: there is none.
    """
    found, to_resume = newest(output_dir, name), name == "last.pt"
    fitting = next((path for path in found if bool(run_state(path.parent)) == to_resume), None)
    if fitting is not None:
        return fitting
    if to_resume:
        for settings in newest(output_dir, "config.yaml")[:1]:
            last_of_run(settings.parent)  # refuses the newest run if it was killed before its first save
        if not found:
            raise UserError(f"no run to resume (last.pt) below {output_dir}: --model_dir names the directory of one")
    if not found:
        for last in newest(output_dir, "last.pt")[:1]:
            best_of_run(last.parent, "")  # says how to go on with it
        raise UserError(
            f"no trained model ({name}) below {output_dir}: train one with run_conditional_training.py, or name one"
            " with --checkpoint"
        )
    return found[0]


def passed_over(chosen: Path, output_dir: str | Path = "runs") -> list[str]:
    """A line on the newest unfinished run that ``chosen`` was preferred to, if it is newer: its state, and how to go
    on.
    """
    for path in newest(output_dir, "last.pt"):
        if path.parent.resolve() == chosen.parent.resolve():
            break
        if state := run_state(path.parent):
            return [f"(passed over: {shown(path.parent)}, {state}; {resume_command(path.parent)} goes on)"]
    return []
