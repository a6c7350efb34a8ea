"""What a training step consists of: its matrix FLOPs, and the operators in which its time goes."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode


def count_flops(step) -> int:
    """Matrix FLOPs of one step, forward and backward, attention included."""
    # the fused attention of the CPU is not in the counter's list; the plain one is, and does the same products
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def profile(step, rounds: int = 3) -> str:
    """A table of the operators of some steps, by their own time."""
    for _ in range(2):
        step()
    with torch.profiler.profile(record_shapes=True) as recorded:
        for _ in range(rounds):
            step()
    averages = recorded.key_averages(group_by_input_shape=True)
    name = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    entries = sorted(((getattr(entry, name), entry) for entry in averages), key=lambda item: -item[0])
    total = sum(spent for spent, _ in entries)
    lines = [f"{total / rounds / 1000:.1f} ms per step; share, operator, shapes"]
    lines += [
        f"{100 * spent / total:5.1f} %  {entry.key:45s} {str(entry.input_shapes)[:110]}"
        for spent, entry in entries[:40]
    ]
    return "\n".join(lines)
