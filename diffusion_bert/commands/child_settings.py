"""The settings of a model that is trained on: its parent's, a preset's and the user's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..config.presets import load_preset
from ..config.run_config import RunConfig
from ..config.schema import ModelConfig
from ..config.tasks import TASKS, task_names
from ..errors import UserError
from .cli import settings_of
from .train import FOR_CONTINUING

PRESETS = FOR_CONTINUING
# settings that say how long and where, not what: a child starts from the defaults instead of the parent's limits
NOT_INHERITED = ("epochs", "max_steps", "max_minutes", "patience", "dry_run", "lr_factor", "teacher")
DATA_SOURCE = tuple(
    "data_dir train_file valid_file test_file max_samples dataset_name dataset_config source_column target_column"
    " symmetric".split()
)
# architecture, vocabulary and the size of the length head
BELONGS_TO_WEIGHTS = (*(f.name for f in dataclasses.fields(ModelConfig)), "max_target_length")


def inherited(parent: Path) -> dict:
    """The parent's settings, without its limits."""
    from ..model.payload import read_payload

    settings = RunConfig.from_flat(read_payload(parent)["config"], str(parent)).to_flat()
    return {name: value for name, value in settings.items() if name not in NOT_INHERITED}


def task_for(data: dict, parents: str) -> str:
    """The task of data that came without a name: the parent's, so that its prompts and skills stay; of several all,
    where the folder holds them, else the first with pairs.
    """
    names = task_names(parents)
    folder = data.get("data_dir")
    if names == ["sample"]:
        return "custom"  # alike, but for the grammar
    if folder is not None and (len(names) == 1 or any((Path(folder) / name).is_dir() for name in names)):
        return parents
    return next((name for name in names if TASKS[name].prompt), "custom")


def child_config(parent: Path, given: dict) -> RunConfig:
    """Parent's settings < preset < flags; other data replaces the parent's data altogether. What belongs to the weights
    stays.
    """
    base = inherited(parent)
    if preset := given.get("preset"):
        fixed = [name for name in load_preset(preset) if name in BELONGS_TO_WEIGHTS]
        if fixed:
            raise UserError(
                f"preset {preset} sets {fixed[0]}, which belongs to the checkpoint: use a preset for continuing"
                f" ({', '.join(PRESETS)})"
            )
    own_lr = "lr" in given and "lr_factor" not in given
    named = "task_name" in given or "task_name" in (load_preset(preset) if preset else {})
    changes = settings_of(given)
    if own_lr:
        changes.pop("lr_factor", None)  # a learning rate that was asked for is meant as it stands
    if {"task_name", "data_dir", "train_file", "dataset_name"} & set(changes):
        for name in DATA_SOURCE:
            base.pop(name, None)
        if not named:
            changes.pop("task_name", None)
            base["task_name"] = task_for(changes, base["task_name"])
    if "," not in changes.get("task_name", base["task_name"]):
        base["task_balance"] = "proportional"
    return RunConfig.from_flat({**base, **changes})
