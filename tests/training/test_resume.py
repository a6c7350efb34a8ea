"""An interrupted run, resumed, ends exactly like the uninterrupted one: to the bit on a CPU, wall-clock fields
aside.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from diffusion_bert.model.payload import read_payload
from diffusion_bert.training.run_directory import RunDirectory
from diffusion_bert.training.state import Reporter
from tests.helpers.scripts import (
    ROOT,
    compare_runs,
    new_trainer,
    only_run,
    read_records,
    run,
    small_flags,
    start,
    without_wall_clock,
    write_data,
)

# dropout on, two micro-batches a step, epochs that end inside, saves and log lines that do not coincide
SETTINGS = {
    "dropout": 0.1,
    "batch_size": 4,
    "accumulation_steps": 2,
    "save_steps": 3,
    "logging_steps": 2,
    "max_steps": 12,
    "epochs": 9,
    "warmup_ratio": 0.2,
}


class Snapshots(Reporter):
    """Copies the run directory after every step: what a power cut at that moment would leave (before this step's
    saving).
    """

    def __init__(self, folder: Path):
        self.folder, self.trainer = folder, None

    def step(self, step, progress, values):
        shutil.copytree(self.trainer.run.path, self.folder / f"step_{step}" / "run")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """40 training pairs: five steps an epoch."""
    return write_data(tmp_path_factory.mktemp("data"), train=40, valid=8, test=4)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, data):
    """(run directory of the whole run, folder of the snapshots taken on its way)."""
    folder = tmp_path_factory.mktemp("whole")
    reporter = Snapshots(folder / "snapshots")
    reporter.trainer = new_trainer(data, folder / "runs", reporter, **SETTINGS)
    assert reporter.trainer.steps_per_epoch == 5
    assert reporter.trainer.fit().reason == "max_steps"
    return reporter.trainer.run.path, reporter.folder


def assert_same(ours: Path, whole: Path) -> None:
    """Same weights, optimizer and random state, and the same metrics line by line; nothing else left behind."""
    assert compare_runs(ours, whole) == []
    assert not list(ours.glob(".*"))


def resume(folder: Path) -> None:
    """continue_training.py --resume."""
    result = run("continue_training", "--resume", "--model_dir", folder)
    assert result.code == 0, result.err
    assert f"Resuming {folder} at step" in result.out


@pytest.mark.parametrize("stop_after", [1, 4, 5, 11])
def test_a_stop_between_steps(data, uninterrupted, tmp_path, stop_after):
    """Stopped by a signal after the first step, inside an epoch, at its end, or before the last step: resumed, all is
    the same.
    """

    class Stop(Reporter):
        def step(self, step, progress, values):
            if step == stop_after:
                trainer.stop_signal = signal.SIGTERM

    trainer = new_trainer(data, tmp_path, Stop(), **SETTINGS)
    result = trainer.fit()
    assert (result.reason, result.signal, result.state.step, result.state.finished) == (
        "interrupted",
        signal.SIGTERM,
        stop_after,
        False,
    )
    resume(trainer.run.path)
    assert_same(trainer.run.path, uninterrupted[0])


def test_a_stop_with_several_draws(data, tmp_path):
    """Several noised targets beside each source: resumed after the third step, all is the same."""
    settings = {**SETTINGS, "noise_draws": 2, "max_steps": 7}

    class Stop(Reporter):
        def step(self, step, progress, values):
            if step == 3:
                cut.stop_signal = signal.SIGTERM

    whole, cut = (
        new_trainer(data, tmp_path / name, reporter, **settings)
        for name, reporter in (("whole", None), ("cut", Stop()))
    )
    assert whole.fit().reason == "max_steps" and cut.fit().reason == "interrupted"
    resume(cut.run.path)
    assert_same(cut.run.path, whole.run.path)


@pytest.mark.parametrize("step", [4, 8, 12])
def test_a_power_cut(uninterrupted, tmp_path, step):
    """From any moment that a sudden death may leave behind - last.pt older than best_model.pt and the metrics - the run
    ends the same.
    """
    folder = Path(shutil.copytree(uninterrupted[1] / f"step_{step}" / "run", tmp_path / "run"))
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "st')  # a line cut off in the middle
    (folder / ".last.pt.4711.tmp").write_bytes(b"PK")  # and a save
    resume(folder)
    assert_same(folder, uninterrupted[0])


def test_interrupted_twice(data, uninterrupted, tmp_path):
    """A resumed run may be interrupted and resumed again."""
    from diffusion_bert.commands import training_run

    folder = Path(shutil.copytree(uninterrupted[1] / "step_4" / "run", tmp_path / "run"))

    class Stop(training_run.ConsoleReporter):
        def step(self, step, progress, values):
            super().step(step, progress, values)
            if step == 7:
                signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_run, "ConsoleReporter", Stop)
        result = run("continue_training", "--resume", "--model_dir", folder)
    assert result.code == 130 and "Interrupted at step 7" in result.out
    resume(folder)
    assert_same(folder, uninterrupted[0])


def wait_for(condition, process, seconds: float = 120) -> None:
    """Until the condition holds; fails when the process ends first."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def records_so_far(output: Path) -> int:
    folder = only_run(output)
    return len(RunDirectory(folder).read_metrics()) if folder else 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_real_process(data, uninterrupted, tmp_path, number, code):
    """It finishes the step, saves last.pt, names the command that goes on, and exits with 128 + signal; that command
    ends like the whole run.
    """
    output = tmp_path / "runs"
    process = start(
        "run_conditional_training",
        *small_flags(data, output_dir=output, **SETTINGS, demonstration_steps=1),
        cwd=tmp_path,
    )
    wait_for(lambda: records_so_far(output) >= 2, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    folder = only_run(output)
    assert process.returncode == code and "Traceback" not in err
    shown = folder.relative_to(tmp_path)
    assert f"Go on with:  python {ROOT}/continue_training.py --resume --model_dir {shown}\n" in out
    assert (folder / "last.pt").is_file() and not read_payload(folder / "last.pt")["training"]["state"]["finished"]
    assert not list(folder.glob(".*"))
    resume(folder)
    assert_same(folder, uninterrupted[0])


@pytest.mark.parametrize("moment", ["first validation", "before the first save"])
def test_killed_at_once(data, uninterrupted, tmp_path, moment):
    """SIGKILL while the first validation is running: last.pt is there, --resume goes on and ends like a run that nobody
    killed; before even that, the line says how to start again. A real process, which stops itself at that moment.
    """
    place = "measure" if moment == "first validation" else "save_checkpoint"
    kill = (
        "import os, signal, sys; from diffusion_bert.training import run; import run_conditional_training as script\n"
        f"run.{place} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "script.main(sys.argv[1:])"
    )
    flags = small_flags(data, output_dir=tmp_path / "runs", **SETTINGS)
    done = subprocess.run([sys.executable, "-c", kill, *flags], cwd=ROOT, capture_output=True, timeout=120)
    folder = only_run(tmp_path / "runs")
    assert done.returncode == -signal.SIGKILL and not (folder / "best_model.pt").exists()
    if moment == "first validation":
        for argv in (("--model_dir", folder), ("--checkpoint", folder), ("--output_dir", tmp_path / "runs")):
            result = run("continue_training", "--preset", "fine_tuning", *argv)
            assert result.code == 2 and "first validation was cut off" in result.err and "--resume" in result.err
        resume(folder)
        assert_same(folder, uninterrupted[0])
    else:
        for argv in (("--model_dir", folder), ("--output_dir", tmp_path / "runs")):
            line = refused(*argv)
            assert "killed before its first save" in line and "--config" in line
        command = line.split(" --config ")[1].split()[0]
        assert run("run_conditional_training", "--config", command, "--dry_run").code == 0


def test_three_kills():
    """SIGKILL at random moments, resumed each time, ends like the undisturbed run: a small helping of `make soak`."""
    seed = random.randrange(10**6)
    done = subprocess.run(
        [sys.executable, "-m", "tools.soak", "--kills", "3", "--steps", "12", "--seed", str(seed)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0 and "3 kills in" in done.stdout, f"seed {seed}\n{done.stdout}\n{done.stderr}"


def test_killed_between_its_last_step_and_its_results(uninterrupted, tmp_path):
    """All steps done, nothing written about it yet: --resume makes the results, trains no step, and then the run is
    complete.
    """
    folder = Path(shutil.copytree(uninterrupted[0], tmp_path / "run"))
    assert not (folder / "training_results.json").exists()
    resume(folder)
    results = json.loads((folder / "training_results.json").read_text())
    assert (results["stopped_by"], results["steps"]) == ("max_steps", 12) and (folder / "curves.png").is_file()
    assert_same(folder, uninterrupted[0])
    assert "is complete" in refused("--model_dir", folder)


def test_a_shortened_log_is_no_disaster(uninterrupted, tmp_path):
    """metrics.jsonl was deleted meanwhile: the run resumes, and what it logs is in order, also after one more
    resume.
    """
    folder = Path(shutil.copytree(uninterrupted[1] / "step_8" / "run", tmp_path / "run"))
    (folder / "metrics.jsonl").unlink()
    resume(folder)
    whole = list(map(without_wall_clock, read_records(uninterrupted[0])))
    rest = list(map(without_wall_clock, read_records(folder)))
    assert 0 < len(rest) < len(whole) and rest == whole[-len(rest) :]
    assert read_payload(folder / "last.pt")["training"]["state"]["metrics_lines"] == len(rest)


# ---- refusals ------------------------------------------------------------------------------------------------------


def refused(*argv) -> str:
    """The one line of a refusal."""
    result = run("continue_training", "--resume", *argv)
    assert result.code == 2 and result.err.count("\n") == 1, result.err
    return result.err


def test_changed_data_is_refused(tmp_path, data):
    """The fingerprint of the data is part of last.pt: other data cannot sneak in."""
    moved = Path(shutil.copytree(data, tmp_path / "data"))

    class Stop(Reporter):
        def step(self, step, progress, values):
            trainer.stop_signal = signal.SIGINT

    trainer = new_trainer(moved, tmp_path / "runs", Stop(), **SETTINGS)
    trainer.fit()
    before = (trainer.run.path / "last.pt").read_bytes()
    rows = (moved / "train.jsonl").read_text().splitlines()
    (moved / "train.jsonl").write_text(
        "\n".join([*rows[:-1], json.dumps({"src": "Is this new?", "trg": "Is this one new?"})]) + "\n"
    )
    assert "training data has changed" in refused("--model_dir", trainer.run.path)
    shutil.rmtree(moved)
    assert "no such folder" in refused("--model_dir", trainer.run.path)
    assert (trainer.run.path / "last.pt").read_bytes() == before


def test_a_finished_run_is_refused(trained):
    """There is nothing to resume; the line says how to train on."""
    assert "is complete" in refused("--model_dir", trained)
    assert "is complete" in refused("--checkpoint", trained / "last.pt")


def test_a_damaged_training_state_is_refused(uninterrupted, tmp_path):
    """A last.pt whose training part lacks something, or is something else: one line."""
    payload = read_payload(uninterrupted[1] / "step_8" / "run" / "last.pt")
    for training in ({}, [1], {**payload["training"], "optimizer": None}, {**payload["training"], "state": 5}):
        torch.save({**payload, "training": training}, tmp_path / "last.pt")
        assert "damaged training state" in refused("--model_dir", tmp_path)


def test_other_refusals(trained, tmp_path):
    """Training flags, a best_model.pt, or a folder without last.pt are no resume."""
    assert "drop --epochs" in refused("--model_dir", trained, "--epochs", "3")
    assert "holds no training state" in refused("--checkpoint", trained / "best_model.pt")
    assert "holds no last.pt" in refused("--model_dir", tmp_path)
