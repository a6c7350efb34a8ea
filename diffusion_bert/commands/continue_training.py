"""``continue_training.py``: train on from a checkpoint, or resume an interrupted run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..config.paths import checkpoint_file, latest_checkpoint, report_folder
from ..config.presets import load_preset
from ..config.run_config import RunConfig
from ..config.schema import ModelConfig
from ..config.tasks import TASKS, task_names
from ..errors import UserError
from ..machine.processes import join
from .cli import ask_settings, choose, settings_of, training_parser
from .train import FOR_CONTINUING

PRESETS = FOR_CONTINUING
BY_VERDICT = {"Good": "fine_tuning", "Fair": "quality_boost", "Poor": "deep_training_continue"}
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
# settings that say how long and where, not what: a child starts from the defaults instead of the parent's limits
NOT_INHERITED = ("epochs", "max_steps", "max_minutes", "patience", "dry_run", "lr_factor", "teacher")
DATA_SOURCE = tuple(
    "data_dir train_file valid_file test_file max_samples dataset_name dataset_config source_column target_column"
    " symmetric".split()
)
# architecture, vocabulary and the size of the length head
BELONGS_TO_WEIGHTS = (*(f.name for f in dataclasses.fields(ModelConfig)), "max_target_length")
AUTO_PAIRS = 500


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
        help="checkpoint to train on from (default: the newest best_model.pt below --output_dir)",
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
    checkpoint, model_dir = given.pop("checkpoint", None), given.pop("model_dir", None)
    auto, resume = given.pop("auto", False), given.pop("resume", False)
    if checkpoint and model_dir:
        raise UserError("--checkpoint and --model_dir both given: expected one of them")
    if auto and (resume or "preset" in given):
        raise UserError("--auto chooses by itself: drop --resume and --preset, or drop --auto")
    if resume:
        return _resume(checkpoint, model_dir, given)
    parent = find_parent(checkpoint, model_dir, given.get("output_dir", "runs"))
    if auto:
        child_config(parent, dict(given))  # refuses wrong flags before an evaluation that takes minutes
        device, keep = given.get("device", "auto"), not given.get("dry_run", False)
        given["preset"] = join(device).on_main(lambda: choose_by_verdict(parent, device, keep, given.get("data_dir")))
    elif not given:
        given = ask_for_settings(parent)
    config = child_config(parent, given)
    from .training_run import train_run

    return train_run(config, parent)


def _resume(checkpoint: str | None, model_dir: str | None, given: dict) -> int:
    extra = sorted(set(given) - {"device", "output_dir"})
    if extra:
        raise UserError(
            f"--resume goes on with the run's own settings: drop --{extra[0]}, or train on in a new run without"
            " --resume"
        )
    if model_dir:
        last = Path(model_dir) / "last.pt"
        if not last.is_file():
            raise UserError(f"{model_dir} holds no last.pt: expected the directory of an interrupted run")
    else:
        last = (
            checkpoint_file(checkpoint) if checkpoint else latest_checkpoint(given.get("output_dir", "runs"), "last.pt")
        )
    from .training_run import resume_run

    return resume_run(last, given.get("device"))


def find_parent(checkpoint: str | None, model_dir: str | None, output_dir: str) -> Path:
    """The checkpoint to train on from."""
    if checkpoint:
        return checkpoint_file(checkpoint)
    if model_dir:
        path = Path(model_dir) / "best_model.pt"
        if not path.is_file():
            raise UserError(f"{model_dir} holds no best_model.pt: expected a run directory")
        return path
    return latest_checkpoint(output_dir)


def recorded_verdict(report: Path, parent: Path) -> str | None:
    """The verdict in an evaluation.json, if it is about the checkpoint as it is now."""
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
        if Path(content["checkpoint"]).name == parent.name and report.stat().st_mtime >= parent.stat().st_mtime:
            return content["score"]["verdict"] if content["score"]["verdict"] in BY_VERDICT else None
    except (ValueError, KeyError, TypeError, OSError):
        pass  # unreadable or of another kind: evaluate again
    return None


def choose_by_verdict(parent: Path, device: str, keep: bool = True, data_dir: str | None = None) -> str:
    """The preset for the verdict of the run's last evaluation, or of one made now; its report is kept, if wanted,
    beside the checkpoint, or where another one is there, in a folder beside that.
    """
    folder = report_folder(parent)
    own = folder / "evaluation_auto"
    verdict = recorded_verdict(folder / "evaluation.json", parent) or recorded_verdict(own / "evaluation.json", parent)
    if verdict is None:
        print(f"No evaluation of this checkpoint with a score yet: evaluating {AUTO_PAIRS} pairs first")
        from .evaluate import evaluate_checkpoint

        place = str(own if (folder / "evaluation.json").exists() else folder)
        with contextlib.nullcontext(place) if keep else tempfile.TemporaryDirectory() as where:
            result = evaluate_checkpoint(
                parent,
                split="valid",
                max_samples=AUTO_PAIRS,
                device=device,
                output_dir=where,
                quiet=True,
                data_dir=data_dir,
            )
        score = result.score
        if score is None:
            raise UserError("this checkpoint has no score (plain texts, or too long ones): choose --preset yourself")
        verdict = score.verdict
    preset = BY_VERDICT[verdict]
    print(f"Verdict {verdict}, so: --preset {preset}")
    if verdict == "Poor":
        print(f"To restart from scratch with a larger model instead:  {restart_command(inherited(parent))}")
    return preset


def restart_command(settings: dict) -> str:
    """The command that trains on the same data from scratch, one built-in size up."""
    larger = {"tiny": "mini", "mini": "small"}.get(settings["model_name_or_path"], settings["model_name_or_path"])
    parts = ["python run_conditional_training.py", f"--task_name {settings['task_name']}"]
    parts += [
        f"--{name} {shlex.quote(str(settings[name]))}"
        for name in DATA_SOURCE
        if name != "max_samples" and settings.get(name)
    ]
    return " ".join([*parts, f"--model_name_or_path {shlex.quote(larger)}", "--epochs 10"])


def ask_for_settings(parent: Path) -> dict:
    """The menu of a start without settings."""
    choice = choose("How shall training go on?", MENU)
    if choice < 3:
        return {"preset": PRESETS[choice]}
    current = inherited(parent)
    answers = ask_settings(CUSTOM, current)
    return {name: value for name, value in answers.items() if value != current.get(name)}


def inherited(parent: Path) -> dict:
    """The parent's settings, without its limits."""
    from ..model.payload import read_payload

    settings = RunConfig.from_flat(read_payload(parent)["config"], str(parent)).to_flat()
    return {name: value for name, value in settings.items() if name not in NOT_INHERITED}


