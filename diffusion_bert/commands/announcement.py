"""What a training says before its first step: data, model, batch and run directory."""

from __future__ import annotations

from ..config.paths import shown
from ..config.tasks import TASKS, Task
from ..data.encoded import EncodedMix, EncodedPairs
from ..data.pairs import Pair
from ..data.sources import Splits
from ..model.diffusion_model import DiffusionModel
from ..training.trainer import Trainer
from .terminal import say

MOST_UNKNOWN = 1.0  # percent of the words


def announce(trainer: Trainer, splits: Splits, train: EncodedPairs | EncodedMix, keep: bool) -> None:
    """Print what is trained on what: data, parent, model, teacher, batch and run directory."""
    model = trainer.model
    config = model.config
    shares = "; ".join(describe(TASKS[task], part) for task, part in zip(model.skills.tasks, train.parts))
    say(f"Data    {shares}; {len(splits.valid):,} for validation, {len(splits.test):,} for test")
    for task, styles in model.skills.all_styles().items():
        say(f"        styles of {task}: {', '.join(styles)}")
    for note in splits.notes:
        say(f"        {note}")
    for pair in splits.train[:2]:
        say(f"        {_show_pair(pair)}")
    if model.parent is not None:
        say(f"Parent  {shown(model.parent)}")
    _say_unknown(model, train)
    say(
        f"Model   {config.model.model_name_or_path}, {model.parameter_count / 1e6:.1f}M parameters,"
        f" {model.tokenizer.vocab_size:,} word pieces, {config.model.attention} attention, copy head"
        f" {'on' if config.model.copy_head else 'off'}, lambda {config.diffusion.word_freq_lambda:g},"
        f" {trainer.precision.describe()}"
    )
    if trainer.teacher is not None:
        size = sum(parameter.numel() for parameter in trainer.teacher.denoiser.parameters())
        say(
            f"Teacher {config.training.teacher}, {size / 1e6:.1f}M parameters, {trainer.teacher.weight:.0%} of the loss"
            " at masked places"
        )
    say(f"Batch   {effective_batch(trainer)}")
    if keep:
        say(f"Run     {shown(trainer.run.path)}")


def _say_unknown(model: DiffusionModel, train: EncodedPairs | EncodedMix) -> None:
    """How much of the data the vocabulary cannot write; a warning above ``MOST_UNKNOWN`` percent."""
    words = sum(int((~model.tokenizer.continuation.numpy()[part.ids]).sum()) for part in train.parts)
    unknown = 100 * sum(int((part.ids == model.tokenizer.unk_id).sum()) for part in train.parts) / max(1, words)
    say(f"        {unknown:.2f} % of the words in this data are unknown to its vocabulary")
    if unknown > MOST_UNKNOWN:
        say(
            "Warning: what is unknown is neither learned nor written, and makes the NELBO look better than the texts"
            " are; " + ("take a model of this language" if model.parent else "raise --vocab_size")
        )


def _show_pair(pair: Pair) -> str:
    return pair.target if pair.source is None else f"{pair.source}  ->  {pair.target}"


def effective_batch(trainer: Trainer) -> str:
    """How many examples an optimizer step sees, and what they are made of."""
    size, group, processes = trainer.training.batch_size, trainer.state.group_size, trainer.processes.size
    limit = trainer.config.data.tokens_per_batch
    unit, size = ("examples", size) if limit is None else ("places", limit)
    parts = f"{size:,} x {group} = " if group > 1 else ""
    made_of = (
        f", {group} batches dealt out to {processes} processes"
        if processes > 1
        else ", accumulated"
        if group > 1
        else ""
    )
    return f"{parts}{'' if limit is None else 'at most '}{size * group:,} {unit} per optimizer step{made_of}"


def describe(task: Task, data: EncodedPairs) -> str:
    """One line of statistics."""
    source, target = data.source_lengths.mean(), data.target_lengths.mean()
    return f"{task.name}: {len(data):,} examples, mean length source {source:.1f}, target {target:.1f} word pieces"
