"""What training minimises and validation reports: times, losses and the terms of the NELBO, named and apart.

-log p(x_0 | source) <= -log p(length | source) + sum_t KL_t                       (the prior term is 0: at t = T all is
masked)
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.batch import Batch
from ..diffusion.process import AbsorbingDiffusion, KlTerms
from ..model.bound import place_terms
from ..model.denoiser import BertDenoiser
from .distillation import Teacher


@dataclass
class NelboTerms:
    """Sums over a batch, in nats; add two with ``+``. ``reveal`` and ``stay`` are the two parts of the KL, already
    times T.
    """

    reveal: Tensor
    stay: Tensor
    length: Tensor
    cross_entropy: Tensor  # unweighted, over masked places
    masked: Tensor  # number of masked places
    tokens: Tensor  # number of target word pieces
    surrogate: Tensor | None = (
        None  # cross-entropy with label smoothing and weights: for the loss ``ce`` alone, no part of any bound
    )

    def __post_init__(self):
        if self.surrogate is None:
            self.surrogate = self.cross_entropy

    @classmethod
    def zero(cls, device: torch.device | str = "cpu") -> NelboTerms:
        """The sums over no example."""
        return cls(*torch.zeros(len(fields(cls)), dtype=torch.float64, device=device))

    def stacked(self) -> Tensor:
        """All terms as one tensor without a gradient, in the order of the fields, float64; ``NelboTerms(*stacked)``
        undoes it.
        """
        return torch.stack([getattr(self, f.name).detach().double() for f in fields(self)])

    def __add__(self, other: NelboTerms) -> NelboTerms:
        return NelboTerms(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def total(self) -> Tensor:
        """The bound on -log p(x_0 | source), summed over the batch."""
        return self.reveal + self.stay + self.length

    def per_token(self) -> dict[str, float]:
        """Nats per target word piece, by name; plus cross-entropy per masked place."""
        tokens = max(float(self.tokens), 1.0)
        values = {name: float(getattr(self, name)) / tokens for name in ("reveal", "stay", "length")}
        values["nelbo"] = float(self.total) / tokens
        values["cross_entropy"] = float(self.cross_entropy) / max(float(self.masked), 1.0)
        return values


@dataclass(frozen=True)
class LossOptions:
    """What shapes the loss besides the bound; nothing that is reported depends on it.

    kl_gradient: False where the KL is only reported, as cross-entropy training has no use for its gradient.
    label_smoothing: share of a target spread over all words.
    loss_weighting: see ``loss_weight``.
    teacher: whose expectations are learned too, or None.
    """

    kl_gradient: bool = True
    label_smoothing: float = 0.0
    loss_weighting: str = "none"
    teacher: Teacher | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the loss is the cross-entropy as it is reported."""
        return not self.label_smoothing and self.loss_weighting == "none" and self.teacher is None


