"""How often the likeliest word at a masked place is the true one.

    python -m benchmarks.quality.masked_words runs/NAME/best_model.pt sentences.txt
    python -m benchmarks.quality.masked_words checkpoints/MODEL.pt sentences.txt --texts 500 --share 0.15

Of every sentence (a line each) this share of the word pieces is masked, at least one, and all are predicted in one call
without a source, as ``fill`` asks. Beside the model: always saying the most common word piece of the training targets.
Intervals: 95 %, as if places were independent.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import torch

from benchmarks.common import machine
from diffusion_bert.commands.cli import Parser, guarded, whole_number
from diffusion_bert.data.batching import Collator
from diffusion_bert.data.reading import read_file
from diffusion_bert.data.skills import NO_SOURCE
from diffusion_bert.errors import UserError
from diffusion_bert.model.checkpoint import load_checkpoint


@torch.no_grad()
def own_choice(model, ids: list[int]) -> torch.Tensor:
    """log mu [N, V] of the checkpoint at the masks of a text, as ``fill`` asks for it."""
    batch = Collator(model.tokenizer, model.task.prompt).batch([(NO_SOURCE, [], ids)])
    share = torch.tensor([ids.count(model.tokenizer.mask_id) / len(ids)], dtype=torch.float64)
    log_mu = model.denoiser(batch, batch.input_ids, model.schedule.tau(share))[0]
    log_mu[:, model.tokenizer.unwritable_ids] = float("-inf")
    return log_mu


def masked_text(ids: list[int], share: float, mask_id: int, rng: random.Random) -> list[int]:
    """The text with this share of its word pieces masked, at least one."""
    chosen = set(rng.sample(range(len(ids)), max(1, round(share * len(ids)))))
    return [mask_id if place in chosen else index for place, index in enumerate(ids)]


def masked_texts(model, texts: list[str], share: float, seed: int = 0) -> Iterator[tuple[str, list[int], torch.Tensor]]:
    """(line, its ids with [MASK] at some places, the true ids there); texts longer than the model takes are left
    out.
    """
    rng, text = random.Random(seed), model.tokenizer
    for line in texts:
        ids = text.encode(line)
        if 0 < len(ids) <= model.denoiser.max_target_length:
            masked = masked_text(ids, share, text.mask_id, rng)
            yield line, masked, torch.tensor([index for index, now in zip(ids, masked) if now == text.mask_id])


def top_one(model, texts: list[str], share: float, seed: int = 0) -> tuple[int, int, int, int]:
    """(texts, masked places, right ones, right ones of the most common word piece)."""
    most_common = int(model.token_counts.argmax())
    used = places = right = floor = 0
    for _, masked, truth in masked_texts(model, texts, share, seed):
        used += 1
        places += len(truth)
        right += int((own_choice(model, masked).argmax(-1) == truth).sum())
        floor += int((truth == most_common).sum())
    return used, places, right, floor


def wilson(right: int, places: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share, in per cent (Wilson 1927)."""
    share = right / places
    middle, half = share + z * z / (2 * places), z * (share * (1 - share) / places + z * z / (4 * places**2)) ** 0.5
    return tuple(100 * (middle + sign * half) / (1 + z * z / places) for sign in (-1, 1))


def main(argv=None) -> int:
    """Print the table."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("checkpoint", metavar="FILE")
    parser.add_argument("texts_file", metavar="TEXTS", help="sentences that the model has not seen, one per line")
    parser.add_argument(
        "--texts", type=whole_number, default=500, metavar="N", help="how many of them, from the first (default: 500)"
    )
    parser.add_argument(
        "--share", type=float, default=0.15, metavar="X", help="share of word pieces to mask (default: 0.15)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which places are masked (default: 0)")
    given = {"texts": 500, "share": 0.15, "seed": 0} | parser.parse(sys.argv[1:] if argv is None else argv)
    if not 0 < given["share"] <= 1:
        raise UserError(f"--share is {given['share']:g}: expected a number above 0, up to 1")
    model = load_checkpoint(given["checkpoint"])
    texts = [pair.target for pair in read_file(given["texts_file"]).pairs[: given["texts"]]]
    used, places, right, floor = top_one(model, texts, given["share"], given["seed"])
    if not places:
        raise UserError(
            f"{given['texts_file']}: no text that fits this model ({model.denoiser.max_target_length} word pieces)"
        )
    print(
        f"{machine()}; {used:,} of {len(texts):,} texts, {given['share']:.0%} masked, seed {given['seed']}\n\n| |"
        " places | right, % |\n|---|---|---|"
    )
    for name, count in (("model", right), ("most common word", floor)):
        low, high = wilson(count, places)
        print(f"| {name} | {places:,} | {100 * count / places:.1f} ({low:.1f}-{high:.1f}) |")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
