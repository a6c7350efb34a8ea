"""Creative writing: a sentence that grows and changes, at rising temperature.

    python examples/creative_writing.py [CHECKPOINT]

With a checkpoint trained on stories (docs/after_training.md) it takes over their tone.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout without installation

from diffusion_bert import DiffusionTextGenerator

BEGINNING = "It was a dark and stormy night and"
IMAGE = "The mysterious [MASK] opened the [MASK] door."


def main(checkpoint: str = "checkpoints/general_english.pt") -> None:
    """Print continuations and images, from tame to wild."""
    g = DiffusionTextGenerator.from_checkpoint(checkpoint, num_samples=3, best_of=1)
    for temperature in (0.3, 0.8, 1.2):
        print(f"Temperature {temperature}")
        for text in g.complete_text(BEGINNING, temperature=temperature, length=12):
            print(f"  {text}")
        for text in g.fill_masks(IMAGE, temperature=temperature):
            print(f"  {text}")


if __name__ == "__main__":
    main(*sys.argv[1:])
