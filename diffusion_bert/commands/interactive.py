"""``interactive_generation.py``: the command loop on a terminal or a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from ..cli import Parser
from ..config import SamplingConfig, build
from ..finding import checkpoint_file


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, load, talk."""
    parser = Parser("Talk to a checkpoint: fill, para, complete, mask.")
    what = parser.add_argument_group("model")
    what.add_argument("--checkpoint", metavar="FILE", help="checkpoint file (default: the newest best_model.pt below runs/)")
    parser.add_settings(SamplingConfig)
    given = parser.parse(sys.argv[1:] if argv is None else argv)
    checkpoint = given.pop("checkpoint", None)
    options = build(SamplingConfig, given, "--")
    path = checkpoint_file(checkpoint)
    from ..checkpoint import load_checkpoint
    from ..generation import DiffusionTextGenerator
    from ..model import pick_device
    from ..repl import PROMPT, Repl

    model = load_checkpoint(path).to(pick_device(options.device))
    print(f"{path} ({model.task.name}, {model.parameter_count / 1e6:.1f}M parameters). Type help for the commands, quit to leave.")
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):  # not on Windows
            import readline  # noqa: F401  line editing and history for input()

    def read() -> str:
        line = input(PROMPT)
        if not sys.stdin.isatty():
            print(line)  # so that a piped session reads like one on a terminal
        return line

    sys.stdin.reconfigure(errors="replace")
    Repl(DiffusionTextGenerator(model, options), write=lambda line: print(line, flush=True)).run(read)
    return 0
