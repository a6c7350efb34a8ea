"""How training scales with the data: time to the first step, memory, disk, padding and speed from 1,000 to 2,000,000
pairs.

    python -m benchmarks.speed.scaling --rows 1000 10000 100000    # without the large file
    python -m benchmarks.speed.scaling                # with it; needs about 1 GB of disk below --folder
    python -m benchmarks.speed.scaling --rows 2000000 --cache_above_mb 0 --processes 2

The pairs are made here (seeded): a source of 5 to 20 made-up words after Zipf's law, and a target with the same words
turned round, one replaced. Every size runs as a process of its own, twice: cold (nothing in the cache) and warm. It
goes the way of the training script: read, hold out a validation split, learn a vocabulary, tokenise, count words,
``Trainer.fit``. "first step" is the time from the start of that process, imports included, to the end of the first
optimizer step; "CPU s" is the processor time of that (all threads; it says more on a busy machine). "anonymous" is the
highest RssAnon of /proc/self/status, looked at 50 times a second: memory that the kernel cannot drop, unlike the pages
of a mapped file ("mapped" is the highest RssFile, which includes the libraries). Systems without /proc give the highest
resident size of all kinds. Afterwards, in one process, all sizes of at most --in_turns rows train in turns A B C A B C,
so that the machine's moods fall on all alike: word pieces per second (padding not counted) and the ratio to the
smallest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

START = time.perf_counter()


from benchmarks.common import ROOT, machine, ratio, time_in_turns, write_pairs  # noqa: E402
from benchmarks.speed.memory import Memory  # noqa: E402
from diffusion_bert.commands.cli import whole_number  # noqa: E402
from diffusion_bert.config.run_config import RunConfig  # noqa: E402
from diffusion_bert.data.batching import EpochBatches  # noqa: E402
from diffusion_bert.data.splits import load_pairs  # noqa: E402
from diffusion_bert.model.diffusion_model import build_model  # noqa: E402
from diffusion_bert.training.noising import StepShare  # noqa: E402
from diffusion_bert.training.preparation import encode_training_data, vocabulary_texts  # noqa: E402
from diffusion_bert.training.run_directory import RunDirectory  # noqa: E402
from diffusion_bert.training.state import Reporter  # noqa: E402
from diffusion_bert.training.trainer import Trainer  # noqa: E402


def arguments(argv=None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--rows",
        type=whole_number,
        nargs="+",
        default=[1000, 10_000, 100_000, 2_000_000],
        help="sizes of the training file",
    )
    parser.add_argument("--model", default="mini", help="built-in size (default mini)")
    parser.add_argument("--batch_size", type=whole_number, default=64)
    parser.add_argument("--steps", type=whole_number, default=20, help="optimizer steps of each process (default 20)")
    parser.add_argument(
        "--rounds", type=whole_number, default=30, help="timed steps of each size in turns (default 30)"
    )
    parser.add_argument(
        "--in_turns",
        type=whole_number,
        default=100_000,
        help="largest size that takes part in the turns (default 100000)",
    )
    parser.add_argument(
        "--cache_above_mb", type=int, default=RunConfig.from_flat({}).data.cache_above_mb, help="as in training"
    )
    parser.add_argument(
        "--processes", type=int, default=0, help="preprocessing_num_workers, as in training (default 0)"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", help="where data, cache and runs go (default: a temporary folder); removed at the end"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def new_trainer(options: argparse.Namespace, path: str, folder: Path, reporter: Reporter | None = None) -> Trainer:
    """The trainer that the training script would make for this file."""
    config = RunConfig.from_flat(
        {
            "task_name": "custom",
            "train_file": path,
            "model_name_or_path": options.model,
            "vocab_size": 4000,
            "max_length": 96,
            "max_target_length": 40,
            "batch_size": options.batch_size,
            "max_steps": options.steps,
            "epochs": 100,
            "seed": options.seed,
            "device": options.device,
            "output_dir": str(folder / "runs"),
            "cache_dir": str(folder / "cache"),
            "cache_above_mb": options.cache_above_mb,
            "preprocessing_num_workers": options.processes,
        }
    )
    splits = load_pairs(config.data, options.seed)
    model = build_model(config, vocabulary_texts(splits.train), options.seed)
    _, data = encode_training_data(model, splits, fit=True)
    return Trainer(model, data, RunDirectory.create(config), reporter)


class FirstStep(Reporter):
    """Remembers when the first step was done."""

    seconds = cpu = None

    def step(self, step: int, progress: float, values: dict) -> None:
        if self.seconds is None:
            self.seconds, self.cpu = time.perf_counter() - START, time.process_time()


def padding(trainer: Trainer, batches: int = 400) -> float:
    """Share of padding in the first batches of epoch 0."""
    epoch = EpochBatches(
        trainer.data.train,
        trainer.data.collator,
        trainer.config.data,
        trainer.training.batch_size,
        trainer.training.seed,
        0,
    )
    valid = [batch.valid for batch in (epoch[number] for number in range(min(batches, len(epoch))))]
    return 1 - sum(int(mask.sum()) for mask in valid) / sum(mask.numel() for mask in valid)


def child(options: argparse.Namespace) -> None:
    """One training; prints one line of JSON."""
    memory, first = Memory(), FirstStep()
    trainer = new_trainer(options, options.child, Path(options.folder), first)
    ready = time.perf_counter() - START
    trainer.fit()
    memory.look()
    found = {
        "ready": ready,
        "first": first.seconds,
        "cpu": first.cpu,
        "anonymous": memory.anonymous,
        "mapped": memory.mapped,
    }
    print(json.dumps({**found, "padding": padding(trainer)}))


def in_turns(options: argparse.Namespace, files: dict[int, Path], folder: Path) -> None:
    """Steps of several sizes in turns: speed and its ratio to the smallest size."""
    counted: dict[int, int] = dict.fromkeys(files, 0)

    def stepper(rows: int):
        trainer = new_trainer(options, str(files[rows]), folder)
        trainer.started = time.monotonic()
        numbers = iter(range(10**9))

        def step() -> None:
            epoch, number = divmod(next(numbers), len(trainer._epoch_batches(0)))
            batch = trainer._epoch_batches(epoch)[number]
            counted[rows] += int(batch.valid.sum())
            trainer.step(StepShare.whole([batch]))

        return step

    seconds = time_in_turns({str(rows): stepper(rows) for rows in files}, options.rounds, warmup=2)
    names = list(seconds)
    print(f"\n{'rows':>10} {'word pieces/s':>14}   speed, smallest size = 1 (quartiles over the turns)")
    per_step = {name: [value / counted[int(name)] for value in seconds[name]] for name in names}
    for name in names:
        speed = counted[int(name)] * options.rounds / (options.rounds + 2) / sum(seconds[name])
        print(f"{int(name):>10,} {speed:>14,.0f}   {ratio(per_step[names[0]], per_step[name])}")


def main(argv=None) -> None:
    """Write the files, run the processes, print the tables."""
    options = arguments(argv)
    if options.child:
        return child(options)
    print(
        f"{machine()}\nmodel {options.model}, batch {options.batch_size}, seed {options.seed}, data over"
        f" {options.cache_above_mb} MB mapped"
    )
    columns = (
        ("rows", 10),
        ("file MB", 8),
        ("cache", 6),
        ("ready s", 8),
        ("first step s", 13),
        ("CPU s", 7),
        ("anonymous MB", 13),
        ("mapped MB", 10),
    )
    print(" ".join(f"{name:>{width}}" for name, width in (*columns, ("padding %", 10))))
    if options.folder:
        Path(options.folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="scaling_", dir=options.folder) as name:
        folder, files = Path(name), {}
        for rows in sorted(options.rows):
            path = files[rows] = folder / f"{rows}.jsonl"
            write_pairs(path, rows, options.seed)
            size = path.stat().st_size / 1e6
            kept = [
                f"--{flag}={getattr(options, flag)}"
                for flag in ("model", "batch_size", "steps", "cache_above_mb", "processes", "device", "seed")
            ]
            for state in ("cold", "warm"):
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.speed.scaling",
                    *kept,
                    "--folder",
                    str(folder),
                    "--child",
                    str(path),
                ]
                done = subprocess.run(
                    command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": "ignore"}
                )
                if done.returncode:
                    sys.exit(f"{rows:,} rows, {state}: {done.stderr.strip()[-2000:]}")
                found = json.loads(done.stdout.splitlines()[-1])
                cache = state if size > options.cache_above_mb else "none"
                print(
                    f"{rows:>10,} {size:>8,.1f} {cache:>6} {found['ready']:>8.1f} {found['first']:>13.1f}"
                    f" {found['cpu']:>7.1f} {found['anonymous']:>13,.0f} {found['mapped']:>10,.0f}"
                    f" {100 * found['padding']:>10.1f}",
                    flush=True,
                )
        small = {rows: path for rows, path in files.items() if rows <= options.in_turns}
        if small:
            in_turns(options, small, folder)


if __name__ == "__main__":
    main()
