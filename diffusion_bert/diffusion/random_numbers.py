"""Random numbers by what they are for instead of by the order in which they are asked for: the same however a batch is
cut, spread over processes or padded.

Everything is made of splitmix64 (Steele, Lea and Flood 2014): int64 tensors that wrap around, alike on every device.

Shapes: B rows, T places, N places looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """A 64-bit pattern as the int64 that torch can hold."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_FIRST, _SECOND, _STEP = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB), _signed(0x9E3779B97F4A7C15)
OF_ROW = -1  # the place whose numbers belong to the row as a whole


def _mix(z: Tensor) -> Tensor:
    """The finaliser of splitmix64: a bijection of 64 bits that leaves no visible pattern."""
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, None)):
        z = z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))  # >> copies the sign: the mask makes it a logical shift
        z = z if factor is None else z * factor
    return z


def _unit(bits: Tensor) -> Tensor:
    """The upper 53 of 64 bits as a float64 number in [0, 1)."""
    return ((bits >> 11) & ((1 << 53) - 1)).double() * 2.0**-53


def _seeded(seed: int, device: torch.device | str = "cpu") -> Tensor:
    return _mix(torch.full((), _signed(seed), dtype=torch.int64, device=device) + _STEP)


def keyed_uniform(key: int, rows: Tensor, places: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), float64 [B, L]: each a fixed function of (key, its row, its place), alike on every
    device.

    rows [B] or [B, L] int64, places [B, L] int64.
    """
    rows = rows if rows.dim() == 2 else rows[:, None]
    return _unit(_mix(_mix(_seeded(key, places.device) + rows) + places))


def row_keys(seed: int, texts: Sequence[int], candidates: Sequence[int]) -> Tensor:
    """One key [B] int64 per row for ``RandomNumbers``, made of the seed, the number of its text (any 64 bits) and the
    number of the candidate.
    """
    of_text = _mix(_seeded(seed) + torch.tensor(list(map(_signed, texts)), dtype=torch.int64))
    return _mix(of_text + _STEP * torch.tensor(list(candidates), dtype=torch.int64))


class RandomNumbers:
    """A generator of its own for every place of every row: what one of them gives depends on the key of its row, on its
    place and on how many numbers it gave before, never on other rows or on the width of the canvas.

    Each is a splitmix64: its state goes on by a fixed odd step, and the mixed state is the number.

    Args:
        keys: [B] int64; rows with the same key get the same numbers.
        width: places T.
    """

    def __init__(self, keys: Tensor, width: int, device: torch.device | str = "cpu"):
        places = torch.arange(width + 1, device=device)
        places[OF_ROW] = OF_ROW
        self._state = _mix(_mix(keys.to(device)[:, None] + _STEP) + places)  # [B, T + 1]

    def at(self, rows: Tensor, columns: Tensor, count: int) -> Tensor:
        """``count`` uniform numbers in [0, 1) for each of the places (rows, columns) [N], all different: [N,
        count] float64.
        """
        states = self._state[rows, columns][:, None] + _STEP * torch.arange(1, count + 1, device=rows.device)
        self._state[rows, columns] = states[:, -1]
        return _unit(_mix(states))

    def everywhere(self) -> Tensor:
        """A uniform number in [0, 1) for every place, [B, T] float64."""
        self._state[:, :OF_ROW] += _STEP
        return _unit(_mix(self._state[:, :OF_ROW]))

    def of_rows(self) -> Tensor:
        """A uniform number in [0, 1) for every row, [B] float64."""
        self._state[:, OF_ROW] += _STEP
        return _unit(_mix(self._state[:, OF_ROW]))
