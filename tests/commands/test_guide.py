"""The guide to what comes after training, line by line, in its own words, on a tiny model: train, evaluate, play, train
on, start again otherwise, use it from Python. The scripts are real processes, called as a reader calls them.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffusion_bert import DiffusionTextGenerator
from diffusion_bert.config.paths import latest_checkpoint
from tests.helpers.scripts import ROOT, SCRIPTS, only_run, run, write_data

CUSTOM = {  # the menu's questions, in order, with answers; an empty answer takes the default
    "task_name": "sample",
    "data_dir": "data",
    "train_file": "",
    "model_name_or_path": "tiny",
    "max_samples": 60,
    "num_steps": 8,
    "word_freq_lambda": 0.1,
    "epochs": 1,
    "max_minutes": "",
    "batch_size": 16,
    "lr": "",
    "seed": 1,
    "device": "cpu",
    "output_dir": "runs",
}
PLAY = (
    "fill The weather is really nice today",
    "para I love learning new things",
    "complete The best way to learn programming is",
    "mask I want to [MASK] a new [MASK] today",
    'para "Thank you for contacting our support team"',
    'complete "I hope this email finds you well. I am writing to"',
    'fill "Join us for an amazing [MASK] event this [MASK]"',
    "complete It was a dark and stormy night",
    "fill The capital of France is [MASK]",
)


def answers(**others) -> str:
    """What is typed into the training menu: Custom, then an answer to each question."""
    return "\n".join(["4", *map(str, {**CUSTOM, **others}.values()), ""])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the reader works: the scripts by their names, data, and a model that was trained by the menu."""
    folder = tmp_path_factory.mktemp("guide")
    for script in SCRIPTS:
        (folder / f"{script}.py").symlink_to(ROOT / f"{script}.py")
    for name in ("sample", "QT", "wiki_alignment", "qqp"):
        write_data(folder / "data" / name, train=60, valid=12, test=50)
    out = typed("python run_conditional_training.py", folder, answers())
    assert "What shall be trained?" in out and "Trained 4 steps" in out
    assert f"Next:  python {ROOT}/evaluate_trained_model.py --checkpoint runs/" in out
    return folder


def process(command: str, folder: Path, **streams) -> subprocess.Popen:
    """A command of the guide; ``python`` is the one that runs the tests."""
    words = command.split()
    assert words[0] == "python"
    words = [sys.executable, *words[1:]]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    environment = {**os.environ, "PYTHONUTF8": "1"}
    return subprocess.Popen(words, cwd=folder, env=environment, text=True, encoding="utf-8", **streams)


def typed(command: str, folder: Path, keys: str = "", code: int = 0) -> str:
    """What a command writes on both streams, with these lines typed into it; it ends with ``code``."""
    with process(command, folder) as running:
        out, err = running.communicate(keys, timeout=280)
    assert running.returncode == code and "Traceback" not in err, out + err
    return out + err


def test_evaluate(folder):
    """The guide's own path is refused in a line that helps; a real run gets its four things and a report."""
    line = typed("python evaluate_trained_model.py --checkpoint ./your_model_dir/best_model.pt", folder, code=2)
    assert line.count("\n") == 1 and "no such checkpoint; train one with run_conditional_training.py" in line
    out = typed("python evaluate_trained_model.py --max_samples 50 --num_steps 2 --device cpu", folder)
    for words in ("20 % corrupted", "50 % corrupted", "80 % corrupted", "iBLEU", "NELBO", "Score: ", "level "):
        assert words in out, words
    assert f"Next:  python {ROOT}/continue_training.py --checkpoint runs/" in out
    assert (latest_checkpoint(folder / "runs").parent / "evaluation.md").is_file()


def test_play(folder):
    """Every line of the guide gets its candidates, and the settings change."""
    lines = ["set num_steps 2", *PLAY, "set temperature = 1.0", "set top_p 0.9", PLAY[0], "help", "show", "quit"]
    out = typed("python interactive_generation.py --device cpu", folder, "\n".join(lines) + "\n")
    shown = out.split("Enter command: ")
    assert len(shown) == len(lines) + 1 and "The newest run, runs/" in shown[0]
    for line, answer in zip(lines, shown[1:]):
        assert answer.startswith(f"{line}\n")
        if line.split()[0] in ("fill", "para", "complete", "mask"):
            assert "  1. " in answer and "[MASK]" not in answer.split("\n", 1)[1], answer
    assert "temperature = 1.0" in shown[-6] and "top_p = 0.9" in shown[-5]


