"""The numbers of training: kept on the device until somebody reads them, averaged, written to metrics.jsonl."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from .objective import NelboTerms
from .run_directory import RunDirectory
from .state import Reporter, TrainingState

MOST_PENDING = 100  # steps whose numbers may stay on a GPU


@dataclass
class PendingStep:
    """A step whose numbers may still be on the device: the terms, loss and gradient norm, float64. ``step`` counts from
    0.
    """

    step: int
    measured: Tensor
    lr: float
    examples: int
    tokens: int
    flops: float
    progress: float = 0.0


class TrainingLog:
    """Collects the numbers of steps.

    Args:
        run: whose metrics.jsonl is written.
        state: holds the sums since the last line, so that a resume continues them.
        reporter: gets every step once its numbers are read.
        writes: False in a process that leaves writing to another.
        tensorboard: also write event files, into a folder of the run.
    Raises:
        UserError: TensorBoard is asked for but not installed.
    """

    def __init__(
        self,
        run: RunDirectory,
        state: TrainingState,
        reporter: Reporter,
        writes: bool = True,
        tensorboard: bool = False,
    ):
        self.run, self.state, self.reporter, self.writes = run, state, reporter, writes
        self.tensorboard, self.events = tensorboard, None
        self.check_tensorboard(tensorboard)
        self.pending: list[PendingStep] = []

    @staticmethod
    def check_tensorboard(wanted: bool) -> None:
        """Refuse TensorBoard where it is not installed."""
        if wanted and importlib.util.find_spec("tensorboard") is None:
            raise UserError(
                "tensorboard is true but the package is not installed: pip install tensorboard, or leave"
                " --tensorboard out"
            )

    def add(self, step: PendingStep) -> None:
        """Take a step; its numbers are read at once where that is free of waiting."""
        self.state.window.setdefault("since", self.state.seconds)
        self.pending.append(step)
        if step.measured.device.type == "cpu" or len(self.pending) >= MOST_PENDING:
            self.read()

    def read(self) -> None:
        """Tell the numbers of the steps since the last time. On a GPU this is the one place that waits for it.

        Raises:
            UserError: a loss or gradient was not finite; the message names the first such step.
        """
        pending, self.pending = self.pending, []
        if not pending:
            return
        for step, (*terms, loss, norm) in zip(pending, torch.stack([step.measured for step in pending]).tolist()):
            self.check(step, loss, norm)
            values = {"loss": loss, "grad_norm": norm, "lr": step.lr, "examples": step.examples, "tokens": step.tokens}
            values |= NelboTerms(*terms).per_token()
            window = self.state.window
            for name, value in values.items():
                window[name] = window.get(name, 0.0) + value
            window["steps"] = window.get("steps", 0) + 1
            self.reporter.step(step.step + 1, step.progress, {**values, "flops": step.flops})

    def check(self, step: PendingStep, loss: float, norm: float) -> None:
        """Refuse to go on after a loss or gradient that is not finite."""
        if math.isfinite(loss) and math.isfinite(norm):
            return
        kept = self.run.best if self.run.best.is_file() else "none yet"
        raise UserError(
            f"training stopped at step {step.step}: the loss is {loss:g} and the gradient norm {norm:g} at learning"
            f" rate {step.lr:.2g}; the last good checkpoint is {kept}; try a smaller --lr or --max_grad_norm"
        )

    def write_averages(self, epoch: float) -> None:
        """One line of averages over the steps since the last one."""
        self.read()
        window, state = self.state.window, self.state
        steps, since = window.pop("steps"), window.pop("since")
        record = {"kind": "train", "step": state.step, "epoch": round(epoch, 4)}
        record |= {name: value / steps for name, value in window.items()}
        record["seconds"] = state.seconds
        record["tokens_per_second"] = window["tokens"] / max(state.seconds - since, 1e-9)
        state.window = {}
        self.write(record)

    def write(self, record: dict) -> None:
        """One line in metrics.jsonl."""
        if self.writes:
            self.run.append_metrics(record)
            if self.tensorboard:
                self._write_events(record)
        self.state.metrics_lines += 1

    def _write_events(self, record: dict) -> None:
        """The record's numbers as TensorBoard curves ``train/loss``, ``validation/valid_nelbo`` and so on."""
        if self.events is None:  # only now: a log that never writes leaves no folder
            from torch.utils.tensorboard import SummaryWriter

            self.events = SummaryWriter(self.run.path / "tensorboard")
        for name in set(record) - {"kind", "step"}:
            self.events.add_scalar(f"{record['kind']}/{name}", record[name], record["step"])
        self.events.flush()
