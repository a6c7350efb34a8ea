"""The attention of every encoder: the library's own call of torch, and other ways where its kernel for bf16 is slow.

Under bf16 on a processor, torch's fused attention goes forward at the speed of float32 and backward eight times slower
(2.13; 64 rows of 30 places: 95 ms a layer against 13). Over short sequences plain products in bf16 are faster than
either, with the softmax in float32; over longer ones, whose scores would fill the memory, queries, keys and values are
taken to float32 before the fused attention.
"""

from __future__ import annotations

import torch
import transformers
from torch import Tensor
from torch.nn import functional as F

ATTENTION = "diffusion_bert"  # the name by which the library knows it
SHORT = 48  # places up to which plain products are faster (docs/performance.md)
_fused = transformers.AttentionInterface()["sdpa"]


def attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options
) -> tuple[Tensor, None]:
    """Attention in the library's own terms: query, key and value [B, heads, places, D / heads]; the result
    [B, places, heads, D / heads] in the type of the query.
    """
    if query.dtype != torch.bfloat16 or query.device.type != "cpu":
        return _fused(module, query, key, value, attention_mask, **options)
    with torch.autocast("cpu", enabled=False):
        if attention_mask is not None and max(query.shape[2], key.shape[2]) <= SHORT:
            scaling, dropout = options.get("scaling"), options.get("dropout", 0.0)
            return by_products(query, key, value, attention_mask, scaling, dropout), None
        exact = (part.float() for part in (query, key, value))
        states, _ = _fused(module, *exact, attention_mask, **options)
    return states.to(query.dtype), None


def by_products(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None = None, dropout: float = 0.0
) -> Tensor:
    """dropout(softmax(scaling query key^T + mask)) value, [B, Q, heads, D / heads], with the softmax in float32.

    query [B, heads, Q, D / heads], key and value [B, heads, K, D / heads]; ``mask`` [B, 1, Q, K] is added to the
    scores, or as booleans says which places may be seen; scaling: by default 1 / sqrt(D / heads).
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if mask.dtype == torch.bool:
        lowest = torch.finfo(torch.float32).min
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, lowest)
    scores = torch.add(mask.float(), query @ key.transpose(2, 3), alpha=scaling)  # float32 from here to the softmax
    weights = F.dropout(torch.softmax(scores, dim=-1), dropout)
    return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous()


def use_attention(config) -> None:
    """Let encoders of this (private) configuration use ``attention`` where they would have used torch's."""
    transformers.AttentionInterface.register(ATTENTION, attention)
    if config._attn_implementation == "sdpa":
        config._attn_implementation = ATTENTION
