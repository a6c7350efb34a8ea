"""Self-conditioning: the network sees what it expected at the masked places a moment ago.

After Chen et al. 2022 (arXiv 2208.04202), for masked diffusion: the expected embedding sum_v mu_v E[v], through a
projection that starts at zero, is added to the input embedding of a masked place. In training half of the steps have a
first pass without gradient, whose mu it is; a sampler uses the mu of its previous call, so it costs no extra call. Only
masked places of the target get it: what the source is encoded to does not change.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

SHARE = 0.5  # of the training steps have a first pass


class Guess(NamedTuple):
    """Expected embeddings ``vectors`` [N, D] at the places (``rows``, ``columns``) [N] of the embeddings; zeros stand
    for "not known".
    """

    rows: Tensor
    columns: Tensor
    vectors: Tensor


class SelfConditioning(nn.Module):
    """The projection W of a guess; without bias, so that a guess of zeros adds nothing."""

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
