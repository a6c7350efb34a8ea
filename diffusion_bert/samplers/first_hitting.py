"""The reverse process in continuous time, one word per call: no grid, hence no error from places revealed together."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion.schedule import NoiseSchedule
from .state import Callback, Denoise, SampleOutput, SamplerOptions, SamplingState

HALVINGS = 60  # The interval [0, u_t] is halved so often in the search for the next time.


@torch.no_grad()
def sample_first_hitting(
    denoise: Denoise,
    x_t: Tensor,
    schedule: NoiseSchedule,
    mask_id: int,
    tau: Tensor,
    options: SamplerOptions,
    keys: Tensor | None = None,
    callback: Callback | None = None,
) -> SampleOutput:
    """First-hitting sampling (Zheng et al. 2024, arXiv 2409.02908): the time of the next reveal, then the place, then
    the word.

    A masked place shows v at rate mu'_v rate_v, rate_v = m'(v) / m(v). For lambda = 0 the next of n places follows at
    u_s = u_t U^(1/n). For lambda > 0 by thinning: the most common word v* has the largest rate at all times, so a place
    gets candidates at rate_v*: m_s(v*) = m_t(v*) U^(1/n), solved for s by bisection; the word v ~ mu'(s) is kept with
    probability rate_v(s) / rate_v*(s). That is the limit of ``sample_ancestral`` for infinitely many steps, also when
    mu depends on time. One call per word; ``options.steps`` does not apply. Arguments as in ``sample_ancestral``.
    """
    state = SamplingState(denoise, x_t, mask_id, tau, options, keys, callback)
    u = schedule.u(state.tau)  # [B] where each row is
    while bool(state.masked.any()):
        u = next_candidate(schedule, u, state.masked.sum(-1).clamp(min=1), state.numbers.of_rows())
        place = state.numbers.everywhere().masked_fill(~state.masked, -1.0).argmax(-1)  # one of the n, all alike
        wanted = torch.zeros_like(state.masked).scatter_(-1, place[:, None], True) & state.masked
        places = state.predict(wanted, schedule.tau(u))
        words = state.draw(places)
        now = u[places.rows]
        kept = schedule.reveal_rate(now, words) / schedule.reveal_rate(now, schedule.most_common_word(now))
        state.reveal(places, words, state.uniform(places) < kept)
        state.end_step()
    return state.output()


def next_candidate(schedule: NoiseSchedule, u: Tensor, n: Tensor, uniform: Tensor) -> Tensor:
    """u_s [B] of the next candidate among n [B] places after u [B]: m_s(v*) = m_t(v*) U^(1/n)."""
    factor = (1 - uniform) ** (1 / n)  # in (0, 1]
    if schedule.is_plain:
        return u * factor
    word = schedule.most_common_word(u)
    target = schedule.mask_probability(schedule.tau(u), word) * factor
    low, high = torch.zeros_like(u), u
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = schedule.mask_probability(schedule.tau(middle), word) > target
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return high
