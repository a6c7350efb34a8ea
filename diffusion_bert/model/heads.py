"""Small parts of the denoiser: the pointer over source words, the time embedding, and self-conditioning."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CopyHead(nn.Module):
    """Mixes a pointer over the source into the word distribution.

        mu = (1 - g) softmax(vocabulary) + g sum_j a_j [source_j = v]
        a = softmax_j <q(h), k(source_j)> / sqrt(D),  g = sigmoid(w.h + b)

    After the pointer network of See et al. 2017 (arXiv 1704.04368). mu stays a proper distribution, so all of
    diffusion.py holds as it is.
    """

    INITIAL_GATE = -1.0  # g = 0.27 at the start: both ways of writing a word get a gradient

    def __init__(self, width: int):
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.gate = nn.Linear(width, 1)

    def attend(
        self, states: Tensor, places: tuple[Tensor, Tensor], source_states: Tensor, copyable: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pointer weights a [N, S] (0 where nothing may be copied), log g [N] and log(1 - g) [N]; g = 0 without a
        source.

        states [B, T, D], places = rows and columns [N] into them, source_states [B, S, D], copyable [B, S].
        """
        rows, columns = places
        flat = rows * states.shape[1] + columns
        here = at_places(states, places)  # [N, D]
        queries = self.query(here)
        # scores of all T columns, most of them 0 and never read: still cheaper than the keys of every place, [N, S, D]
        spread = queries.new_zeros(states.shape[0] * states.shape[1], queries.shape[-1]).index_copy(0, flat, queries)
        # [B, T, S]
        scores = (
            spread.view(*states.shape[:2], -1) @ self.key(source_states).transpose(1, 2) / math.sqrt(queries.shape[-1])
        )
        scores = at_least_float32(scores.flatten(0, 1).index_select(0, flat))
        allowed = copyable[rows]
        weights = torch.softmax(scores.masked_fill(~allowed, -1e9), dim=-1) * allowed
        gate = at_least_float32(self.gate(here).squeeze(-1))
        has_source = allowed.any(-1)
        log_g = torch.where(has_source, F.logsigmoid(gate), float("-inf"))
        log_not_g = torch.where(has_source, F.logsigmoid(-gate), 0.0)
        return weights, log_g, log_not_g

    @staticmethod
    def mix(log_p: Tensor, log_g: Tensor, log_not_g: Tensor, copied: Tensor) -> Tensor:
        """log[(1 - g) p + g copied], element by element, also where ``copied`` (or g) is 0; its gradient stays
        finite.
        """
        own = log_p + log_not_g
        counts = (copied > 0) & (log_g > float("-inf"))
        log_copy = torch.where(counts, copied, 1.0).log() + torch.where(counts, log_g, 0.0)
        return torch.where(counts, torch.logaddexp(torch.where(counts, own, 0.0), log_copy), own)

    def forward(
        self,
        logits: Tensor,
        states: Tensor,
        places: tuple[Tensor, Tensor],
        source_states: Tensor,
        source_ids: Tensor,
        copyable: Tensor,
    ) -> Tensor:
        """log mu [N, V] from the vocabulary's logits [N, V]; source_ids [B, S], the other arguments as in ``attend``.

        Mixed in log space, and only at the few columns that stand in the source: all others just lose log(1 - g).
        """
        weights, log_g, log_not_g = self.attend(states, places, source_states, copyable)
        rows = places[0]
        first = first_occurrence(source_ids, copyable)[rows]  # [N, S]
        # equal words share their weight, at the first of them
        share = torch.zeros_like(weights).scatter_add(-1, first, weights)
        ids = source_ids[rows]
        log_vocabulary = torch.log_softmax(logits, dim=-1)
        in_place = not torch.is_grad_enabled()  # spares two tables of N x V
        log_vocabulary = log_vocabulary.add_(log_not_g[:, None]) if in_place else log_vocabulary + log_not_g[:, None]
        own = log_vocabulary.gather(-1, ids)
        mixed = self.mix(own, log_g[:, None], torch.zeros_like(own), share)
        # where nothing is copied the gain is 0; where own is -inf nothing may be copied
        gain = torch.where(share > 0, mixed - torch.where(share > 0, own, 0.0), 0.0)
        return (log_vocabulary.scatter_add_ if in_place else log_vocabulary.scatter_add)(-1, ids, gain)


def first_occurrence(source_ids: Tensor, copyable: Tensor) -> Tensor:
    """For each place of the source the first copyable place with the same word, [B, S]; a place that may not be copied
    names itself.
    """
    same = (source_ids[:, :, None] == source_ids[:, None, :]) & copyable[:, None, :]
    return torch.where(copyable, same.int().argmax(-1), torch.arange(source_ids.shape[1], device=source_ids.device))


def at_places(states: Tensor, places: tuple[Tensor, Tensor]) -> Tensor:
    """states [B, T, D] at N places, [N, D] (index_select: its backward pass is several times faster than that of
    states[places]).
    """
    return states.flatten(0, 1).index_select(0, places[0] * states.shape[1] + places[1])


def at_least_float32(values: Tensor) -> Tensor:
    """float32 for half-precision values, else as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class TimeEmbedding(nn.Module):
    """tau in [0, 1] -> ``outputs`` vectors of the model's width, [B, outputs, D]: sinusoids, then a two-layer network.

    A continuous function of t / T, so the number of steps may change after training.
    """

    FREQUENCIES = 64

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.outputs = outputs
        self.hidden = nn.Linear(2 * self.FREQUENCIES, width)
        self.out = nn.Linear(width, width * outputs)
        self.register_buffer(
            "frequencies", torch.exp(torch.linspace(0.0, math.log(1000.0), self.FREQUENCIES)), persistent=False
        )

    def forward(self, tau: Tensor) -> Tensor:
        angles = tau.to(self.frequencies.dtype)[:, None] * self.frequencies
        features = torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.hidden.weight.dtype)
        return self.out(F.silu(self.hidden(features))).unflatten(-1, (self.outputs, -1))


FIRST_PASS_SHARE = 0.5  # This share of the training steps has a first pass, which makes a guess.


class Guess(NamedTuple):
    """Expected embeddings ``vectors`` [N, D] at the places (``rows``, ``columns``) [N] of the embeddings; zeros stand
    for "not known".
    """

    rows: Tensor
    columns: Tensor
    vectors: Tensor


class SelfConditioning(nn.Module):
    """The network sees what it expected at the masked places a moment ago.

    After Chen et al. 2022 (arXiv 2208.04202), for masked diffusion: the expected embedding sum_v mu_v E[v], through a
    projection that starts at zero, is added to the input embedding of a masked place. In training half of the steps
    have a first pass without gradient, whose mu it is; a sampler uses the mu of its previous call, so it costs no extra
    call. Only masked places of the target get it: what the source is encoded to does not change. The projection has no
    bias, so that a guess of zeros adds nothing.
    """

    def __init__(self, width: int):
        super().__init__()
        self.projection = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.projection.weight)

    def forward(self, embeddings: Tensor, guess: Guess) -> Tensor:
        """embeddings [B, L, D] with W vectors added at the places of the guess."""
        extra = self.projection(guess.vectors).to(embeddings.dtype)
        return embeddings.index_put((guess.rows, guess.columns), extra, accumulate=True)


@torch.no_grad()
def expected_embedding(log_mu: Tensor, table: Tensor) -> Tensor:
    """sum_v mu_v E[v], [N, D]; log_mu [N, V], table E [V, D]."""
    return log_mu.to(table.dtype).exp() @ table
