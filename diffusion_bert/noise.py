"""Random numbers by place instead of by order: the same noise however a batch is cut into micro-batches or spread over
processes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """A 64-bit pattern as the int64 that torch can hold."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_FIRST, _SECOND, _STEP = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB), _signed(0x9E3779B97F4A7C15)

LARGEST = 1 - 2.0**-53  # of the numbers that are drawn: LARGEST - u is distributed like u


def _mix(z: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): a bijection of 64 bits that leaves no visible pattern.
    int64 wraps around.
    """
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, None)):
        z = z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))  # >> copies the sign: the mask makes it a logical shift
        z = z if factor is None else z * factor
    return z


def keyed_uniform(key: int, rows: Tensor, places: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), float64 [B, L]: each a fixed function of (key, its row, its place), alike on every
    device.

    rows [B] or [B, L] int64, places [B, L] int64.
    """
    seed = _mix(torch.full((), _signed(key), dtype=torch.int64, device=places.device) + _STEP)
    bits = _mix(_mix(seed + (rows if rows.dim() == 2 else rows[:, None])) + places)
    return ((bits >> 11) & ((1 << 53) - 1)).double() * 2.0**-53
