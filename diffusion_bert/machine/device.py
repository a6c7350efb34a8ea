"""Which device computes, and in which precision."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import UserError
from .memory import keep_freed_memory

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """``auto`` -> CUDA if there is a GPU, else the CPU; anything else must exist on this machine.

    (Apple's mps knows no float64, in which the schedule is computed.) On a CPU, freed memory is kept from here on
    (memory.py).
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"device is '{name}': expected auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (device.index or 0):
            raise UserError(
                f"device is '{name}' but this machine has {count or 'no'} CUDA GPU{'s' if count > 1 else ''}: use"
                " --device cpu or auto"
            )
    else:
        keep_freed_memory()
    return device


def choose_autocast(precision: str, device: torch.device) -> Callable[[], contextlib.AbstractContextManager]:
    """bf16 autocast on a GPU that has it; never on a CPU, where emulated bf16 is a hundred times slower."""
    import torch

    able = False
    if device.type == "cuda":
        with torch.cuda.device(device):  # without: the question would be about the first GPU
            able = torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and not able:
        raise UserError(f"precision is bf16 but {device} has no fast bf16: use --precision auto or fp32")
    if able and precision in ("auto", "bf16"):
        return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext
