"""At which times, and with which words hidden, the sum over all times is estimated.

The NELBO of a text is sum_t E[KL_t(x_t)], over T times and over the hidden places M of x_t ~ q(x_t | x_0). Training and
validation draw t uniformly and M by chance (``sample_times``). For one text that is wasteful: at small t mostly nothing
is hidden, and where something is, it counts T/t times. ``balanced_draws`` therefore draws how many places are hidden
first, then which, then the time, and corrects by a weight, so that the expectation stays the same number.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .schedule import NoiseSchedule

T_EVAL = 1000  # the grid of every NELBO that is reported, whatever --num_steps is, so that numbers can be compared
GROUP = 4  # draws of which every place is hidden about equally often


class NoiseDraws(NamedTuple):
    """N draws for a text of L places: sum_t E[KL_t] = E[weight KL_t(M)]."""

    masked: Tensor  # [N, L] bool, the hidden places M
    t: Tensor  # [N] int64 in 1..T
    weight: Tensor  # [N] float64
    group: Tensor  # [N] int64, the independent part of the sample to which a draw belongs


def sample_times(batch_size: int, num_steps: int, generator: torch.Generator | None = None) -> Tensor:
    """Low-discrepancy times, one per example: t_i = 1 + floor(T ((u + i/B) mod 1)), [B] int64 in 1..T.

    Each t_i alone is uniform; together they cover the range evenly, which lowers the variance (VDM, arXiv 2107.00630).
    """
    u = torch.rand((), generator=generator, dtype=torch.float64)
    spread = (u + torch.arange(batch_size, dtype=torch.float64) / batch_size) % 1.0
    return 1 + (num_steps * spread).long().clamp(max=num_steps - 1)


def balanced_draws(
    schedule: NoiseSchedule, x_0: Tensor, draws: int, num_steps: int, generator: torch.Generator
) -> NoiseDraws:
    """N = ``draws`` draws for the words x_0 [L].

    The number of hidden places is uniform on 1..L and spread evenly (``sample_times``); which ones is uniform given
    their number; the time is drawn by ``time_and_weight``. The sample falls into groups of about four draws, each of
    them spread over small and large numbers. Within a group all places are hidden about equally often
    (``balanced_places``); the groups deal their places independently, so that their differences tell the standard
    error. The table of ``schedule`` is on the CPU.
    """
    groups = max(2, draws // GROUP)
    sizes = sample_times(draws, len(x_0), generator).sort().values
    group = torch.arange(draws) % groups
    masked = torch.zeros(draws, len(x_0), dtype=torch.bool)
    for number in range(groups):
        members = (group == number).nonzero().squeeze(-1)
        masked[members] = balanced_places(sizes[members].tolist(), len(x_0), generator)
    t, weight = time_and_weight(schedule, x_0, masked, num_steps, torch.rand(draws, generator=generator).double())
    return NoiseDraws(masked, t, weight, group)


def standard_error(values: Tensor, group: Tensor) -> float:
    """Of the mean of values [N], from the differences between the means of their R groups:

        SE^2 = R / (R - 1) sum_g (n_g / N (mean_g - mean))^2

    A little too large, if anything: the groups share the even spread of ``balanced_draws``. ``group`` [N] in 0..R - 1.
    """
    groups = int(group.max()) + 1
    deviations = torch.zeros(groups, dtype=torch.float64).index_add_(0, group, values.double() - values.double().mean())
    return math.sqrt(groups / (groups - 1) * float(deviations.square().sum())) / len(values)


def balanced_places(sizes: list[int], length: int, generator: torch.Generator) -> Tensor:
    """Sets of ``sizes`` of the places 0..length - 1, [n, length] bool: each alone is uniform among those of its size.

    They are dealt out from shuffled places, which are shuffled again when they are used up, so that no place is hidden
    much more often than another.
    """
    masked = torch.zeros(len(sizes), length, dtype=torch.bool)
    left = torch.randperm(length, generator=generator).tolist()
    for row, size in enumerate(sizes):
        chosen, left = left[:size], left[size:]
        if len(chosen) < size:
            # the last ones of the old round are taken; of a new round the others come first
            order = torch.randperm(length, generator=generator).tolist()
            order = [place for place in order if place not in chosen] + chosen
            missing = size - len(chosen)
            chosen, left = chosen + order[:missing], order[missing:]
        masked[row, chosen] = True
    return masked


def time_and_weight(
    schedule: NoiseSchedule, x_0: Tensor, masked: Tensor, num_steps: int, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """A time for each set M of hidden places, and the weight of its KL, when M is drawn as ``balanced_draws`` does.

    With P_t(M) = prod_{i in M} m_t(x_i) prod_{i not in M} (1 - m_t(x_i)), r_t the average reveal probability and q(M) =
    1 / (L binom(L, |M|)):

        p(t | M) = P_t(M) r_t / Z(M),   Z(M) = sum_t P_t(M) r_t,        weight = Z(M) / (q(M) r_t)

    The KL is about r_t times the cross-entropy of the hidden words: so the product of weight and KL hardly depends on
    the time, and in a plain schedule not at all (if the network does not know the time).

    Args:
        x_0: [L]; masked: [N, L] bool, at least one place in each; uniform: [N] numbers in [0, 1), which choose t.
    """
    steps = torch.arange(1, num_steps + 1, dtype=torch.float64)
    tau = steps / num_steps
    m = schedule.mask_probability(tau[:, None].expand(-1, len(x_0)), x_0.expand(num_steps, -1))  # [T, L]
    u = schedule.u(torch.cat([torch.zeros(1, dtype=torch.float64), tau]))
    log_r = ((u[1:] - u[:-1]) / u[1:]).log()
    hidden = masked.double()
    # at t = T all is hidden: log 0 for any other place, but 0 where there is no other, not 0 x log 0
    log_p = hidden @ m.log().T + (1 - hidden) @ torch.log1p(-m).clamp(min=-1e300).T  # [N, T]
    log_z = torch.logsumexp(log_p + log_r, dim=-1)
    share = (log_p + log_r - log_z[:, None]).exp().cumsum(-1)
    index = torch.searchsorted(share, uniform[:, None] * share[:, -1:], right=True).squeeze(-1).clamp(max=num_steps - 1)
    length, size = len(x_0), masked.sum(-1).double()
    log_choices = math.lgamma(length + 1) - torch.lgamma(size + 1) - torch.lgamma(length - size + 1)
    return index + 1, (log_z - log_r[index] + math.log(length) + log_choices).exp()
