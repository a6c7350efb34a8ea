"""All that docs/performance.md asks of a GPU, in one command and under 20 minutes: step, training, writing, evaluation.

    python -m benchmarks.speed.gpu --output_dir gpu_figures

Every part is a process of its own with a time limit; a part that fails or takes too long is named, with its reason, and
the others go on. The rows are written after each part: ``gpu.md`` (tables) and ``gpu.json`` (with card, driver,
versions, date and the commands). The model is a fresh BERT base, trained for a minute on the bundled grammar; with
--checkpoint another one writes and is evaluated, with --test_file on other sources.

Without a GPU the command says so and ends with exit code 2; --device cpu goes through all parts there, which with small
sizes shows that they work.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.common import ROOT, machine, markdown_table
from diffusion_bert.commands.cli import guarded, whole_number
from diffusion_bert.errors import UserError
from diffusion_bert.machine.storage import refuse_full

STEP = "How long does a training step take?"
ORIGINAL = "And that of the original DiffusionBERT?"
COMPILED = "And with the encoder compiled?"
TRAINING = "How fast is a training, at what share of the peak?"
WRITING = "How fast does each sampler write, and how often is the GPU read?"
EVALUATION = "How fast is an evaluation?"
LOSSES = "ours,ours_2_draws,masked_only,hugging_face,mdlm,mdlm_subs"
LIMITS = {STEP: 270, ORIGINAL: 90, COMPILED: 240, TRAINING: 180, WRITING: 210, EVALUATION: 180}  # seconds; 19.5 minutes


@dataclass
class Part:
    """A question, the command that answers it, and how its rows are found after so many seconds."""

    question: str
    command: list[str]
    rows: Callable[[float], list[dict]]


def arguments(argv=None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="folder for gpu.md and gpu.json")
    for name, default, text in (
        ("layers", 12, "layers"),
        ("width", 768, "hidden size"),
        ("heads", 12, "attention heads"),
        ("vocab_size", 30522, "rows of the word table"),
        ("batch_size", 256, "examples per training step"),
        ("length", 32, "places per example of the step, half of them target"),
        ("steps", 20, "timed steps of each variant"),
        ("num_steps", 10, "calls per text"),
        ("max_samples", 256, "sources of the evaluation"),
        ("max_steps", 100_000, "steps of the training at most"),
    ):
        parser.add_argument(f"--{name}", type=whole_number, default=default, help=f"{text} (default: {default})")
    parser.add_argument("--losses", default=LOSSES, help=f"variants of the training step (default: {LOSSES})")
    parser.add_argument("--minutes", type=float, default=1.0, help="of training (default: 1)")
    parser.add_argument("--batch_sizes", default="1024,4096", help="texts written together (default: 1024,4096)")
    parser.add_argument("--checkpoint", metavar="FILE", help="the model that writes (default: the one trained here)")
    parser.add_argument("--test_file", metavar="FILE", help="sources and references (default: the grammar's)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    options = parser.parse_args(argv)
    on_gpu = options.device.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        raise UserError("no GPU that torch can use: these figures need one; --device cpu only tries the parts out")
    options.precision = "bf16" if on_gpu else "fp32"
    return options


def parts_of(options: argparse.Namespace, folder: Path) -> list[Part]:
    """What is run, in this order; ``folder`` takes what the parts leave for each other."""

    def flags(*names: str) -> list[str]:
        return [text for name in names if (value := getattr(options, name)) for text in (f"--{name}", str(value))]

    def module(question: str, name: str, *more: str) -> Part:
        path = folder / f"{len(parts)}.json"
        command = [sys.executable, "-m", f"benchmarks.speed.{name}", *more, "--json", str(path)]
        return Part(question, command, lambda seconds: json.loads(path.read_text(encoding="utf-8")))

    parts: list[Part] = []
    shape, where = flags("layers", "width", "heads", "vocab_size", "batch_size"), flags("device", "seed")
    step = [*shape, *flags("length", "steps", "precision"), *where]
    if not options.device.startswith("cuda"):
        step.append("--no_memory")  # of a processor it is measured another way, in further processes
    parts.append(module(STEP, "train_step", *step, "--variants", options.losses))
    # alone: its tables of places x words may not fit the memory of the card
    parts.append(module(ORIGINAL, "train_step", *step, "--variants", "ours,original"))
    few = [name for name in options.losses.split(",") if name in ("ours", "masked_only", "hugging_face")]
    compiled = ["--variants", ",".join(few or ["ours"]), "--compile", "--no_memory"]
    parts.append(module(COMPILED, "train_step", *step, *compiled))
    limits = [*flags("minutes", "max_steps", "precision"), "--compile", "--output_dir", str(folder)]
    parts.append(module(TRAINING, "short_training", *shape, *where, *limits))
    written_by = ["--checkpoint", options.checkpoint or str(folder / "trained.pt"), *where, *flags("test_file")]
    parts.append(module(WRITING, "writing_rates", *written_by, *flags("batch_sizes", "num_steps")))
    report = folder / "evaluation"
    command = [sys.executable, "evaluate_trained_model.py", *written_by, *flags("num_steps", "max_samples")]
    command += ["--batch_size", options.batch_sizes.split(",")[0], "--output_dir", str(report)]
    parts.append(Part(EVALUATION, command, lambda seconds: evaluation_rows(report, seconds)))
    return parts


def evaluation_rows(report: Path, seconds: float) -> list[dict]:
    """What the report of an evaluation says of its speed."""
    found = json.loads(next(report.glob("*.json")).read_text(encoding="utf-8"))
    row = {"sources": found["pairs"], "s in all, with start and report": round(seconds, 1)}
    row["sources/s"] = round(found["pairs"] / seconds, 2)
    for name, values in found["rows"].items():
        if "seconds" in values:  # the floors take none
            row[f"s per source, {name}"] = round(values["seconds"], 4)
    return [row]


def run_part(part: Part, limit: float) -> tuple[list[dict], str]:
    """(rows, why there are none) of a part."""
    start = time.monotonic()
    # a session of its own: the processes that it starts end with it
    process = subprocess.Popen(
        part.command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return [], f"not done within {limit:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        lines = errors.strip().splitlines()
        return [], f"exit code {process.returncode}: {lines[-1][:300] if lines else 'no message'}"
    return part.rows(time.monotonic() - start), ""


def driver() -> str:
    """The driver's version, as nvidia-smi tells it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.split("\n")[0] or "not known"
    except (OSError, subprocess.TimeoutExpired):
        return "not known"


