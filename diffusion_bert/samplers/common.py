"""What all samplers share: their options, their result, the word distribution and exact draws.

Shapes: B rows, T places of the target canvas, N masked places in row-major order, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PLACES_AT_ONCE = 512
FEW_WORDS = 128  # usually enough for top_p
# (x_t [B, T], tau [B], rows [B]) -> log mu [N, V] at the masked places of x_t, in row-major order. ``rows`` are the places of
# these sequences in the batch the sampler was started with: finished ones are no longer sent.
Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass
class SamplerOptions:
    """steps: most denoiser calls per row. temperature 0 = likeliest word. top_k 0 and top_p 1 = off."""

    steps: int = 16
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass
class SampleOutput:
    """x_0 [B, T]: the finished canvas. nfe [B]: denoiser calls each row took part in.

    log_prob [B]: sum of log mu (before temperature) of each word at the moment it was revealed; candidates are ranked by it.
    """

    x_0: Tensor
    nfe: Tensor
    log_prob: Tensor


def draw_words(log_mu: Tensor, options: SamplerOptions, generator: torch.Generator | None = None) -> Tensor:
    """One word per place [N] from mu', a few hundred places at a time: float64 over 30,000 words is large."""
    return torch.cat([draw(word_distribution(part, options), generator) for part in log_mu.split(PLACES_AT_ONCE)])


def word_distribution(log_mu: Tensor, options: SamplerOptions) -> Tensor:
    """log mu' [N, V] float64: log mu -> temperature -> top_k -> top_p -> renormalised. Temperature 0 leaves the likeliest word alone."""
    if options.temperature == 0:
        best = torch.full(log_mu.shape, float("-inf"), dtype=torch.float64, device=log_mu.device)
        return best.scatter_(-1, log_mu.argmax(-1, keepdim=True), 0.0)
    log_mu = log_mu.double() / options.temperature
    if 0 < options.top_k < log_mu.shape[-1]:
        smallest = log_mu.topk(options.top_k).values[:, -1:]
        log_mu = log_mu.masked_fill(log_mu < smallest, float("-inf"))
    log_mu = torch.log_softmax(log_mu, dim=-1)
    if options.top_p < 1:
        ordered, order = log_mu.topk(min(FEW_WORDS, log_mu.shape[-1]))
        if bool((ordered.exp().sum(-1) < options.top_p).any()):  # a flat distribution: all words have to be sorted
            ordered, order = log_mu.sort(descending=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()  # mass of the words ahead of each
        ordered = ordered.masked_fill((before >= options.top_p) & (before > 0), float("-inf"))
        nothing = torch.full_like(log_mu, float("-inf"))
        log_mu = torch.log_softmax(nothing.scatter(-1, order, ordered), dim=-1)
    return log_mu


def draw(log_mu: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One word per row [N] by inverting the cumulative distribution in float64.

    (The usual Gumbel trick in float32 silently lowers the temperature: its noise is cut off, arXiv 2409.02908.)
    """
    cumulative = log_mu.double().exp().cumsum(-1)
    uniform = torch.rand(len(log_mu), 1, generator=generator, dtype=torch.float64).to(log_mu.device)
    index = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(-1)
    # rounding may land on the very end; step back to the last word that has mass
    last = log_mu.shape[-1] - 1 - log_mu.isfinite().flip(-1).int().argmax(-1)
    return torch.minimum(index, last)


def uniform_noise(size: int, generator: torch.Generator | None, device) -> Tensor:
    """Uniform numbers [size] in float64, drawn on the CPU so that a seed means the same everywhere."""
    return torch.rand(size, generator=generator, dtype=torch.float64).to(device)


def masked_places(x_t: Tensor, mask_id: int) -> tuple[Tensor, Tensor]:
    """Rows and columns [N] of the masked places, in row-major order."""
    return (x_t == mask_id).nonzero(as_tuple=True)


def rank_within_rows(score: Tensor, rows: Tensor) -> Tensor:
    """Rank of each place among those of its own row, 0 = highest score; ties keep their order. score and rows [N], rows ascending."""
    order = torch.argsort(score, descending=True, stable=True)
    order = order[torch.argsort(rows[order], stable=True)]  # grouped by row, best first
    counts = torch.bincount(rows, minlength=int(rows.max()) + 1 if len(rows) else 0)
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(rows)
    rank[order] = torch.arange(len(rows), device=rows.device) - starts[rows[order]]
    return rank
