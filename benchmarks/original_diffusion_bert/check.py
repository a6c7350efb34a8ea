"""Is objective.py the released objective, and what does a training step by it cost beside ours?

    python -m benchmarks.original_diffusion_bert.check                    # seconds per training step
    python -m benchmarks.original_diffusion_bert.check --checkout DIR     # also the loss against the code in DIR

DIR is a clone of https://github.com/Hzfinfdu/Diffusion-BERT; of it only diffusion_word_freq.py, losses.py and utils.py
are imported.
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
import sys
import time
import types
from pathlib import Path

import torch

from benchmarks.original_diffusion_bert.canvas import on_canvas
from benchmarks.original_diffusion_bert.objective import (
    HYBRID,
    NUM_STEPS,
    keep_probability,
    original_loss,
    original_step_loss,
    pairs_batch,
)
from diffusion_bert.config.presets import load_preset
from diffusion_bert.config.run_config import RunConfig
from diffusion_bert.data.splits import load_pairs
from diffusion_bert.diffusion.times import sample_times
from diffusion_bert.machine.device import pick_device
from diffusion_bert.model.diffusion_model import build_model
from diffusion_bert.training.objective import nelbo_terms, training_loss
from diffusion_bert.training.preparation import encode_training_data


def released_code(checkout: Path):
    """The released module diffusion_word_freq, with stand-ins for what it imports and this loss does not use."""
    import transformers

    sys.modules.setdefault("fastNLP", types.ModuleType("fastNLP"))
    if not hasattr(transformers, "top_k_top_p_filtering"):
        transformers.top_k_top_p_filtering = None  # gone from today's transformers
    sys.path.insert(0, str(checkout))
    try:
        return importlib.import_module("diffusion_word_freq")
    finally:
        sys.path.remove(str(checkout))


class Given:
    """Stands where the released code draws x_t+1: hands out a given one, and keeps the logits it would have been drawn
    from.
    """

    def __init__(self, x_next):
        self.x_next = x_next

    def sample(self, logits, _x_0):
        self.logits = getattr(self, "logits", logits)
        return self.x_next


def compare(checkout: Path, num_steps: int = 40, vocab: int = 12, mask_id: int = 3) -> list[tuple[str, float]]:
    """Largest relative difference of loss, gradient and masking probability over all t and lambda 0 and 0.3, in
    float32.
    """
    released = released_code(checkout)
    generator = torch.Generator().manual_seed(0)
    worst = {"loss": 0.0, "gradient": 0.0, "masking probability": 0.0}
    for word_freq_lambda in (0.0, 0.3):
        for t in range(num_steps):
            x_0 = torch.randint(4, vocab, (3, 7), generator=generator)
            target = (torch.rand(3, 7, generator=generator) < 0.8).float()
            frequencies = torch.randn(3, 7, generator=generator) * 0.3
            x_next = torch.where(
                torch.rand(3, 7, generator=generator) < (1 if t == num_steps - 1 else 0.6), mask_id, x_0
            )
            logits = torch.randn(3, 7, vocab, generator=generator)
            sampler = Given(x_next)
            schedule = released.DiffusionSchedule(lambda step: 1 / (num_steps - step), num_steps)
            tokenizer = types.SimpleNamespace(mask_token_id=mask_id)
            process = released.MaskDiffusion(
                vocab, schedule, tokenizer, sample_cls=sampler, word_freq_lambda=word_freq_lambda, device="cpu"
            )
            values, gradients = [], []
            for ours in (False, True):
                leaf = logits.clone().requires_grad_()
                if ours:
                    keep = keep_probability(t, num_steps, word_freq_lambda, frequencies)
                    loss = original_loss(leaf, x_0, x_next, t, num_steps, keep, target, mask_id)
                else:
                    loss = released.compute_kl_reverse_process(
                        x_0,
                        torch.tensor([t]),
                        diffusion=process,
                        denoise_fn=lambda leaf=leaf, **_: leaf,
                        hybrid_lambda=HYBRID,
                        target_mask=target,
                        word_freq_logits=frequencies,
                        device="cpu",
                    )["loss"]
                loss.sum().backward()
                values.append(float(loss.detach()))
                gradients.append(leaf.grad)
            masked = sampler.logits.exp()[..., mask_id]
            expected = 1 - keep_probability(t + 1, num_steps, word_freq_lambda, frequencies)
            found = {
                "loss": abs(values[0] - values[1]) / abs(values[0]),
                "gradient": float((gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max()),
                "masking probability": float((masked - expected).abs().max()),
            }
            worst = {
                name: max(worst[name], value if value == value else math.inf) for name, value in found.items()
            }  # NaN differs
    return list(worst.items())


def step_times(preset: str, batch_size: int, rounds: int, device: str) -> list[tuple[str, float]]:
    """Median seconds of a forward and backward pass of one random batch of pairs: by the original objective, and by
    ours, in turn.
    """
    config = RunConfig.from_flat({**load_preset(preset), "device": device, "attention": "full", "copy_head": False})
    splits = load_pairs(config.data, 0)
    model = build_model(config, (text for pair in splits.train for text in pair if text), 0)
    data, prepared = encode_training_data(model, splits, fit=True)
    model.to(pick_device(device))
    generator = torch.Generator().manual_seed(0)
    batches = [
        pairs_batch(data, prepared.collator, torch.randperm(len(data), generator=generator)[:batch_size])
        for _ in range(4)
    ]

    def original(batch) -> torch.Tensor:
        return original_step_loss(
            model, on_canvas(batch, batch.input_ids.shape[1]), batch.target_length, NUM_STEPS // 2, NUM_STEPS, generator
        )

    def ours(batch) -> torch.Tensor:
        t = sample_times(len(batch), config.diffusion.num_steps, generator).to(model.device)
        x_t = model.diffusion.q_sample(
            batch.input_ids, t.double() / config.diffusion.num_steps, batch.target_mask, generator
        )
        terms = nelbo_terms(
            model.denoiser, model.diffusion, batch, x_t, t, config.diffusion.num_steps, kl_gradient=False
        )
        return training_loss(terms, "ce", 0.0, terms.masked, terms.tokens)

    seconds: dict[str, list[float]] = {"original": [], "ours (cross-entropy)": []}
    for number in range(rounds + 1):
        for name, loss in zip(seconds, (original, ours)):
            batch = batches[number % len(batches)].to(model.device)
            start = time.perf_counter()
            loss(batch).backward()
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return [(name, statistics.median(values)) for name, values in seconds.items()]


def main(argv=None) -> int:
    """Compare and time; exit code 1 when the numbers differ."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkout", type=Path, help="clone of the released code to compare with")
    parser.add_argument("--preset", default="quick_demo", help="whose model and data are timed")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=8, help="timed steps of each objective")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(argv)
    same = True
    if options.checkout:
        for name, difference in compare(options.checkout):
            same &= difference < 1e-4
            print(f"{name}: largest relative difference to the released code {difference:.1e}")
    times = step_times(options.preset, options.batch_size, options.rounds, options.device)
    for name, seconds in times:
        print(f"{name}: {1000 * seconds:.0f} ms per step")
    print(f"ratio {times[0][1] / times[1][1]:.2f} (same network: full attention, no copy head)")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
