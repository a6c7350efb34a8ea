"""Noise schedules: how likely is a token of type v still clean at time t?

Time runs from tau = 0 (clean) to tau = 1 (all masked); on a grid of T steps tau = t / T. A base schedule gives the
average masked share u(tau), and the word-frequency (spindle) warp of DiffusionBERT (arXiv 2211.15029, section 4.2)
bends it per token type:

    alpha(v, u) = 1 - u - lambda sin(pi u) h_v          h_v in [-1, 1], rare words positive (see word_frequency.py)

so rare, informative words are masked first and generated last. h is a fixed table per token type, not re-centred per
sentence as in the paper: only so can the reverse process be computed while the words are still unknown.

Everything is float64: near u = 1 and u = 0 the ratios below are wrong or NaN in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..config.schema import SCHEDULES, check_lambda
from ..errors import UserError, nearest


class NoiseSchedule:
    """u(tau) and the masking probabilities m(v) = 1 - alpha(v) derived from it.

    Args:
        name: ``mutual`` (u = tau; beta_t = 1/(T-t+1)) or ``cosine`` (u = sin^2(pi tau / 2)).
        word_freq_lambda: strength of the word-frequency warp, 0 (none) to 1/pi; beyond it alpha is not monotone.
        informativeness: h_v per token id, [V] in [-1, 1]; None stands for zeros (then V is not needed).
    Raises:
        UserError: unknown name or a lambda that leaves no valid schedule.
    """

    def __init__(self, name: str = "mutual", word_freq_lambda: float = 0.0, informativeness: Tensor | None = None):
        if name not in SCHEDULES:
            raise UserError(
                f"unknown schedule '{name}': expected one of {', '.join(SCHEDULES)}{nearest(name, SCHEDULES)}"
            )
        check_lambda(word_freq_lambda)
        if informativeness is not None and not bool((informativeness.abs() <= 1).all()):
            raise ValueError("informativeness must lie in [-1, 1]")
        self.name = name
        self.word_freq_lambda = float(word_freq_lambda)
        self.informativeness = None if informativeness is None else informativeness.to(torch.float64)
        self._has_table = informativeness is not None and bool(informativeness.any())

    def __repr__(self) -> str:
        return f"NoiseSchedule({self.name}, word_freq_lambda={self.word_freq_lambda:g})"

    @property
    def is_plain(self) -> bool:
        """True when every token type shares one schedule: lambda = 0, or no word stands out."""
        return self.word_freq_lambda == 0 or not self._has_table

    def to(self, device) -> NoiseSchedule:
        """The same schedule with its table on another device."""
        if self.informativeness is not None:
            self.informativeness = self.informativeness.to(device)
        return self

    def on_host(self) -> NoiseSchedule:
        """The same schedule with its table on the CPU; this one if it is there."""
        if self.informativeness is None or self.informativeness.device.type == "cpu":
            return self
        return NoiseSchedule(self.name, self.word_freq_lambda, self.informativeness.cpu())

    def u(self, tau: Tensor) -> Tensor:
        """Average masked share at time tau in [0, 1]; exact 0 and 1 at the ends."""
        tau = tau.to(torch.float64)
        return tau if self.name == "mutual" else torch.sin(tau * (math.pi / 2)) ** 2

    def tau(self, u: Tensor) -> Tensor:
        """Inverse of :meth:`u`."""
        u = u.to(torch.float64)
        return u if self.name == "mutual" else torch.asin(u.sqrt()) * (2 / math.pi)

    def mask_probability(self, tau: Tensor, ids: Tensor | None = None) -> Tensor:
        """m(v) = 1 - alpha(v) = u + lambda sin(pi u) h_v.

        With ``ids`` (shaped like, or broadcasting with, tau) the value for these token ids; without, all types:
        tau.shape + [V].
        """
        u, warp = self._aligned(self.u(tau), ids)
        m = _warped(u, warp)
        # sin(pi) is 1.2e-16 in floating point: both ends are set by hand
        return torch.where(u >= 1, 1.0, torch.where(u <= 0, 0.0, m.clamp(0.0, 1.0)))

    @property
    def excess(self) -> Tensor:
        """1 + h_v per token id, [V] float64: what ``mean_mask_probability`` asks the mean of. Not negative, so that a
        mean loses no digits.
        """
        return 1 + self.informativeness

    def mean_mask_probability(self, tau: Tensor, mean_excess: Tensor) -> Tensor:
        """E[m(v)] under any distribution of v, from its mean excess E[1 + h_v]: m is linear in h. Shapes broadcast.

        m = u (1 - pi lambda) + lambda (pi u - sin(pi u)) + lambda sin(pi u) (1 + h): a sum without a negative term.
        """
        u = self.u(tau)
        mean = (
            _warped(u, torch.full_like(u, -self.word_freq_lambda))
            + self.word_freq_lambda * torch.sin(math.pi * u) * mean_excess.double()
        )
        return torch.where(u >= 1, 1.0, torch.where(u <= 0, 0.0, mean.clamp(0.0, 1.0)))

    def stay_probability(self, tau_s: Tensor, tau_t: Tensor, ids: Tensor | None = None) -> Tensor:
        """1 - r(v) = m_s(v) / m_t(v): a word masked at t is still masked at the earlier time s. Shapes as in
        mask_probability.
        """
        return self.mask_probability(tau_s, ids) / self.mask_probability(tau_t, ids)

    def reveal_probability(self, tau_s: Tensor, tau_t: Tensor, ids: Tensor | None = None) -> Tensor:
        """r(v) = (alpha_s(v) - alpha_t(v)) / (1 - alpha_t(v)) = (m_t - m_s) / m_t; exactly 1 at s = 0."""
        m_s, m_t = self.mask_probability(tau_s, ids), self.mask_probability(tau_t, ids)
        return (m_t - m_s) / m_t

    def most_common_word(self, like: Tensor) -> Tensor:
        """Ids shaped like ``like`` of the type with the smallest h, which is revealed fastest at all times: rate_v
        falls as h_v rises, since x cos x < sin x on (0, pi). So its r is the largest of all.
        """
        index = 0 if self.informativeness is None else int(self.informativeness.argmin())
        return torch.full_like(like, index, dtype=torch.long)

    def largest_reveal_probability(self, tau_s: Tensor, tau_t: Tensor) -> Tensor:
        """max_v r(v), shaped like the times."""
        return self.reveal_probability(tau_s, tau_t, self.most_common_word(tau_t))

    def reveal_rate(self, u: Tensor, ids: Tensor | None = None) -> Tensor:
        """rate_v = m'(v) / m(v) per unit of u, the limit of r(v) / (u_t - u_s); u in (0, 1]. Shapes as in
        mask_probability.
        """
        u, warp = self._aligned(u.to(torch.float64), ids)
        # 1 + pi warp cos(pi u), without cancellation near u = 0
        slope = (1 + math.pi * warp) - 2 * math.pi * warp * torch.sin(math.pi / 2 * u) ** 2
        return slope / _warped(u, warp)

    def _aligned(self, u: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor]:
        """u and lambda h_v, shaped to go together: for these ids, or for all types with V as the last axis."""
        if ids is None and self.informativeness is None:
            raise ValueError("this schedule has no table: pass ids")
        if ids is None:
            return u[..., None], self.word_freq_lambda * self.informativeness
        if self.informativeness is None:
            return u, torch.zeros((), dtype=torch.float64, device=u.device)
        return u, self.word_freq_lambda * self.informativeness[ids]


def _warped(u: Tensor, warp: Tensor) -> Tensor:
    """u + warp sin(pi u), as u (1 + pi warp) - warp (pi u - sin(pi u)).

    At lambda = 1/pi the most common word (pi warp = -1) has only the second, third-order part near u = 0: the plain
    formula loses it to cancellation.
    """
    x = math.pi * u
    rest = torch.where(x < 0.1, x**3 / 6 * (1 - x**2 / 20 * (1 - x**2 / 42 * (1 - x**2 / 72))), x - torch.sin(x))
    return u * (1 + math.pi * warp) - warp * rest
