"""What may interrupt a training and how it goes on: signals, too little memory, the state of the random generators."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Callable, Iterator

import numpy as np
import torch

from ..config.run_config import RunConfig
from ..errors import UserError


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
    """Within this block SIGINT, SIGTERM and SIGHUP (a terminal that was closed; not under nohup) call
    ``handle(number)`` instead of ending the program.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    try:
        before = {number: signal.signal(number, lambda number, _frame: handle(number)) for number in numbers}
    except ValueError:  # not in the main thread: leave signals alone
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
