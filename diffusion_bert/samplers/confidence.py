"""Most confident places first (MaskGIT): no sample of the exact reverse process, but better text from few calls."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..schedule import NoiseSchedule
from .common import Denoise, SampleOutput, SamplerOptions, draw_words, masked_places, rank_within_rows


@torch.no_grad()
def sample_confidence(
    denoise: Denoise,
    x_t: Tensor,
    schedule: NoiseSchedule,
    mask_id: int,
    tau: Tensor,
    options: SamplerOptions,
    generator: torch.Generator | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> SampleOutput:
    """Draw a word at every masked place, keep the most confident ones (Chang et al. 2022, arXiv 2202.04200).

    After step j of S a share u(tau_s) / u(tau) of a row's places may still be masked; u is the base schedule, since the order
    is chosen by confidence instead of by word frequency. Confidence is the model's own log mu of the drawn word, before
    temperature. Each step reveals at least one place, so no call is wasted. Arguments as in ``sample_ancestral``.
    """
    x_t = x_t.clone()
    nfe = torch.zeros(len(x_t), dtype=torch.long, device=x_t.device)
    log_prob = torch.zeros(len(x_t), dtype=torch.float64, device=x_t.device)
    tau = tau.to(torch.float64)
    places = (x_t == mask_id).sum(-1)
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
        confidence = log_mu.gather(-1, words[:, None]).squeeze(-1)
        masked_now = torch.bincount(rows, minlength=len(active))
        share = schedule.u(tau_s) / schedule.u(tau[active])
        # the small number keeps whole numbers whole: 4 * sin^2(pi/4) is 1.9999999999999996
        masked_then = torch.minimum((places[active] * share + 1e-9).floor().long(), masked_now - 1)
        reveal = rank_within_rows(confidence, rows) < (masked_now - masked_then)[rows]
        x_t[active[rows[reveal]], columns[reveal]] = words[reveal]
        log_prob.index_add_(0, active[rows[reveal]], confidence[reveal].double())
        if callback is not None:
            callback(options.steps - step, x_t)
    return SampleOutput(x_t, nfe, log_prob)
