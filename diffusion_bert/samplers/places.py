"""Some masked places of a batch, what the denoiser says of them, and their rank among the places of their row.

Where the places are is known on the host; log mu, the large table, stays on the denoiser's device. What a sampler wants
to know of it is read in one go (``read``): a GPU then waits for Python once a call.

Shapes: N places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Places:
    """Some masked places and what the denoiser says of them: rows and columns [N] in the canvas, on the host, and
    log_mu [N, V]. ``measured`` [N]: what ``read`` was asked for besides.
    """

    rows: Tensor
    columns: Tensor
    log_mu: Tensor
    measured: Tensor | None = None
    _read: tuple[Tensor, Tensor] | None = field(default=None, repr=False)  # words, and log mu of each

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, chosen: Tensor) -> Places:
        """Those places only; ``chosen`` [N] bool."""
        if bool(chosen.all()):
            return self
        index = chosen.nonzero().squeeze(-1)
        return Places(self.rows[index], self.columns[index], self.log_mu[index.to(self.log_mu.device)])

    def read(self, words: Tensor, measure: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """``words`` [N] on the host; with them come their log mu, and ``measure(log_mu)`` [N] as ``measured``."""
        log_prob = self.log_mu.gather(-1, words[:, None]).squeeze(-1)
        measured = None if measure is None else measure(self.log_mu)
        if words.device != self.rows.device:  # in float64, which holds them all exactly
            parts = [words, log_prob] if measured is None else [words, log_prob, measured]
            words, log_prob, *rest = torch.stack([part.double() for part in parts]).to(self.rows.device)
            words, measured = words.long(), rest[0] if rest else None
        self._read, self.measured = (words, log_prob), measured
        return words

    def log_prob(self, words: Tensor) -> Tensor:
        """log mu of one word per place, [N], on the host."""
        if self._read is None or self._read[0] is not words:
            self.read(words.to(self.log_mu.device))
        return self._read[1]


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
