"""A short training of a BERT of any shape on the bundled grammar: its speed and its share of the GPU's peak.

    python -m benchmarks.speed.short_training --device cuda --minutes 1 --output_dir DIR --compile

It leaves a checkpoint for what is measured after it. The architecture is fresh (no download); the vocabulary is learned
from the grammar, the word table padded to --vocab_size rows, so that the head costs what it costs in earnest. The speed
is that of the second half, when the encoder has been compiled. MFU: 3 x the FLOPs of the forward products
(training/flops.py) per second, over the dense bf16 peak that the maker names.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from transformers import BertConfig

from benchmarks.common import machine, markdown_table
from diffusion_bert.commands.cli import guarded, whole_number
from diffusion_bert.config.run_config import RunConfig
from diffusion_bert.config.tasks import PROMPTS
from diffusion_bert.data.skills import Skills
from diffusion_bert.data.splits import load_pairs
from diffusion_bert.data.tokenizer import TextTokenizer
from diffusion_bert.diffusion.schedule import NoiseSchedule
from diffusion_bert.model.diffusion_model import DiffusionModel, assemble, compile_encoder
from diffusion_bert.training.flops import peak_flops
from diffusion_bert.training.preparation import encode_training_data, vocabulary_texts
from diffusion_bert.training.run_directory import RunDirectory
from diffusion_bert.training.state import Reporter
from diffusion_bert.training.trainer import Trainer


def arguments(argv=None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    for name, default, text in (
        ("layers", 12, "layers"),
        ("width", 768, "hidden size"),
        ("heads", 12, "attention heads"),
        ("vocab_size", 30522, "rows of the word table"),
        ("batch_size", 256, "examples per step"),
    ):
        parser.add_argument(f"--{name}", type=whole_number, default=default, help=f"{text} (default: {default})")
    parser.add_argument("--minutes", type=float, default=1.0, help="of training (default: 1)")
    parser.add_argument("--max_steps", type=whole_number, help="stop after so many steps")
    parser.add_argument("--max_samples", type=whole_number, help="train on so many pairs (default: all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="as in training")
    parser.add_argument("--compile", action="store_true", help="torch.compile the encoder")
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="the checkpoint goes to DIR/trained.pt")
    parser.add_argument("--json", metavar="FILE", help="write the row there too")
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    return parser.parse_args(argv)


class Clock(Reporter):
    """When each step's numbers were known, and what it consisted of."""

    def __init__(self):
        self.steps: list[tuple[float, float, float]] = []  # seconds, FLOPs, target word pieces

    def step(self, step: int, progress: float, values: dict) -> None:
        self.steps.append((time.perf_counter(), values["flops"], values["tokens"]))

    def rates(self) -> tuple[float, float, float]:
        """Steps, FLOPs and word pieces per second over the second half of the time."""
        middle = (self.steps[0][0] + self.steps[-1][0]) / 2
        first = next(number for number, (when, *_) in enumerate(self.steps) if when >= middle)
        first = min(first, len(self.steps) - 2)
        seconds, half = self.steps[-1][0] - self.steps[first][0], self.steps[first + 1 :]
        return len(half) / seconds, sum(row[1] for row in half) / seconds, sum(row[2] for row in half) / seconds


def new_trainer(options: argparse.Namespace, reporter: Reporter) -> Trainer:
    """The trainer, on pairs of the grammar."""
    config = RunConfig.from_flat(
        {
            "task_name": "sample",
            "max_samples": options.max_samples,
            "max_length": 128,
            "batch_size": options.batch_size,
            "epochs": 10_000,
            "max_minutes": options.minutes,
            "max_steps": options.max_steps,
            "eval_steps": None,
            "logging_steps": 5,  # on a GPU the numbers of the steps are read then
            "demonstration_steps": 10**6,
            "dropout": 0.0,
            "seed": options.seed,
            "device": options.device,
            "precision": options.precision,
            "output_dir": str(Path(options.output_dir) / "runs"),
        }
    )
    splits = load_pairs(config.data, options.seed)
    texts = [*vocabulary_texts(splits.train), *PROMPTS * 100]
    tokenizer = TextTokenizer.learn(texts, min(options.vocab_size, 8000))
    torch.manual_seed(options.seed)
    shape = BertConfig(
        vocab_size=max(options.vocab_size, tokenizer.vocab_size),
        hidden_size=options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=4 * options.width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_id,
    )
    denoiser, schedule = assemble(config, shape, tokenizer), NoiseSchedule(config.diffusion.schedule)
    model = DiffusionModel(denoiser, tokenizer, schedule, config, skills=Skills.of("sample"))
    _, data = encode_training_data(model, splits, fit=True)
    return Trainer(model, data, RunDirectory.create(config), reporter)


def main(argv=None) -> int:
    """Train, and print the row."""
    options = arguments(argv)
    clock = Clock()
    trainer = new_trainer(options, clock)
    remark = (compile_encoder(trainer.model.denoiser) or "") if options.compile else ""
    result = trainer.fit()
    steps, flops, tokens = clock.rates()
    on_gpu = trainer.device.type == "cuda"
    peak = peak_flops(torch.cuda.get_device_name()) if on_gpu else None
    row = {
        "training": f"{options.layers} x {options.width}, batch {options.batch_size}, {trainer.precision.name}"
        + (f", {f'not compiled: {remark}' if remark else 'compiled'}" if options.compile else ""),
        "steps": result.state.step,
        "steps/s": round(steps, 2),
        "target word pieces/s": round(tokens),
        "TFLOP/s": round(flops / 1e12, 3),
        "MFU, %": round(100 * flops / peak, 1) if peak else "peak not known",
        "peak MB": round(torch.cuda.max_memory_allocated() / 2**20) if on_gpu else "",
    }
    (Path(options.output_dir) / "trained.pt").write_bytes(trainer.run.best.read_bytes())
    print(f"{machine()}\n\n{markdown_table([row])}")
    if options.json:
        Path(options.json).write_text(json.dumps([row], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
