"""From log mu to words: the order specials -> guidance -> temperature -> top_k -> top_p -> renormalise = mu', and exact
draws from mu'.

Shapes: N places, V vocabulary. Draws invert the cumulative distribution with float64 uniform numbers. (The usual Gumbel
trick in float32 silently lowers the temperature: its noise is cut off, arXiv 2409.02908.)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

ELEMENTS_AT_ONCE = 2**20  # of log mu: a part that stays in the processor's cache
FEW_WORDS = 128  # usually enough for top_p
BLOCK = 64  # words whose mass is summed before one of them is drawn
NUMBERS = 3  # uniform numbers for a word: its block, the word itself, another word inside the nucleus
COLDEST = 1e-30  # below it a temperature counts as 0


@dataclass
class WordOptions:
    """temperature 0 = likeliest word. top_k 0 and top_p 1 = off."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


def guide(log_mu: Tensor, log_mu_free: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598): log mu <- l_u + (1 + w)(l - l_u), renormalised.

    log_mu l [N, V] with the source and log_mu_free l_u [N, V] without it; scale w = 0 gives l. Words without mass in l
    stay without.
    """
    push = torch.where(log_mu.isfinite() & log_mu_free.isfinite(), log_mu - log_mu_free, 0.0)
    return torch.log_softmax(log_mu + scale * push, dim=-1)


def word_distribution(log_mu: Tensor, options: WordOptions) -> Tensor:
    """log mu' [N, V] float64: log mu -> temperature -> top_k -> top_p -> renormalised. Temperature 0 leaves the
    likeliest word alone.

    The definition; :func:`draw_words` has the same law and does less.
    """
    if options.temperature < COLDEST:
        best = torch.full(log_mu.shape, float("-inf"), dtype=torch.float64, device=log_mu.device)
        return best.scatter_(-1, log_mu.argmax(-1, keepdim=True), 0.0)
    log_mu = log_mu.double() / options.temperature
    if 0 < options.top_k < log_mu.shape[-1]:
        smallest = log_mu.topk(options.top_k).values[:, -1:]
        log_mu = log_mu.masked_fill(log_mu < smallest, float("-inf"))
    log_mu = torch.log_softmax(log_mu, dim=-1)
    if options.top_p < 1:
        ordered, order = log_mu.topk(min(FEW_WORDS, log_mu.shape[-1]))
        # a flat distribution: all words have to be sorted; a GPU sorts sooner than it is asked
        if log_mu.device.type != "cpu" or bool((ordered.exp().sum(-1) < options.top_p).any()):
            ordered, order = log_mu.sort(descending=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()  # mass of the words ahead of each
        ordered = ordered.masked_fill((before >= options.top_p) & (before > 0), float("-inf"))
        nothing = torch.full_like(log_mu, float("-inf"))
        log_mu = torch.log_softmax(nothing.scatter(-1, order, ordered), dim=-1)
    return log_mu


def draw_words(log_mu: Tensor, options: WordOptions, uniform: Tensor) -> Tensor:
    """One word per place [N] from mu', exactly up to the rounding of log mu itself; log mu need not be normalised.

    uniform [N, ``NUMBERS``]: uniform numbers for each place.
    """
    rows = max(1, ELEMENTS_AT_ONCE // log_mu.shape[-1] if log_mu.device.type == "cpu" else len(log_mu))
    return torch.cat([_draw_part(*part, options) for part in zip(log_mu.split(rows), uniform.split(rows))])


def _draw_part(log_mu: Tensor, uniform: Tensor, options: WordOptions) -> Tensor:
    if options.temperature < COLDEST:
        return log_mu.argmax(-1)
    if 0 < options.top_k < log_mu.shape[-1]:  # the rest of the work is on k words
        ordered, order = log_mu.topk(options.top_k)
        choice = draw(word_distribution(ordered, dataclasses.replace(options, top_k=0)), uniform[:, 0])
        return order.gather(-1, choice[:, None]).squeeze(-1)
    mass = (log_mu - log_mu.amax(-1, keepdim=True)).div_(options.temperature).exp_()
    words = draw_by_blocks(mass, uniform)
    if options.top_p < 1:
        # A word is outside the nucleus when the likelier ones have top_p between them. Those few places are drawn again
        # from the nucleus: mu + (1 - M) mu / M = mu / M for words of the nucleus, whose mass is M. Nobody has to sort
        # the other places.
        before = torch.where(mass > mass.gather(-1, words[:, None]), mass, 0.0).sum(-1)
        outside = ((before >= options.top_p * mass.sum(-1)) & (before > 0)).nonzero().squeeze(-1)
        if len(outside):
            words[outside] = draw(word_distribution(log_mu[outside], options), uniform[outside, 2])
    return words


def draw(log_mu: Tensor, uniform: Tensor) -> Tensor:
    """One word per row [N] from log mu [N, V], by a uniform number each [N]."""
    return _invert(log_mu.double().exp(), uniform)


def draw_by_blocks(mass: Tensor, uniform: Tensor) -> Tensor:
    """One word per row [N] in proportion to ``mass`` [N, V]: first a block of words by its total, then a word of the
    block, by the first two of the uniform numbers [N, >= 2].
    """
    whole = mass.shape[-1] // BLOCK * BLOCK
    totals = [mass[:, :whole].unflatten(-1, (-1, BLOCK)).sum(-1)] if whole else []
    totals += [mass[:, whole:].sum(-1, keepdim=True)] if whole < mass.shape[-1] else []
    block = _invert(torch.cat(totals, dim=-1).double(), uniform[:, 0])
    words = block[:, None] * BLOCK + torch.arange(BLOCK, device=mass.device)
    inside = mass.gather(-1, words.clamp(max=mass.shape[-1] - 1)).double() * (words < mass.shape[-1])
    return block * BLOCK + _invert(inside, uniform[:, 1])


def _invert(mass: Tensor, uniform: Tensor) -> Tensor:
    """Index [N] drawn in proportion to ``mass`` [N, K] float64, by inverting its cumulative sum at ``uniform`` [N]."""
    cumulative = mass.cumsum(-1)
    index = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True).squeeze(-1)
    # rounding may land on the very end; step back to the last one that has mass
    last = mass.shape[-1] - 1 - (mass > 0).flip(-1).int().argmax(-1)
    return torch.minimum(index, last)
