"""An e-mail assistant: openings completed, sentences said in another way.

    python examples/email_assistant.py [CHECKPOINT]

With a checkpoint trained on your own notes and mails (docs/after_training.md) it writes in your words.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout without installation

from diffusion_bert import DiffusionTextGenerator

OPENINGS = ["I hope this email finds you well. I am writing to", "Could you please"]
SENTENCES = ["Thank you for contacting our support team.", "Can we meet on Monday morning?"]


def main(checkpoint: str = "checkpoints/general_english.pt") -> None:
    """Print suggestions for every opening and sentence."""
    g = DiffusionTextGenerator.from_checkpoint(checkpoint, num_samples=2, temperature=0.5, seed=1)
    print("How to go on:")
    for opening, endings in zip(OPENINGS, g.complete_text(OPENINGS)):
        print(f"  {opening} ...", *endings, sep="\n    ")
    print("In other words:")
    for sentence, versions in zip(SENTENCES, g.paraphrase_text(SENTENCES)):
        print(f"  {sentence}", *versions, sep="\n    ")


if __name__ == "__main__":
    main(*sys.argv[1:])
