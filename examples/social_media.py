"""Social media: several versions of a post, from safe to daring, and an invitation with its gaps filled.

python examples/social_media.py [CHECKPOINT]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout without installation

from diffusion_bert import DiffusionTextGenerator

INVITATION = "Join us for an amazing [MASK] event this [MASK]"
POSTS = ["Which book should I read on holiday?", "Do you know a good place for breakfast near the station?"]
TONES = {"safe": 0.3, "fresh": 0.8, "daring": 1.2}


def main(checkpoint: str = "checkpoints/general_english.pt") -> None:
    """Print the versions of every post by tone, then the invitation."""
    g = DiffusionTextGenerator.from_checkpoint(checkpoint, num_samples=2)
    for post in POSTS:
        print(post)
        for tone, temperature in TONES.items():
            for text in g.paraphrase_text(post, temperature=temperature):
                print(f"  {tone:<7} {text}")
    print(INVITATION, *g.fill_masks(INVITATION), sep="\n  ")


if __name__ == "__main__":
    main(*sys.argv[1:])
