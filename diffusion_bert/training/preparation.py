"""From splits of texts to what the training loop is given: encoded data, validation batches, a fitted schedule."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..config.run_config import RunConfig
from ..data.batching import Collator, batch_tasks, fixed_batches, fixed_choice, spread_choice
from ..data.encoded import EncodedMix, EncodedPairs
from ..data.encoding import encode_tasks, styles_of
from ..data.pairs import Pair
from ..data.skills import Skills
from ..data.sources import Splits, take
from ..errors import UserError
from ..model.checkpoint import load_checkpoint
from ..model.diffusion_model import DiffusionModel, build_model, check_positions, extend_lexicon, fit_schedule
from .state import TrainingData

VALIDATION_EXAMPLES = 1024  # the yardstick uses at most this many, evenly spread over the validation data
VOCABULARY_PAIRS = 200_000


def vocabulary_texts(pairs: Sequence[Pair]) -> Iterator[str]:
    """The texts a built-in size learns its vocabulary from: those of at most ``VOCABULARY_PAIRS`` pairs, evenly
    spread.
    """
    few = pairs if len(pairs) <= VOCABULARY_PAIRS else take(pairs, spread_choice(len(pairs), VOCABULARY_PAIRS))
    return (text for pair in few for text in pair if text)


def fresh_model(config: RunConfig, splits: Splits, teacher: DiffusionModel | None) -> DiffusionModel:
    """A model with fresh or pretrained weights; a built-in size takes the vocabulary of a teacher, if there is one."""
    skills = Skills.of(config.data.task_name, styles_of(splits.train, config.data.task_name))
    known = None if teacher is None else teacher.tokenizer
    return build_model(config, vocabulary_texts(splits.train), config.training.seed, known, skills)


def child_model(config: RunConfig, splits: Splits, parent: Path) -> DiffusionModel:
    """The model of a checkpoint, to be trained on by a config of its own."""
    model = load_checkpoint(parent)
    model.skills = skills_of_child(model.skills, config, styles_of(splits.train, config.data.task_name))
    check_positions(config, model.denoiser.bert_config)
    model.config, model.parent = config, str(parent)
    model.schedule.word_freq_lambda = config.diffusion.word_freq_lambda
    model.schedule.name = config.diffusion.schedule
    return model


def encode_training_data(
    model: DiffusionModel, splits: Splits, fit: bool
) -> tuple[EncodedPairs | EncodedMix, TrainingData]:
    """Encode the splits; with ``fit`` also count the words for the schedule."""
    config, tokenizer, skills = model.config, model.tokenizer, model.skills
    train = encode_tasks(splits.train, tokenizer, config.data, skills)
    valid = encode_tasks(splits.valid, tokenizer, config.data, skills)
    for name, data in (("training", train), ("validation", valid)):
        splits.notes += [f"{name}: {note}" for note in data.notes]
        for task, part in zip(skills.tasks, data.parts):
            if not len(part):
                of_task = f" of task {task}" if len(data.parts) > 1 else ""
                raise UserError(
                    f"no {name} example{of_task} fits ({'; '.join(part.notes)}): raise --max_length or"
                    " --max_target_length"
                )
    model.knows_pairs = bool(train.has_source.any()) or (model.knows_pairs and not fit)
    if fit:
        fit_schedule(model, train.target_blocks())
    else:
        extend_lexicon(model, train.target_blocks())
    chosen = np.concatenate(fixed_choice(valid, VALIDATION_EXAMPLES))
    words = sum(len(splits.valid[valid.kept[index]].target.split()) for index in chosen)
    collator = Collator(tokenizer, skills.prompts, skills.continuing_prompts, config.data.continue_words_left)
    digest = hashlib.sha256()
    arrays = [array for part in train.parts for array in (part.ids, part.offsets, part.has_source)]
    arrays += [array for part in valid.parts for array in (part.ids, part.offsets)]
    for array in (*arrays, train.pair_skills, valid.pair_skills):
        if array is not None:
            digest.update(np.ascontiguousarray(array))
    batches, tasks = (
        fixed_batches(valid, collator, limit=VALIDATION_EXAMPLES),
        batch_tasks(valid, limit=VALIDATION_EXAMPLES),
    )
    return train, TrainingData(train, batches, words, collator, digest.hexdigest(), list(skills.tasks), tasks)


def skills_of_child(parent: Skills, config: RunConfig, styles: dict[str, list[str]]) -> Skills:
    """The prompts of a model that is trained on: those of its new tasks, with the styles in the data and those it
    already knew.
    """
    known = parent.all_styles()
    both = {
        task: [*known.get(task, []), *(style for style in styles.get(task, []) if style not in known.get(task, []))]
        for task in {*known, *styles}
    }
    return Skills.of(config.data.task_name, both)
