"""Kill training at random moments, again and again: nothing is lost.

    python -m tools.soak --kills 100

Each round trains a tiny model from scratch on a few pairs, with the real scripts in processes of their own. Every
process is killed (SIGKILL) at a moment drawn at random - over its training, or over its whole life - and the next one
resumes, until one comes to its end. After every kill all .pt files load and pass their checksums, at most the one file
that was being written is left half, and metrics.jsonl is a beginning of the undisturbed run's. At the end of a round
weights, optimizer, random state and metrics (wall-clock fields aside) equal that run's to the bit.

Importing torch takes seconds, so most processes are forks of one that has done nothing but the imports; every tenth is
a fresh interpreter.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

from tests.helpers.scripts import ROOT, compare_runs, read_records, small_flags, without_wall_clock, write_data  # noqa: E402

# an average of the weights (and SMALL's dropout), two micro-batches a step, epochs that end inside; saves and log lines
# that do not coincide
SETTINGS = {
    "batch_size": 4,
    "accumulation_steps": 2,
    "logging_steps": 2,
    "epochs": 99,
    "warmup_ratio": 0.2,
    "eval_steps": 7,
    "ema_decay": 0.9,
}
FRESH_EVERY = 10  # so many starts per one in a fresh interpreter
LIVES = 8  # the moment of a kill lies in the first of so many parts of an undisturbed training, counted from the resume
MOMENTS = ("training", "training", "training", "life")  # over what the moment of a kill is drawn, in turn


class Process:
    """One of the scripts, running, with its output in a file."""

    def __init__(self, script: str, argv: list[str], log: Path, fresh: bool):
        self.log, self.fresh, self.began, self.code = log, fresh, time.monotonic(), None
        path = ROOT / f"{script}.py"
        self.child = None
        log.write_text("")
        if fresh:
            with open(log, "w") as file:
                self.child = subprocess.Popen(
                    [sys.executable, str(path), *argv], stdout=file, stderr=file, stdin=subprocess.DEVNULL
                )
            self.pid = self.child.pid
            return
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(path, argv, log)

    def poll(self) -> int | None:
        """The exit code, or None while it runs; a kill is -9."""
        if self.code is None:
            if self.child is not None:
                self.code = self.child.poll()
            else:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        os.kill(self.pid, signal.SIGKILL)
        while self.poll() is None:
            time.sleep(0.001)

    def wait_until(self, condition, seconds: float = 600.0) -> bool:
        """True when the condition came true, False when the process ended before."""
        end = time.monotonic() + seconds
        while not condition():
            if self.poll() is not None:
                return False
            if time.monotonic() > end:
                raise SystemExit(f"no end after {seconds:g} s:\n{self.log.read_text()}")
            time.sleep(0.002)
        return True

    def says(self, words: str) -> bool:
        """Whether the words are in its output by now."""
        return words in self.log.read_text(errors="replace")


def _become(path: Path, argv: list[str], log: Path):
    """In a fork: run the script as the interpreter would, and end."""
    code = 70
    try:
        number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(number, 1)
        os.dup2(number, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        sys.stdin = open(os.devnull)  # noqa: SIM115  for the rest of this process
        sys.argv = [str(path), *argv]
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def train_undisturbed(data: Path, folder: Path, steps: int) -> tuple[Path, float, float]:
    """The run to compare with: its directory, the seconds until it trains, and the seconds it trains."""
    flags = small_flags(data, output_dir=folder / "whole", max_steps=steps, save_steps=1, **SETTINGS)
    process = Process("run_conditional_training", flags, folder / "log", False)
    process.wait_until(lambda: process.says("Run     "))
    start_up = time.monotonic() - process.began
    process.wait_until(lambda: process.says("Trained "))
    seconds = time.monotonic() - process.began - start_up
    process.wait_until(lambda: False)
    if process.code != 0:
        raise SystemExit(f"the undisturbed run failed:\n{process.log.read_text()}")
    return next((folder / "whole").iterdir()), start_up, seconds


def look(run: Path, whole: list[dict]) -> str:
    """Check a run directory right after a kill; says whether the kill fell into the writing of a file."""
    from diffusion_bert.model.payload import read_payload
    from diffusion_bert.training.run_directory import RunDirectory

    half = [path.name for path in run.glob(".*.tmp")]
    assert len(half) <= 1, f"temporary files pile up: {half}"
    records = [without_wall_clock(record) for record in RunDirectory(run).read_metrics()]
    assert records == whole[: len(records)], "metrics.jsonl is no beginning of the undisturbed run's"
    for path in run.glob("*.pt"):
        payload = read_payload(path)  # weights_only=True, checksums, refusals
        counted = payload["training"]["state"]["metrics_lines"] if path.name == "last.pt" else 0
        assert counted <= len(records), f"{path.name} counts {counted} lines of metrics.jsonl, there are {len(records)}"
    return "writing " + re.fullmatch(r"\.(.+)\.\d+\.tmp", half[0])[1] if half else "elsewhere"


def soak(kills: int, steps: int, seed: int, folder: Path, say=print) -> Counter:
    """Kill so many times, finish the last round, and count where the kills fell. AssertionError when anything is
    lost.
    """
    rng = random.Random(seed)
    data = write_data(folder / "data", train=40, valid=8, test=4)
    whole_run, start_up, seconds = train_undisturbed(data, folder, steps)
    whole = list(map(without_wall_clock, read_records(whole_run)))
    say(f"undisturbed: {steps} steps in {seconds:.1f} s after a start of {start_up:.1f} s")
    count: Counter = Counter()
    while count["kills"] < kills:
        count["rounds"] += 1
        output = folder / f"round_{count['rounds']}"
        flags = small_flags(data, output_dir=output, max_steps=steps, save_steps=1 + count["rounds"] % 3, **SETTINGS)
        while True:
            run = next(output.iterdir(), None) if output.is_dir() else None
            if run is not None and (run / "training_results.json").exists():  # killed after its last deed
                break
            resumes = run is not None and (run / "last.pt").exists()
            if run is not None and not resumes:  # killed before its first save: there is nothing to go on from
                shutil.rmtree(output)
                count["before the first save"] += 1
            count["starts"] += 1
            fresh = count["starts"] % FRESH_EVERY == 0
            count["fresh interpreters"] += fresh
            script, argv = (
                ("continue_training", ["--resume", "--model_dir", str(run)])
                if resumes
                else ("run_conditional_training", flags)
            )
            process = Process(script, argv, folder / "log", fresh)
            if count["kills"] < kills and _kill(
                process, rng, MOMENTS[count["starts"] % len(MOMENTS)], start_up, seconds
            ):
                count["kills"] += 1
                run = next(output.iterdir(), None) if output.is_dir() else None
                count[look(run, whole) if run is not None else "before there is a run"] += 1
                continue
            process.wait_until(lambda: False)
            assert process.code == 0, f"{script} ended with {process.code}:\n{process.log.read_text()}"
        assert not list(run.glob(".*")), f"left behind: {list(run.glob('.*'))}"
        assert (run / "training_results.json").is_file() and (run / "curves.png").is_file(), "the results are missing"
        problems = compare_runs(run, whole_run)
        assert not problems, f"round {count['rounds']} differs: {problems}"
        shutil.rmtree(output)
        say(f"round {count['rounds']}: {count['kills']} kills so far, equal to the undisturbed run")
    return count


def _kill(process: Process, rng: random.Random, moment: str, start_up: float, seconds: float) -> bool:
    """Kill the process at a random moment of its training or of its life; False when it ended before."""
    if moment == "training":
        if not process.wait_until(lambda: process.says("Resuming ") or process.says("Run     ")):
            return False
        end = time.monotonic() + rng.uniform(0, seconds / LIVES)
    else:
        end = time.monotonic() + rng.uniform(0, start_up + seconds / LIVES)
    process.wait_until(lambda: time.monotonic() >= end)
    if process.poll() is not None:
        return False
    process.kill()
    return process.code == -signal.SIGKILL


def main() -> int:
    """Parse, soak, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps of a run")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    given = parser.parse_args()
    import matplotlib.pyplot  # noqa: F401
    import torch  # noqa: F401
    from transformers import BertForMaskedLM  # noqa: F401

    import diffusion_bert.commands.training_run  # noqa: F401

    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        count = soak(given.kills, given.steps, given.seed, Path(folder), lambda line: print(line, flush=True))
    print(", ".join(f"{name} {number}" for name, number in sorted(count.items())))
    print(f"{count['kills']} kills in {(time.monotonic() - began) / 60:.1f} minutes: nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