def nelbo_terms(
    denoiser: BertDenoiser,
    diffusion: AbsorbingDiffusion,
    batch: Batch,
    x_t: Tensor,
    t: Tensor,
    num_steps: int,
    time_correction: bool = True,
    options: LossOptions = LossOptions(),  # noqa: B008 (frozen)
    two_pass: bool = False,
    places: tuple[Tensor, Tensor] | None = None,
    time_weight: Tensor | None = None,
) -> NelboTerms:
    """All terms for one batch noised to x_t [B, L] at steps t [B] or [B, draws] of T = num_steps, summed over its
    noised targets and differentiable. ``two_pass`` is for self-conditioning: a first pass makes the guess of the
    second, so the bound stays a bound. ``places`` are ``batch.masked_places(x_t)`` where the caller knows them, and
    ``time_weight`` [B, draws] the weights of the KL where times were not drawn uniformly (``low_noise_times``).
    """
    # 1. Times: of every noised target, then of every masked place, [N].
    places = batch.masked_places(x_t) if places is None else places
    t = t.reshape(len(batch), batch.draws)
    tau = t[:, 0].double() / num_steps  # only a network with time conditioning reads it, and then there is one draw
    t_places = t.flatten()[batch.examples_of(places)]
    # 2. What the network says of the true words, and the KL of each place.
    whole_table = bool(options.label_smoothing or options.teacher)  # they need what is said of all words
    terms = place_terms(
        denoiser, diffusion, batch, x_t, tau, t_places, num_steps, places, time_correction, two_pass, whole_table
    )
    length_logits, log_mu_x = terms.length_logits, terms.log_mu_x
    weight = 1.0 if time_weight is None else time_weight.flatten()[batch.examples_of(places)]
    kl = KlTerms(*(weight * (term if options.kl_gradient else term.detach()) for term in terms.kl))
    # 3. The loss of each place where it is not plain cross-entropy: smoothed, taught, weighted.
    surrogate = None
    if not options.is_plain:
        each = -log_mu_x.double()
        if whole_table:
            taught = options.teacher and options.teacher.log_mu(batch, x_t, tau, terms.log_mu.shape[1], places)
            if options.teacher and time_correction:
                taught = diffusion.correct_for_time(taught, t_places.double() / num_steps)
            each = shaped_cross_entropy(terms.log_mu, batch.input_ids[places], options, taught)
        surrogate = (loss_weight(t_places, num_steps, options.loss_weighting) * each).sum()
    # 4. Sums over the batch.
    return NelboTerms(
        reveal=num_steps * kl.reveal.sum(),
        stay=num_steps * kl.stay.sum(),
        length=batch.draws * F.cross_entropy(length_logits.float(), batch.target_length - 1, reduction="sum").double(),
        cross_entropy=-log_mu_x.sum().double(),
        masked=torch.full((), len(t_places), dtype=torch.float64, device=x_t.device),
        tokens=batch.draws * batch.target_length.sum().double(),
        surrogate=surrogate,
    )


def shaped_cross_entropy(log_mu: Tensor, x_0: Tensor, options: LossOptions, taught: Tensor | None) -> Tensor:
    """The cross-entropy of each place, smoothed and mixed with the teacher's log mu ``taught`` [N, V], [N] float64."""
    each = smoothed_cross_entropy(log_mu, x_0, options.label_smoothing)
    return each if taught is None else options.teacher.mixed(each, taught, log_mu)


def smoothed_cross_entropy(log_mu: Tensor, x_0: Tensor, label_smoothing: float) -> Tensor:
    """(1 - e) (-log mu_x) + e mean over allowed words v of (-log mu_v), [N] float64; after Szegedy et al. 2016 (arXiv
    1512.00567).

    Forbidden words (log mu = -inf) get no share of e, or the loss would be infinite. log_mu [N, V], x_0 [N].
    """
    right = -log_mu.gather(-1, x_0[:, None]).squeeze(-1).double()
    if not label_smoothing:
        return right
    allowed = log_mu != float("-inf")
    spread = -torch.where(allowed, log_mu, 0.0).sum(-1).double() / allowed.sum(-1)
    return (1 - label_smoothing) * right + label_smoothing * spread


def loss_weight(t: Tensor, num_steps: int, loss_weighting: str) -> Tensor:
    """The weight of a masked place at step t of T = num_steps, [N] float64: ``none`` 1; ``linear`` 1 - (t - 1) / T,
    which trusts the little-noised examples more (RDM, arXiv 2302.05737). t [N] in 1..T.
    """
    if loss_weighting == "none":
        return torch.ones_like(t, dtype=torch.float64)
    return 1 - (t.double() - 1) / num_steps


def training_loss(
    terms: NelboTerms, loss: str, hybrid_lambda: float, masked: Tensor | float, tokens: Tensor | float
) -> Tensor:
    """The scalar to minimise; ``masked`` and ``tokens`` are counts of the whole global batch, so that micro-batches
    just add up.

    ``ce``: cross-entropy per masked place, smoothed and weighted if so chosen. ``nelbo``: the bound per target token,
    plus hybrid_lambda x cross-entropy.
    Both carry the length term per target token. A batch without a masked place gives a finite loss.
    """
    cross_entropy = terms.cross_entropy / max(float(masked), 1.0)
    length = terms.length / max(float(tokens), 1.0)
    if loss == "ce":
        return terms.surrogate / max(float(masked), 1.0) + length
    return (terms.reveal + terms.stay) / max(float(tokens), 1.0) + hybrid_lambda * cross_entropy + length