def task_for(data: dict, parents: str) -> str:
    """The task of data that came without a name: the parent's, so that its prompts and skills stay; of several all,
    where the folder holds them, else the first with pairs.
    """
    names = task_names(parents)
    folder = data.get("data_dir")
    if names == ["sample"]:
        return "custom"  # alike, but for the grammar
    if folder is not None and (len(names) == 1 or any((Path(folder) / name).is_dir() for name in names)):
        return parents
    return next((name for name in names if TASKS[name].prompt), "custom")


def child_config(parent: Path, given: dict) -> RunConfig:
    """Parent's settings < preset < flags; other data replaces the parent's data altogether. What belongs to the weights
    stays.
    """
    base = inherited(parent)
    if preset := given.get("preset"):
        fixed = [name for name in load_preset(preset) if name in BELONGS_TO_WEIGHTS]
        if fixed:
            raise UserError(
                f"preset {preset} sets {fixed[0]}, which belongs to the checkpoint: use a preset for continuing"
                f" ({', '.join(PRESETS)})"
            )
    own_lr = "lr" in given and "lr_factor" not in given
    named = "task_name" in given or "task_name" in (load_preset(preset) if preset else {})
    changes = settings_of(given)
    if own_lr:
        changes.pop("lr_factor", None)  # a learning rate that was asked for is meant as it stands
    if {"task_name", "data_dir", "train_file", "dataset_name"} & set(changes):
        for name in DATA_SOURCE:
            base.pop(name, None)
        if not named:
            changes.pop("task_name", None)
            base["task_name"] = task_for(changes, base["task_name"])
    if "," not in changes.get("task_name", base["task_name"]):
        base["task_balance"] = "proportional"
    return RunConfig.from_flat({**base, **changes})
