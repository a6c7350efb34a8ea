"""The batches of an optimizer step: which of them are this process's, and how one is noised on the host and sent to the device."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .data import EpochBatches
from .diffusion import AbsorbingDiffusion
from .distributed import Processes
from .layout import Batch
from .noise import keyed_uniform
from .schedule import NoiseSchedule


@dataclass
class StepShare:
    """This process's part of one step.

    starts: number of each batch's first example within the step, of ``examples`` over all processes. end: the epoch's next batch.
    """

    batches: list[Batch]
    starts: list[int]
    examples: int
    end: int


@dataclass
class NoisedBatch:
    """A batch with its noise, on the device, and its counts on the host."""

    batch: Batch
    x_t: Tensor  # [B, L]
    t: Tensor  # [B, draws]
    places: tuple[Tensor, Tensor]  # of the masked words, [N] rows and columns
    tokens: int

    @property
    def masked(self) -> int:
        return len(self.places[0])


def step_shares(dataset: EpochBatches, first: int, group_size: int, processes: Processes, num_workers: int, pin_memory: bool) -> Iterator[StepShare]:
    """The steps that are left of an epoch, from batch ``first`` on.

    The plan of an epoch is the same for every process; a step takes the next ``group_size`` batches of it, dealt out in turn. So two processes
    do exactly what one does with twice the accumulation. The last step of an epoch may leave a process without a batch.
    """
    rank, size = processes.rank, processes.size
    whole = range(len(dataset))
    groups = [whole[start : start + group_size] for start in whole[first::group_size]]
    own = [number for group in groups for number in group[rank::size]]
    # its own generator: the loader must not draw from the one that feeds dropout
    loader = iter(
        DataLoader(dataset, batch_size=None, sampler=own, num_workers=num_workers, generator=torch.Generator(), pin_memory=pin_memory)
    )  # fmt: skip
    for group in groups:
        starts = [0, *itertools.accumulate(len(dataset.indices(number)) for number in group)]
        yield StepShare([next(loader) for _ in group[rank::size]], starts[rank:-1:size], starts[-1], group.stop)


def on_host(diffusion: AbsorbingDiffusion) -> AbsorbingDiffusion:
    """The same process with its schedule's table on the CPU."""
    schedule = diffusion.schedule
    table = None if schedule.informativeness is None else schedule.informativeness.cpu()
    return AbsorbingDiffusion(NoiseSchedule(schedule.name, schedule.word_freq_lambda, table), diffusion.mask_id)


def noised(batch: Batch, t: Tensor, num_steps: int, diffusion: AbsorbingDiffusion, key: int, start: int, device: torch.device) -> NoisedBatch:
    """x_t at steps t [B, draws] of T = num_steps: made on the host, where places and counts are known without waiting for a GPU, then sent to the
    device.

    ``start`` is the number of the batch's first example within its step; noise is a function of (key, example and draw, place in the target).
    """
    draw = batch.draw.clamp(min=0)  # [B, L]
    examples = (start + torch.arange(len(batch)))[:, None] * batch.draws + draw
    uniform = keyed_uniform(key, examples, batch.positions)
    x_t = diffusion.q_sample(batch.input_ids, t.gather(1, draw).double() / num_steps, batch.target_mask, uniform=uniform)
    tensors = [x_t, t, *batch.masked_places(x_t)]
    if device.type == "cuda":
        tensors = [tensor.contiguous().pin_memory() for tensor in tensors]
    x_t, t, rows, columns = (tensor.to(device, non_blocking=True) for tensor in tensors)
    return NoisedBatch(batch.to(device), x_t, t, (rows, columns), batch.draws * int(batch.target_length.sum()))
