"""As many places per call as the network is sure of: the number of calls adapts to the text."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion.schedule import NoiseSchedule
from .confidence import time_of
from .places import rank_within_rows
from .state import Callback, Denoise, SampleOutput, SamplerOptions, SamplingState
from .words import ELEMENTS_AT_ONCE


@torch.no_grad()
def sample_entropy(
    denoise: Denoise,
    x_t: Tensor,
    schedule: NoiseSchedule,
    mask_id: int,
    tau: Tensor,
    options: SamplerOptions,
    keys: Tensor | None = None,
    callback: Callback | None = None,
) -> SampleOutput:
    """Entropy-bounded unmasking (Ben-Hamu et al. 2025, arXiv 2505.24857): reveal the places of least entropy, as many
    as the bound allows.

    With the entropies H_1 <= H_2 <= ... of a row's places (in nats, of the model's own mu), the most k with

        sum_{l <= k} H_l - max_{l <= k} H_l = H_1 + ... + H_{k-1} <= gamma

    which bounds what is lost by drawing the k words independently. At least one; gamma = 0 goes one by one (certain
    places together), a large gamma takes all at once. The last of ``options.steps`` calls reveals what is left. The
    denoiser gets the time at which the base schedule would have this many places masked. Other arguments as in
    ``sample_ancestral``.
    """
    state = SamplingState(denoise, x_t, mask_id, tau, options, keys, callback)
    total = state.masked.sum(-1)
    for step in range(options.steps, 0, -1):
        if not bool(state.masked.any()):
            break
        places = state.predict(state.masked, time_of(schedule, state.tau, state.masked.sum(-1), total))
        words = state.draw(places, entropy_of if step > 1 else None)
        chosen = torch.ones_like(places.rows, dtype=torch.bool)
        if step > 1:
            chosen = within_bound(places.measured, places.rows, options.gamma)
        state.reveal(places, words, chosen, last=step == 1)
        state.end_step()
    return state.output()


def within_bound(entropy: Tensor, rows: Tensor, gamma: float) -> Tensor:
    """Which places [N] to reveal: in each row, from the least entropy on, while those before have at most gamma between
    them. rows ascending.
    """
    rank = rank_within_rows(-entropy, rows)
    table = torch.zeros(int(rows.max()) + 1, int(rank.max()) + 1, dtype=entropy.dtype, device=entropy.device)
    table[rows, rank] = entropy
    before = table.cumsum(-1) - table  # [B, rank] sum of the entropies ahead
    return (before[rows, rank] <= gamma) | (rank == 0)


def entropy_of(log_mu: Tensor) -> Tensor:
    """Entropy in nats of each row of log mu [N, V], renormalised, [N] float64: log Z - sum mu log mu / Z."""
    parts = []
    size = ELEMENTS_AT_ONCE // log_mu.shape[-1] if log_mu.device.type == "cpu" else len(log_mu)
    for part in log_mu.split(max(1, size)):
        mass = part.exp()
        z = mass.sum(-1).double()
        parts.append(z.log() - (mass * part.clamp(min=-1e4)).sum(-1).double() / z)  # 0 log 0 = 0
    return torch.cat(parts).clamp(min=0.0)
