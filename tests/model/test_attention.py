"""Attention in bf16 on a processor: what torch's own says in float32, short and long, masked both ways."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffusion_bert.model import attention as module
from diffusion_bert.model.attention import SHORT, attention, by_products

HEADS, WIDTH = 3, 8
SHAPES = {"short": (6, 9), "as many as short": (SHORT, SHORT), "long": (SHORT + 1, SHORT + 1), "long source": (4, 60)}


def parts(queries: int, keys: int) -> list[torch.Tensor]:
    """Query, key and value of two rows, and booleans that hide a third of the places but never the first."""
    generator = torch.Generator().manual_seed(0)
    sizes = (queries, keys, keys)
    made = [torch.randn(2, HEADS, size, WIDTH, generator=generator).bfloat16() for size in sizes]
    allowed = torch.rand(2, 1, queries, keys, generator=generator) < 0.7
    allowed[..., 0] = True
    return [*made, allowed]


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_attention_of_float32(shape, monkeypatch):
    """Values and gradients within what bf16 can say; plain products for the short ones alone."""
    query, key, value, allowed = parts(*SHAPES[shape])
    used, real = [], by_products
    monkeypatch.setattr(module, "by_products", lambda *given: used.append(1) or real(*given))
    half = [part.clone().requires_grad_() for part in (query, key, value)]
    states, _ = attention(nn.Module(), *half, allowed, scaling=WIDTH**-0.5)
    exact = [part.float().requires_grad_() for part in (query, key, value)]
    expected = F.scaled_dot_product_attention(*exact, attn_mask=allowed).transpose(1, 2)
    assert states.dtype == torch.bfloat16 and bool(used) == (max(SHAPES[shape]) <= SHORT)
    torch.testing.assert_close(states.float(), expected, atol=0.02, rtol=0.02)
    slope = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    states.backward(slope.bfloat16())
    expected.backward(slope)
    for one, other in zip(half, exact):
        torch.testing.assert_close(one.grad.float(), other.grad, atol=0.04, rtol=0.04)


def test_hidden_places_count_for_nothing():
    """As booleans or as numbers to add, a mask leaves hidden places without weight, whatever they hold."""
    query, key, value, allowed = parts(6, 9)
    added = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    one, other = by_products(query, key, value, allowed), by_products(query, key, value, added)
    assert torch.equal(one, other)
    alone = allowed.new_zeros(allowed.shape)
    alone[..., 2] = True
    assert torch.equal(by_products(query, key, value, alone)[0, 4], value[0, :, 2])


def test_dropout_leaves_weights_out():
    """Half of the weights go, the others count twice: on average the same."""
    query, key, value, allowed = parts(6, 9)
    torch.manual_seed(0)
    many = torch.stack([by_products(query, key, value, allowed, dropout=0.5).float() for _ in range(400)])
    whole = by_products(query, key, value, allowed).float()
    assert not torch.equal(many[0], many[1])
    torch.testing.assert_close(many.mean(0), whole, atol=0.25, rtol=0)
