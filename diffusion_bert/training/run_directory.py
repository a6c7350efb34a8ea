"""The run directory of one training: where its checkpoints, settings, metrics and results are written."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from ..config.run_config import RunConfig
from ..config.tasks import task_names
from ..errors import UserError
from ..machine.storage import to_plain, write_atomically


def _joined(task_name: str, limit: int = 40) -> str:
    """The tasks of a run in a directory name: joined by +, those beyond ``limit`` characters only counted."""
    first, *others = task_names(task_name)
    for number, name in enumerate(others):
        if len(first) + len(name) + 1 > limit:
            return f"{first}+{len(others) - number}more"
        first += f"+{name}"
    return first


class RunDirectory:
    """One training run on disk. ``create`` numbers it; nothing is ever overwritten."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    best = property(lambda self: self.path / "best_model.pt")
    last = property(lambda self: self.path / "last.pt")
    metrics = property(lambda self: self.path / "metrics.jsonl")

    def epoch(self, number: int) -> Path:
        """The checkpoint kept of an epoch (--keep_checkpoints)."""
        return self.path / f"epoch_{number}.pt"

    def remove_epochs(self, until: int) -> None:
        """Remove the checkpoints of epochs up to and including ``until``."""
        for path in self.path.glob("epoch_*.pt"):
            number = path.stem.removeprefix("epoch_")
            if number.isdigit() and int(number) <= until:
                path.unlink(missing_ok=True)

    @classmethod
    def create(cls, config: RunConfig) -> RunDirectory:
        """runs/model_name_<model>_taskname_<task>_lr_<lr>_seed_<seed>_numsteps_<T>_wordfreqlambda_<lambda>_<NNN>/"""
        name = config.model.model_name_or_path
        # a local path gives its folder's name, a hub id itself
        name = Path(name).resolve().name if Path(name).is_dir() else name
        training, diffusion = config.training, config.diffusion
        stem = (
            f"model_name_{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}_taskname_{_joined(config.data.task_name)}"
            f"_lr_{training.lr * training.lr_factor:g}_seed_{training.seed}"
            f"_numsteps_{diffusion.num_steps}_wordfreqlambda_{diffusion.word_freq_lambda:g}"
        )
        parent = Path(config.training.output_dir)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for number in range(1, 100_000):
                try:
                    (parent / f"{stem}_{number:03d}").mkdir()  # atomic: two runs started at once get different numbers
                except FileExistsError:
                    continue
                return cls(parent / f"{stem}_{number:03d}")
        except OSError as error:
            raise UserError(
                f"cannot make a run directory in {parent}: {error.strerror}; choose another --output_dir"
            ) from None
        raise UserError(f"{parent} holds 99,999 runs of this name: choose another --output_dir")

    def append_metrics(self, record: dict) -> None:
        """One line in metrics.jsonl, on the disk before any checkpoint that counts it."""
        try:
            with open(self.metrics, "a", encoding="utf-8") as file:
                file.write(json.dumps(to_plain(record)) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write {self.metrics}: {error.strerror}; free some space and use continue_training.py --resume"
            ) from None

    def read_metrics(self) -> list[dict]:
        """All lines of metrics.jsonl; a last line cut off by a crash is dropped."""
        records = []
        if self.metrics.is_file():
            for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    records.append(json.loads(line))
                except ValueError:
                    break
        return records

    def cut_metrics(self, lines: int) -> int:
        """Keep the first ``lines`` records: those the checkpoint knows of. How many there are: fewer, when someone
        shortened the file.
        """
        records = self.read_metrics()[:lines]
        text = "".join(json.dumps(record) + "\n" for record in records)
        write_atomically(self.metrics, lambda file: file.write(text.encode()))
        return len(records)

    def write_json(self, name: str, values: dict) -> None:
        text = json.dumps(to_plain(values), indent=2) + "\n"
        write_atomically(self.path / name, lambda file: file.write(text.encode()))

    def write_config(self, config: RunConfig) -> None:
        import yaml

        text = yaml.safe_dump(config.to_flat(), sort_keys=False)
        write_atomically(self.path / "config.yaml", lambda file: file.write(text.encode()))
