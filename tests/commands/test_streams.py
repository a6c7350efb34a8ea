"""Terminals that go away, streams that are closed, consoles that know few letters: no training ends without its
last.pt, and nothing ends with a traceback.
"""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffusion_bert.training.state import Reporter, Shielded
from tests.helpers.scripts import ROOT, new_trainer, only_run, small_flags, start

TRAIN, TALK, EVALUATE = "run_conditional_training", "interactive_generation", "evaluate_trained_model"
LONG = {"epochs": 500, "demonstration_steps": 1, "num_threads": 1}
LITTLE = ("--num_steps", "2", "--best_of", "1", "--device", "cpu")


def shell(line: str, cwd: Path, **environment) -> subprocess.CompletedProcess:
    """A line of bash, with the scripts by their names."""
    settings = {**os.environ, "PYTHON": sys.executable, "ROOT": str(ROOT), **environment}
    command, caught = ["bash", "-c", f"set -o pipefail; {line}"], {"capture_output": True, "errors": "replace"}
    return subprocess.run(command, cwd=cwd, env=settings, timeout=280, **caught)


def wait_for(condition, process, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)


def has_saved(output: Path) -> bool:
    run = only_run(output)
    return run is not None and (run / "last.pt").is_file() and (run / "metrics.jsonl").is_file()


# ---- 4. letters that a console cannot write ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "line"), [("ascii", "fill café 東京"), ("latin-1", "para Где музей?"), ("cp1252", "@@@ \U0001f600")]
)
def test_a_console_of_few_letters(trained, tmp_path, encoding, line):
    """The command loop answers; what cannot be written becomes a question mark."""
    command = f"printf '{line}\n' | $PYTHON $ROOT/{TALK}.py --checkpoint {trained} {' '.join(LITTLE)}"
    done = shell(command, tmp_path, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_training_and_evaluation_on_such_a_console(tmp_path, encoding):
    """A demonstration in Japanese and Greek ends no training, and its examples no evaluation."""
    rows = [{"src": f"東京 {n} naïve λόγος", "trg": f"日本 {n} café λόγος"} for n in range(40)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = " ".join(small_flags(None, train_file="mine.jsonl", task_name="custom", epochs=1, output_dir="runs"))
    if encoding == "latin-1":
        flags += " --demonstration_steps 1"
    done = shell(f"$PYTHON $ROOT/{TRAIN}.py {flags}", tmp_path, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0 and "Traceback" not in done.stderr and "noise" in done.stdout, done.stderr
    if encoding == "ascii":
        small = "--max_samples 2 --num_steps 2 --device cpu"
        done = shell(f"$PYTHON $ROOT/{EVALUATE}.py {small}", tmp_path, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("what", ["start", "step", "validating", "validation", "demonstration", "stop", "trouble"])
def test_nothing_that_is_shown_can_end_a_training(data_dir, tmp_path, what):
    """Whatever a reporter raises: the training ends as if it had not."""
    told = []

    class Broken(Reporter):
        def trouble(self, name, error):
            told.append((name, str(error)))
            if what == "trouble":
                raise OSError("even this")

    def fail(*_):
        raise UnicodeEncodeError("ascii", "é", 0, 1, "no such letter")

    broken = Broken()
    setattr(broken, "step" if what == "trouble" else what, fail)
    trainer = new_trainer(data_dir, tmp_path, broken, max_steps=2, demonstration_steps=1)
    assert trainer.fit().reason == "max_steps" and trainer.run.last.is_file()
    assert told and all("no such letter" in error for _, error in told)
    with pytest.raises(KeyboardInterrupt):
        Shielded(type("Stop", (Reporter,), {"stop": lambda self: (_ for _ in ()).throw(KeyboardInterrupt)})()).stop()


@pytest.mark.parametrize("every", [None, 1, 2])
def test_everything_is_saved_before_the_demonstration(data_dir, tmp_path, every):
    """Whoever is killed by a demonstration can be resumed behind it."""
    seen = []

    class Look(Reporter):
        def demonstration(self, step):
            state = json.loads((trainer.run.path / "state.json").read_text())
            seen.append((step, state["step"], trainer.run.last.is_file()))

    trainer = new_trainer(data_dir, tmp_path, Look(), epochs=2, demonstration_steps=every, save_steps=1)
    trainer.fit()
    assert seen and all(step == saved and there for step, saved, there in seen)


# ---- 5. the reader goes away ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", ["sed 1q", "head -c 5", "true"])
def test_the_reader_of_a_training_goes_away(data_dir, tmp_path, reader):
    """It is as if SIGTERM had come: saved, told on stderr how to go on, which works."""
    flags = " ".join(small_flags(data_dir, output_dir="runs", **LONG))
    done = shell(f"$PYTHON $ROOT/{TRAIN}.py {flags} | {reader}", tmp_path)
    run = only_run(tmp_path / "runs")
    assert done.returncode == 128 + signal.SIGTERM and "Traceback" not in done.stderr, done.stderr
    assert (run / "last.pt").is_file() and json.loads((run / "state.json").read_text())["interrupted"]
    assert f"continue_training.py --resume --model_dir runs/{run.name}" in done.stderr
    if reader == "sed 1q":
        again = shell(f"$PYTHON $ROOT/continue_training.py --resume --model_dir runs/{run.name} | sed 1q", tmp_path)
        assert again.returncode == 143 and "interrupted at step" in again.stderr


@pytest.mark.parametrize("argv", [("--help",), ("--version",)])
@pytest.mark.parametrize("script", [TRAIN, TALK, EVALUATE])
def test_the_reader_of_something_else_goes_away(tmp_path, script, argv):
    """Nothing is lost, so it ends quietly."""
    done = shell(f"$PYTHON $ROOT/{script}.py {' '.join(argv)} | true", tmp_path)
    assert done.returncode in (0, 141) and done.stderr == ""


def test_the_reader_of_file_work_goes_away(trained, tmp_path):
    """Answers to stdout: quietly, too."""
    (tmp_path / "in.txt").write_text("How are you?\n" * 400)
    files = "--input_file in.txt --output_file - --batch_size 8"
    flags = f"--checkpoint {trained} {' '.join(LITTLE)} {files}"
    done = shell(f"$PYTHON $ROOT/{TALK}.py {flags} | head -n 1", tmp_path)
    assert done.returncode == 141 and "Traceback" not in done.stderr and "Error" not in done.stderr, done.stderr


@pytest.mark.parametrize("times", [1, 2])
def test_a_closed_terminal(data_dir, tmp_path, times):
    """SIGHUP saves, however often it comes."""
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)}  # also where the tests run under nohup
    process = start(TRAIN, *small_flags(data_dir, output_dir="runs", **LONG), cwd=tmp_path, **heed)
    wait_for(lambda: has_saved(tmp_path / "runs"), process)
    for _ in range(times):
        process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGHUP and "Traceback" not in err
    assert "--resume --model_dir runs/" in out and "--resume --model_dir runs/" in err


def test_nohup_is_obeyed(data_dir, tmp_path):
    """Where SIGHUP was ignored from the start, it stays so."""
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    process = start(
        TRAIN, *small_flags(data_dir, output_dir="runs", max_steps=30, save_steps=1), cwd=tmp_path, **ignore
    )
    wait_for(lambda: has_saved(tmp_path / "runs"), process)
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=100) and process.returncode == 0


def test_a_terminal_that_is_gone(data_dir, tmp_path):
    """The terminal itself is closed while training writes to it."""
    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True}
    process = start(TRAIN, *small_flags(data_dir, output_dir="runs", **LONG), cwd=tmp_path, **streams)
    os.close(theirs)
    end = time.monotonic() + 120
    while not has_saved(tmp_path / "runs"):
        assert time.monotonic() < end
        os.read(ours, 4096)
    os.close(ours)
    assert process.wait(timeout=60) in (128 + signal.SIGTERM, 128 + signal.SIGHUP)
    assert json.loads((only_run(tmp_path / "runs") / "state.json").read_text())["interrupted"]


