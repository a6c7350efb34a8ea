"""Where checkpoints are found. It needs no torch, so that a wrong path is refused at once."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError


def beside_or_inside(name: str) -> Path:
    """A folder that came with the program: inside the package where it is installed, in a checkout beside it."""
    package = Path(__file__).resolve().parent.parent
    return package / name if (package / name).is_dir() else package.parent / name


BUNDLED = beside_or_inside("checkpoints")


def checkpoint_file(run_or_file: str | Path | None, output_dir: str | Path = "runs") -> Path:
    """The checkpoint file that is meant: the file itself, or the best_model.pt of a run directory. None stands for the
    newest best_model.pt below ``output_dir``, or else for the bundled checkpoint.

    Raises:
        UserError: no such file, or a folder without a best_model.pt.
    """
    if run_or_file is None:
        bundled = bundled_checkpoint()
        has_runs = any(Path(output_dir).glob("*/best_model.pt"))
        return bundled if bundled is not None and not has_runs else latest_checkpoint(output_dir)
    path = Path(run_or_file)
    if path.is_dir():
        if not (path / "best_model.pt").is_file():
            raise UserError(f"{path} is a folder: expected a checkpoint file such as {path / 'best_model.pt'}")
        path = path / "best_model.pt"
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; train one with run_conditional_training.py")
    return path


def bundled_checkpoint() -> Path | None:
    """The checkpoint that came with the program: the last one by name in ``checkpoints/``, or None."""
    return max(BUNDLED.glob("*.pt"), default=None)


def is_bundled(path: Path) -> bool:
    """Whether this is the bundled checkpoint, however it is named."""
    return path.resolve() == bundled_checkpoint()


def report_folder(checkpoint: Path) -> Path:
    """Where the evaluation of a checkpoint goes by default: beside it; that of the bundled one below runs/."""
    return Path("runs") / f"evaluation_{checkpoint.stem}" if is_bundled(checkpoint) else checkpoint.parent


def origin(path: Path) -> str:
    """Prefix for messages about a checkpoint that ``checkpoint_file`` chose by itself."""
    return "The bundled checkpoint " if is_bundled(path) else "The newest run, "


def latest_checkpoint(output_dir: str | Path = "runs", name: str = "best_model.pt") -> Path:
    """The most recently written checkpoint of that name below ``output_dir``.

    Raises:
        UserError: there is none.
    """
    found = sorted(Path(output_dir).glob(f"*/{name}"), key=lambda path: (path.stat().st_mtime_ns, path.parent.name))
    if not found:
        raise UserError(
            f"no trained model ({name}) below {output_dir}: train one with run_conditional_training.py, or name one"
            " with --checkpoint"
        )
    return found[-1]
