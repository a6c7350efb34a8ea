"""Builders of canvases of all skills, and of what decodes them."""

import random

from diffusion_bert.data.batching import Collator
from diffusion_bert.data.skills import CONTINUE, NO_SOURCE, PAIR
from diffusion_bert.generation.canvas import CONTINUATION, FREE, NEW_WORD, Canvas, blank_canvas
from diffusion_bert.model.diffusion_model import DiffusionModel
from tests.helpers.models import grammar_pairs


def collator_of(model: DiffusionModel) -> Collator:
    return Collator(model.tokenizer, model.task.prompt)


def mixed_canvases(model: DiffusionModel, count: int = 14, seed: int = 0) -> list[Canvas]:
    """Canvases of all skills: blank ones, and half-filled ones with random constraints and start times."""
    rng, tokenizer, canvases = random.Random(seed), model.tokenizer, []
    pairs = grammar_pairs()
    for number in range(count):
        skill = (PAIR, CONTINUE, NO_SOURCE)[number % 3]
        source = [] if skill == NO_SOURCE else tokenizer.encode(pairs[number].source)
        if number % 2:
            canvases.append(blank_canvas(skill, source, rng.randint(1, 12), tokenizer.mask_id))
        else:
            words = [
                tokenizer.mask_id if rng.random() < 0.6 else index
                for index in tokenizer.encode(pairs[number].target)[:15]
            ]
            words[0] = tokenizer.mask_id
            canvases.append(
                Canvas(
                    skill,
                    source,
                    words,
                    rng.uniform(0.2, 1.0),
                    [rng.choice([FREE, NEW_WORD, CONTINUATION]) for _ in words],
                )
            )
    return canvases


def ids(outputs) -> list[list[int]]:
    return [output.ids for output in outputs]
