"""One training run from settings to the next command: what ``train`` and ``continue`` share, as a story.

Data, model, encoding, training, test, results: ``train_run`` reads in that order.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import torch

from ..config.paths import RUN_STATE, quoted, resume_command, script, shown
from ..config.run_config import RunConfig
from ..data.batching import batch_tasks, fixed_batches
from ..data.encoding import encode_tasks
from ..data.sources import Splits
from ..data.splits import load_pairs
from ..errors import UserError
from ..evaluation.figures import plot_curves
from ..machine.device import pick_device
from ..machine.processes import Processes, join, own_device, shutdown
from ..machine.streams import on_reader_gone, reader_gone
from ..model.checkpoint import load_checkpoint, restore
from ..model.diffusion_model import DiffusionModel, compile_encoder
from ..model.payload import read_payload, training_part
from ..training.distillation import load_teacher, teacher_of
from ..training.interruption import enough_memory
from ..training.preparation import child_model, encode_training_data, fresh_model
from ..training.run_directory import RunDirectory
from ..training.state import Reporter, TrainingResult
from ..training.trainer import Trainer
from ..training.yardstick import nelbo_of_tasks
from .announcement import announce, effective_batch
from .console import ConsoleReporter
from .terminal import counted, say, say_command

DRY_RUN_EXAMPLES, DRY_RUN_STEPS = 64, 3


def train_run(config: RunConfig, parent: Path | None = None, preset: str | None = None) -> int:
    """Train a fresh model, or a parent's, by a config, or go through all stages for a dry run; returns the exit
    code.
    """
    return _dry_run(config, parent) if config.training.dry_run else trained(config, parent, preset=preset)[0]


def trained(
    config: RunConfig, parent: Path | None = None, keep: bool = True, preset: str | None = None
) -> tuple[int, RunDirectory, TrainingResult]:
    """Train a fresh model, or a parent's, by a config; prints the whole story. Returns the exit code, where the run is
    and how it ended.

    ``keep`` says whether the run directory will stay (a dry run's does not); ``preset`` is written into its config.
    """
    processes = join(config.training.device)
    set_threads(config.training.num_threads)
    teacher_model = load_teacher(config)
    say("Reading the data ...")
    splits = load_pairs(config.data, config.training.seed)
    say("Tokenising it ..." if parent else "Learning the vocabulary, tokenising ...")
    model = fresh_model(config, splits, teacher_model) if parent is None else child_model(config, splits, parent)
    teacher = teacher_of(model, teacher_model)
    train, data = encode_training_data(model, splits, fit=parent is None)
    with enough_memory(config, pick_device(own_device(config.training.device))):
        Trainer.refuse_unfit(model)  # before a directory is made
        run = processes.on_main(lambda: _new_run(config, parent, preset))
        trainer = Trainer(model, data, run, _reporter(processes, model, splits), processes=processes, teacher=teacher)
        announce(trainer, splits, train, keep)
        compile_if_asked(trainer)
        on_reader_gone(trainer.stop)
        result = trainer.fit()
        return finish(trainer, result, splits, keep), run, result


def resume_run(last: Path, device: str | None, moved: dict[str, str] | None = None) -> int:
    """Resume an interrupted run exactly where it stopped; ``moved`` says where its data lies now."""
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
    find_data(model.config, last.parent / training.get("started_in", "."), moved or {})
    teacher_model = load_teacher(model.config)
    try:
        splits = load_pairs(model.config.data, model.config.training.seed)
    except UserError as error:
        raise UserError(
            f"{error}; if the data of this run lies elsewhere now, say where with --train_file or --data_dir"
        ) from None
    _, data = encode_training_data(model, splits, fit=False)
    run, reporter, teacher = (
        RunDirectory(last.parent),
        _reporter(processes, model, splits),
        teacher_of(model, teacher_model),
    )
    with enough_memory(model.config, pick_device(own_device(model.config.training.device))):
        trainer = Trainer(model, data, run, reporter, resume=training, processes=processes, teacher=teacher)
        say(f"Resuming {run.path} at step {trainer.state.step:,} of {trainer.total_steps:,}")
        remark = f"; {trainer.precision.remark}" if trainer.precision.remark else ""
        say(f"Batch   {effective_batch(trainer)}; {trainer.precision.describe()}{remark}")
        compile_if_asked(trainer)
        on_reader_gone(trainer.stop)
        result = trainer.fit()
        return finish(trainer, result, splits)


def find_data(config: RunConfig, started_in: Path, moved: dict[str, str]) -> None:
    """Where the files of a run are now: as the user says in ``moved``, else as its settings say, from here or from the
    folder it was started in. Other data than before is refused later, by its content.
    """
    data = config.data
    if "data_dir" in moved or "train_file" in moved:
        data.data_dir = data.train_file = None
    for name, path in moved.items():
        setattr(data, name, path)
    names = ("train_file", "valid_file", "test_file", "data_dir")
    for section, name in (*((data, name) for name in names), (config.training, "teacher")):
        path = getattr(section, name)
        if path is not None and not Path(path).exists() and (started_in / path).exists():
            setattr(section, name, os.path.relpath(started_in / path))


def _new_run(config: RunConfig, parent: Path | None, preset: str | None) -> RunDirectory:
    run = RunDirectory.create(config)
    run.write_config(config, None if parent is None else str(parent), preset)
    return run


def _reporter(processes: Processes, model: DiffusionModel, splits: Splits) -> Reporter:
    return ConsoleReporter(model, splits.valid, processes.size) if processes.is_main else Reporter()


def set_threads(count: int | None) -> None:
    """How many threads torch may use on the CPU; None leaves its own choice (torchrun's is one per process)."""
    if count is not None:
        torch.set_num_threads(count)


def compile_if_asked(trainer: Trainer) -> None:
    """torch.compile the encoder if the settings ask for it, or say why that cannot be done."""
    if trainer.training.compile and (reason := compile_encoder(trainer.model.denoiser)):
        say(f"Not compiled: {reason}")


def finish(trainer: Trainer, result: TrainingResult, splits: Splits, keep: bool = True) -> int:
    """After training: test the best checkpoint, write the results and, if they are kept, say what to type next."""
    shutdown()
    on_reader_gone(None)
    if not trainer.processes.is_main:
        return 128 + int(result.signal) if result.reason == "interrupted" else 0
    run, state = trainer.run, result.state
    plot_curves(run.read_metrics(), run.path / "curves.png")
    if result.reason == "interrupted":
        say(f"\nInterrupted at step {state.step:,}")
        if keep:
            say(f"Saved {shown(run.last)}")
            say_command("Go on with:  ", resume_command(run.path))
            if reader_gone() or result.signal == getattr(signal, "SIGHUP", None):
                line = f"interrupted at step {state.step:,}; go on with:  {resume_command(run.path)}"
                say(line, file=sys.stderr)
        return 128 + int(result.signal)
    say("Measuring the best checkpoint on the test data ...")
    values = write_results(trainer, result, splits)
    minutes = f"{state.seconds / 60:.1f} minutes" if state.seconds >= 60 else counted(round(state.seconds), "second")
    say(f"\nTrained {counted(state.step, 'step')} in {minutes} (stopped by {result.reason})")
    say(f"Best validation NELBO {state.best_nelbo:.4f} nats per word piece at step {state.best_step:,}")
    if values:
        terms = " + ".join(f"{name} {values[f'test_{name}']:.4f}" for name in ("reveal", "stay", "length"))
        tasks = [name for name in values if name.startswith("test_nelbo_")]
        by_task = "".join(f"; {name.removeprefix('test_nelbo_')} {values[name]:.4f}" for name in tasks)
        say(f"Test NELBO {values['test_nelbo']:.4f} = {terms}{by_task}")
    if state.best_step == 0 or (state.best_step < state.step / 4 and state.step > 100):
        say("Remark: validation did not improve for most of the run; try a smaller --lr, or more data")
    if keep:
        say(f"Run directory: {shown(run.path)}")
        say_command("Next:  ", f"{script('evaluate_trained_model')} --checkpoint {quoted(run.best)}")
        say_command("       ", f"{script('interactive_generation')} --checkpoint {quoted(run.best)}")
    return 0


def write_results(trainer: Trainer, result: TrainingResult, splits: Splits) -> dict[str, float]:
    """Measure the best checkpoint on the test split, and write training_results.json; the test's numbers by name."""
    run, state, config = trainer.run, result.state, trainer.config
    best = load_checkpoint(run.best).to(trainer.device)
    test = encode_tasks(splits.test, best.tokenizer, config.data, best.skills)
    for note in test.notes:
        say(f"test: {note}")
    values: dict[str, float] = {}
    if len(test):
        batches, tasks = fixed_batches(test, trainer.data.collator, limit=2048), batch_tasks(test, limit=2048)
        terms, by_task = nelbo_of_tasks(best, batches, tasks, best.skills.tasks, trainer.device)
        values = {f"test_{name}": value for name, value in terms.per_token().items()}
        values |= {f"test_nelbo_{task}": value for task, value in by_task.items()}
    summary = {
        "stopped_by": result.reason,
        "steps": state.step,
        "epochs": trainer.epochs_done(),
        "seconds": state.seconds,
        "best_step": state.best_step,
        "best_valid_nelbo": state.best_nelbo,
        **values,
        "parent": best.parent,
        "checkpoint": str(run.best),
    }
    run.write_json("training_results.json", summary)
    (run.path / RUN_STATE).unlink(missing_ok=True)  # the results say that it is finished
    return values


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
        code, *_ = trained(RunConfig.from_flat(flat), parent, keep=False)
        if code == 0:
            say("Dry run complete: every stage works; nothing was kept.")
        return code
    finally:
        shutil.rmtree(folder, ignore_errors=True)
