"""Runs chosen by their use, found again when things have moved, and named so that a line holds them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from diffusion_bert.commands.evaluation_report import report_stem
from diffusion_bert.commands.examples import showable, words
from diffusion_bert.commands.terminal import wrapped
from diffusion_bert.config.paths import checkpoint_file, latest_checkpoint, passed_over, run_state
from diffusion_bert.data.pairs import Pair
from diffusion_bert.training.run_directory import LONGEST_NAME, RunDirectory
from diffusion_bert.training.state import Reporter
from tests.helpers.models import tiny_config
from tests.helpers.scripts import ROOT, new_trainer, only_run, run, small_flags, write_data

FAST = ("--num_steps", "2", "--best_of", "1", "--device", "cpu")


def make_run(folder: Path, age: int, state: dict | None, results: bool = False) -> Path:
    """A run directory as far as a choice among runs looks at it."""
    folder.mkdir(parents=True)
    for name in ("best_model.pt", *(["last.pt"] if state is not None else [])):
        (folder / name).touch()
        os.utime(folder / name, (10_000 - age, 10_000 - age))
    if state is not None and not results:
        (folder / "state.json").write_text(json.dumps(state))
    if results:
        (folder / "training_results.json").write_text("{}")
    return folder


def state(step: int, finished: bool = False, interrupted: bool = True) -> dict:
    return {"step": step, "best_step": 0, "finished": finished, "interrupted": interrupted}


# ---- 8. unfinished runs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("newest", "said"),
    [
        (state(41), "interrupted at step 41"),
        (state(0, interrupted=False), "not finished: it was saved at step 0"),
        (state(7, interrupted=False), "not finished: it was saved at step 7"),
        (state(9, finished=True), ""),
        ({"step": "?"}, "not finished"),
        (None, ""),
    ],
)
def test_runs_are_chosen_by_their_use(tmp_path, newest, said):
    """To be talked to, evaluated and trained on: the newest finished run; to be resumed: the newest unfinished one."""
    runs = tmp_path / "runs"
    old = make_run(runs / "old", 50, state(99), results=True)
    young = make_run(runs / "young", 0, newest)
    assert run_state(young) == said
    chosen = young if not said else old
    assert latest_checkpoint(runs) == checkpoint_file(None, runs) == chosen / "best_model.pt"
    lines = passed_over(chosen / "best_model.pt", runs)
    assert len(lines) == bool(said)
    if said:
        assert said in lines[0] and "--resume --model_dir" in lines[0]
        assert latest_checkpoint(runs, "last.pt") == young / "last.pt"


def test_without_a_finished_run(tmp_path, monkeypatch):
    """The bundled checkpoint is taken rather than an unfinished run; without that one the run is."""
    runs = tmp_path / "runs"
    young = make_run(runs / "young", 0, state(3))
    assert checkpoint_file(None, runs) == young / "best_model.pt"
    (tmp_path / "bundled").mkdir()
    (tmp_path / "bundled" / "a.pt").touch()
    monkeypatch.setattr("diffusion_bert.config.paths.BUNDLED", tmp_path / "bundled")
    assert checkpoint_file(None, runs) == tmp_path / "bundled" / "a.pt"


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """(folder, its data, its run) of a training that was stopped after two steps, with relative paths."""
    folder = tmp_path_factory.mktemp("interrupted")
    write_data(folder / "data" / "sample", train=40, valid=8, test=4)

    class Stop(Reporter):
        def step(self, step, progress, values):
            if step == 2:
                trainer.stop()

    before = os.getcwd()
    os.chdir(folder)
    try:
        trainer = new_trainer("data", "runs", Stop(), max_steps=4, batch_size=8)
        assert trainer.fit().reason == "interrupted"
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def stopped(interrupted, tmp_path, monkeypatch) -> Path:
    """A copy of that folder, somewhere else; the current folder is yet another one."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(interrupted, tmp_path / "copy"))