def write_figures(folder: Path, found: dict) -> None:
    """gpu.json, and gpu.md with one table for each question."""
    (folder / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    lines = [f"{found['card']}, driver {found['driver']}, {found['date']}; {found['machine']}.", ""]
    for part in found["parts"]:
        lines += [f"### {part['question']}", "", f"    {part['command']}", ""]
        lines += [markdown_table(part["rows"]) if part["rows"] else f"Not measured: {part['problem']}.", ""]
    (folder / "gpu.md").write_text("\n".join(lines), encoding="utf-8")


def main(argv=None) -> int:
    """Run all parts; 1 if one of them gave nothing."""
    options = arguments(argv)
    folder = Path(options.output_dir).resolve()
    if folder.exists():
        refuse_full(folder)
    folder.mkdir(parents=True, exist_ok=True)
    on_gpu, start = options.device.startswith("cuda"), time.monotonic()
    found = {
        "card": torch.cuda.get_device_name(options.device) if on_gpu else "no GPU",
        "driver": driver() if on_gpu else "none",
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "seed": options.seed,
        "parts": [],
    }
    with tempfile.TemporaryDirectory(prefix="gpu_figures_") as scratch:
        for part in parts_of(options, Path(scratch)):
            limit = LIMITS[part.question]
            print(f"{part.question} (at most {limit} s)", flush=True)
            rows, problem = run_part(part, limit)
            command = shlex.join(["python", *part.command[1:]])
            found["parts"].append({"question": part.question, "command": command, "rows": rows, "problem": problem})
            found["seconds"] = round(time.monotonic() - start)
            write_figures(folder, found)
            print(markdown_table(rows) if rows else f"Not measured: {problem}", flush=True)
    print(f"\n{found['seconds']} s; the rows are in {folder / 'gpu.md'} and {folder / 'gpu.json'}")
    return 0 if all(part["rows"] for part in found["parts"]) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the part that runs ends too
    sys.exit(guarded(main))
