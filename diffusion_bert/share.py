"""``python -m diffusion_bert.share``: a checkpoint to pass on, in half precision and without paths of the machine it
was trained on.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from .cli import Parser, guarded
from .config.paths import checkpoint_file
from .data.skills import Skills
from .errors import UserError

LARGEST_HALF = 65504.0
# settings that may hold paths; where the data of a shared checkpoint lies is said anew by --data_dir or --test_file
PATHS = ("data_dir", "train_file", "valid_file", "test_file", "cache_dir", "teacher", "output_dir")
OWN_DATA = ("data_dir", "train_file", "dataset_name")
OF_A_DATASET = ("dataset_name", "dataset_config", "source_column", "target_column")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and write."""
    parser = Parser(
        "Write a checkpoint to pass on: one file in half precision, without training state and without paths of this"
        " machine."
    )
    parser.prog = "python -m diffusion_bert.share"
    parser.add_argument(
        "checkpoint",
        metavar="RUN_OR_CHECKPOINT",
        help="a run directory (its best_model.pt is taken) or a checkpoint file",
    )
    parser.add_argument("file", metavar="OUT.pt", help="file to write; nothing is overwritten")
    parser.add_argument(
        "--started_from",
        metavar="NAME",
        help="what training began with, such as a hub id, where the checkpoint knows a folder",
    )
    parser.add_argument(
        "--license_note", metavar="TEXT", help="remark on the licence of the data, shown when the model is used"
    )
    given = parser.parse(sys.argv[1:] if argv is None else argv)
    path, out = Path(given["checkpoint"]), Path(given["file"])
    path = checkpoint_file(path / "best_model.pt" if (path / "best_model.pt").is_file() else path)
    if out.suffix != ".pt":
        raise UserError(f"{out}: expected a name that ends in .pt")
    if out.exists():
        raise UserError(f"{out} exists: nothing is overwritten; give another name")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent}: no such folder; make it first")
    from .model.checkpoint import load_checkpoint, save_checkpoint

    model = shared(load_checkpoint(path), given.get("started_from"), given.get("license_note"))
    save_checkpoint(out, model)
    print(
        f"{out}: {model.parameter_count / 1e6:.1f}M parameters in half precision, {out.stat().st_size / 2**20:.1f} MiB"
    )
    return 0


def is_path(name: str) -> bool:
    """Whether a name that may be a hub id is a path of this machine, or was one."""
    return bool(name) and (Path(name).is_absolute() or Path(name).exists())


def shared(model, started_from: str | None = None, license_note: str | None = None):
    """The ``DiffusionModel``, its own network turned to float16, with settings that name no path. What reads the file
    computes in float32 again.

    Raises:
        UserError: a weight is too large for half precision, or NaN.
    """
    for name, tensor in model.denoiser.state_dict().items():
        if tensor.is_floating_point() and not bool((tensor.abs() <= LARGEST_HALF).all()):
            raise UserError(
                f"weight {name} goes beyond {LARGEST_HALF:g} or is no number: it does not fit half precision"
            )
    config = dataclasses.replace(model.config)
    base = config.model.model_name_or_path
    base = (started_from or "").strip() or (Path(base).name if is_path(base) else base)
    config.model = dataclasses.replace(config.model, model_name_or_path=base)
    model.denoiser.bert_config.name_or_path = base
    local = PATHS + (OF_A_DATASET if is_path(config.data.dataset_name or "") else ())
    for section in ("data", "training"):
        values = getattr(config, section)
        cleared = {field.name: field.default for field in dataclasses.fields(values) if field.name in local}
        setattr(config, section, dataclasses.replace(values, **cleared))
    if license_note is not None:
        config.data.license_note = license_note.strip() or None
    skills = model.skills
    if skills.tasks == ("sample",) and any(getattr(model.config.data, name) for name in OWN_DATA):
        # its data was not the grammar, which the name alone would now stand for
        config.data.task_name, skills = "custom", Skills.of("custom", {"custom": skills.styles("sample")})
    return dataclasses.replace(model, denoiser=model.denoiser.half(), config=config, parent=None, skills=skills)


if __name__ == "__main__":
    sys.exit(guarded(main))