@pytest.mark.parametrize("script", ["interactive_generation", "evaluate_trained_model"])
def test_an_unfinished_run_is_named(stopped, script):
    """By its path, or because there is no other: with its state, and that it has learned nothing, if it has not."""
    checkpoint = only_run(stopped / "runs")
    more = ("--max_samples", "2", "--data_dir", stopped / "data") if script.startswith("eval") else ()
    result = run(script, "--checkpoint", checkpoint, *FAST[: 2 if more else 6], *more, "--device", "cpu")
    assert result.code == 0 and "interrupted at step 2, --resume goes on" in result.out, result.err
    assert "saved at step 0: it has learned nothing yet" in result.out


def test_the_menu_names_the_run(stopped, own_run, monkeypatch):
    """Which run, its verdict, and how to resume one that is not finished."""
    monkeypatch.chdir(stopped)
    result = run("continue_training", stdin="")
    assert "Parent  runs/" in result.out and "not evaluated yet" in result.out
    assert "--resume --model_dir runs/" in result.out and result.code == 2
    (own_run / "evaluation.json").write_text(
        json.dumps({"checkpoint": "best_model.pt", "split": "test", "pairs": 300, "score": {"verdict": "Fair"}})
    )
    assert "verdict Fair" in run("continue_training", "--model_dir", own_run, stdin="").out


# ---- 11. moved data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [(), ("--data_dir", "moved"), ("--data_dir", "moved/sample")])
def test_resumed_from_elsewhere(stopped, flags):
    """Relative paths begin where the run was started, wherever that lies now; a folder that has moved may be told."""
    if flags:
        (stopped / "data").rename("moved")
    result = run("continue_training", "--resume", "--model_dir", only_run(stopped / "runs"), *flags)
    assert result.code == 0 and "at step 2 of 4" in result.out, result.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "say where with --train_file or --data_dir"),
        (("--data_dir", "other"), "the training data has changed"),
        (("--train_file", "other/train.jsonl"), "the training data has changed"),
        (("--epochs", "3"), "drop --epochs"),
    ],
)
def test_other_data_is_refused(stopped, flags, words):
    """What is not the same content is not the same run."""
    shutil.rmtree(stopped / "data")
    write_data(Path("other"), train=30, valid=8, test=4)
    result = run("continue_training", "--resume", "--model_dir", only_run(stopped / "runs"), *flags)
    assert result.code == 2 and words in result.err and result.err.count("\n") == 1


def test_next_commands_work_from_any_folder(trained, tmp_path, data_dir):
    """What stands behind Next: can be typed where the user stands."""
    command = [sys.executable, ROOT / "run_conditional_training.py"]
    flags = small_flags(data_dir, output_dir="my runs", max_steps=1)
    done = subprocess.run([*command, *flags], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    (line,) = re.findall(r"^Next:  python (.*)$", done.stdout, flags=re.M)
    again = [sys.executable, *shlex.split(line), "--max_samples", "2", "--num_steps", "2", "--parts", "nelbo"]
    assert subprocess.run(again, cwd=tmp_path, capture_output=True, timeout=280).returncode == 0


# ---- 9. reports ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "test_file", "expected"),
    [
        (None, None, "evaluation"),
        (None, "some/my file.jsonl", "evaluation_my-file"),
        ({"pairs": 100}, None, "evaluation_50_pairs"),
        ({"pairs": 50}, None, "evaluation"),
        ({"pairs": 10}, None, "evaluation"),
        ({"pairs": 50, "nelbo": {"a": 1}}, None, "evaluation_reconstruction_generation"),
        ({"pairs": 50, "rows": {}}, None, "evaluation"),
        ({"pairs": 500, "checkpoint": "other.pt"}, None, "evaluation"),
    ],
)
def test_reports_are_kept_by_what_they_measured(tmp_path, before, test_file, expected):
    """By the test file; and none takes the place of a fuller one of the same checkpoint."""
    (tmp_path / "best_model.pt").touch()
    if before is not None:
        filled = {"checkpoint": "best_model.pt", "reconstruction": {"50": {}}, "rows": {"model": {}}, **before}
        (tmp_path / "evaluation.json").write_text(json.dumps(filled))
    parts = ["reconstruction", "generation"]
    assert report_stem(tmp_path, tmp_path / "best_model.pt", parts, 50, test_file, None) == expected


