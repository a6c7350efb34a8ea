"""A word table that is read by the embedding and shared by the vocabulary head, as one node of the graph.

The head's gradient is as large as the table. Autograd would make a second one, of mostly zeros, for the embedding and
add the two (or, with sparse gradients, copy the first); here the few rows that were read are added to the head's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _OneTable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, ids: Tensor, padding_idx: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(ids)
        ctx.padding_idx = padding_idx
        return F.embedding(ids, weight), weight.view_as(weight)

    @staticmethod
    def backward(ctx, of_rows: Tensor, of_table: Tensor):
        (ids,) = ctx.saved_tensors
        ids, of_rows = ids.flatten(), of_rows.flatten(0, -2)
        if ctx.padding_idx is not None:  # nn.Embedding learns nothing from padding
            of_rows = of_rows.masked_fill((ids == ctx.padding_idx)[:, None], 0.0)
        # of_table belongs to this node alone: nothing else has seen the gradient of the head's view
        return of_table.index_add_(0, ids, of_rows.to(of_table.dtype)), None, None


def one_table(embedding: nn.Embedding, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings [B, L, D] of ids [B, L], and the table [V, D] for the head to use in its place."""
    return _OneTable.apply(embedding.weight, ids, embedding.padding_idx)
