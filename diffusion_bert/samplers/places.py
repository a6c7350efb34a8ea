"""Some masked places of a batch, what the denoiser says of them, and their rank among the places of their row.

Shapes: N places, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Places:
    """Some masked places and what the denoiser says of them: rows and columns [N] in the canvas, log_mu [N, V]."""

    rows: Tensor
    columns: Tensor
    log_mu: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, chosen: Tensor) -> Places:
        """Those places only; ``chosen`` [N] bool."""
        return self if bool(chosen.all()) else Places(self.rows[chosen], self.columns[chosen], self.log_mu[chosen])

    def log_prob(self, words: Tensor) -> Tensor:
        """log mu of one word per place, [N]."""
        return self.log_mu.gather(-1, words[:, None]).squeeze(-1)


def rank_within_rows(score: Tensor, rows: Tensor) -> Tensor:
    """Rank of each place among those of its own row (or any other group), 0 = highest score; ties keep their order.
    score and rows [N].
    """
    order = torch.argsort(score, descending=True, stable=True)
    order = order[torch.argsort(rows[order], stable=True)]  # grouped by row, best first
    counts = torch.bincount(rows, minlength=int(rows.max()) + 1 if len(rows) else 0)
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(rows)
    rank[order] = torch.arange(len(rows), device=rows.device) - starts[rows[order]]
    return rank
