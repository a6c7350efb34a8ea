"""The exact reverse process on a grid of steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..schedule import NoiseSchedule
from .common import Denoise, SampleOutput, SamplerOptions, draw_words, masked_places, uniform_noise


@torch.no_grad()
def sample_ancestral(
    denoise: Denoise,
    x_t: Tensor,
    schedule: NoiseSchedule,
    mask_id: int,
    tau: Tensor,
    options: SamplerOptions,
    generator: torch.Generator | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> SampleOutput:
    """Ancestral sampling from p(x_s | x_t): draw v ~ mu' at every masked place, reveal it with probability r(v), else it stays masked.

    That is exactly v with mu'_v r(v) and [MASK] with the rest; r depends on the word that was drawn, so frequency-weighted models have no common
    rate. The grid is tau_j = tau * j / steps, from j = steps down to 0; at s = 0 all is revealed.

    Args:
        denoise: see ``common.Denoise``.
        x_t: canvas [B, T]; places that are not ``mask_id`` stay as they are.
        tau: time at which each row starts, [B] in (0, 1]; 1 for a canvas of [MASK]s.
        callback: called with (step, x_t) after every step.
    """
    x_t = x_t.clone()
    nfe = torch.zeros(len(x_t), dtype=torch.long, device=x_t.device)
    log_prob = torch.zeros(len(x_t), dtype=torch.float64, device=x_t.device)
    tau = tau.to(torch.float64)
    for step in range(options.steps, 0, -1):
        active = (x_t == mask_id).any(-1).nonzero().squeeze(-1)
        if not len(active):
            break
        canvas = x_t[active]
        tau_t, tau_s = tau[active] * step / options.steps, tau[active] * (step - 1) / options.steps
        log_mu = denoise(canvas, tau_t, active)
        nfe[active] += 1
        rows, columns = masked_places(canvas, mask_id)
        words = draw_words(log_mu, options, generator)
        r = schedule.reveal_probability(tau_s[rows], tau_t[rows], words)
        reveal = uniform_noise(len(words), generator, x_t.device) < r
        x_t[active[rows[reveal]], columns[reveal]] = words[reveal]
        log_prob.index_add_(0, active[rows[reveal]], log_mu[reveal].gather(-1, words[reveal, None]).squeeze(-1).double())
        if callback is not None:
            callback(options.steps - step, x_t)
    return SampleOutput(x_t, nfe, log_prob)
