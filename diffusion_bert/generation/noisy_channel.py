"""Noisy-channel ranking: a good paraphrase follows from its source, is good English, and lets the source be guessed.

    score(y) = mean_i log p(y_i | y without i, x) + 1/2 mean_i log p(y_i | y without i)
               + 1/2 mean_j log p(x_j | x without j, y)

The three are leave-one-out scores of the same network: with the source, without one, and of the source beside the text
(Yee, Dauphin and Auli 2019, arXiv 1908.05731, with a masked model in the place of three others). The second is left out
where the first is that already (fill), the third where a task has only one direction (reply).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..data.batching import Collator
from ..data.skills import NO_SOURCE, is_continuing, is_pair
from ..model.diffusion_model import DiffusionModel
from .canvas import Canvas, blank_canvas
from .leave_one_out import leave_one_out

WEIGHT = 0.5  # of the score without the source, and of that of the source


class Reading(NamedTuple):
    """What is read beside a text: ``words`` with [MASK] at the places that count, and the same finished."""

    canvas: Canvas
    text: Sequence[int]


@torch.no_grad()
def channel_scores(
    model: DiffusionModel,
    canvases: Sequence[Canvas],
    texts: Sequence[Sequence[int]],
    collator: Collator,
    batch_size: int = 128,
) -> tuple[list[float], list[int]]:
    """The second and the third term of the score: the text by itself, and the source beside it, each with its weight.

    Returns:
        For each text, in nats per word piece, the sum of these terms; and the denoiser calls that they took.
    """
    readings: list[Reading] = []
    owners: list[int] = []
    for number, (canvas, text) in enumerate(zip(canvases, texts)):
        for reading in (without_source(model, canvas, text), backward(model, canvas, text)):
            if reading is not None:
                readings.append(reading)
                owners.append(number)
    scores = leave_one_out(
        model, [reading.canvas for reading in readings], [reading.text for reading in readings], collator, batch_size
    )
    totals, calls = [0.0] * len(canvases), [0] * len(canvases)
    for number, values in zip(owners, scores):
        known = values[~values.isnan()]
        totals[number] += WEIGHT * float(known.mean())
        calls[number] += len(known)
    return totals, calls


def without_source(model: DiffusionModel, canvas: Canvas, text: Sequence[int]) -> Reading | None:
    """The text as English by itself; of a continuation behind its beginning, as much of that as fits. None where there
    was no source, or where the model never saw a text without one.
    """
    data, mask_id = model.config.data, model.tokenizer.mask_id
    if canvas.skill == NO_SOURCE or not (data.source_dropout or "text" in model.skills.tasks):
        return None
    room = max(0, data.max_target_length - len(text))
    before = list(canvas.source[-room:]) if is_continuing(canvas.skill) and room else []
    words = [*before, *(mask_id for _ in text)]
    return Reading(Canvas(NO_SOURCE, [], words), [*before, *text])


def backward(model: DiffusionModel, canvas: Canvas, text: Sequence[int]) -> Reading | None:
    """The source as it would be written beside the text, for a task of which both directions are the same task; None
    where they are not, or where the source is longer than a target can be.
    """
    source = list(canvas.source)
    fits = 0 < len(source) <= model.config.data.max_target_length
    if not (fits and is_pair(canvas.skill) and model.skills.is_reversible(canvas.skill)):
        return None
    return Reading(blank_canvas(canvas.skill, list(text), len(source), model.tokenizer.mask_id), source)
