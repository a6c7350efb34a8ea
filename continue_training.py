#!/usr/bin/env python3
"""Train on from a checkpoint as a new run, or resume an interrupted one.

    python continue_training.py --auto
    python continue_training.py --model_dir runs/NAME --train_file mine.jsonl --preset fine_tuning

Without settings a menu asks how to go on. --resume continues an interrupted run exactly where it stopped.
"""

import sys

from diffusion_bert.commands import continue_training
from diffusion_bert.commands.cli import guarded


def main(argv=None) -> int:
    """Run the command; the exit code."""
    return guarded(continue_training.main, argv)


if __name__ == "__main__":
    sys.exit(main())
