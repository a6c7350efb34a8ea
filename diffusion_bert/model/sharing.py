"""A model to pass on: without paths of the machine it was trained on, and in half precision where that is wanted."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

from ..data.skills import Skills
from ..errors import UserError

LARGEST_HALF = 65504.0
# settings that may hold paths; ``--data_dir`` or ``--test_file`` gives the new place of the data
PATHS = ("data_dir", "train_file", "valid_file", "test_file", "cache_dir", "teacher", "output_dir")
OWN_DATA = ("data_dir", "train_file", "dataset_name")
OF_A_DATASET = ("dataset_name", "dataset_config", "source_column", "target_column")


def paths_in(config) -> dict[str, str]:
    """The settings of a ``RunConfig`` that name a path, where a model to pass on names none."""
    flat, usual = config.to_flat(), type(config).from_flat({}).to_flat()
    named = {name: flat[name] for name in PATHS if flat[name] != usual[name]}
    others = {name: flat[name] or "" for name in ("model_name_or_path", "dataset_name")}
    return named | {
        name: value for name, value in others.items() if Path(value).is_absolute() or value.startswith((".", "~"))
    }


def is_path(name: str) -> bool:
    """Whether a name that may be a hub id is a path of this machine, or was one."""
    return bool(name) and (Path(name).is_absolute() or Path(name).exists())


def for_others(model, started_from: str | None = None, license_note: str | None = None):
    """The ``DiffusionModel`` with the same weights and settings that name no path; ``model`` stays as it is."""
    config, denoiser = dataclasses.replace(model.config), copy.copy(model.denoiser)
    base = config.model.model_name_or_path
    base = (started_from or "").strip() or (Path(base).name if is_path(base) else base)
    config.model = dataclasses.replace(config.model, model_name_or_path=base)
    denoiser.bert_config = copy.deepcopy(denoiser.bert_config)
    if denoiser.bert_config.name_or_path:
        denoiser.bert_config.name_or_path = base
    local = PATHS + (OF_A_DATASET if is_path(config.data.dataset_name or "") else ())
    for section in ("data", "training"):
        values = getattr(config, section)
        cleared = {field.name: field.default for field in dataclasses.fields(values) if field.name in local}
        setattr(config, section, dataclasses.replace(values, **cleared))
    if license_note is not None:
        config.data.license_note = license_note.strip() or None
    skills = model.skills
    if skills.tasks == ("sample",) and any(getattr(model.config.data, name) for name in OWN_DATA):
        # its data was not the grammar, which the name alone would now stand for
        config.data.task_name, skills = "custom", Skills.of("custom", {"custom": skills.styles("sample")})
    return dataclasses.replace(model, denoiser=denoiser, config=config, parent=None, skills=skills)


def shared(model, started_from: str | None = None, license_note: str | None = None):
    """``for_others`` with its own network turned to float16. What reads the file computes in float32 again.

    Raises:
        UserError: a weight is too large for half precision, or NaN.
    """
    for name, tensor in model.denoiser.state_dict().items():
        if tensor.is_floating_point() and not bool((tensor.abs() <= LARGEST_HALF).all()):
            raise UserError(
                f"weight {name} goes beyond {LARGEST_HALF:g} or is no number: it does not fit half precision"
            )
    model = for_others(model, started_from, license_note)
    model.denoiser.half()
    return model
