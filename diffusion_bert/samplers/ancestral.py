"""The exact reverse process on a grid of steps."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion.schedule import NoiseSchedule
from .state import Callback, Denoise, SampleOutput, SamplerOptions, SamplingState


@torch.no_grad()
def sample_ancestral(
    denoise: Denoise,
    x_t: Tensor,
    schedule: NoiseSchedule,
    mask_id: int,
    tau: Tensor,
    options: SamplerOptions,
    keys: Tensor | None = None,
    callback: Callback | None = None,
) -> SampleOutput:
    """Ancestral sampling from p(x_s | x_t): at a masked place v with probability mu'_v r(v), [MASK] with the rest.

    r depends on the word, so frequency-weighted models have no common rate. It is done by thinning: a place is a
    candidate with probability r_max = max_v r(v); only candidates draw v ~ mu' and keep it with probability r(v) /
    r_max, which makes mu'_v r(v) again. Rows without a candidate need no call, so a fine grid costs little. The grid is
    tau_j = tau * j / steps, j = steps .. 1; at s = 0 all is revealed.

    Args:
        denoise: see ``common.Denoise``.
        x_t: canvas [B, T]; places that are not ``mask_id`` stay as they are.
        tau: time at which each row starts, [B] in (0, 1]; 1 for a canvas of [MASK]s.
        keys: [B] int64, of which all random numbers of a row are made (``row_keys``): rows know nothing of each other.
            None: new ones, from torch's own generator.
        callback: called with (step, x_t) after every step.
    """
    state = SamplingState(denoise, x_t, mask_id, tau, options, keys, callback)
    for step in range(options.steps, 0, -1):
        if not bool(state.masked.any()):
            break
        tau_t, tau_s = state.tau * step / options.steps, state.tau * (step - 1) / options.steps
        r_max = schedule.largest_reveal_probability(tau_s, tau_t)  # [B]
        candidates = state.masked & (state.numbers.everywhere() < r_max[:, None])
        if bool(candidates.any()):
            places = state.predict(candidates, tau_t)
            words = state.draw(places)
            rows = places.rows
            r = schedule.reveal_probability(tau_s[rows], tau_t[rows], words)
            state.reveal(places, words, state.uniform(places) < r / r_max[rows], last=step == 1)
        state.end_step()
    return state.output()
