"""One training run from settings to the next command: what ``train`` and ``continue`` share."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from pathlib import Path

import torch

from ..config.schema import RunConfig
from ..config.tasks import TASKS, Task
from ..data.batching import batch_tasks, fixed_batches
from ..data.encoded import EncodedMix, EncodedPairs
from ..data.encoding import encode_tasks, styles_of
from ..data.pairs import Pair
from ..data.skills import Skills
from ..data.splits import Splits, load_pairs
from ..errors import UserError
from ..machine.device import pick_device
from ..machine.processes import Processes, join, leave, own_device
from ..model.checkpoint import load_checkpoint, read_payload, restore, training_part
from ..model.diffusion_model import DiffusionModel, build_model, check_positions, compile_encoder
from ..training.distillation import load_teacher, teacher_of
from ..training.interruption import enough_memory
from ..training.objective import nelbo_of_tasks
from ..training.preparation import encode_training_data, skills_of_child, vocabulary_texts
from ..training.run_directory import RunDirectory
from ..training.state import Reporter, TrainingResult
from ..training.trainer import Trainer
from .console import ConsoleReporter

DRY_RUN_EXAMPLES, DRY_RUN_STEPS = 64, 3


def train_run(config: RunConfig, parent: Path | None = None, keep: bool = True) -> int:
    """Train a fresh model, or a parent's, by a config; prints the whole story. Returns the exit code.

    ``keep`` says whether the run directory will stay (a dry run's does not).
    """
    if config.training.dry_run:
        return _dry_run(config, parent)
    processes = join(config.training.device)
    set_threads(config.training.num_threads)
    teacher = load_teacher(config)
    splits = load_pairs(config.data, config.training.seed)
    styles = styles_of(splits.train, config.data.task_name)
    if parent is None:
        known, skills = None if teacher is None else teacher.tokenizer, Skills.of(config.data.task_name, styles)
        model = build_model(config, vocabulary_texts(splits.train), config.training.seed, known, skills)
    else:
        model = load_checkpoint(parent)
        model.skills = skills_of_child(model.skills, config, styles)
        check_positions(config, model.denoiser.bert_config)
        model.config, model.parent = config, str(parent)
        model.schedule.word_freq_lambda = config.diffusion.word_freq_lambda
        model.schedule.name = config.diffusion.schedule
    guide = teacher_of(model, teacher)
    train, data = encode_training_data(model, splits, fit=parent is None)
    with enough_memory(config, pick_device(own_device(config.training.device))):
        Trainer(model, data, RunDirectory("unused"))  # refuses what cannot work before a directory is made
        run = processes.on_main(lambda: _new_run(config))
        trainer = Trainer(model, data, run, _reporter(processes, model, splits), processes=processes, teacher=guide)
        _announce(model, splits, train)
        if guide is not None:
            print(
                f"Teacher {config.training.teacher}, {teacher.parameter_count / 1e6:.1f}M parameters,"
                f" {guide.weight:.0%} of the loss at masked places"
            )
        print(f"Batch   {effective_batch(trainer)}")
        if keep:
            print(f"Run     {run.path}")
        return finish(trainer, splits, keep)


def _new_run(config: RunConfig) -> RunDirectory:
    run = RunDirectory.create(config)
    run.write_config(config)
    return run


def _reporter(processes: Processes, model: DiffusionModel, splits: Splits) -> Reporter:
    return ConsoleReporter(model, splits.valid, processes.size) if processes.is_main else Reporter()


def set_threads(count: int | None) -> None:
    """How many threads torch may use on the CPU; None leaves its own choice (torchrun's is one per process)."""
    if count is not None:
        torch.set_num_threads(count)


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


def resume_run(last: Path, device: str | None) -> int:
    """Go on with an interrupted run, exactly where it stopped."""
    payload = read_payload(last)
    training = training_part(payload, last)
    # without its results the run was killed between its last step and its end: they are made now
    if training["state"].get("finished") and (last.parent / "training_results.json").is_file():
        raise UserError(
            f"the run in {last.parent} is complete: use --auto, --preset quality_boost or --epochs N to train on"
            " from it"
        )
    model = restore(payload, str(last))
    if device is not None:
        model.config.training.device = device
    processes = join(model.config.training.device)
    set_threads(model.config.training.num_threads)
    teacher = load_teacher(model.config)
    splits = load_pairs(model.config.data, model.config.training.seed)
    _, data = encode_training_data(model, splits, fit=False)
    run = RunDirectory(last.parent)
    reporter, guide = _reporter(processes, model, splits), teacher_of(model, teacher)
    with enough_memory(model.config, pick_device(own_device(model.config.training.device))):
        trainer = Trainer(model, data, run, reporter, resume=training, processes=processes, teacher=guide)
        print(f"Resuming {run.path} at step {trainer.state.step:,} of {trainer.total_steps:,}")
        print(f"Batch   {effective_batch(trainer)}")
        return finish(trainer, splits)


def finish(trainer: Trainer, splits: Splits, keep: bool = True) -> int:
    """Train, test the best checkpoint, write the results and, if they are kept, say what to type next."""
    from ..report import plot_curves

    run, config = trainer.run, trainer.config
    if config.training.compile and (reason := compile_encoder(trainer.model.denoiser)):
        print(f"Not compiled: {reason}")
    result: TrainingResult = trainer.fit()
    leave()
    if not trainer.processes.is_main:
        return 128 + int(result.signal) if result.reason == "interrupted" else 0
    plot_curves(run.read_metrics(), run.path / "curves.png")
    if result.reason == "interrupted":
        print(f"\nInterrupted at step {result.state.step:,}")
        if keep:
            print(
                f"Saved {run.last}\nGo on with:  python continue_training.py --resume --model_dir"
                f" {shlex.quote(str(run.path))}"
            )
        return 128 + int(result.signal)
    best = load_checkpoint(run.best).to(trainer.device)
    test = encode_tasks(splits.test, best.tokenizer, config.data, best.skills)
    for note in test.notes:
        print(f"test: {note}")
    values: dict[str, float] = {}
    if len(test):
        batches = fixed_batches(test, trainer.data.collator, limit=2048)
        terms, by_task = nelbo_of_tasks(best, batches, batch_tasks(test, limit=2048), best.skills.tasks, trainer.device)
        values = {f"test_{name}": value for name, value in terms.per_token().items()} | {
            f"test_nelbo_{task}": by_task[task] for task in by_task
        }
    summary = {
        "stopped_by": result.reason,
        "steps": result.state.step,
        "epochs": trainer.epochs_done(),
        "seconds": result.state.seconds,
        "best_step": result.state.best_step,
        "best_valid_nelbo": result.state.best_nelbo,
        **values,
        "parent": best.parent,
        "checkpoint": str(run.best),
    }
    run.write_json("training_results.json", summary)
    print(
        f"\nTrained {result.state.step:,} steps in {result.state.seconds / 60:.1f} minutes (stopped by {result.reason})"
    )
    print(f"Best validation NELBO {result.state.best_nelbo:.4f} nats per word piece at step {result.state.best_step:,}")
    if values:
        print(
            f"Test NELBO {values['test_nelbo']:.4f} = reveal {values['test_reveal']:.4f} + stay"
            f" {values['test_stay']:.4f} + length {values['test_length']:.4f}"
            + "".join(f"; {task} {value:.4f}" for task, value in by_task.items())
        )
    if result.state.best_step == 0 or (result.state.best_step < result.state.step / 4 and result.state.step > 100):
        print("Remark: validation did not improve for most of the run; try a smaller --lr, or more data")
    if not keep:
        return 0
    print(f"Run directory: {run.path}")
    print(f"Next:  python evaluate_trained_model.py --checkpoint {shlex.quote(str(run.best))}")
    print(f"       python interactive_generation.py --checkpoint {shlex.quote(str(run.best))}")
    return 0


def _announce(model: DiffusionModel, splits: Splits, train: EncodedPairs | EncodedMix) -> None:
    config = model.config
    shares = "; ".join(describe(TASKS[task], part) for task, part in zip(model.skills.tasks, train.parts))
    print(f"Data    {shares}; {len(splits.valid):,} for validation, {len(splits.test):,} for test")
    for task, styles in model.skills.all_styles().items():
        print(f"        styles of {task}: {', '.join(styles)}")
    for note in splits.notes:
        print(f"        {note}")
    for pair in splits.train[:2]:
        print(f"        {_show_pair(pair)}")
    if model.parent is not None:
        words = sum(int((~model.tokenizer.continuation.numpy()[part.ids]).sum()) for part in train.parts)
        unknown = sum(int((part.ids == model.tokenizer.unk_id).sum()) for part in train.parts) / max(1, words)
        print(f"Parent  {model.parent}; {100 * unknown:.2f} % of the words in this data are unknown to its vocabulary")
    print(
        f"Model   {config.model.model_name_or_path}, {model.parameter_count / 1e6:.1f}M parameters,"
        f" {model.tokenizer.vocab_size:,} word pieces, {config.model.attention} attention, copy head"
        f" {'on' if config.model.copy_head else 'off'}, lambda {config.diffusion.word_freq_lambda:g}"
    )


def _show_pair(pair: Pair) -> str:
    return pair.target if pair.source is None else f"{pair.source}  ->  {pair.target}"


def _dry_run(config: RunConfig, parent: Path | None) -> int:
    """All stages on a few examples in a temporary directory, which is removed."""
    folder = Path(tempfile.mkdtemp(prefix="diffusion_bert_dry_run_"))
    try:
        flat = config.to_flat() | {
            "dry_run": False,
            "output_dir": str(folder),
            "max_samples": min(config.data.max_samples or DRY_RUN_EXAMPLES, DRY_RUN_EXAMPLES),
            "max_steps": DRY_RUN_STEPS,
            "epochs": 1,
            "batch_size": min(config.training.batch_size, 16),
            "logging_steps": 1,
            "demonstration_steps": DRY_RUN_STEPS,
        }
        code = train_run(RunConfig.from_flat(flat), parent, keep=False)
        if code == 0:
            print("Dry run complete: every stage works; nothing was kept.")
        return code
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def describe(task: Task, data: EncodedPairs) -> str:
    """One line of statistics."""
    source, target = data.source_lengths.mean(), data.target_lengths.mean()
    return f"{task.name}: {len(data):,} examples, mean length source {source:.1f}, target {target:.1f} word pieces"
