"""What the training loop is given, what it remembers, and whom it tells."""

from __future__ import annotations

import contextlib
import math
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from .data import Collator, EncodedPairs
from .layout import Batch


class Reporter:
    """What the loop tells: override what is of interest."""

    def start(self, total_steps: int, done_steps: int) -> None: ...
    def step(self, step: int, progress: float, values: dict) -> None: ...
    def validation(self, record: dict, improved: bool) -> None: ...
    def demonstration(self, step: int) -> None: ...
    def stop(self) -> None: ...


@dataclass
class TrainingState:
    """Where the run stands; goes into last.pt, so that a resume continues at the same place."""

    step: int = 0
    epoch: int = 0  # epochs finished
    batch: int = 0  # batches of the current epoch already used
    best_nelbo: float = math.inf
    best_step: int = 0
    bad_validations: int = 0
    seconds: float = 0.0
    metrics_lines: int = 0
    finished: bool = False
    stopped_by: str = ""  # why it finished
    window: dict = field(default_factory=dict)  # sums since the last logged line


@dataclass
class TrainingResult:
    """How training ended: ``reason`` is epochs, max_steps, max_minutes, patience, or interrupted (then ``signal`` says by what)."""

    state: TrainingState
    reason: str
    signal: int | None = None


@dataclass
class TrainingData:
    """Encoded splits; ``valid_words`` counts the words (text.split()) of the yardstick's targets."""

    train: EncodedPairs
    valid: list[Batch]
    valid_words: int
    collator: Collator
    fingerprint: str


def random_state(device: torch.device) -> dict:
    """The state of every generator that training may draw from, in plain types."""
    state = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": np.random.get_state(legacy=False)}
    state["numpy"]["state"]["key"] = state["numpy"]["state"]["key"].tolist()
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict, device: torch.device) -> None:
    """Put every generator back to a saved state."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    inner = {**state["numpy"]["state"], "key": np.array(state["numpy"]["state"]["key"], dtype=np.uint32)}
    np.random.set_state({**state["numpy"], "state": inner})
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


@contextlib.contextmanager
def signals_caught(handle: Callable[[int], None]):
    """Within this block SIGINT and SIGTERM call ``handle(number)`` instead of ending the program."""
    try:
        before = {number: signal.signal(number, lambda number, _frame: handle(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: leave signals alone
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
