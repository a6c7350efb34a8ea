"""How likely a text is to the model: an upper bound of -log p (the NELBO) and the leave-one-out score, in nats."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.batching import Collator
from ..diffusion.times import T_EVAL, NoiseDraws, balanced_draws, standard_error
from ..model.bound import place_terms
from ..model.diffusion_model import DiffusionModel
from .canvas import Canvas
from .leave_one_out import leave_one_out

Example = tuple[int, Sequence[int], Sequence[int]]  # skill, source ids, target ids


class PieceScore(NamedTuple):
    """One word piece of a scored text, in nats."""

    piece: str  # as it is read; a piece that goes on with a word begins with ##
    nelbo: float  # its share of reveal + stay
    leave_one_out: float  # log p of it, when it is hidden and all others are seen


@dataclass(frozen=True)
class TextScore:
    """-log p(text | source) <= ``nelbo`` = ``reveal`` + ``stay`` + ``length``, in nats; ``reveal`` and ``stay`` are
    estimates, whose sum has the standard error ``standard_error``.

    reveal, stay: the two parts of the KL (diffusion/process.py), summed over all times. length: -log p(length |
    source), which is exact.
    """

    reveal: float
    stay: float
    length: float
    standard_error: float
    pieces: tuple[PieceScore, ...]

    @property
    def nelbo(self) -> float:
        """The bound on -log p(text | source)."""
        return self.reveal + self.stay + self.length

    @property
    def nelbo_per_piece(self) -> float:
        """Nats per word piece, as evaluation and training report it."""
        return self.nelbo / len(self.pieces)

    @property
    def leave_one_out(self) -> float:
        """Sum of log p of each word piece beside all others: higher is likelier; no bound of anything."""
        return sum(piece.leave_one_out for piece in self.pieces)

    @property
    def leave_one_out_per_piece(self) -> float:
        """The mean over the word pieces."""
        return self.leave_one_out / len(self.pieces)


def score_texts(
    model: DiffusionModel, examples: Sequence[Example], collator: Collator, draws: int, seed: int, batch_size: int
) -> list[TextScore]:
    """The score of every (skill, source, target), with N = ``draws`` noise draws for each.

    The noise of a text follows from the seed and its ids alone, not from what else is scored; ``batch_size`` rows
    (text, draw) or (text, place) go through the network together.
    """
    estimates = estimate_nelbos(model, examples, collator, draws, seed, batch_size)
    mask = model.tokenizer.mask_id
    canvases = [Canvas(skill, source, [mask] * len(target)) for skill, source, target in examples]
    alone = leave_one_out(model, canvases, [list(target) for *_, target in examples], collator, batch_size)
    return [
        TextScore(
            float(kl[0]),
            float(kl[1]),
            length,
            error,
            tuple(map(PieceScore, map(model.tokenizer.surface, target), places.tolist(), scores.tolist())),
        )
        for (*_, target), (kl, error, places, length), scores in zip(examples, estimates, alone)
    ]


@torch.no_grad()
def estimate_nelbos(
    model: DiffusionModel, examples: Sequence[Example], collator: Collator, draws: int, seed: int, batch_size: int
) -> list[tuple[Tensor, float, Tensor, float]]:
    """Per example: reveal and stay [2] float64; the standard error of their sum; the sum by place [L]; and -log
    p(length | source).
    """
    schedule = model.schedule.on_host()
    noise = [
        balanced_draws(schedule, torch.tensor(example[2]), draws, T_EVAL, noise_generator(seed, example))
        for example in examples
    ]
    values = [torch.zeros(draws, 2, dtype=torch.float64) for _ in examples]
    places = [torch.zeros(len(target), dtype=torch.float64) for *_, target in examples]
    lengths = [0.0] * len(examples)
    by_length = sorted(range(len(examples)), key=lambda number: sum(map(len, examples[number][1:])))
    rows = [(number, draw) for number in by_length for draw in range(draws)]
    for start in range(0, len(rows), batch_size):
        group = rows[start : start + batch_size]
        kl, each, length = _kl_of_rows(model, [(examples[n], noise[n], draw) for n, draw in group], collator)
        for row, (number, draw) in enumerate(group):
            values[number][draw] = kl[row]
            places[number] += each[row, : len(places[number])] / draws
            lengths[number] = float(length[row])
    return [
        (value.mean(0), standard_error(value.sum(-1), each.group), *rest)
        for value, each, *rest in zip(values, noise, places, lengths)
    ]


def _kl_of_rows(
    model: DiffusionModel, rows: Sequence[tuple[Example, NoiseDraws, int]], collator: Collator
) -> tuple[Tensor, Tensor, Tensor]:
    """The weighted reveal and stay of each row [B, 2], their sum at each place of its target [B, L], and -log
    p(length | source) [B], on the host.
    """
    batch = collator.batch([example for example, *_ in rows])
    t = torch.stack([noise.t[draw] for _, noise, draw in rows])
    weight = torch.stack([noise.weight[draw] for _, noise, draw in rows])
    x_t = batch.input_ids.clone()
    for row, (_, noise, draw) in enumerate(rows):
        start = int(batch.source_length[row])
        x_t[row, start : start + noise.masked.shape[1]][noise.masked[draw]] = batch.mask_id
    there = batch.masked_places(x_t)
    columns = there[1] - batch.source_length[there[0]]
    on_device, device = batch.to(model.device), model.device
    terms = place_terms(
        model.denoiser,
        model.diffusion,
        on_device,
        x_t.to(device),
        (t.double() / T_EVAL).to(device),
        t[there[0]].to(device),
        T_EVAL,
        tuple(index.to(device) for index in there),
        model.config.diffusion.time_correction,
        model.denoiser.self_conditioning is not None,
    )
    kl = torch.stack(list(terms.kl), dim=-1).cpu() * weight[there[0], None]  # [N, 2]
    totals = torch.zeros(len(rows), 2, dtype=torch.float64).index_add_(0, there[0], kl)
    each = torch.zeros(len(rows), int(batch.target_length.max()), dtype=torch.float64)
    each.index_put_((there[0], columns), kl.sum(-1))
    length = F.cross_entropy(terms.length_logits.float(), on_device.target_length - 1, reduction="none").double()
    return totals, each, length.cpu()


def noise_generator(seed: int, example: Example) -> torch.Generator:
    """Random numbers that follow from the seed and the ids of an example, whatever is beside it."""
    text = repr((seed, example[0], list(example[1]), list(example[2])))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1)