# ---- 13, 15. names, lines, demonstrations --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"task_name": "sample,qqp,QT,wiki_alignment,CC,custom,text"},
        {"model_name_or_path": "someone/a-very-long-name-of-a-model-of-many-words", "task_name": "wiki_alignment"},
        {"lr": 1.23456e-05, "seed": 4294967295, "num_steps": 1000000, "word_freq_lambda": 0.123456},
    ],
)
def test_names_of_runs_are_short(tmp_path, settings):
    """At most 60 characters, whatever the settings."""
    path = RunDirectory.create(tiny_config(output_dir=str(tmp_path), **settings)).path
    assert len(path.name) <= LONGEST_NAME == 60 and path.name.endswith("_001")


def test_parent_and_preset_are_named(trained, tmp_path):
    """In the first line and in config.yaml, which can still be given as --config."""
    flags = ("--model_dir", trained, "--preset", "fine_tuning", "--output_dir", tmp_path, "--max_steps", 1)
    result = run("continue_training", *flags, "--device", "cpu")
    assert result.out.splitlines()[0] == f"Training on from {trained / 'best_model.pt'} (preset fine_tuning)"
    path = only_run(tmp_path) / "config.yaml"
    config = yaml.safe_load(path.read_text())
    assert (config["parent"], config["preset"]) == (str(trained / "best_model.pt"), "fine_tuning")
    again = run("run_conditional_training", "--config", path, "--dry_run", "--epochs", "1")
    assert again.code == 0, again.err


@pytest.mark.parametrize(("epochs", "shown_at_most"), [(3, 3), (10, 10), (25, 10)])
def test_at_most_ten_demonstrations(data_dir, tmp_path, epochs, shown_at_most):
    """After every epoch of a short training, ten times in a long one; --demonstration_steps is obeyed."""
    seen = []

    class Count(Reporter):
        def demonstration(self, step):
            seen.append(step)

    new_trainer(data_dir, tmp_path, Count(), epochs=epochs, batch_size=64, max_samples=32).fit()
    assert shown_at_most * 0.8 <= len(seen) <= shown_at_most


RUDE = Pair("How do I ask for a blowtorch of xyzzy?", "What is the xyzzy of it?")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([RUDE, Pair("How can I do it?", "How can it be?")], "How can it be?"),
        ([Pair("Où est le musée?", "Le musée, où?")], "Le musée, où?"),
        ([RUDE], None),
    ],
)
def test_only_common_words_are_shown(rows, expected):
    """Rows of common words; without one, of English data the bundled sentences; other languages as they are."""
    shown_rows = [pair for pair, _ in showable(rows)]
    assert RUDE not in shown_rows and (expected is None or shown_rows[0].target == expected)
    assert "xyzzy" not in words(*(text for pair in shown_rows for text in pair))


@pytest.mark.parametrize("width", [79, 49, 30])
@pytest.mark.parametrize(
    "text",
    [
        "Model   tiny, 0.6M parameters, 500 word pieces, isolated attention, copy head on, lambda 0.2 and so on",
        "  2  Fast Training  Quora questions, a small model from scratch, 45 minutes on a CPU",
        "  20 % corrupted: 0.0 % restored (most common word piece: 3.2 %), 1.3 % at 50 %, 1.2 % at 80 %, all in %",
        "epoch 1.00, step 12: validation NELBO 5.2813 nats per word piece (7.123 per word, cross-entropy 5.1)",
    ],
)
def test_lines_break_between_words(width, text):
    """On a terminal nothing is wider than it, and no word is cut."""
    lines = wrapped(text, width).split("\n")
    assert all(len(line) <= width for line in lines) and " ".join(lines).split() == text.split()
    assert not any(line.lstrip().startswith("%") for line in lines)
