"""What a user waits for: an answer of the command loop, its start to the prompt, --help and a refusal."""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import ROOT
from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.model.checkpoint import save_checkpoint
from diffusion_bert.model.diffusion_model import DiffusionModel


def wait(model: DiffusionModel, options: argparse.Namespace, made_up: list[list[int]]) -> None:
    """Print the seconds for an answer of the command loop, for its start, and for --help and a refusal. ``made_up``:
    ids of sources for a model with random weights.
    """
    generator = DiffusionTextGenerator(model, dataclasses.replace(SamplingConfig(), device=options.device))
    texts = [
        "How can I learn to cook at home in two weeks?",
        "What is the best way to get a new job?",
        "Why do people ask so many questions?",
    ]
    if not options.checkpoint:  # made-up words
        texts = [" ".join(model.tokenizer.words(source)) for source in made_up]
    seconds = []
    for number in range(9):
        start = time.perf_counter()
        generator.paraphrase_text(texts[number % 3], num_samples=3, seed=number)
        seconds.append(time.perf_counter() - start)
    print(
        f"\nwait: an answer of three candidates {statistics.median(seconds[1:]):.3f} s (the first {seconds[0]:.3f} s)"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(options.checkpoint or Path(folder) / "random.pt").resolve()
        if not options.checkpoint:
            save_checkpoint(path, model)
        print(f"  command loop, start to prompt: {statistics.median(seconds_to_prompt(path) for _ in range(3)):.2f} s")
    for what, argv in (("--help", ["--help"]), ("a refusal", ["--num_stepz", "3"])):
        for script in (
            "run_conditional_training",
            "continue_training",
            "evaluate_trained_model",
            "interactive_generation",
        ):
            print(f"  {what:10s} of {script}: {statistics.median(seconds_of(script, argv) for _ in range(3)):.2f} s")


def seconds_to_prompt(checkpoint: Path) -> float:
    """From starting the program to its first prompt."""
    command = [
        sys.executable,
        str(ROOT / "interactive_generation.py"),
        "--checkpoint",
        str(checkpoint),
        "--device",
        "cpu",
    ]
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUTF8": "1"}
    ) as process:
        seen = ""
        while "Enter command: " not in seen:
            letter = process.stdout.read(1)
            if not letter:
                raise RuntimeError(f"the command loop ended before its prompt: {seen[-300:]}")
            seen += letter
        seconds = time.perf_counter() - start
        process.communicate("quit\n")
    return seconds


def seconds_of(script: str, argv: list[str]) -> float:
    """A whole run of a script."""
    start = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / f"{script}.py"), *argv], capture_output=True, check=False)
    return time.perf_counter() - start
