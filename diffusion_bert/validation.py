"""The yardstick of a run: the NELBO on fixed examples with fixed noise, of all tasks and of each."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import torch

from .data.batch import Batch
from .machine.processes import Processes
from .model.diffusion_model import DiffusionModel
from .objective import NelboTerms, estimate_nelbo_by_group
from .training_state import TrainingData


def nelbo_of_tasks(
    model: DiffusionModel,
    batches: Iterable[Batch],
    groups: Sequence[int],
    tasks: Sequence[str],
    device: torch.device | str,
    processes: Processes | None = None,
) -> tuple[NelboTerms, dict[str, float]]:
    """The terms over all tokens of the batches, and the NELBO per word piece of each task when there are several.

    ``groups``: the number of each batch's task. The total is that of all tokens; the tasks have equal numbers of
    examples (``fixed_choice``), so one with longer targets counts for more. The processes take every n-th batch each.
    """
    processes = processes or Processes()
    correction, share = model.config.diffusion.time_correction, (processes.rank, processes.size)
    parts = estimate_nelbo_by_group(
        model.denoiser, model.diffusion, batches, groups, len(tasks), correction, device=device, share=share
    )
    summed = processes.broadcast(processes.sum_(torch.stack([part.stacked() for part in parts])).tolist())
    parts = [NelboTerms(*terms) for terms in summed]
    by_task = {task: part.per_token()["nelbo"] for task, part in zip(tasks, parts)} if len(tasks) > 1 else {}
    return functools.reduce(NelboTerms.__add__, parts), by_task


def measure(model: DiffusionModel, data: TrainingData, device: torch.device, processes: Processes) -> dict[str, float]:
    """What a validation logs: the terms per word piece, the NELBO per word, and the NELBO of each of several tasks."""
    groups = data.valid_tasks or [0] * len(data.valid)
    terms, by_task = nelbo_of_tasks(model, data.valid, groups, data.tasks, device, processes)
    values = {f"valid_{name}": value for name, value in terms.per_token().items()}
    values["valid_nelbo_per_word"] = terms.total / max(data.valid_words, 1)
    return values | {f"valid_nelbo_{task}": value for task, value in by_task.items()}
