"""What the training loop is given, what it remembers, and whom it tells."""

from __future__ import annotations

import contextlib
import math
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from .config.schema import RunConfig, TrainingConfig
from .data.batch import Batch
from .data.batching import Collator
from .data.encoded import EncodedMix, EncodedPairs
from .errors import UserError


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
    group_size: int = 0  # batches per optimizer step, over all processes; a resume keeps it


@dataclass
class TrainingResult:
    """How training ended: ``reason`` is epochs, max_steps, max_minutes, patience, or interrupted (then ``signal`` says
    by what).
    """

    state: TrainingState
    reason: str
    signal: int | None = None


@dataclass
class TrainingData:
    """Encoded splits; ``valid_words`` counts the words (text.split()) of the yardstick's targets. With several
    ``tasks``, ``valid_tasks`` has the number of each validation batch's task.
    """

    train: EncodedPairs | EncodedMix
    valid: list[Batch]
    valid_words: int
    collator: Collator
    fingerprint: str
    tasks: list[str] = field(default_factory=lambda: [""])
    valid_tasks: list[int] | None = None


def make_optimizer(module: torch.nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW in which matrices decay, biases and norms do not."""
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=parameters[0].device.type in ("cpu", "cuda"))


def stop_reason(
    state: TrainingState, training: TrainingConfig, total_steps: int, signal_number: int | None
) -> str | None:
    """Why training ends after this step, or None."""
    if state.step >= total_steps:
        return "max_steps" if training.max_steps is not None and state.step >= training.max_steps else "epochs"
    if training.max_minutes is not None and state.seconds >= 60 * training.max_minutes:
        return "max_minutes"
    if training.patience is not None and state.bad_validations >= training.patience:
        return "patience"
    return None if signal_number is None else "interrupted"


def warmup_then_decay(done: float, warmup: float, total_steps: int) -> float:
    """Factor of the learning rate when the share ``done`` of training is over: a linear rise over the share ``warmup``,
    then linearly to zero.
    """
    if done < warmup:
        return (done + 1 / total_steps) / (warmup + 1 / total_steps)
    return (1 - done) / (1 - warmup) if warmup < 1 else 1.0


@contextlib.contextmanager
def enough_memory(config: RunConfig, device: torch.device) -> Iterator[None]:
    """Too little memory in this block becomes a UserError with advice; on a CPU the allocator says so in a plain
    RuntimeError.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if (
            isinstance(error, RuntimeError)
            and not isinstance(error, torch.OutOfMemoryError)
            and "can't allocate memory" not in str(error)
        ):
            raise
        training = config.training
        raise UserError(
            memory_advice(device, training.batch_size, training.accumulation_steps, config.data.tokens_per_batch)
        ) from None


def memory_advice(
    device: torch.device, batch_size: int, accumulation_steps: int, tokens_per_batch: int | None = None
) -> str:
    """What to do about too little memory: half the batch and twice the accumulation, so that a step sees as many
    examples (rounded up).
    """
    name, size = ("batch_size", batch_size) if tokens_per_batch is None else ("tokens_per_batch", tokens_per_batch)
    if batch_size == 1:
        return (
            f"out of memory on {device} at batch_size 1: lower --max_length or --vocab_size, take a smaller model, or"
            " --device cpu"
        )
    return (
        f"out of memory on {device} at {name} {size}: try --{name} {(size + 1) // 2} --accumulation_steps"
        f" {2 * accumulation_steps} (as many examples per step), a lower --max_length, or --device cpu"
    )


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
        before = {
            number: signal.signal(number, lambda number, _frame: handle(number))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
    except ValueError:  # not in the main thread: leave signals alone
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
