"""The yardstick of every run: the NELBO on fixed examples with fixed noise, of all tasks together and of each."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence

import torch

from ..data.batch import Batch
from ..diffusion.process import AbsorbingDiffusion
from ..diffusion.times import T_EVAL, sample_times
from ..machine.processes import Processes
from ..model.denoiser import BertDenoiser
from ..model.diffusion_model import DiffusionModel
from .objective import NelboTerms, nelbo_terms
from .state import TrainingData


@torch.no_grad()
def estimate_nelbo(
    denoiser: BertDenoiser,
    diffusion: AbsorbingDiffusion,
    batches: Iterable[Batch],
    time_correction: bool = True,
    seed: int = 0,
    device: torch.device | str = "cpu",
    share: tuple[int, int] = (0, 1),
) -> NelboTerms:
    """The one yardstick: T = 1000, fixed noise, the same for every run on the same examples and batches.

    A self-conditioned network is measured with two passes, the nearest thing to a sampler's step that needs no step
    before it. ``share`` (k, n) takes every n-th batch from the k-th on, with the noise it has among all of them: the n
    shares add up to the whole.
    """
    return estimate_nelbo_by_group(
        denoiser, diffusion, batches, itertools.repeat(0), 1, time_correction, seed, device, share
    )[0]


@torch.no_grad()
def estimate_nelbo_by_group(
    denoiser: BertDenoiser,
    diffusion: AbsorbingDiffusion,
    batches: Iterable[Batch],
    groups: Iterable[int],
    count: int,
    time_correction: bool = True,
    seed: int = 0,
    device: torch.device | str = "cpu",
    share: tuple[int, int] = (0, 1),
) -> list[NelboTerms]:
    """The terms of ``estimate_nelbo`` by the group of each batch, 0 to count - 1; they add up to the whole."""
    was_training = denoiser.training
    denoiser.eval()
    generator = torch.Generator().manual_seed(seed)
    two_pass = denoiser.self_conditioning is not None
    totals = [NelboTerms.zero(device) for _ in range(count)]
    for number, (batch, group) in enumerate(zip(batches, groups)):
        t = sample_times(len(batch), T_EVAL, generator)
        uniform = torch.rand(batch.input_ids.shape, generator=generator, dtype=torch.float64)
        if number % share[1] != share[0]:
            continue
        batch, t, uniform = batch.to(device), t.to(device), uniform.to(device)
        x_t = diffusion.q_sample(batch.input_ids, t.double() / T_EVAL, batch.target_mask, uniform=uniform)
        totals[group] = totals[group] + nelbo_terms(
            denoiser, diffusion, batch, x_t, t, T_EVAL, time_correction, two_pass=two_pass
        )
    denoiser.train(was_training)
    return totals


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
