"""Absorbing-state diffusion, exactly: forward process, posterior, reverse step and KL, with one schedule per token
type.

Notation: x_0 clean ids, x_t noised ids, tau_s < tau_t in [0, 1], m_t(v) the probability that type v is masked at t
(schedule.py), r(v) = (m_t(v) - m_s(v)) / m_t(v), mu = the denoiser's p(x_0 | x_t, source) with no mass on [MASK] and
the other specials.
Shapes: B batch, L length, V vocabulary, N masked places. A word already clean at t is clean at s too; all of this
concerns masked places.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .schedule import NoiseSchedule


class KlTerms(NamedTuple):
    """The two terms of the KL at each masked place, [N] float64, in nats; the KL is their sum."""

    reveal: Tensor  # - r(x) log mu_x
    stay: Tensor  # (1 - r(x)) log[(1 - r(x)) / (1 - sum_v mu_v r(v))]


class AbsorbingDiffusion:
    """The forward process q and the reverse process p of masked diffusion under a :class:`NoiseSchedule`.

    Args:
        schedule: the noise schedule, per token type.
        mask_id: id of [MASK].
    """

    def __init__(self, schedule: NoiseSchedule, mask_id: int):
        self.schedule = schedule
        self.mask_id = mask_id

    def q_sample(
        self,
        x_0: Tensor,
        tau: Tensor,
        maskable: Tensor,
        generator: torch.Generator | None = None,
        uniform: Tensor | None = None,
    ) -> Tensor:
        """x_t ~ q(x_t | x_0): each maskable place becomes [MASK] with probability m_t(x_0).

        x_0 [B, L] ids, tau [B] or [B, L], maskable [B, L] bool -> x_t [B, L]. The uniform numbers are drawn in float64
        on the CPU, so that a seed means the same noise on every device; ``uniform`` [B, L] takes the place of the draw.
        """
        m = self.schedule.mask_probability(tau if tau.dim() == 2 else tau[:, None], x_0)  # [B, L]
        if uniform is None:
            uniform = torch.rand(x_0.shape, generator=generator, dtype=torch.float64).to(x_0.device)
        return torch.where(maskable & (uniform < m), self.mask_id, x_0)

    def posterior(self, x_0: Tensor, x_t: Tensor, tau_s: Tensor, tau_t: Tensor, vocab_size: int) -> Tensor:
        """q(x_s | x_t, x_0) as a table [..., V]: at a masked place x_0 with r(x_0), else [MASK]; elsewhere x_t for
        certain.
        """
        r = self.schedule.reveal_probability(tau_s, tau_t, x_0)
        masked = x_t == self.mask_id
        table = torch.zeros(*x_t.shape, vocab_size, dtype=torch.float64, device=x_t.device)
        table.scatter_(-1, torch.where(masked, x_0, x_t)[..., None], torch.where(masked, r, 1.0)[..., None])
        table[..., self.mask_id] += torch.where(masked, 1 - r, 0.0)
        return table

    def reverse_probs(self, mu: Tensor, x_t: Tensor, tau_s: Tensor, tau_t: Tensor) -> Tensor:
        """p(x_s | x_t) as a table [..., V]: at a masked place v with mu_v r(v), [MASK] with 1 - sum_v mu_v r(v).

        mu [..., V], x_t [...], tau_s and tau_t broadcasting with x_t.
        """
        revealed = mu * self.schedule.reveal_probability(tau_s, tau_t)
        table = revealed.clone()
        table[..., self.mask_id] = 1 - revealed.sum(-1)
        clean = torch.nn.functional.one_hot(x_t, mu.shape[-1]).to(mu.dtype)
        return torch.where((x_t == self.mask_id)[..., None], table, clean)

    def kl(self, log_mu: Tensor, x_0: Tensor, tau_s: Tensor, tau_t: Tensor) -> KlTerms:
        """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) at masked places.

        log_mu [N, V], x_0 [N] the true words, tau_s and tau_t [N]. At s = 0, r = 1 and only ``-log mu_x`` is left. The
        second term vanishes only when r is the same for all words: without it weighted cross-entropy is no bound for
        lambda > 0. It is written with log(1 - r), so that the float32 sum over words is damped by r, which is small on
        a fine grid.
        """
        log_mu_x = log_mu.gather(-1, x_0[:, None]).squeeze(-1).double()
        r_x = self.schedule.reveal_probability(tau_s, tau_t, x_0)
        reveal_term = -r_x * log_mu_x
        if self.schedule.is_plain:
            return KlTerms(reveal_term, torch.zeros_like(reveal_term))
        expected_r = (
            (log_mu.exp() * self._by_time(self.schedule.reveal_probability, log_mu, tau_s, tau_t)).sum(-1).double()
        )
        last = r_x >= 1  # s = 0: everything is revealed; keep log 0 out of the gradient
        stay = torch.log1p(-torch.where(last, 0.0, r_x)) - torch.log1p(-torch.where(last, 0.0, expected_r))
        return KlTerms(reveal_term, torch.where(last, 0.0, 1 - r_x) * stay)

    def corrected_kl(
        self, log_mu_x: Tensor, mean_excess: Tensor, x_0: Tensor, tau_s: Tensor, tau_t: Tensor
    ) -> tuple[KlTerms, Tensor]:
        """``kl`` after ``correct_for_time``, and the corrected log mu*_x, without a table over all words.

        Both need mu only through E_mu[m_t] = sum_v mu_v m_t(v), and m is linear in h_v
        (``NoiseSchedule.mean_mask_probability``):

            log mu*_x = log mu_x + log m_t(x) - log E_mu[m_t]          1 - sum_v mu*_v r(v) = E_mu[m_s] / E_mu[m_t]

        Args:
            log_mu_x: [N] log mu of the true word, before correction.
            mean_excess: [N] sum_v mu_v (1 + h_v); not read by a plain schedule.
            x_0: [N] the true words. tau_s, tau_t: [N].
        """
        log_mu_x = log_mu_x.double()
        m_s, m_t = self.schedule.mask_probability(tau_s, x_0), self.schedule.mask_probability(tau_t, x_0)
        r_x = (m_t - m_s) / m_t
        if self.schedule.is_plain:
            return KlTerms(-r_x * log_mu_x, torch.zeros_like(log_mu_x)), log_mu_x
        mean_s, mean_t = (self.schedule.mean_mask_probability(tau, mean_excess) for tau in (tau_s, tau_t))
        log_mu_x = log_mu_x + m_t.log() - mean_t.log()
        last = r_x >= 1  # s = 0: everything is revealed; keep log 0 out of the gradient
        stay = (
            torch.where(last, 1.0, m_s / m_t).log()
            - torch.where(last, 1.0, mean_s).log()
            + torch.where(last, 1.0, mean_t).log()
        )
        return KlTerms(-r_x * log_mu_x, torch.where(last, 0.0, 1 - r_x) * stay), log_mu_x

    def correct_for_time(self, log_mu: Tensor, tau_t: Tensor, in_place: bool = False) -> Tensor:
        """mu*(v) proportional to mu(v) m_t(v), renormalised: what a time-free network cannot know.

        With lambda > 0 the mere fact that a place is still masked at t speaks for the words that are masked early. The
        factor p(masked at t | v) = m_t(v) is exact for one masked place and first order for several. log_mu [N, V],
        tau_t [N], on the host or beside log_mu. ``in_place`` writes over log_mu, which spares a table.
        """
        if self.schedule.is_plain:
            return log_mu
        log_m = self._by_time(lambda tau: self.schedule.mask_probability(tau).log(), log_mu, tau_t)
        return torch.log_softmax(log_mu.add_(log_m) if in_place else log_mu + log_m, dim=-1)

    @staticmethod
    def _by_time(table, like: Tensor, *taus: Tensor) -> Tensor:
        """table(*taus) [N, V], or [1, V] for one time: computed in float64 once per run of equal times (as places of
        one sentence have). The result is as ``like``, the times may be on the host: then a GPU is not read.
        """
        times = torch.stack(taus)  # [k, N]
        starts = torch.ones(times.shape[1], dtype=torch.bool, device=times.device)
        starts[1:] = (times[:, 1:] != times[:, :-1]).any(0)
        rows = table(*times[:, starts].to(like.device).unbind(0)).to(like.dtype)
        # one time for all, as in most samplers: nothing to copy
        return rows if len(rows) == 1 else rows[(starts.long().cumsum(0) - 1).to(like.device)]
