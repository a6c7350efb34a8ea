"""A picture of a text as it is written: steps x places, shaded by how sure the model is, each word in the step that
reveals it.

python -m diffusion_bert.trace_image runs/NAME/best_model.pt "How can I learn to bake bread in two weeks?" trace.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .commands.cli import Parser, guarded
from .config.fields import build
from .config.paths import checkpoint_file
from .config.schema import MAP_STEPS, SamplingConfig
from .errors import UserError
from .machine.hub import local_copy


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and draw."""
    parser = Parser("Draw how a text is written, step by step.", prog="python -m diffusion_bert.trace_image")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint file, run directory, folder or hub id")
    parser.add_argument("text", metavar="TEXT", help="the source")
    parser.add_argument("picture", metavar="OUT.png", help="the picture to write, .png or .svg")
    parser.add_settings(SamplingConfig, defaults={"num_steps": MAP_STEPS})
    given = parser.parse(sys.argv[1:] if argv is None else argv)
    checkpoint = checkpoint_file(local_copy(given.pop("checkpoint")))
    text, picture = given.pop("text"), Path(given.pop("picture"))
    options = build(SamplingConfig, {"num_steps": MAP_STEPS, **given}, "--")
    if picture.suffix.lower() not in (".png", ".svg") or picture.is_dir() or not picture.parent.is_dir():
        raise UserError(
            f"{picture} cannot be the picture: expected a file ending in .png or .svg in a folder that exists"
        )
    from .evaluation.confidence_map import follow, plot_confidence
    from .generation.generator import DiffusionTextGenerator

    generator = DiffusionTextGenerator.from_checkpoint(checkpoint, **vars(options))
    written = follow(generator, text)
    plot_confidence(written, picture)
    print(f"{written.text}\nWritten: {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
