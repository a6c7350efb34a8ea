"""What the training loop is given, what it remembers, and whom it tells."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

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
