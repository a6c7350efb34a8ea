"""``python -m diffusion_bert.share``: a checkpoint to pass on, in half precision and without paths of the machine it
was trained on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .commands.cli import Parser, guarded
from .config.paths import checkpoint_file
from .errors import UserError


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
    path, out = checkpoint_file(given["checkpoint"]), Path(given["file"])
    if out.suffix != ".pt":
        raise UserError(f"{out}: expected a name that ends in .pt")
    if out.exists():
        raise UserError(f"{out} exists: nothing is overwritten; give another name")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent}: no such folder; make it first")
    from .model.checkpoint import load_checkpoint, save_checkpoint
    from .model.sharing import shared

    model = shared(load_checkpoint(path), given.get("started_from"), given.get("license_note"))
    save_checkpoint(out, model)
    print(
        f"{out}: {model.parameter_count / 1e6:.1f}M parameters in half precision, {out.stat().st_size / 2**20:.1f} MiB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
