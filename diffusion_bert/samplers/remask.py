"""Second thoughts: words already written may be masked again and rewritten."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion.schedule import NoiseSchedule
from .confidence import confidence_of, margin_of, masked_share, time_of
from .places import Places, rank_within_rows
from .state import Callback, Denoise, SampleOutput, SamplerOptions, SamplingState


@torch.no_grad()
def sample_remask(
    denoise: Denoise,
    x_t: Tensor,
    schedule: NoiseSchedule,
    mask_id: int,
    tau: Tensor,
    options: SamplerOptions,
    keys: Tensor | None = None,
    callback: Callback | None = None,
) -> SampleOutput:
    """Remasking (ReMDM-cap, Wang et al. 2025, arXiv 2503.00307) on the grid of ``sample_ancestral``, composed with one
    of two orders.

    A word v written in this run goes back to [MASK] with probability

        sigma_t(v) = min(cap, (1 - alpha_s(v)) / alpha_t(v))

    and in exchange more is revealed. ``ancestral``: a masked place shows v with mu'_v (alpha_s - (1 - sigma)
    alpha_t)(v) / (1 - alpha_t(v)), which keeps the marginals of the forward process. ``confidence``: the most confident
    places, so many that after the step as many are masked as in ``sample_confidence``; no more than these go back.
    sigma = 0 (cap 0) is the base sampler; at s = 0 nothing is masked again. What the user gave stays. Arguments as in
    ``sample_ancestral``.
    """
    state = SamplingState(denoise, x_t, mask_id, tau, options, keys, callback)
    ours = state.masked
    total = ours.sum(-1)
    for step in range(options.steps, 0, -1):
        tau_t, tau_s = state.tau * step / options.steps, state.tau * (step - 1) / options.steps
        sigma = remask_probability(schedule, tau_s, tau_t, x_t=state.x_t, cap=options.remask_cap)
        again = ours & ~state.masked & (state.numbers.everywhere() < sigma)
        masked_then = masked_share(schedule, state.tau, step - 1, options.steps, total)
        if options.remask_order == "confidence":
            again &= state.numbers.everywhere().masked_fill(~again, 2.0).argsort(-1).argsort(-1) < masked_then[:, None]
        if bool(state.masked.any()):
            by_law = options.remask_order == "ancestral"
            places = state.predict(
                state.masked, tau_t if by_law else time_of(schedule, state.tau, state.masked.sum(-1), total)
            )
            words = state.draw(places, margin_of if options.margin and not by_law else None)
            if by_law:
                chosen = state.uniform(places) < reveal_probability(
                    schedule, tau_s, tau_t, places, words, options.remask_cap
                )
            else:
                count = (state.masked.sum(-1) + again.sum(-1) - masked_then).clamp(min=1)
                chosen = rank_within_rows(confidence_of(places, words, options), places.rows) < count[places.rows]
            state.reveal(places, words, chosen, last=step == 1)
        state.remask(again)
        state.end_step()
    return state.output()


def remask_probability(schedule: NoiseSchedule, tau_s: Tensor, tau_t: Tensor, x_t: Tensor, cap: float) -> Tensor:
    """sigma_t(v) = min(cap, (1 - alpha_s(v)) / alpha_t(v)) for the words x_t [B, T] (or [N]); times [B] (or [N])."""
    while tau_s.ndim < x_t.ndim:
        tau_s, tau_t = tau_s[..., None], tau_t[..., None]
    alpha_t = 1 - schedule.mask_probability(tau_t, x_t)
    m_s = schedule.mask_probability(tau_s, x_t)
    # at alpha_t = 0: infinity, hence the cap; a single step has 0 / 0
    return torch.where(m_s > 0, (m_s / alpha_t).clamp(max=cap), 0.0)


def reveal_probability(
    schedule: NoiseSchedule, tau_s: Tensor, tau_t: Tensor, places: Places, words: Tensor, cap: float
) -> Tensor:
    """(alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t) = r + sigma alpha_t / (1 - alpha_t) for the words [N]; times
    [B].
    """
    tau_s, tau_t = tau_s[places.rows], tau_t[places.rows]
    m_t = schedule.mask_probability(tau_t, words)
    return (
        schedule.reveal_probability(tau_s, tau_t, words)
        + remask_probability(schedule, tau_s, tau_t, words, cap) * (1 - m_t) / m_t
    )
