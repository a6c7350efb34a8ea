"""The batches of an optimizer step: which of them are this process's, and how one is noised on the host and sent to the
device.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..data.batch import Batch
from ..data.batching import EpochBatches
from ..diffusion.process import AbsorbingDiffusion
from ..diffusion.random_numbers import keyed_uniform
from ..diffusion.schedule import NoiseSchedule
from ..diffusion.times import sample_times
from ..machine.processes import Processes

LOW_NOISE = (0.05, 0.5)  # the masked shares of examples with little noise
LARGEST = 1 - 2.0**-53  # The largest number that is drawn; LARGEST - u is distributed like u.


# ---- the batches of a step


@dataclass
class StepShare:
    """This process's part of one step.

    starts: number of each batch's first example within the step, of ``examples`` over all processes. end: the epoch's
    next batch.
    """

    batches: list[Batch]
    starts: list[int]
    examples: int
    end: int

    @classmethod
    def whole(cls, batches: Sequence[Batch]) -> StepShare:
        """A step that consists of these batches, all of them this process's; the last one ends nothing."""
        ends = list(itertools.accumulate(map(len, batches)))
        return cls(list(batches), [0, *ends[:-1]], ends[-1], end=0)


@dataclass
class NoisedBatch:
    """A batch with its noise, on the device, and its counts on the host."""

    batch: Batch
    x_t: Tensor  # [B, L]
    t: Tensor  # [B, draws]
    places: tuple[Tensor, Tensor]  # of the masked words, [N] rows and columns
    tokens: int
    time_weight: Tensor | None = None  # [B, draws] of the KL, where times were not drawn uniformly

    @property
    def masked(self) -> int:
        return len(self.places[0])


def step_shares(
    dataset: EpochBatches, first: int, group_size: int, processes: Processes, num_workers: int, pin_memory: bool
) -> Iterator[StepShare]:
    """The steps that are left of an epoch, from batch ``first`` on.

    The plan of an epoch is the same for every process; a step takes the next ``group_size`` batches of it, dealt out in
    turn. So two processes do exactly what one does with twice the accumulation. The last step of an epoch may leave a
    process without a batch.
    """
    rank, size = processes.rank, processes.size
    whole = range(len(dataset))
    groups = [whole[start : start + group_size] for start in whole[first::group_size]]
    own = [number for group in groups for number in group[rank::size]]
    # its own generator: the loader must not draw from the one that feeds dropout
    loader = iter(
        DataLoader(
            dataset,
            batch_size=None,
            sampler=own,
            num_workers=num_workers,
            generator=torch.Generator(),
            pin_memory=pin_memory,
        )
    )
    for group in groups:
        starts = [0, *itertools.accumulate(len(dataset.indices(number)) for number in group)]
        yield StepShare([next(loader) for _ in group[rank::size]], starts[rank:-1:size], starts[-1], group.stop)


def draw_times(examples: int, draws: int, num_steps: int, generator: torch.Generator) -> Tensor:
    """Times [examples, draws] in 1..T, each alone uniform, spread evenly (``sample_times``); of two draws the second
    has T + 1 - t for the t of the first. So complementary masks (as in LaViDa, arXiv 2505.16839) come about without any
    change to what one draw is.
    """
    pairs = (draws + 1) // 2
    t = sample_times(pairs * examples, num_steps, generator).view(pairs, 1, examples)
    return torch.cat([t, num_steps + 1 - t], dim=1).flatten(0, 1)[:draws].T


def low_noise_steps(schedule: NoiseSchedule, num_steps: int) -> tuple[int, int]:
    """The first and the last of the steps t of T = num_steps at which a share u of ``LOW_NOISE`` is masked."""
    u = schedule.u(torch.arange(1, num_steps + 1, dtype=torch.float64) / num_steps)
    inside = ((u >= LOW_NOISE[0]) & (u <= LOW_NOISE[1])).nonzero().squeeze(-1)
    if len(inside):
        return int(inside[0]) + 1, int(inside[-1]) + 1
    nearest = int((u - sum(LOW_NOISE) / 2).abs().argmin()) + 1
    return nearest, nearest


def low_noise_times(
    t: Tensor, chosen: Tensor, eligible: Tensor, share: float, steps: tuple[int, int], num_steps: int
) -> tuple[Tensor, Tensor]:
    """Times [B, draws] in which the ``chosen`` [B] of the ``eligible`` examples [B] have little noise, and the weights
    [B, draws] by which a sum over uniform times is estimated all the same.

    A chosen example has its uniform t in 1..T mapped evenly to the ``steps`` first..last, k(t) of the T to step t. So
    an eligible one has time t with probability q(t) = (1 - share) / T + share k(t) / T; its weight is 1 / (T q(t)).
    """
    first, last = steps
    low = first + torch.div(torch.arange(num_steps) * (last - first + 1), num_steps, rounding_mode="floor")  # [T]
    q = (1 - share + share * torch.bincount(low, minlength=num_steps + 1)[1:].double()) / num_steps
    t = torch.where((chosen & eligible)[:, None], low[t - 1], t)
    return t, torch.where(eligible[:, None], 1 / (num_steps * q[t - 1]), 1.0)


def on_host(diffusion: AbsorbingDiffusion) -> AbsorbingDiffusion:
    """The same process with its schedule's table on the CPU."""
    schedule = diffusion.schedule
    table = None if schedule.informativeness is None else schedule.informativeness.cpu()
    return AbsorbingDiffusion(NoiseSchedule(schedule.name, schedule.word_freq_lambda, table), diffusion.mask_id)


def noised(
    batch: Batch,
    t: Tensor,
    num_steps: int,
    diffusion: AbsorbingDiffusion,
    key: int,
    start: int,
    device: torch.device,
    time_weight: Tensor | None = None,
) -> NoisedBatch:
    """x_t at steps t [B, draws] of T = num_steps: made on the host, where places and counts are known without waiting
    for a GPU, then sent to the device.

    ``start`` is the number of the batch's first example within its step; noise is a function of (key, example and draw,
    place in the target). The second of two draws takes 1 - u where the first took u: with ``draw_times`` it hides what
    the first shows, and every word is learned.
    """
    draw = batch.draw.clamp(min=0)  # [B, L]
    is_second = draw % 2 == 1
    uniform = keyed_uniform(
        key, (start + torch.arange(len(batch)))[:, None] * batch.draws + draw - draw % 2, batch.positions
    )
    uniform = torch.where(is_second, LARGEST - uniform, uniform)
    x_t = diffusion.q_sample(
        batch.input_ids, t.gather(1, draw).double() / num_steps, batch.target_mask, uniform=uniform
    )
    tensors = [x_t, t, *batch.masked_places(x_t)]
    if device.type == "cuda":
        tensors = [tensor.contiguous().pin_memory() for tensor in tensors]
    x_t, t, rows, columns = (tensor.to(device, non_blocking=True) for tensor in tensors)
    weight = None if time_weight is None else time_weight.to(device, non_blocking=True)
    return NoisedBatch(batch.to(device), x_t, t, (rows, columns), batch.draws * int(batch.target_length.sum()), weight)
