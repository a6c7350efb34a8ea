"""What the denoiser's answer for a noised text costs: the KL of one step of the reverse process at every masked place.

The objective, the yardstick and the score of a single text are sums of these numbers.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..data.batch import Batch
from ..diffusion.process import AbsorbingDiffusion, KlTerms
from .denoiser import BertDenoiser


class PlaceTerms(NamedTuple):
    """What a pass says of N masked places whose true words are known, and of the lengths."""

    kl: KlTerms  # of the step from t to t - 1, each [N] float64; not times T
    log_mu_x: Tensor  # [N] log mu of the true word, corrected for the time where that is asked
    length_logits: Tensor  # [B, max_target_length]
    log_mu: Tensor | None  # [N, V], only where the whole table is asked


def place_terms(
    denoiser: BertDenoiser,
    diffusion: AbsorbingDiffusion,
    batch: Batch,
    x_t: Tensor,
    tau: Tensor,
    t_places: Tensor,
    num_steps: int,
    places: tuple[Tensor, Tensor],
    time_correction: bool = True,
    two_pass: bool = False,
    whole_table: bool = False,
) -> PlaceTerms:
    """One pass over a batch noised to x_t [B, L], and KL(q(x_s | x_t, x_0) || p(x_s | x_t)) at its masked ``places``.

    Args:
        tau: [B] the time that the network is told, if it knows the time.
        t_places: [N] the step, 1 to T = ``num_steps``, of every masked place; s = t - 1.
        two_pass: for self-conditioning: a first pass makes the guess of the second, so the bound stays a bound.
        whole_table: give log mu over all words too.
    """
    tau_s, tau_t = (t_places - 1).double() / num_steps, t_places.double() / num_steps
    # an uncorrected r(v) has to be averaged over all words
    if whole_table or (not time_correction and not diffusion.schedule.is_plain):
        log_mu, length_logits = denoiser(batch, x_t, tau, two_pass=two_pass, places=places)
        if time_correction:
            log_mu = diffusion.correct_for_time(log_mu, tau_t)
        x_0 = batch.input_ids[places]
        log_mu_x = log_mu.gather(-1, x_0[:, None]).squeeze(-1)
        return PlaceTerms(diffusion.kl(log_mu, x_0, tau_s, tau_t), log_mu_x, length_logits, log_mu)
    excess = None if diffusion.schedule.is_plain else diffusion.schedule.excess
    words = denoiser.true_words(batch, x_t, tau, excess, two_pass, places)
    kl, log_mu_x = diffusion.corrected_kl(words.log_mu, words.mean, words.x_0, tau_s, tau_t)
    return PlaceTerms(kl, log_mu_x, words.length_logits, None)
