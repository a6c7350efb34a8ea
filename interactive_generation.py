#!/usr/bin/env python3
"""Talk to a checkpoint: fill, para, complete, mask.

    python interactive_generation.py
    printf 'para How do I learn to cook?\nquit\n' | python interactive_generation.py
    python interactive_generation.py --checkpoint runs/NAME/best_model.pt

Without --checkpoint the newest run is taken. Type help for the commands.
"""

import sys

from diffusion_bert.commands import interactive
from diffusion_bert.commands.cli import guarded


def main(argv=None) -> int:
    """Run the command; the exit code."""
    return guarded(interactive.main, argv)


if __name__ == "__main__":
    sys.exit(main())
