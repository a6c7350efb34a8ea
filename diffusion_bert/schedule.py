"""Noise schedules: how likely is a token of type v still clean at time t?

Time runs from tau = 0 (clean) to tau = 1 (all masked); on a grid of T steps tau = t / T. A base schedule gives the
average masked share u(tau), and the word-frequency (spindle) warp of DiffusionBERT (arXiv 2211.15029, section 4.2) bends it per token type:

    alpha(v, u) = 1 - u - lambda sin(pi u) h_v          h_v in [-1, 1], rare words positive (see word_frequency.py)

so rare, informative words are masked first and generated last. h is a fixed table per token type, not re-centred per sentence as in
the paper: only so can the reverse process be computed while the words are still unknown.

Everything is float64: near u = 1 and u = 0 the ratios below are wrong or NaN in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .errors import UserError, nearest

SCHEDULES = ("mutual", "cosine")
MAX_LAMBDA = 1 / math.pi


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
            raise UserError(f"unknown schedule '{name}': expected one of {', '.join(SCHEDULES)}{nearest(name, SCHEDULES)}")
        check_lambda(word_freq_lambda)
        if informativeness is not None and not bool((informativeness.abs() <= 1).all()):
            raise ValueError("informativeness must lie in [-1, 1]")
        self.name = name
        self.word_freq_lambda = float(word_freq_lambda)
        self.informativeness = None if informativeness is None else informativeness.to(torch.float64)

    def __repr__(self) -> str:
        return f"NoiseSchedule({self.name}, word_freq_lambda={self.word_freq_lambda:g})"

    @property
    def is_plain(self) -> bool:
        """True when every token type shares one schedule: lambda = 0, or no word stands out."""
        return self.word_freq_lambda == 0 or self.informativeness is None or not bool(self.informativeness.any())

    def to(self, device) -> NoiseSchedule:
        """The same schedule with its table on another device."""
        if self.informativeness is not None:
            self.informativeness = self.informativeness.to(device)
        return self

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

        With ``ids`` (shaped like, or broadcasting with, tau) the value for these token ids; without, all types: tau.shape + [V].
        """
        u = self.u(tau)
        if ids is not None:
            h = torch.zeros((), dtype=torch.float64, device=u.device) if self.informativeness is None else self.informativeness[ids]
        else:
            if self.informativeness is None:
                raise ValueError("this schedule has no table: pass ids")
            h, u = self.informativeness, u[..., None]
        m = u + self.word_freq_lambda * torch.sin(math.pi * u) * h
        # sin(pi) is 1.2e-16 in floating point: both ends are set by hand
        return torch.where(u >= 1, 1.0, torch.where(u <= 0, 0.0, m.clamp(0.0, 1.0)))

    def stay_probability(self, tau_s: Tensor, tau_t: Tensor, ids: Tensor | None = None) -> Tensor:
        """1 - r(v) = m_s(v) / m_t(v): a word masked at t is still masked at the earlier time s. Shapes as in mask_probability."""
        return self.mask_probability(tau_s, ids) / self.mask_probability(tau_t, ids)

    def reveal_probability(self, tau_s: Tensor, tau_t: Tensor, ids: Tensor | None = None) -> Tensor:
        """r(v) = (alpha_s(v) - alpha_t(v)) / (1 - alpha_t(v)) = (m_t - m_s) / m_t; exactly 1 at s = 0."""
        m_s, m_t = self.mask_probability(tau_s, ids), self.mask_probability(tau_t, ids)
        return (m_t - m_s) / m_t

    def reveal_rate(self, u: Tensor, ids: Tensor | None = None) -> Tensor:
        """rate_v = m'(v) / m(v) per unit of u, the limit of r(v) / (u_t - u_s); u in (0, 1]. Shapes as in mask_probability."""
        u = u.to(torch.float64)
        if ids is not None:
            h = torch.zeros((), dtype=torch.float64, device=u.device) if self.informativeness is None else self.informativeness[ids]
        else:
            h, u = self.informativeness, u[..., None]
        slope = 1 + self.word_freq_lambda * math.pi * torch.cos(math.pi * u) * h
        return slope / (u + self.word_freq_lambda * torch.sin(math.pi * u) * h)


def check_lambda(word_freq_lambda: float) -> None:
    """Refuse a lambda for which alpha(v, u) would leave [0, 1] or rise with time."""
    if not 0 <= word_freq_lambda <= MAX_LAMBDA:
        raise UserError(
            f"word_freq_lambda is {word_freq_lambda:g}: expected 0 (no word-frequency noise) to {math.floor(MAX_LAMBDA * 1000) / 1000} (= 1/pi, "
            f"the largest for which no word is ever unmasked by noise)"
        )
