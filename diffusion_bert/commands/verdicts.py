"""How good a checkpoint is, by its last evaluation that may be trusted or by a new one, and how to train on from it."""

from __future__ import annotations

import contextlib
import json
import shlex
import tempfile
from pathlib import Path
from typing import NamedTuple

from ..config.paths import report_folder, script, shown
from ..config.run_config import RunConfig
from ..errors import UserError
from .child_settings import DATA_SOURCE, inherited
from .terminal import counted, say, say_command

BY_VERDICT = {"Good": "fine_tuning", "Fair": "quality_boost", "Poor": "deep_training_continue"}
WITHOUT_VERDICT = "quality_boost"  # where there are too few pairs for one: the middle way
AUTO_PAIRS, TRUSTED_PAIRS = 500, 200  # pairs of an evaluation by --auto; the least that a verdict is trusted with


class Verdict(NamedTuple):
    """Good, Fair or Poor, and what it rests on: ``pairs`` of a ``split`` in a ``report``."""

    name: str
    pairs: int
    split: str
    report: Path

    def __str__(self) -> str:
        return f"{self.name} by {self.pairs:,} pairs of {self.split} ({shown(self.report)})"


def recorded_verdict(report: Path, parent: Path, data_dir: str | None = None) -> Verdict | None:
    """The verdict in an evaluation.json that may be trusted: about the checkpoint as it is now, on its own data (where
    that lies in ``data_dir``, if it was said then), and on ``TRUSTED_PAIRS`` or more.
    """
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
        about_this = Path(content["checkpoint"]).name == parent.name
        own_data = content["split"] in ("valid", "test") and content.get("data_dir") in (None, data_dir)
        enough = content["pairs"] >= TRUSTED_PAIRS
        verdict = content["score"]["verdict"]
        if about_this and own_data and enough and report.stat().st_mtime >= parent.stat().st_mtime:
            return Verdict(verdict, content["pairs"], content["split"], report) if verdict in BY_VERDICT else None
    except (ValueError, KeyError, TypeError, OSError):
        pass  # unreadable or of another kind: evaluate again
    return None


def known_verdict(parent: Path, data_dir: str | None = None) -> Verdict | None:
    """The verdict of the checkpoint's reports, the newest one that may be trusted, or None."""
    folder = report_folder(parent)
    reports = [path for where in (folder, folder / "evaluation_auto") for path in where.glob("evaluation*.json")]
    for report in sorted(reports, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        if (verdict := recorded_verdict(report, parent, data_dir)) is not None:
            return verdict
    return None


def choose_by_verdict(parent: Path, device: str, keep: bool = True, data_dir: str | None = None) -> str:
    """The preset for the verdict of the run's last evaluation that may be trusted, or of one made now; with too few
    pairs for a verdict ``WITHOUT_VERDICT``. One line says what decided.
    """
    verdict = known_verdict(parent, data_dir)
    if verdict is None:
        pairs = _pairs_to_evaluate(parent, data_dir)
        if pairs < TRUSTED_PAIRS:
            say(
                f"No verdict: {counted(pairs, 'pair')} for validation, {TRUSTED_PAIRS} are needed for one; so the"
                f" middle way: --preset {WITHOUT_VERDICT}"
            )
            return WITHOUT_VERDICT
        verdict = _evaluated_now(parent, device, keep, data_dir)
    preset = BY_VERDICT[verdict.name]
    say(f"Verdict {verdict}, so: --preset {preset}")
    if verdict.name == "Poor":
        say_command("To restart from scratch with a larger model instead:  ", restart_command(inherited(parent)))
    return preset


def _pairs_to_evaluate(parent: Path, data_dir: str | None) -> int:
    """How many pairs its own data has for validation; refused where there are plain texts only."""
    from ..model.payload import read_payload
    from .evaluation_data import all_pairs

    config = RunConfig.from_flat(read_payload(parent)["config"], str(parent))
    rows = all_pairs(config, "valid", data_dir, None, [])
    count = sum(row.source is not None for row in rows)
    if rows and not count:
        raise UserError("plain texts have no score that --auto could go by: choose --preset yourself")
    return count


def _evaluated_now(parent: Path, device: str, keep: bool, data_dir: str | None) -> Verdict:
    """The verdict of an evaluation made now; its report is kept, if wanted, beside the checkpoint, or where another one
    is there, in a folder beside that.
    """
    from .evaluate import evaluate_checkpoint

    say(
        f"No evaluation of this checkpoint on {TRUSTED_PAIRS} pairs of its own data with a score yet: evaluating"
        f" {AUTO_PAIRS} pairs first"
    )
    folder = report_folder(parent)
    place = str(folder / "evaluation_auto" if (folder / "evaluation.json").exists() else folder)
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
    if result.score is None:
        raise UserError("this checkpoint has no score (its texts are too long): choose --preset yourself")
    return Verdict(result.score.verdict, result.pairs, result.split, Path(place) / "evaluation.json")


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
