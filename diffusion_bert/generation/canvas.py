"""What is to be written: canvases, whose places to fill hold [MASK], and how long they should be."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config.schema import SamplingConfig
from ..data.batching import Collator
from ..data.tokenizer import TextTokenizer
from ..errors import UserError
from ..model.diffusion_model import DiffusionModel

# what may stand at a place: anything, no ##piece, only a ##piece; with NO_SIGN added no punctuation mark either
FREE, NEW_WORD, CONTINUATION, NO_SIGN = 0, 1, 2, 4
WORD = NEW_WORD + NO_SIGN
RELATIVE_LENGTHS = {"short": 2 / 3, "same": 1.0, "long": 4 / 3}  # of the source


@dataclass
class Canvas:
    """One target to finish. ``tau`` is the time it starts at, ``constraints`` one of FREE / NEW_WORD / CONTINUATION per
    place (plus NO_SIGN), ``log_length`` log p(length | source) where the length was the model's choice.

    Its random numbers are made of the seed, the number of its ``text`` (64 bits; None: numbering.py) and that of the
    ``candidate``, of nothing else: it is written alike in any batch.
    """

    skill: int
    source: Sequence[int]
    words: list[int]
    tau: float = 1.0
    constraints: list[int] | None = None
    log_length: float = 0.0
    text: int | None = None
    candidate: int = 0


@dataclass
class Decoded:
    """A finished target, the denoiser calls it took part in, and its score for ranking: the mean log-probability of its
    words as they were revealed, or that of ``rank_by``, and of its length.
    """

    ids: list[int]
    nfe: int
    score: float


def blank_canvas(
    skill: int, source: Sequence[int], length: int, mask_id: int, log_length: float = 0.0, no_sign: int = 0
) -> Canvas:
    """A target of [MASK]s; its first piece begins a word, its first ``no_sign`` places take no punctuation mark."""
    kinds = [NO_SIGN * (place < no_sign) for place in range(length)]
    kinds[0] += NEW_WORD
    return Canvas(skill, source, [mask_id] * length, 1.0, kinds, log_length)


def stacked(group: Sequence[Canvas], tokenizer: TextTokenizer, device) -> tuple[Tensor, Tensor]:
    """The words of a group with their [SEP], padded, and the constraints of their places, both [B, T]."""
    width = max(len(canvas.words) for canvas in group) + 1
    x_t = torch.full((len(group), width), tokenizer.pad_id)
    constraints = torch.full((len(group), width), FREE)
    for row, canvas in enumerate(group):
        x_t[row, : len(canvas.words)] = torch.tensor(canvas.words)
        x_t[row, len(canvas.words)] = tokenizer.sep_id
        if canvas.constraints is not None:
            constraints[row, : len(canvas.words)] = torch.tensor(canvas.constraints)
    return x_t.to(device), constraints.to(device)


@torch.no_grad()
def length_log_probs(
    model: DiffusionModel, examples: Sequence[tuple[int, Sequence[int]]], collator: Collator, batch_size: int = 64
) -> Tensor:
    """log p(length | source) [n, max_target_length] for (skill, source) pairs; column j stands for length j + 1.
    Lengths that would not fit into max_length get no probability.
    """
    limit = model.config.data.max_length
    rows = []
    for start in range(0, len(examples), batch_size):
        batch = collator.batch([(skill, source, [0]) for skill, source in examples[start : start + batch_size]]).to(
            model.device
        )
        logits = model.denoiser.length_logits(model.denoiser.encode_source(batch).states).float()
        lengths = torch.arange(1, logits.shape[1] + 1, device=logits.device)
        too_long = batch.source_length[:, None] + lengths + 1 > limit
        rows.append(torch.log_softmax(logits.masked_fill(too_long, float("-inf")), dim=-1).cpu())
    return torch.cat(rows)


def spread_lengths(log_probs: Tensor, count: int, beam: int) -> list[int]:
    """Lengths for ``count`` candidates of one source: the ``beam`` likeliest in turn, best first. log_probs
    [max_target_length].
    """
    best = [int(index) + 1 for index in log_probs.topk(min(beam, int(log_probs.isfinite().sum()))).indices]
    return [best[number % len(best)] for number in range(count)]


def drawn_lengths(log_probs: Tensor, count: int, beam: int, temperature: float, rng: random.Random) -> list[int]:
    """``count`` independent draws from p(length | source)^(1 / temperature) among the ``beam`` likeliest. log_probs
    [max_target_length].
    """
    best = log_probs.double().topk(min(beam, int(log_probs.isfinite().sum())))
    if temperature == 0:
        return [int(best.indices[0]) + 1] * count
    shares = torch.softmax(best.values / temperature, dim=-1)
    return rng.choices((best.indices + 1).tolist(), shares.tolist(), k=count)


def chosen_lengths(
    log_probs: Tensor, count: int, options: SamplingConfig, source_length: int, rng: random.Random | None
) -> list[int]:
    """Lengths for ``count`` candidates of one source: the one asked for, or drawn by ``rng``, or the likeliest in
    turn. log_probs [max_target_length].
    """
    if options.length is not None:
        return [requested_length(options.length, source_length, int(log_probs.isfinite().sum()))] * count
    if rng is not None:
        return drawn_lengths(log_probs, count, options.length_beam, options.temperature, rng)
    return spread_lengths(log_probs, count, options.length_beam)


def at_least(log_probs: Tensor, length: int) -> Tensor:
    """log p of lengths without those below ``length``, as long as others are left. log_probs [max_target_length]."""
    rest = log_probs.clone()
    rest[: max(0, length - 1)] = float("-inf")
    return rest if bool(rest.isfinite().any()) else log_probs


def requested_length(length: str, source_length: int, limit: int) -> int:
    """Word pieces that the option ``length`` asks for, beside a source of ``source_length``; refused beyond
    ``limit``.
    """
    relative = RELATIVE_LENGTHS.get(length)
    pieces = int(length) if relative is None else max(1, round(relative * source_length))
    if pieces > limit:
        asked = f"length is {length}" + (f", here {pieces} word pieces" if relative else "")
        raise UserError(f"{asked}: expected at most {limit} for this model and this text; ask for less")
    return pieces
