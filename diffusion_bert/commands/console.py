"""What training shows on a terminal: the bar, the validations, and sentences noised and denoised."""

from __future__ import annotations

import torch
from tqdm import tqdm

from ..config.schema import SamplingConfig
from ..data.pairs import MixedPairs, Pair
from ..data.skills import NO_SOURCE
from ..generation.canvas import Canvas
from ..generation.decoding import decode
from ..generation.generator import DiffusionTextGenerator
from ..model.diffusion_model import DiffusionModel
from ..training.flops import peak_flops
from ..training.state import Reporter

DEMONSTRATION_LEVELS = (0.3, 0.6, 0.9)
EXAMPLE_STRIDE = 7919  # a prime, so that steps in any rhythm show ever other examples


class ConsoleReporter(Reporter):
    """A progress bar, a line per validation, and now and then a sentence noised and denoised.

    On known GPUs the bar also shows the MFU: operations of the model (flops.py) since the start, validations included
    in the time, as a share of the peak of all ``processes`` GPUs.
    """

    def __init__(self, model: DiffusionModel, valid: list[Pair], processes: int = 1):
        self.model, self.valid, self.processes = model, valid, processes
        self.peak: float | None = None
        self.bar: tqdm | None = None
        self.tokens, self.flops = 0, 0.0

    def start(self, total_steps: int, done_steps: int) -> None:
        if self.model.device.type == "cuda":
            self.peak = peak_flops(torch.cuda.get_device_name(self.model.device))
        self.bar = tqdm(total=total_steps, initial=done_steps, unit="step", dynamic_ncols=True, mininterval=0.5)

    def step(self, step: int, progress: float, values: dict) -> None:
        self.tokens += values["tokens"]
        elapsed = self.bar.format_dict["elapsed"] or 1e-9
        self.flops += values["flops"]
        speed = f"{self.tokens / elapsed:,.0f} tokens/s"
        if self.peak is not None:
            speed += f", MFU {self.flops / elapsed / (self.peak * self.processes):.1%}"
        self.bar.set_postfix_str(f"loss {values['loss']:.3f}, NELBO {values['nelbo']:.2f}, {speed}", refresh=False)
        self.bar.update()

    def validation(self, record: dict, improved: bool) -> None:
        tasks = [
            f"{task} {record[name]:.4f}"
            for task in self.model.skills.tasks
            if (name := f"valid_nelbo_{task}") in record
        ]
        self.bar.write(
            f"epoch {record['epoch']:.2f}, step {record['step']:,}: validation NELBO {record['valid_nelbo']:.4f} nats"
            f" per word piece ({record['valid_nelbo_per_word']:.3f} per word, cross-entropy"
            f" {record['valid_cross_entropy']:.3f}){', best so far' if improved else ''}"
            + (f"\n  {', '.join(tasks)}" if tasks else "")
        )

    def demonstration(self, step: int) -> None:
        number = (step * EXAMPLE_STRIDE) % len(self.valid)
        task = self.valid.task(number) if isinstance(self.valid, MixedPairs) else None
        for line in demonstrate(self.model, self.valid[number], task):
            self.bar.write(line)

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.close()


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
