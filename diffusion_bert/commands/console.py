"""What training shows on a terminal: the bar, the validations, and sentences noised and denoised."""

from __future__ import annotations

import sys
import time

import torch

from ..config.schema import SamplingConfig
from ..data.pairs import Pair
from ..data.skills import NO_SOURCE
from ..generation.canvas import Canvas
from ..generation.decoding import decode
from ..generation.generator import DiffusionTextGenerator
from ..model.diffusion_model import DiffusionModel
from ..training.flops import peak_flops
from ..training.state import Reporter
from .examples import showable
from .progress import Progress
from .terminal import say

DEMONSTRATION_LEVELS = (0.3, 0.6, 0.9)


class ConsoleReporter(Reporter):
    """How far training is, a line per validation, and now and then a sentence noised and denoised.

    On known GPUs the MFU is shown too: operations of the model (flops.py) since the start, validations included in the
    time, as a share of the peak of all ``processes`` GPUs.
    """

    def __init__(self, model: DiffusionModel, valid: list[Pair], processes: int = 1):
        self.model, self.valid, self.processes = model, valid, processes
        self.peak: float | None = None
        self.progress: Progress | None = None
        self.total_steps = self.shown = 0
        self.tokens, self.flops = 0, 0.0
        self.examples: list[tuple[Pair, str | None]] = []

    def start(self, total_steps: int, done_steps: int) -> None:
        if self.model.device.type == "cuda":
            self.peak = peak_flops(torch.cuda.get_device_name(self.model.device))
        self.total_steps = total_steps
        self.progress = Progress("training", sys.stdout, done_steps / max(1, total_steps))

    def step(self, step: int, progress: float, values: dict) -> None:
        self.tokens += values["tokens"]
        elapsed = max(time.monotonic() - self.progress.started, 1e-9)
        self.flops += values["flops"]
        remarks = [f"step {step:,} of {self.total_steps:,}", self.progress.left(progress), f"loss {values['loss']:.3f}"]
        remarks.append(f"{self.tokens / elapsed:,.0f} word pieces/s")
        if self.peak is not None:
            remarks.append(f"MFU {self.flops / elapsed / (self.peak * self.processes):.1%}")
        self.progress.update(progress, *filter(None, remarks))

    def validating(self) -> None:
        self.progress.doing("validating")

    def validation(self, record: dict, improved: bool) -> None:
        tasks = [
            f"{task} {record[name]:.4f}"
            for task in self.model.skills.tasks
            if (name := f"valid_nelbo_{task}") in record
        ]
        self.progress.doing("training")
        self.progress.write(
            f"epoch {record['epoch']:.2f}, step {record['step']:,}: validation NELBO {record['valid_nelbo']:.4f} nats"
            f" per word piece ({record['valid_nelbo_per_word']:.3f} per word, cross-entropy"
            f" {record['valid_cross_entropy']:.3f}){', best so far' if improved else ''}"
            + (f"\n  {', '.join(tasks)}" if tasks else "")
        )

    def demonstration(self, step: int) -> None:
        self.examples = self.examples or showable(self.valid)
        for _ in self.examples:
            pair, task = self.examples[self.shown % len(self.examples)]
            self.shown += 1
            if lines := demonstrate(self.model, pair, task):
                self.progress.write("\n".join(lines))
                return

    def trouble(self, what: str, error: Exception) -> None:
        reason = " ".join(str(error).split())[:200]
        say(f"\n{what}: not shown ({type(error).__name__}: {reason}); training goes on", file=sys.stderr)

    def stop(self) -> None:
        if self.progress is not None:
            self.progress.close()


def demonstrate(model: DiffusionModel, pair: Pair, task: str | None = None) -> list[str]:
    """Lines that show a pair of a task, its target noised to three levels, and what the model makes of each."""
    generator = DiffusionTextGenerator(model, task=task)
    tokenizer = model.tokenizer
    ids = torch.tensor([tokenizer.encode(pair.target)], dtype=torch.long, device=model.device)
    source = tokenizer.encode(pair.source or "")
    if (
        not 0 < ids.shape[1] <= model.denoiser.max_target_length
        or ids.shape[1] + len(source) + 16 > model.config.data.max_length
    ):
        return []
    was_training = model.denoiser.training
    model.denoiser.eval()
    lines = [f"  source    {pair.source or '(none)'}"]
    for level in DEMONSTRATION_LEVELS:
        tau = model.schedule.tau(torch.tensor([level]))
        noise = torch.Generator().manual_seed(0)
        everywhere = torch.ones_like(ids, dtype=torch.bool)
        x_t = model.diffusion.q_sample(ids, tau.to(model.device), everywhere, noise)[0].tolist()
        canvas = Canvas(NO_SOURCE if pair.source is None else generator.skill_of(pair), source, x_t, float(tau))
        output = decode(
            model, [canvas], SamplingConfig(temperature=0.0, num_steps=8, known_words=False), generator.collator
        )[0]
        lines += [
            f"  {level:.0%} noise {tokenizer.with_blanks(x_t)}",
            f"         -> {generator.sentence(output.ids, pair.source or '')}",
        ]
    model.denoiser.train(was_training)
    return [*lines, f"  target    {pair.target}"]
