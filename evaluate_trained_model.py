#!/usr/bin/env python3
"""Evaluate a checkpoint: reconstruction, generation beside its floors, NELBO terms, and a score with a verdict.

    python evaluate_trained_model.py
    python evaluate_trained_model.py --checkpoint runs/NAME/best_model.pt --split valid --mbr 10

Without --checkpoint the newest run is taken. Writes evaluation.json, evaluation.md and evaluation.png beside the
checkpoint.
"""

import sys

from diffusion_bert.commands import evaluate
from diffusion_bert.commands.cli import guarded


def main(argv=None) -> int:
    """Run the command; the exit code."""
    return guarded(evaluate.main, argv)


if __name__ == "__main__":
    sys.exit(main())
