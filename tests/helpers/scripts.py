"""Run the four scripts, inside the test process or as real processes, and build small trainings on pairs of the bundled
grammar.
"""

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from diffusion_bert.config.run_config import RunConfig
from diffusion_bert.data.grammar import Grammar

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("run_conditional_training", "continue_training", "evaluate_trained_model", "interactive_generation")
SMALL = {
    "task_name": "sample",
    "model_name_or_path": "tiny",
    "vocab_size": 500,
    "max_length": 96,
    "max_target_length": 44,
    "num_steps": 16,
    "word_freq_lambda": 0.2,
    "dropout": 0.1,
    "batch_size": 16,
    "lr": 2e-3,
    "seed": 3,
    "device": "cpu",
}
WALL_CLOCK = ("seconds", "tokens_per_second", "train_seconds")


@dataclass
class Result:
    """What a script left: exit code and the two streams."""

    code: int
    out: str
    err: str


def write_data(folder: Path, train: int = 96, valid: int = 12, test: int = 14) -> Path:
    """train.jsonl, valid.jsonl and test.jsonl with pairs of the bundled grammar, from all its groups in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in (("train", train), ("valid", valid), ("test", test)):
        pairs = Grammar.load().pairs(split, size)
        (folder / f"{split}.jsonl").write_text(
            "".join(json.dumps({"src": source, "trg": target}) + "\n" for source, target in pairs)
        )
    return folder


def small_flags(data_dir: Path | None, **settings) -> list[str]:
    """Flags of a small training."""
    given = {**SMALL, **({} if data_dir is None else {"data_dir": data_dir}), **settings}
    return [text for name, value in given.items() if value is not None for text in (f"--{name}", str(value))]


def run(script: str, *argv, stdin: str = "") -> Result:
    """A script's main in this process, with its own streams."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.stdin = (
        sys.stdin,
        io.TextIOWrapper(io.BytesIO(stdin.encode("utf-8", "surrogateescape")), encoding="utf-8"),
    )
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = importlib.import_module(script).main([str(item) for item in argv])
            except SystemExit as stop:  # --help and --version
                code = stop.code or 0
    finally:
        sys.stdin = before
    return Result(code, out.getvalue(), err.getvalue())


def start(script: str, *argv, **settings) -> subprocess.Popen:
    """A script as a real process, with pipes for its three streams."""
    command = [sys.executable, str(ROOT / f"{script}.py"), *map(str, argv)]
    streams = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    return subprocess.Popen(
        command, text=True, encoding="utf-8", env={**os.environ, "PYTHONUTF8": "1"}, **{**streams, **settings}
    )


def only_run(output: Path) -> Path | None:
    """The first run directory below a folder, if there is one yet."""
    return next(output.iterdir(), None) if output.is_dir() else None


def read_records(run_directory: Path) -> list[dict]:
    """metrics.jsonl, strictly."""
    return [json.loads(line) for line in (run_directory / "metrics.jsonl").read_text().splitlines()]


def without_wall_clock(record: dict) -> dict:
    """The record without what no two runs share."""
    return {name: value for name, value in record.items() if name not in WALL_CLOCK}


def compare_runs(ours: Path, whole: Path) -> list[str]:
    """In what two finished runs differ, wall-clock fields aside: weights, optimizer, random state, place, metrics;
    nothing when they are the same.
    """
    import torch

    from diffusion_bert.model.payload import read_payload

    problems = []
    for name in ("best_model.pt", "last.pt"):
        a, b = read_payload(ours / name), read_payload(whole / name)
        keys = a["weights"].keys() | b["weights"].keys()
        problems += [f"{name}: {key}" for key in sorted(keys) if not torch.equal(a["weights"][key], b["weights"][key])]
        if without_wall_clock(a["metrics"]) != without_wall_clock(b["metrics"]):
            problems.append(f"{name}: metrics")
    one, two = a["training"], b["training"]
    if not torch.equal(one["rng"]["torch"], two["rng"]["torch"]):
        problems.append("random state")
    states = [
        {name: value for name, value in part["state"].items() if name not in ("seconds", "window")}
        for part in (one, two)
    ]
    if states[0] != states[1]:
        problems.append(f"place: {states[0]} and {states[1]}")
    for key, state in two["optimizer"]["state"].items():
        if not all(torch.equal(value, one["optimizer"]["state"][key][name]) for name, value in state.items()):
            problems.append(f"optimizer: {key}")
    if list(map(without_wall_clock, read_records(ours))) != list(map(without_wall_clock, read_records(whole))):
        problems.append("metrics.jsonl")
    return problems


def new_trainer(data_dir: Path, output_dir: Path, reporter=None, **settings):
    """A trainer with a fresh model, as the training script makes it."""
    from diffusion_bert.data.splits import load_pairs
    from diffusion_bert.model.diffusion_model import build_model
    from diffusion_bert.training.preparation import encode_training_data
    from diffusion_bert.training.run_directory import RunDirectory
    from diffusion_bert.training.trainer import Trainer

    config = RunConfig.from_flat({**SMALL, "data_dir": str(data_dir), "output_dir": str(output_dir), **settings})
    splits = load_pairs(config.data, config.training.seed)
    model = build_model(config, (text for pair in splits.train for text in pair if text), config.training.seed)
    _, data = encode_training_data(model, splits, fit=True)
    return Trainer(model, data, RunDirectory.create(config), reporter)
