"""In which precision a training computes: float32 throughout, or its products in bf16 beside float32 weights.

A GPU says itself whether it has bf16. A processor may emulate it, a hundred times slower than float32: there the flags
are read first, and then products of the model's own shapes are timed in both.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    import torch

PROCESSOR_FLAGS = ("avx512_bf16", "amx_bf16")  # either multiplies bf16 in hardware
CLEARLY_FASTER = 2.0  # auto takes bf16 where its products run at least so many times as fast as those of float32
NARROWEST = 192  # below this width the products are so small a part of a step that nothing is gained
ROUNDS = 3  # of each product; the fastest counts
TIMING_LIMIT = 0.2  # seconds after which no further round is begun

Shape = tuple[int, int, int]  # m, k, n of a product [m, k] x [k, n]


@dataclass(frozen=True)
class Precision:
    """What was decided. ``rates``: GFLOP/s of the products in float32 and in bf16, where they were timed."""

    bf16: bool
    device: str = "cpu"
    rates: tuple[float, float] | None = None
    remark: str = ""  # what the user should know of the decision

    @property
    def name(self) -> str:
        """As ``--precision`` names it."""
        return "bf16" if self.bf16 else "fp32"

    def autocast(self) -> contextlib.AbstractContextManager:
        """Within this block products are computed in bf16, if that was decided."""
        if not self.bf16:
            return contextlib.nullcontext()
        import torch

        return torch.autocast(self.device, dtype=torch.bfloat16)

    def describe(self) -> str:
        """For the Model line of a run."""
        name = "bf16" if self.bf16 else "float32"
        return name if self.rates is None else f"{name} ({figures(self.rates)})"


def figures(rates: tuple[float, float]) -> str:
    """Both rates in words."""
    return f"products at {rates[1]:,.0f} GFLOP/s in bf16, {rates[0]:,.0f} in float32"


@cache
def processor_flags() -> frozenset[str]:
    """Which of ``PROCESSOR_FLAGS`` this processor has; none where the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    words = set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
    return frozenset(words.intersection(PROCESSOR_FLAGS))


@cache
def product_rates(shapes: tuple[Shape, ...]) -> tuple[float, float]:
    """GFLOP/s of these products together in float32 and in bf16, on this processor and torch's threads; some
    milliseconds a product.
    """
    import torch
    from torch.nn.functional import linear

    seconds = {torch.float32: 0.0, torch.bfloat16: 0.0}
    for m, k, n in shapes:
        factors = {dtype: (torch.ones(m, k, dtype=dtype), torch.ones(n, k, dtype=dtype)) for dtype in seconds}
        best, begun = dict.fromkeys(seconds, float("inf")), time.perf_counter()
        for done in range(1 + ROUNDS):  # the first round warms up
            for dtype, (left, right) in factors.items():
                start = time.perf_counter()
                with torch.no_grad(), torch.autocast("cpu", enabled=False):
                    linear(left, right)
                best[dtype] = min(best[dtype], time.perf_counter() - start)
            if done and time.perf_counter() - begun > TIMING_LIMIT:
                break
        for dtype in seconds:
            seconds[dtype] += best[dtype]
    work = sum(2 * m * k * n for m, k, n in shapes) / 1e9
    return work / seconds[torch.float32], work / seconds[torch.bfloat16]


def decide_precision(
    wanted: str, device: torch.device, shapes: Sequence[Shape] = (), decided: str | None = None
) -> Precision:
    """The precision of a training with products of these ``shapes``, by the setting ``wanted`` (auto, fp32 or bf16).

    ``decided``: what an interrupted run had, which a resume keeps wherever it can; where it cannot, a remark says so.

    Raises:
        UserError: bf16 is wanted where it is slow; the message has both rates.
    """
    if decided is not None:
        if decided == "bf16" and not (_gpu_has_bf16(device) if device.type == "cuda" else processor_flags()):
            where = device if device.type == "cuda" else "this processor"
            return Precision(False, device.type, remark=f"{where} has no bf16, in which the run began: on in float32")
        return Precision(decided == "bf16", device.type)
    if wanted == "fp32":
        return Precision(False, device.type)
    if device.type == "cuda":
        able = _gpu_has_bf16(device)
        if wanted == "bf16" and not able:
            raise UserError(f"precision is bf16 but {device} has no fast bf16: use --precision auto or fp32")
        return Precision(able, device.type)
    return _on_processor(wanted, tuple(shapes))


def _on_processor(wanted: str, shapes: tuple[Shape, ...]) -> Precision:
    narrow = not shapes or min(k for _, k, _ in shapes) < NARROWEST
    if wanted == "auto" and (narrow or not processor_flags()):
        return Precision(False)
    rates = product_rates(shapes or ((256, 256, 256),))
    faster = rates[1] / rates[0]
    if wanted == "bf16" and (not processor_flags() or faster < 1):
        lacks = "" if processor_flags() else f" (it has neither {' nor '.join(PROCESSOR_FLAGS)})"
        raise UserError(
            f"precision is bf16 but this processor has no fast bf16{lacks}: {figures(rates)}; use --precision auto or"
            " fp32"
        )
    return Precision(wanted == "bf16" or faster >= CLEARLY_FASTER, rates=rates)


def _gpu_has_bf16(device: torch.device) -> bool:
    import torch

    with torch.cuda.device(device):  # without: the question would be about the first GPU
        return torch.cuda.is_bf16_supported(including_emulation=False)
