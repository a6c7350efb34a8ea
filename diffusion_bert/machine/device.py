"""Which device computes."""

from __future__ import annotations

import re
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