# ---- 6. streams that are closed ------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("full", [">/dev/full", "2>/dev/full", ">/dev/full 2>&1"])
def test_a_full_disk_behind_the_streams(data_dir, tmp_path, full):
    """A log that cannot be written ends no training."""
    flags = " ".join(small_flags(data_dir, output_dir="runs", max_steps=2))
    done = shell(f"$PYTHON $ROOT/{TRAIN}.py {flags} {full}", tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert (only_run(tmp_path / "runs") / "training_results.json").is_file()


def test_a_full_disk_behind_the_answers(trained, tmp_path):
    """What a command is there to write is missed: one line, exit code 2."""
    command = f"printf 'para How?\n' | $PYTHON $ROOT/{TALK}.py --checkpoint {trained} {' '.join(LITTLE)}"
    done = shell(f"{command} >/dev/full", tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: No space left") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams(data_dir, trained, tmp_path, closed):
    """A missing stream is /dev/null."""
    flags = " ".join(small_flags(data_dir, output_dir="runs", max_steps=2))
    done = shell(f"$PYTHON $ROOT/{TRAIN}.py {flags} {closed}", tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert (only_run(tmp_path / "runs") / "training_results.json").is_file()
    done = shell(f"$PYTHON $ROOT/{TALK}.py --checkpoint {trained} {' '.join(LITTLE)} {closed} < /dev/null", tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
