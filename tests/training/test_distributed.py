"""Several processes train like one: the same numbers, one voice, one run directory; nobody waits for the dead."""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch

from diffusion_bert.commands.questions import ask
from diffusion_bert.machine.processes import join, own_device
from diffusion_bert.model.payload import read_payload
from diffusion_bert.training.run_directory import RunDirectory
from diffusion_bert.training.state import Reporter
from tests.helpers.models import refusal
from tests.helpers.scripts import ROOT, new_trainer, only_run, read_records, run, small_flags, write_data

SETTINGS = {
    "dropout": 0.0,
    "batch_size": 4,
    "logging_steps": 1,
    "epochs": 2,
    "eval_steps": 4,
    "warmup_ratio": 0.2,
    "save_steps": 2,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """29 pairs: eight batches of four an epoch, the last with a single pair; one validation batch, so that a process
    has none.
    """
    return write_data(tmp_path_factory.mktemp("data"), train=29, valid=9, test=4)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Forked:
    """A script's main in a fork of this process, which has imported everything already, with the variables that
    torchrun sets.
    """

    def __init__(self, folder: Path, script: str, argv: list[str], **variables):
        self.streams = [folder / f"{name}_{variables['RANK']}.txt" for name in ("stdout", "stderr")]
        self.code = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for number, stream in enumerate(self.streams, 1):
                    os.dup2(os.open(stream, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
                sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
                os.environ.update(
                    {name: str(value) for name, value in variables.items()}, TOKENIZERS_PARALLELISM="false"
                )
                code = importlib.import_module(script).main(argv)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(99)

    def alive(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is None

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)


def launch(folder: Path, count: int, script: str, *argv) -> list[Forked]:
    """A script in ``count`` processes."""
    folder.mkdir(parents=True, exist_ok=True)
    common = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [
        Forked(folder, script, [str(item) for item in argv], RANK=rank, LOCAL_RANK=rank, **common)
        for rank in range(count)
    ]


def finished(processes: list[Forked], seconds: float = 60) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each; who takes too long is killed, which shows in the code."""
    end = time.monotonic() + seconds
    while any([process.alive() for process in processes]):
        if time.monotonic() > end:
            for process in processes:
                if process.alive():
                    process.kill(signal.SIGKILL)
        time.sleep(0.01)
    return [(process.code, *(stream.read_text() for stream in process.streams)) for process in processes]


def assert_same_training(ours: Path, whole: Path) -> None:
    """Logged numbers and weights agree to 1e-5, validations to 1e-9 while the weights are the same."""
    a, b = read_records(ours), read_records(whole)
    assert [(r["kind"], r["step"], r["epoch"]) for r in a] == [(r["kind"], r["step"], r["epoch"]) for r in b]
    for mine, other in zip(a, b):
        for name in set(mine) - {"kind", "seconds", "tokens_per_second"}:
            assert mine[name] == pytest.approx(other[name], rel=1e-5, abs=1e-6), (mine["step"], name)
    assert a[0]["valid_nelbo"] == pytest.approx(b[0]["valid_nelbo"], rel=1e-9)
    for name in ("best_model.pt", "last.pt"):
        mine, other = read_payload(ours / name)["weights"], read_payload(whole / name)["weights"]
        # the bias of a key shifts all scores of a place alike: its true gradient is 0, what is left is rounding, which
        # Adam blows up
        keys = [key for key in other if not key.endswith("key.bias")]
        assert all(torch.allclose(mine[key], other[key], rtol=1e-5, atol=1e-5) for key in keys), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data):
    """The run of one process with three batches a step: eight batches make steps of 3, 3 and 2."""
    output = tmp_path_factory.mktemp("alone")
    result = run("run_conditional_training", *small_flags(data, output_dir=output, accumulation_steps=3, **SETTINGS))
    assert result.code == 0, result.err
    return only_run(output)


def test_torchrun(data, tmp_path):
    """The command of the README, two processes: one run directory, one voice, the numbers of one process with twice the
    accumulation.
    """
    output = tmp_path / "two"
    flags = small_flags(data, output_dir=output, accumulation_steps=1, **SETTINGS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port", str(free_port())]
    done = subprocess.run(
        [*torchrun, str(ROOT / "run_conditional_training.py"), *flags],
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr
    assert "Batch   4 x 2 = 8 examples per optimizer step, 2 batches dealt out to 2 processes" in done.stdout
    assert done.stdout.count("Test NELBO") == 1 and "Traceback" not in done.stderr
    assert len(list(output.iterdir())) == 1
    result = run(
        "run_conditional_training", *small_flags(data, output_dir=tmp_path / "one", accumulation_steps=2, **SETTINGS)
    )
    assert result.code == 0
    assert_same_training(only_run(output), only_run(tmp_path / "one"))
    ours, whole = (
        json.loads((only_run(folder) / "training_results.json").read_text()) for folder in (output, tmp_path / "one")
    )
    assert ours["test_nelbo"] == pytest.approx(whole["test_nelbo"], rel=1e-5) and ours["steps"] == whole["steps"] == 8


def test_three_processes_with_empty_shares(data, alone, tmp_path):
    """Three processes with one batch each: in the last step of an epoch, and in validation, some have none; the numbers
    stay those of one.
    """
    flags = small_flags(data, output_dir=tmp_path / "runs", accumulation_steps=1, **SETTINGS)
    results = finished(launch(tmp_path / "streams", 3, "run_conditional_training", *flags))
    assert [code for code, _, _ in results] == [0, 0, 0], results
    assert all(not out and not err for _, out, err in results[1:])
    assert_same_training(only_run(tmp_path / "runs"), alone)


def test_stop_and_resume_with_other_numbers_of_processes(data, alone, tmp_path):
    """SIGTERM to one of two processes stops both after the same step; one process resumes, and then the run is that of
    one process.
    """

    class Stop(Reporter):
        def step(self, step, progress, values):
            trainer.stop_signal = signal.SIGTERM

    # slow enough to be stopped
    trainer = new_trainer(data, tmp_path / "runs", Stop(), accumulation_steps=3, demonstration_steps=1, **SETTINGS)
    assert trainer.fit().state.step == 1
    folder = trainer.run.path
    processes = launch(tmp_path / "streams", 2, "continue_training", "--resume", "--model_dir", folder)
    while len(RunDirectory(folder).read_metrics()) < 4:  # validation, step 1, step 2 and step 3
        assert all(process.alive() for process in processes), finished(processes)
        time.sleep(0.001)
    processes[1].kill(signal.SIGTERM)
    results = finished(processes)
    assert [code for code, _, _ in results] == [143, 143], results
    assert "Interrupted at step" in results[0][1] and results[1][1] == ""
    assert "Batch   4 x 3 = 12 examples per optimizer step, 3 batches dealt out to 2 processes" in results[0][1]
    result = run("continue_training", "--resume", "--model_dir", folder)
    assert result.code == 0, result.err
    assert_same_training(folder, alone)


@pytest.mark.parametrize("where", ["flags", "data", "one process"])
def test_a_mistake_is_told_once(data, tmp_path, where):
    """A wrong flag, missing data, or trouble of one process alone: every process ends with 2, one of them with one
    line, no traceback.
    """
    flags = small_flags(data, output_dir=tmp_path / "runs", **SETTINGS)
    if where == "flags":
        processes = launch(tmp_path / "streams", 2, "run_conditional_training", *flags, "--epochs", "0")
    elif where == "data":
        processes = launch(
            tmp_path / "streams", 2, "run_conditional_training", *flags, "--data_dir", tmp_path / "nowhere"
        )
    else:  # only the first process writes, so only it finds out that the disk takes nothing
        (tmp_path / "runs").write_text("a file, not a folder")
        processes = launch(tmp_path / "streams", 2, "run_conditional_training", *flags)
    results = finished(processes)
    assert [code for code, _, _ in results] == [2, 2], results
    errors = "".join(err for _, _, err in results)
    assert errors.startswith("error: ") and errors.count("\n") == 1, errors
    expected = {"flags": "--epochs is 0", "data": "no such folder", "one process": "cannot make a run directory"}
    assert expected[where] in errors


def test_a_killed_process_ends_the_others(data, tmp_path):
    """SIGKILL to one process in the middle of training: the other ends by itself with one line."""
    flags = small_flags(data, output_dir=tmp_path / "runs", **{**SETTINGS, "epochs": 200})
    processes = launch(tmp_path / "streams", 2, "run_conditional_training", *flags)
    runs = tmp_path / "runs"
    while not (only_run(runs) and (only_run(runs) / "last.pt").exists()):
        assert all(process.alive() for process in processes), finished(processes)
        time.sleep(0.01)
    processes[1].kill(signal.SIGKILL)
    results = finished(processes)
    assert [code for code, _, _ in results] == [2, -9]
    assert "error: another process of this training has ended" in results[0][2] and "Traceback" not in results[0][2]
    assert read_payload(only_run(runs) / "last.pt")["weights"]


def test_one_gpu_for_all_is_refused(monkeypatch):
    """--device cuda:0 with several processes would put them all on one GPU; auto gives each its own, or the CPU."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert "each process then takes its own GPU" in refusal(join, "cuda:0")
    assert own_device("cuda") == "cuda:1" and own_device("cpu") == "cpu"
    assert own_device("auto") == ("cuda:1" if torch.cuda.is_available() else "cpu")


def test_one_process_needs_nobody():
    """Alone, sums and broadcasts are the identity, and nothing is started."""
    alone, tensor = join(), torch.ones(2)
    assert (alone.rank, alone.size, alone.is_main) == (0, 1, True) and not torch.distributed.is_initialized()
    assert alone.gather([1, 2.5]) == [[1, 2.5]] and alone.broadcast("x") == "x" and alone.on_main(lambda: 3) == 3
    assert alone.sum_(tensor) is tensor and torch.equal(tensor, torch.ones(2))


def test_a_menu_cannot_be_shared(monkeypatch):
    """Without flags several processes would all ask the same question."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "several processes cannot share one menu" in refusal(ask, "Which?")
