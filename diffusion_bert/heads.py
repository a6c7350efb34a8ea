"""Small parts of the denoiser: the pointer over source words and the time embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CopyHead(nn.Module):
    """Mixes a pointer over the source into the word distribution.

        mu = (1 - g) softmax(vocabulary) + g sum_j a_j [source_j = v]
        a = softmax_j <q(h), k(source_j)> / sqrt(D),  g = sigmoid(w.h + b)

    After the pointer network of See et al. 2017 (arXiv 1704.04368). mu stays a proper distribution, so all of diffusion.py holds as it is.
    """

    INITIAL_GATE = -1.0  # g = 0.27 at the start: both ways of writing a word get a gradient

    def __init__(self, width: int):
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.gate = nn.Linear(width, 1)

    def attend(self, states: Tensor, rows: Tensor, source_states: Tensor, copyable: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pointer weights a [N, S] (0 where nothing may be copied), log g [N] and log(1 - g) [N]; g = 0 without a source."""
        # index_select and not [rows]: its backward pass is several times faster
        keys = self.key(source_states).index_select(0, rows)  # [N, S, D]
        scores = torch.einsum("nd,nsd->ns", self.query(states), keys) / math.sqrt(keys.shape[-1])
        allowed = copyable[rows]
        weights = torch.softmax(scores.float().masked_fill(~allowed, -1e9), dim=-1) * allowed
        gate = self.gate(states).squeeze(-1).float()
        has_source = allowed.any(-1)
        log_g = torch.where(has_source, F.logsigmoid(gate), float("-inf"))
        log_not_g = torch.where(has_source, F.logsigmoid(-gate), 0.0)
        return weights, log_g, log_not_g

    def forward(self, log_vocabulary: Tensor, states: Tensor, rows: Tensor, source_states: Tensor, source_ids: Tensor, copyable: Tensor) -> Tensor:
        """log mu [N, V] from log softmax(vocabulary) [N, V]; the other arguments as in ``BertDenoiser.word_log_probs``.

        Mixed in log space, and only at the few columns that stand in the source: all others just lose log(1 - g).
        """
        weights, log_g, log_not_g = self.attend(states, rows, source_states, copyable)
        same = source_ids[:, :, None] == source_ids[:, None, :]  # [B, S, S] equal words share their weight
        first = ~(same & copyable[:, None, :]).tril(-1).any(-1) & copyable  # [B, S] count each word once
        with torch.autocast(weights.device.type, enabled=False):  # in bf16 the shares, hence mu, would not sum to 1
            share = torch.einsum("ns,nsk->nk", weights, same[rows].to(weights.dtype))  # [N, S] copy probability of the word at each column
        ids = source_ids[rows]
        scaled = log_vocabulary + log_not_g[:, None]
        here = scaled.gather(-1, ids)
        counts = first[rows] & (share > 0)
        log_copy = torch.where(counts, share, 1.0).log() + torch.where(counts, log_g[:, None], 0.0)
        gain = torch.where(counts, torch.logaddexp(torch.where(counts, here, 0.0), log_copy) - torch.where(counts, here, 0.0), 0.0)
        return scaled.scatter_add(-1, ids, gain)


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
        self.register_buffer("frequencies", torch.exp(torch.linspace(0.0, math.log(1000.0), self.FREQUENCIES)), persistent=False)

    def forward(self, tau: Tensor) -> Tensor:
        angles = tau.to(self.frequencies.dtype)[:, None] * self.frequencies
        features = torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.hidden.weight.dtype)
        return self.out(F.silu(self.hidden(features))).unflatten(-1, (self.outputs, -1))