def test_train_on(folder):
    """By itself; by the menu, whose options are the guide's, with its custom option and its presets."""
    out = typed("python continue_training.py --auto --max_steps 1 --device cpu", folder)
    assert "so the middle way: --preset quality_boost" in out and "Trained 1 step " in out
    menu = typed("python continue_training.py", folder, "4\n\n\n\n20\n4\n1\n\n8\n\n\ncpu\nchildren\n")
    for number, option in enumerate(("Quality Boost", "Deep Training", "Fine-tuning", "Custom"), 1):
        assert f"\n  {number}  {option} " in menu
    assert "Parent  runs/" in menu and "Run     children/" in menu and "Trained 3 steps" in menu


@pytest.mark.parametrize("preset", ["quality_boost", "deep_training_continue", "fine_tuning"])
def test_paths_by_verdict(folder, monkeypatch, preset):
    """The three presets of the table."""
    monkeypatch.chdir(folder)
    result = run("continue_training", "--preset", preset, "--dry_run", "--device", "cpu")
    assert result.code == 0 and f"(preset {preset})" in result.out, result.err


def test_stopped_and_resumed(folder):
    """Ctrl-C saves and prints the command that goes on, which does."""
    with process("python run_conditional_training.py", folder) as running:
        running.stdin.write(answers(epochs=500, output_dir="stopped"))
        running.stdin.flush()
        end = time.monotonic() + 280
        while not list((folder / "stopped").glob("*/metrics.jsonl")):
            assert running.poll() is None and time.monotonic() < end, running.communicate()
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=280)
    assert running.returncode == 130 and "Interrupted at step" in out, out + err
    command = re.search(r"^Go on with:  python (.*)$", out, flags=re.M)[1]
    assert command.startswith(f"{ROOT}/continue_training.py --resume --model_dir stopped/")
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} {command} | sed 3q"], cwd=folder, capture_output=True, text=True, timeout=280
    )
    assert re.search(r"^Resuming stopped/\S+ at step [1-9]", done.stdout, flags=re.M), done.stdout + done.stderr
    assert "interrupted at step" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "flags",
    [
        "--task_name QT --data_dir data/QT",
        "--task_name wiki_alignment --data_dir data/wiki_alignment",
        "--task_name QT,wiki_alignment --data_dir data",
        "--task_name qqp --data_dir data --max_samples 2000",
        "--num_steps 128 --word_freq_lambda 0.3",
        "--lr 1e-5 --batch_size 4 --accumulation_steps 8 --epochs 10",
        "--num_steps 16 --batch_size 1 --device cpu",
    ],
)
def test_start_again_otherwise(folder, monkeypatch, flags):
    """Other data, noise, steps, batches: every flag of the guide trains."""
    monkeypatch.chdir(folder)
    small = "--model_name_or_path tiny --vocab_size 500 --dry_run"
    data = "" if "--data_dir" in flags else "--data_dir data/sample"
    result = run("run_conditional_training", *f"{flags} {data} {small}".split())
    assert result.code == 0 and "Dry run complete" in result.out, result.err


def test_from_python(folder):
    """The guide's projects: e-mails, stories, posts, cloze texts."""
    generator = DiffusionTextGenerator.from_checkpoint(latest_checkpoint(folder / "runs"), device="cpu", num_steps=2)
    mail = generator.complete_text("Dear [Name], I hope this email finds you well. I wanted to follow up on")
    assert len(mail) == 3 and all(text.startswith("Dear [Name], I hope this email") for text in mail)
    for text in ("The sun was setting", "How can I cook well?", "need report by friday"):
        assert generator.paraphrase_text(text)
    for text in ("The mysterious [MASK] opened the [MASK] door", "The process of photosynthesis produces [MASK]"):
        assert all("[MASK]" not in filled for filled in generator.fill_masks(text))
    assert only_run(folder / "runs") is not None
