"""``python -m diffusion_bert.share``: a checkpoint to pass on, without paths of the machine it was trained on: one file
in half precision, or a folder for the hub.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .commands.cli import Parser, guarded
from .config.paths import checkpoint_file
from .errors import UserError
from .machine.hub import local_copy
from .machine.storage import refuse_full

OTHER_FILES = (".bin", ".pth", ".ckpt", ".safetensors", ".zip", ".tar", ".gz", ".onnx", ".json", ".txt")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and write."""
    parser = Parser(
        "Write a checkpoint to pass on, without training state and without paths of this machine: one file, or a folder"
        " for the hub (config.json, model.safetensors, tokenizer, model card)."
    )
    parser.prog = "python -m diffusion_bert.share"
    parser.add_argument(
        "checkpoint",
        metavar="RUN_OR_CHECKPOINT",
        help="a run directory (its best_model.pt is taken), a checkpoint file, a folder or a hub id",
    )
    parser.add_argument(
        "out", metavar="OUT.pt|FOLDER", help="file or folder to write, by its ending; nothing is overwritten"
    )
    parser.add_argument(
        "--started_from",
        metavar="NAME",
        help="what training began with, such as a hub id, where the checkpoint knows a folder",
    )
    parser.add_argument(
        "--license_note", metavar="TEXT", help="remark on the licence of the data, shown when the model is used"
    )
    parser.add_argument(
        "--full_precision", action="store_true", help="keep every bit of the weights (default: half precision)"
    )
    given = parser.parse(sys.argv[1:] if argv is None else argv)
    path, out = checkpoint_file(local_copy(given["checkpoint"])), Path(given["out"])
    _check_out(out)
    from .model.checkpoint import load_checkpoint, save_checkpoint
    from .model.model_card import data_name
    from .model.publishing import save_folder
    from .model.sharing import for_others, shared

    whole = load_checkpoint(path)
    data, full = data_name(whole), given.get("full_precision", False)
    model = (for_others if full else shared)(whole, given.get("started_from"), given.get("license_note"))
    if out.suffix == ".pt":
        save_checkpoint(out, model)
    else:
        save_folder(model, out, data)
    size = sum(file.stat().st_size for file in ([out] if out.is_file() else out.iterdir()))
    precision = "full" if full else "half"
    print(f"{out}: {model.parameter_count / 1e6:.1f}M parameters in {precision} precision, {size / 2**20:.1f} MiB")
    if out.is_dir():
        print(f"Look through {out / 'README.md'}, the model card, before you publish it.")
    return 0


def _check_out(out: Path) -> None:
    """Refuse what is there already, and what can be neither."""
    if out.suffix in OTHER_FILES:
        raise UserError(f"{out}: expected a name that ends in .pt for one file, or the name of a folder")
    if out.suffix != ".pt":
        refuse_full(out)
        return
    if out.exists():
        raise UserError(f"{out} exists: nothing is overwritten; give another name")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent}: no such folder; make it first")


if __name__ == "__main__":
    sys.exit(guarded(main))
