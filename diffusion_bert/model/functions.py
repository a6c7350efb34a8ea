"""Two functions with gradients of their own, which spare training whole passes over tables of N x V numbers.

``true_word_statistics`` gives two numbers of a softmax over a large vocabulary without ever writing the softmax down:
log p of one word and the mean of a table. Training needs of every mu no more than these (objective.py). They come from
one pass over the logits, in pieces that stay in the processor's cache; the gradient takes one more. A log-softmax, its
correction for time, the exponential and their gradients would each read and write all N x V numbers.

``tied_embedding`` reads a word table that the vocabulary head shares, as one node of the graph. The head's gradient is
as large as the table. Autograd would make a second one, of mostly zeros, for the embedding and add the two (or, with
sparse gradients, copy the first); here the few rows that were read are added to the head's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIECE = 2**18  # logits worked on at once on a CPU: 1 MiB in float32


class _TrueWordStatistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, bias: Tensor, index: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor]:
        count = len(logits)
        exact = torch.promote_types(logits.dtype, torch.float32)
        log_sum = torch.empty(count, dtype=exact, device=logits.device)
        mean = torch.zeros(count, dtype=exact, device=logits.device)
        for rows in _pieces(logits):
            part = logits[rows].to(exact) + bias
            top = part.amax(-1)
            p = part.sub_(top[:, None]).exp_()
            total = p.sum(-1)
            log_sum[rows] = total.log() + top
            if table is not None:
                mean[rows] = (p @ table) / total
        log_p = logits.gather(-1, index[:, None]).squeeze(-1).to(exact) + bias[index] - log_sum
        ctx.save_for_backward(logits, bias, index, table, log_sum, mean)
        ctx.set_materialize_grads(False)
        return log_p, mean

    @staticmethod
    def backward(ctx, grad_log_p: Tensor, grad_mean: Tensor):
        # d log p_x / d logit_v = [v = x] - p_v;   d mean / d logit_v = p_v (table_v - mean)
        logits, bias, index, table, log_sum, mean = ctx.saved_tensors
        grad = torch.empty_like(logits)
        grad_log_p = torch.zeros_like(log_sum) if grad_log_p is None else grad_log_p
        table = table if grad_mean is not None else None  # a loss without the bound's terms does not ask for the mean
        constant = grad_log_p if table is None else grad_log_p + grad_mean * mean
        for rows in _pieces(logits):
            # made where it is to stay
            p = grad[rows] if grad.dtype == log_sum.dtype else torch.empty_like(grad[rows], dtype=log_sum.dtype)
            torch.add(logits[rows], bias, out=p).sub_(log_sum[rows, None]).exp_()
            slope = -constant[rows, None]
            p.mul_(slope if table is None else torch.addcmul(slope, grad_mean[rows, None], table))
            p.scatter_add_(-1, index[rows, None], grad_log_p[rows, None])
            if p.dtype != grad.dtype:
                grad[rows].copy_(p)
        return grad, None, None, None


def _pieces(logits: Tensor) -> list[slice]:
    step = max(1, PIECE // logits.shape[-1]) if logits.device.type == "cpu" else max(1, len(logits))
    return [slice(start, start + step) for start in range(0, len(logits), step)]


def true_word_statistics(
    logits: Tensor, bias: Tensor, index: Tensor, table: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """log p_index and sum_v p_v table_v of p = softmax(logits + bias), both [N] in float32 or better, differentiable in
    the logits.

    Args:
        logits: [N, V] of any floating type.
        bias: [V] constants, such as -inf for words that may have no mass.
        index: [N] the words asked for; none of them with a bias of -inf.
        table: [V] in the type of the result, or None: then the mean is 0.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return _TrueWordStatistics.apply(logits, bias, index, table)


class _TiedEmbedding(torch.autograd.Function):
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


def tied_embedding(embedding: nn.Embedding, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings [B, L, D] of ids [B, L], and the table [V, D] for the head to use in its place."""
    return _TiedEmbedding.apply(embedding.weight, ids, embedding.padding_idx)
