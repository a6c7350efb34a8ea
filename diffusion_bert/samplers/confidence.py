"""Most confident places first (MaskGIT): no sample of the exact reverse process, but better text from few calls."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion.schedule import NoiseSchedule
from .places import Places, rank_within_rows
from .state import Callback, Denoise, SampleOutput, SamplerOptions, SamplingState


@torch.no_grad()
def sample_confidence(
    denoise: Denoise,
    x_t: Tensor,
    schedule: NoiseSchedule,
    mask_id: int,
    tau: Tensor,
    options: SamplerOptions,
    keys: Tensor | None = None,
    callback: Callback | None = None,
) -> SampleOutput:
    """Draw a word at every masked place, keep the most confident ones (Chang et al. 2022, arXiv 2202.04200).

    After step j of S a share u(tau_s) / u(tau) of a row's places may still be masked; u is the base schedule, since the
    order is chosen by confidence instead of by word frequency. Each step reveals at least one place, so no call is
    wasted; where that is more than the grid asks for, the denoiser gets the time that fits what is still masked.
    Confidence: see :func:`confidence_of`. Arguments as in ``sample_ancestral``.
    """
    state = SamplingState(denoise, x_t, mask_id, tau, options, keys, callback)
    total = state.masked.sum(-1)
    for step in range(options.steps, 0, -1):
        if not bool(state.masked.any()):
            break
        places = state.predict(state.masked, time_of(schedule, state.tau, state.masked.sum(-1), total))
        words = state.draw(places, margin_of if options.margin else None)
        masked_now = state.masked.sum(-1)
        masked_then = torch.minimum(masked_share(schedule, state.tau, step - 1, options.steps, total), masked_now - 1)
        first = (
            rank_within_rows(confidence_of(places, words, options), places.rows)
            < (masked_now - masked_then)[places.rows]
        )
        state.reveal(places, words, first, last=step == 1)
        state.end_step()
    return state.output()


def masked_share(schedule: NoiseSchedule, tau: Tensor, step: int, steps: int, total: Tensor) -> Tensor:
    """floor(total u(tau step / steps) / u(tau)): how many of ``total`` [B] places may be masked when ``step`` steps are
    left, [B].
    """
    # the small number keeps whole numbers whole: 4 * sin^2(pi/4) is 1.9999999999999996
    return (total * schedule.u(tau * step / steps) / schedule.u(tau) + 1e-9).floor().long()


def time_of(schedule: NoiseSchedule, tau: Tensor, masked: Tensor, total: Tensor) -> Tensor:
    """The time at which the base schedule would have ``masked`` of a row's ``total`` places masked that all were at
    ``tau``, [B].
    """
    return schedule.tau(schedule.u(tau) * masked / total.clamp(min=1))


def confidence_of(places: Places, words: Tensor, options: SamplerOptions) -> Tensor:
    """The model's own log mu of the drawn word, before temperature, [N]; with ``margin`` instead mu of the likeliest
    word minus mu of the next (Kim et al. 2025, arXiv 2502.06768), which is small wherever two words compete.
    """
    return places.measured if options.margin else places.log_prob(words)


def margin_of(log_mu: Tensor) -> Tensor:
    """mu of the likeliest word minus mu of the next, [N]."""
    best = log_mu.topk(2, dim=-1).values.exp()
    return best[:, 0] - best[:, 1]
