"""How good a checkpoint is, by its last evaluation that may be trusted or by a new one, and how to train on from it."""

from __future__ import annotations

import contextlib
import json
import shlex
import tempfile
from pathlib import Path

from ..config.paths import report_folder, script
from ..errors import UserError
from .child_settings import DATA_SOURCE, inherited
from .terminal import say

BY_VERDICT = {"Good": "fine_tuning", "Fair": "quality_boost", "Poor": "deep_training_continue"}
AUTO_PAIRS, TRUSTED_PAIRS = 500, 200  # pairs of an evaluation by --auto; the least that it believes others


def recorded_verdict(report: Path, parent: Path, data_dir: str | None = None) -> str | None:
    """The verdict in an evaluation.json that may be trusted: about the checkpoint as it is now, on its own data (where
    that lies in ``data_dir``, if it was said then), and on enough pairs or on all there are.
    """
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
        about_this = Path(content["checkpoint"]).name == parent.name
        own_data = content["split"] in ("valid", "test") and content.get("data_dir") in (None, data_dir)
        enough = content["pairs"] >= TRUSTED_PAIRS or content.get("whole_split", False)
        if about_this and own_data and enough and report.stat().st_mtime >= parent.stat().st_mtime:
            return content["score"]["verdict"] if content["score"]["verdict"] in BY_VERDICT else None
    except (ValueError, KeyError, TypeError, OSError):
        pass  # unreadable or of another kind: evaluate again
    return None


def known_verdict(parent: Path, data_dir: str | None = None) -> str | None:
    """The verdict of the checkpoint's reports, the newest one that may be trusted, or None."""
    folder = report_folder(parent)
    reports = [path for where in (folder, folder / "evaluation_auto") for path in where.glob("evaluation*.json")]
    for report in sorted(reports, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        if (verdict := recorded_verdict(report, parent, data_dir)) is not None:
            return verdict
    return None


def choose_by_verdict(parent: Path, device: str, keep: bool = True, data_dir: str | None = None) -> str:
    """The preset for the verdict of the run's last evaluation that may be trusted, or of one made now; its report is
    kept, if wanted, beside the checkpoint, or where another one is there, in a folder beside that.
    """
    folder = report_folder(parent)
    own = folder / "evaluation_auto"
    verdict = known_verdict(parent, data_dir)
    if verdict is None:
        say(
            f"No evaluation of this checkpoint on {TRUSTED_PAIRS} pairs of its own data with a score yet: evaluating"
            f" {AUTO_PAIRS} pairs first"
        )
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
    say(f"Verdict {verdict}, so: --preset {preset}")
    if verdict == "Poor":
        say(f"To restart from scratch with a larger model instead:  {restart_command(inherited(parent))}")
    return preset


def restart_command(settings: dict) -> str:
    """The command that trains on the same data from scratch, one built-in size up."""
    larger = {"tiny": "mini", "mini": "small"}.get(settings["model_name_or_path"], settings["model_name_or_path"])
    parts = [script("run_conditional_training"), f"--task_name {settings['task_name']}"]
    parts += [
        f"--{name} {shlex.quote(str(settings[name]))}"
        for name in DATA_SOURCE
        if name != "max_samples" and settings.get(name)
    ]
    return " ".join([*parts, f"--model_name_or_path {shlex.quote(larger)}", "--epochs 10"])
