"""The attention of every encoder: the library's own call of torch, in float32 where torch's kernel for bf16 is slow.

Under bf16 on a processor, torch's fused attention goes forward at the speed of float32 and backward eight times slower
(2.13; 64 rows of 30 places: 95 ms a layer against 13). So queries, keys and values are taken to float32 before it, and
the softmax with them.
"""

from __future__ import annotations

import torch
import transformers
from torch import Tensor

ATTENTION = "diffusion_bert"  # the name by which the library knows it
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
        exact = (part.float() for part in (query, key, value))
        states, _ = _fused(module, *exact, attention_mask, **options)
    return states.to(query.dtype), None


def use_attention(config) -> None:
    """Let encoders of this (private) configuration use ``attention`` where they would have used torch's."""
    transformers.AttentionInterface.register(ATTENTION, attention)
    if config._attn_implementation == "sdpa":
        config._attn_implementation = ATTENTION
