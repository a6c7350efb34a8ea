"""The output of work on a file: opened once, continued only by the job that began it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import BinaryIO

from ..errors import UserError
from ..machine.storage import state_folder, write_atomically


@contextlib.contextmanager
def open_output(path: Path, job: dict, from_stdin: bool, overwrite: bool):
    """The output, open at its end: new, or made by the same job. Beside it is NAME.job.json, which says what it was
    made with.
    """
    note = _note(path)
    if not overwrite and path.is_file() and path.stat().st_size:
        check_same(path, job, from_stdin)
    with open(path, "ab+") as file:
        _lock(file, path)  # before anything of another process is touched
        if overwrite:
            note.unlink(missing_ok=True)
            file.truncate(0)
        if not from_stdin:
            begin_note(path, job)
        yield file


def begin_note(path: Path, job: dict) -> None:
    """Say beside an output what it is made with."""
    write_atomically(_note(path), lambda out: out.write((json.dumps(job, indent=2) + "\n").encode()))


def discard(path: Path, job: dict) -> None:
    """Remove an output that this job made, and its note; any other is left alone."""
    with contextlib.suppress(OSError, ValueError):
        if json.loads(_note(path).read_text(encoding="utf-8")) == json.loads(json.dumps(job)):
            path.unlink(missing_ok=True)
            _note(path).unlink(missing_ok=True)


def file_is_done(path: Path) -> None:
    """Leave nothing beside a complete output: what it was made with is kept with the user's state, for a second call of
    the same job.
    """
    note, memory = _note(path), _memory(path)
    if not note.is_file():
        return
    with contextlib.suppress(OSError, UserError):
        if memory is not None:
            memory.parent.mkdir(exist_ok=True)
            content = note.read_bytes()
            write_atomically(memory, lambda file: file.write(content))
    note.unlink(missing_ok=True)


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.job.json")


def _memory(path: Path) -> Path | None:
    """Where the note of a complete output is kept."""
    folder = state_folder()
    name = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return None if folder is None else folder / "jobs" / f"{name}.json"


def check_same(path: Path, job: dict, from_stdin: bool) -> None:
    """Refuse an output that is there unless the same job made it."""
    note = _note(path)
    advice = "choose another --output_file, or --overwrite to begin again"
    if from_stdin:
        raise UserError(f"{path} exists, and what came from stdin cannot be continued; {advice}")
    memory = None if note.exists() else _memory(path)
    try:
        before = json.loads((memory or note).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(
            f"{path} exists and nothing says how it was made ({note.name} is missing or broken); {advice}"
        ) from None
    before = before if isinstance(before, dict) else {}
    now = json.loads(json.dumps(job))
    for name in [*now, *before]:
        if before.get(name) != now.get(name):
            was = "" if name.endswith("sha256") else f" (then {before.get(name)}, now {now.get(name)})"
            raise UserError(f"{path} was made with another {name.removesuffix('_sha256')}{was}; {advice}")


def _lock(file: BinaryIO, path: Path) -> None:
    """Refuse a second writer, where files can be locked."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{path} is being written by another process: wait for it, or choose another --output_file"
        ) from None
    except OSError:
        pass  # a file system without locks
