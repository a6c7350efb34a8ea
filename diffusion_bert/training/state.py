"""What the training loop is given, what it remembers and reports, and how it ends."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field

from ..config.schema import TrainingConfig
from ..data.batch import Batch
from ..data.batching import Collator
from ..data.encoded import EncodedMix, EncodedPairs


class Reporter:
    """What the loop reports: override what is of interest."""

    def start(self, total_steps: int, done_steps: int) -> None: ...
    def step(self, step: int, progress: float, values: dict) -> None: ...
    def validating(self) -> None: ...
    def validation(self, record: dict, improved: bool) -> None: ...
    def demonstration(self, step: int) -> None: ...
    def stop(self) -> None: ...
    def trouble(self, what: str, error: Exception) -> None: ...


class Shielded(Reporter):
    """A reporter whose errors end nothing: they are told to its ``trouble``, where even that may fail."""

    def __init__(self, inner: Reporter):
        self.inner = inner

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def start(self, total_steps: int, done_steps: int) -> None:
        self._try("start", total_steps, done_steps)

    def step(self, step: int, progress: float, values: dict) -> None:
        self._try("step", step, progress, values)

    def validating(self) -> None:
        self._try("validating")

    def validation(self, record: dict, improved: bool) -> None:
        self._try("validation", record, improved)

    def demonstration(self, step: int) -> None:
        self._try("demonstration", step)

    def stop(self) -> None:
        self._try("stop")

    def _try(self, what: str, *values) -> None:
        try:
            getattr(self.inner, what)(*values)
        except Exception as error:  # whatever it is: what is shown to people is not worth a training
            with contextlib.suppress(Exception):
                self.inner.trouble(what, error)


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
