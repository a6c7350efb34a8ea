"""``python -m diffusion_bert.export``: a checkpoint as a directory that transformers opens.

``AutoModelForMaskedLM``, ``AutoTokenizer`` and the ``fill-mask`` pipeline read it, and so does
``--model_name_or_path``. It holds the encoder and its word head: what ``fill`` uses. Length head, copy head and
self-conditioning have no place in a masked language model and are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .commands.cli import Parser, guarded
from .config.paths import checkpoint_file
from .machine.hub import local_copy
from .machine.storage import refuse_full


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and export."""
    parser = Parser(
        "Write a checkpoint as a transformers directory, for AutoModelForMaskedLM, AutoTokenizer and the fill-mask"
        " pipeline."
    )
    parser.prog = "python -m diffusion_bert.export"
    parser.add_argument(
        "checkpoint",
        metavar="RUN_OR_CHECKPOINT",
        help="a run directory (its best_model.pt is taken), a checkpoint file, a folder or a hub id",
    )
    parser.add_argument("folder", metavar="OUT_DIR", help="folder to write, new or empty")
    given = parser.parse(sys.argv[1:] if argv is None else argv)
    path, folder = checkpoint_file(local_copy(given["checkpoint"])), Path(given["folder"])
    refuse_full(folder)
    from .model.checkpoint import load_checkpoint
    from .model.export import export

    export(load_checkpoint(path), folder)
    print(f"Exported {path} to {folder}")
    print(f"Open it:   transformers.pipeline('fill-mask', {str(folder)!r})")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
