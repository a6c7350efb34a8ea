"""How much memory a process takes: its highest value so far, and by how much a step rises above what is there."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import torch


class Memory:
    """The highest anonymous and mapped resident size since the start, in MB."""

    def __init__(self):
        self.anonymous = self.mapped = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.look()
            time.sleep(0.02)

    def look(self) -> None:
        try:
            with open("/proc/self/status", encoding="ascii", errors="replace") as file:
                values = {
                    name: rest.split()[0] for name, _, rest in (line.partition(":") for line in file) if rest.strip()
                }
            anonymous, mapped = int(values["RssAnon"]) / 1024, int(values["RssFile"]) / 1024
        except (OSError, KeyError):
            import resource

            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            anonymous, mapped = peak / (1024 if sys.platform != "darwin" else 1024**2), 0.0
        self.anonymous, self.mapped = max(self.anonymous, anonymous), max(self.mapped, mapped)


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{name}:"))


def peak_memory(step, device: torch.device) -> int:
    """Bytes by which three steps rise above what is there between steps."""
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
        base = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    else:
        base = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM = VmRSS
    for _ in range(3):
        step()
    return (torch.cuda.max_memory_allocated() if device.type == "cuda" else resident("VmHWM")) - base
