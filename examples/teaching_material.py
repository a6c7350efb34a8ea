"""Teaching material: cloze exercises with answers to choose from, of which one is the word that stood there.

python examples/teaching_material.py [CHECKPOINT]
"""

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout without installation

from diffusion_bert import DiffusionTextGenerator

EXERCISES = {"My sister wants to learn the [MASK] in two weeks.": "piano", "The capital of France is [MASK].": "Paris"}


def main(checkpoint: str = "checkpoints/general_english.pt") -> None:
    """Print every exercise with its choices in random order, then the solution."""
    g = DiffusionTextGenerator.from_checkpoint(checkpoint, num_samples=4, temperature=1.0, seed=3)
    rng = random.Random(3)
    for number, (exercise, solution) in enumerate(EXERCISES.items(), 1):
        before, after = exercise.split("[MASK]")
        proposed = [text[len(before) : len(text) - len(after)] for text in g.fill_masks(exercise)]
        choices = list(dict.fromkeys([solution, *proposed]))
        rng.shuffle(choices)
        print(f"{number}. {exercise.replace('[MASK]', '____')}")
        print("   " + "   ".join(f"({letter}) {choice}" for letter, choice in zip("abcde", choices)))
        print(f"   solution: {solution}")


if __name__ == "__main__":
    main(*sys.argv[1:])
