#!/usr/bin/env python3
"""Train a DiffusionBERT: a BERT that writes one sentence given another.

    python run_conditional_training.py --preset quick_demo
    python run_conditional_training.py --task_name qqp --data_dir path/to/qqp --model_name_or_path mini --epochs 3

Without arguments a menu asks what to train. --help lists all settings; presets are in configs/.
"""

import sys

from diffusion_bert.commands import train
from diffusion_bert.commands.cli import guarded


def main(argv=None) -> int:
    """Run the command; the exit code."""
    return guarded(train.main, argv)


if __name__ == "__main__":
    sys.exit(main())
