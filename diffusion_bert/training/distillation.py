"""Distillation: a student learns from what a trained teacher expects at the masked places, not only from the one true
word.

    loss of a masked place = (1 - a) cross-entropy + a KL(teacher mu || student mu)

After Hinton et al. 2015 (arXiv 1503.02531), on the same x_t for both. The teacher spreads its mass over all words that
would fit, so a place teaches the student more than one word's worth. Both distributions are corrected for the time by
the student's schedule (objective.py). Only the loss
changes: every reported NELBO is the student's own.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config.run_config import RunConfig
from ..data.batch import Batch
from ..errors import UserError
from ..model.checkpoint import load_checkpoint
from ..model.denoiser import BertDenoiser
from ..model.diffusion_model import DiffusionModel
from ..model.encoders import family_of


class Teacher:
    """A frozen denoiser and its share a of the loss.

    Args:
        denoiser: knows the same words as the student under the same ids.
        weight: a, 0 to 1.
    """

    def __init__(self, denoiser: BertDenoiser, weight: float):
        self.denoiser = denoiser.eval().requires_grad_(False)
        self.weight = weight

    @torch.no_grad()
    def log_mu(
        self, batch: Batch, x_t: Tensor, tau: Tensor, vocab_size: int, places: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """log mu at the masked places of x_t, [N, vocab_size]; places as in ``BertDenoiser.forward``.

        Entries beyond the words of the tokenizer are -inf anyway, however many there are.
        """
        log_mu = self.denoiser.to(x_t.device)(
            batch, x_t, tau, two_pass=self.denoiser.self_conditioning is not None, places=places
        )[0]
        return F.pad(log_mu, (0, vocab_size - log_mu.shape[1]), value=float("-inf"))  # a negative width cuts

    def mixed(self, cross_entropy: Tensor, expected: Tensor, log_mu: Tensor) -> Tensor:
        """(1 - a) cross_entropy + a KL(expected || mu), [N]; ``expected`` and ``log_mu`` [N, V] are logarithms."""
        return (1 - self.weight) * cross_entropy + self.weight * divergence(expected, log_mu)


def divergence(expected: Tensor, log_mu: Tensor) -> Tensor:
    """KL(expected || mu) = sum_v expected_v (log expected_v - log mu_v), [N] float64; both [N, V] logarithms, words
    that neither allows add 0.
    """
    allowed = (expected != float("-inf")) & (log_mu != float("-inf"))
    # no infinity, so no NaN in the gradient
    expected, log_mu = (torch.where(allowed, values, 0.0) for values in (expected, log_mu))
    return (expected.exp() * (expected - log_mu)).masked_fill(~allowed, 0.0).sum(-1).double()


def load_teacher(config: RunConfig) -> DiffusionModel | None:
    """The model in ``config.training.teacher``, or None.

    Raises:
        UserError: it is missing or no checkpoint, its positions do not reach as far as ``max_length``, or several
            noised targets cannot share its source.
    """
    path = config.training.teacher
    if path is None:
        return None
    if not Path(path).is_file():
        raise UserError(
            f"teacher {path}: no such checkpoint file; put it back, or give --teacher its new place in a new run"
        )
    teacher, draws = load_checkpoint(path), config.data.noise_draws
    if draws > 1 and (teacher.denoiser.attention != "isolated" or teacher.denoiser.timestep != "none"):
        raise UserError(
            f"noise_draws is {draws} but the teacher {path} sees targets from the source, or is told the time: set"
            " --noise_draws 1"
        )
    limit = family_of(teacher.denoiser.bert_config).max_positions(teacher.denoiser.bert_config)
    if config.data.max_length > limit:
        raise UserError(
            f"max_length is {config.data.max_length} but the teacher {path} has only {limit} positions: lower"
            " --max_length"
        )
    return teacher


def teacher_of(student: DiffusionModel, teacher: DiffusionModel | None) -> Teacher | None:
    """The ``Teacher`` for a student; None without one, or where its share of the loss is 0.

    Raises:
        UserError: their vocabularies differ.
    """
    if teacher is None:
        return None
    training, ours, theirs = student.config.training, student.tokenizer.tokens, teacher.tokenizer.tokens
    if ours != theirs:
        first = next(
            (place for place, (one, two) in enumerate(zip(ours, theirs)) if one != two), min(len(ours), len(theirs))
        )
        raise UserError(
            f"the student {student.config.model.model_name_or_path} has {len(ours):,} word pieces and the teacher"
            f" {training.teacher} {len(theirs):,}, which differ from number {first} on: take a student with the"
            " teacher's vocabulary (a built-in size takes it by itself)"
        )
    return Teacher(teacher.denoiser, training.distillation_weight) if training.distillation_weight else None
