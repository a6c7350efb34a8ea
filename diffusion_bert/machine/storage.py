"""How anything is written to disk: as tensors and plain types only, with a digest, and never by halves."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..version import __version__

if TYPE_CHECKING:
    import torch


def to_plain(value: Any) -> Any:
    """The value in tensors and plain Python types, all the way down: what ``weights_only=True`` can read back.

    (torch refuses numpy scalars, Path, defaultdict and its own ``torch.__version__``, which is a subclass of str.)
    """
    import torch

    if isinstance(value, torch.Tensor) or value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, Mapping):
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(to_plain, value)) if type(value) in (list, tuple) else [to_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    if isinstance(value, (str, os.PathLike)):
        return str(value)
    raise TypeError(f"cannot store {type(value).__name__} in a checkpoint")


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes. It reveals damage; against an attacker it proves nothing, since he
    can write a new one.
    """
    import torch

    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """What the numbers of a run depend on."""
    import torch
    import transformers

    return {
        "diffusion_bert": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
    }


def append_safely(path: Path, text: str, advice: str) -> None:
    """Append to a file; the text is on the disk when this returns.

    Raises:
        UserError: it cannot be written; ``advice`` says what to do.
    """
    try:
        with open(path, "ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; {advice}") from None


def write_atomically(path: Path, write) -> None:
    """Call ``write`` on a temporary file beside ``path``, flush it to the disk, then rename: the path never holds half
    a file.

    A process that is killed in here leaves its temporary file behind; ``remove_leftovers`` clears it away.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(
            f"cannot write {path}: {_reason(error)}; free some space or choose another place (the previous file, if"
            " any, is intact)"
        ) from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def refuse_full(folder: Path) -> None:
    """Refuse a folder that holds anything, or a file in its place."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise UserError(f"{folder} {what}: nothing is overwritten; give a new folder")


@contextlib.contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` to write in; it takes its place at the end, and is removed if anything fails.

    Raises:
        UserError: the folder holds anything already, or cannot be written.
    """
    refuse_full(folder)
    draft = folder.with_name(f".{folder.resolve().name}.{os.getpid()}.tmp")
    try:
        draft.mkdir(parents=True)
        yield draft
        for path in draft.iterdir():
            path.chmod(draft.stat().st_mode & 0o666)  # safetensors writes weights for their owner alone
        if folder.is_dir():
            folder.rmdir()
        os.replace(draft, folder)
    except Exception as error:
        # safetensors reports a full disk by an exception of its own
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        raise UserError(
            f"cannot write {folder}: {getattr(error, 'strerror', None) or error}; free some space or choose another"
            " folder"
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def state_folder() -> Path | None:
    """The user's folder for what is remembered between sessions, $XDG_STATE_HOME/diffusion_bert or
    ~/.local/state/diffusion_bert; None where it cannot be written.
    """
    try:
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        folder = Path(home) / "diffusion_bert"
        folder.mkdir(parents=True, exist_ok=True)
        return folder if os.access(folder, os.W_OK) else None
    except (OSError, RuntimeError):
        return None


def remove_leftovers(folder: Path) -> int:
    """Delete the temporary files that killed processes left in a folder; how many there were."""
    leftovers = [path for path in folder.glob(".*.tmp") if path.is_file()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


def _flush_folder(folder: Path) -> None:
    """Put the renaming itself on the disk, where folders can be opened (not on Windows)."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _reason(error: BaseException) -> str:
    """What the operating system said, even where torch wrapped it in an error of its own."""
    cause: BaseException | None = error
    while cause is not None and getattr(cause, "strerror", None) is None:
        cause = cause.__cause__ or cause.__context__
    return cause.strerror if cause is not None else str(error).splitlines()[0][:120]
