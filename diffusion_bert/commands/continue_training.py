"""``continue_training.py``: train on from a checkpoint, or resume an interrupted run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..config.paths import (
    best_of_run,
    checkpoint_file,
    last_of_run,
    latest_checkpoint,
    passed_over,
    resume_command,
    run_state,
    shown,
    state_remark,
)
from ..errors import UserError
from ..machine.hub import local_copy
from ..machine.processes import join
from ..machine.streams import outlive_reader
from .child_settings import child_config, inherited
from .cli import training_parser
from .questions import ask_settings, choose
from .terminal import say, say_command
from .train import FOR_CONTINUING
from .verdicts import choose_by_verdict, known_verdict

PRESETS = FOR_CONTINUING
MENU = (
    ("Quality Boost", "5 epochs, 64 steps"),
    ("Deep Training", "8 epochs, 128 steps"),
    ("Fine-tuning", "conservative: 3 epochs at a small learning rate"),
    ("Custom", "asks for the main settings, with the parent's as defaults"),
)
CUSTOM = tuple(
    "task_name data_dir train_file max_samples num_steps epochs max_minutes batch_size lr seed device"
    " output_dir".split()
)
MOVED = ("train_file", "valid_file", "test_file", "data_dir")  # may be given again when a run is resumed


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, choose parent and settings, train."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # the length head fixes max_target_length
    parser = training_parser(
        "Train on from a checkpoint, as a new run.", PRESETS, leave_out=("max_target_length",), with_model=False
    )
    start = parser.add_argument_group("what to start from")
    start.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="checkpoint file, run directory, folder of a model, or hub id to train on from (default: the newest"
        " best_model.pt below --output_dir)",
    )
    start.add_argument("--model_dir", metavar="DIR", help="run directory to train on from, or to resume")
    start.add_argument(
        "--auto",
        action="store_true",
        help="never ask: choose the preset by the run's evaluation (Good, Fair or Poor), evaluating first if need be",
    )
    start.add_argument(
        "--resume", action="store_true", help="go on with an interrupted run where it stopped, in its own directory"
    )
    given = parser.parse(arguments)
    outlive_reader()
    checkpoint, model_dir = given.pop("checkpoint", None), given.pop("model_dir", None)
    auto, resume = given.pop("auto", False), given.pop("resume", False)
    if checkpoint and model_dir:
        raise UserError("--checkpoint and --model_dir both given: expected one of them")
    if auto and (resume or "preset" in given):
        raise UserError("--auto chooses by itself: drop --resume and --preset, or drop --auto")
    if resume:
        return _resume(checkpoint, model_dir, given)
    output_dir = given.get("output_dir", "runs")
    parent = find_parent(checkpoint, model_dir, output_dir)
    for line in passed_over(parent, output_dir) if checkpoint is None and model_dir is None else []:
        say(line)
    if state := state_remark(parent):
        say(f"{shown(parent)} is of a run that was {state}")
    if auto:
        say(f"Reading {shown(parent)} ...")
        child_config(parent, dict(given))  # refuses wrong flags before an evaluation that takes minutes
        device, keep = given.get("device", "auto"), not given.get("dry_run", False)
        given["preset"] = join(device).on_main(lambda: choose_by_verdict(parent, device, keep, given.get("data_dir")))
    elif not given:
        given = ask_for_settings(parent)
    preset = given.get("preset")
    say(f"Training on from {shown(parent)}{'' if preset is None else f' (preset {preset})'}")
    config = child_config(parent, given)
    from .training_run import train_run

    return train_run(config, parent, preset=preset)


def _resume(checkpoint: str | None, model_dir: str | None, given: dict) -> int:
    extra = sorted(set(given) - {"device", "output_dir", *MOVED})
    if extra:
        raise UserError(
            f"--resume goes on with the run's own settings: drop --{extra[0]}, or train on in a new run without"
            " --resume"
        )
    if model_dir:
        last = last_of_run(model_dir)
    elif checkpoint:
        last = Path(checkpoint) / "last.pt" if (Path(checkpoint) / "last.pt").is_file() else checkpoint_file(checkpoint)
    else:
        last = latest_checkpoint(given.get("output_dir", "runs"), "last.pt")
    say(f"Resuming from {shown(last)} ...")
    from .training_run import resume_run

    return resume_run(last, given.get("device"), {name: given[name] for name in MOVED if name in given})


def find_parent(checkpoint: str | None, model_dir: str | None, output_dir: str) -> Path:
    """The checkpoint to train on from."""
    if checkpoint:
        return checkpoint_file(local_copy(checkpoint))
    if model_dir:
        return best_of_run(model_dir, f"{model_dir} holds no best_model.pt: expected a run directory")
    return latest_checkpoint(output_dir)


def ask_for_settings(parent: Path) -> dict:
    """The menu of a start without settings."""
    verdict = known_verdict(parent)
    say(f"Parent  {shown(parent)}, {f'verdict {verdict}' if verdict else 'not evaluated yet (--auto evaluates it)'}")
    if (parent.parent / "last.pt").is_file() and run_state(parent.parent):
        say_command("        to go on with this run itself instead:  ", resume_command(parent.parent))
    choice = choose("How shall training go on?", MENU)
    if choice < 3:
        return {"preset": PRESETS[choice]}
    say("Reading its settings ...")
    current = inherited(parent)
    answers = ask_settings(CUSTOM, current)
    return {name: value for name, value in answers.items() if value != current.get(name)}
