"""The run directory of one training: where its checkpoints, settings, metrics and results are written."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..config.paths import RUN_STATE
from ..config.presets import MADE_OF
from ..config.run_config import RunConfig
from ..config.tasks import task_names
from ..errors import UserError
from ..machine.storage import append_safely, to_plain, write_atomically

LONGEST_NAME = 60
SHORTEST = 12  # characters of model and of tasks that always stay
LONGEST_STEM = LONGEST_NAME - len("_99999")


def run_name(config: RunConfig) -> str:
    """<model>_<tasks>_lr<lr>_seed<seed>_T<T>_lambda<lambda>, of at most ``LONGEST_STEM`` characters: where it would be
    longer, model and tasks are shortened, and then the last of the others left out.
    """
    name = config.model.model_name_or_path
    # a local path gives its folder's name, a hub id itself
    name = Path(name).resolve().name if Path(name).is_dir() else name
    model = re.sub(r"[^A-Za-z0-9.-]+", "-", name)
    training, diffusion = config.training, config.diffusion
    parts = [f"lr{training.lr * training.lr_factor:g}", f"seed{training.seed}", f"T{diffusion.num_steps}"]
    parts.append(f"lambda{diffusion.word_freq_lambda:g}")
    first, *others = task_names(config.data.task_name)
    task = "+".join([first, *others])
    if len("_".join([model, task, *parts])) > LONGEST_STEM and others:
        task = f"{first}+{len(others)}more"
    while len("_".join([model[:SHORTEST], task[:SHORTEST], *parts])) > LONGEST_STEM:
        parts.pop()
    room = LONGEST_STEM - len("_".join(["", "", *parts]))
    model = model[: max(SHORTEST, room - len(task))]
    return "_".join([model, task[: room - len(model)], *parts])


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
        """A new folder ``run_name``_<NNN> below ``output_dir``."""
        stem = run_name(config)
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
        advice = "free some space and use continue_training.py --resume"
        append_safely(self.metrics, json.dumps(to_plain(record)) + "\n", advice)

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

    def note_state(self, step: int, best_step: int, finished: bool, interrupted: bool) -> None:
        """Where the run stands, for a choice among runs that shall not load checkpoints (config/paths.py)."""
        self.write_json(
            RUN_STATE, {"step": step, "best_step": best_step, "finished": finished, "interrupted": interrupted}
        )

    def write_json(self, name: str, values: dict) -> None:
        text = json.dumps(to_plain(values), indent=2) + "\n"
        write_atomically(self.path / name, lambda file: file.write(text.encode()))

    def write_config(self, config: RunConfig, parent: str | None = None, preset: str | None = None) -> None:
        """config.yaml: all settings, and what else made this run what it is: its parent and preset, if any."""
        import yaml

        made_of = {name: value for name, value in zip(MADE_OF, (parent, preset)) if value is not None}
        text = yaml.safe_dump({**made_of, **config.to_flat()}, sort_keys=False)
        write_atomically(self.path / "config.yaml", lambda file: file.write(text.encode()))
