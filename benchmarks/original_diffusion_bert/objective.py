"""The training objective of the released DiffusionBERT code, written down again, so that ours can be compared with it.

He et al. 2022 (arXiv 2211.15029), repository Hzfinfdu/Diffusion-BERT: one time per batch; a canvas as wide as the batch
whose [SEP] and [PAD] are targets too; the D3PM loss KL(q(x_t | x_t+1, x_0) || p(x_t | x_t+1)) over tensors [B, L, V],
plus 3e-4 times the cross-entropy of all target places; with lambda > 0 a marginal q(x_t | x_0) bent by the word
frequencies of each sentence, while the one-step probabilities stay those of the plain schedule. Here it trains the same
network (full attention, no copy head) on the same pairs; ablation.py, group ``original``, compares the results.

    python -m benchmarks.original_diffusion_bert.check [--checkout DIR]    # is this the released objective?
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor

from benchmarks.original_diffusion_bert.canvas import canvas_logits, on_canvas
from diffusion_bert.data.batch import Batch
from diffusion_bert.data.batching import Collator
from diffusion_bert.data.encoded import EncodedPairs
from diffusion_bert.data.skills import PAIR
from diffusion_bert.machine.precision import decide_precision
from diffusion_bert.model.diffusion_model import DiffusionModel
from diffusion_bert.training.optimizer import make_optimizer

HYBRID, NUM_STEPS, TINY = 3e-4, 2000, 1e-20


# ---- the objective -------------------------------------------------------------------------------------------------


def sentence_frequencies(counts: Tensor, x_0: Tensor, present: Tensor) -> Tensor:
    """f - mean f of each sentence, [B, L]: f = log(1 + count) / its maximum, centred over the places ``present`` [B,
    L]; 0 elsewhere.
    """
    f = (counts.double() + 1).log()
    f = (f / f.max())[x_0]
    mean = (f * present).sum(-1, keepdim=True) / present.sum(-1, keepdim=True).clamp(min=1)
    return ((f - mean) * present).float()


def keep_probability(t: int, num_steps: int, word_freq_lambda: float, frequencies: Tensor) -> Tensor:
    """The probability [B, L] that a word is clean at step t: (T - t)/T + lambda sin(pi t/T) f, clipped to [0, 0.999]; 1
    at t = 0.
    """
    if t == 0:
        return torch.ones_like(frequencies)
    bend = word_freq_lambda * math.sin(math.pi * t / num_steps)
    return ((num_steps - t) / num_steps + bend * frequencies).clamp(0.0, 0.999)


def step_back(words: Tensor, keep: Tensor, x_next: Tensor, t: int, num_steps: int, mask_id: int) -> Tensor:
    """The law of x_t given x_t+1 and a law of x_0, [B, L, V]: by Bayes from q(x_t | x_0) and the plain one-step q(x_t+1
    | x_t).

    words [B, L, V] the law of x_0 (one-hot for the posterior, mu for the model), keep [B, L], x_next [B, L].
    """
    beta = 1 / (num_steps - t)
    law = keep[..., None] * words
    masked_share = 1 - law.sum(-1) + law[..., mask_id]
    law = torch.cat([law[..., :mask_id], masked_share[..., None], law[..., mask_id + 1 :]], -1)
    reached = (1 - beta) * torch.nn.functional.one_hot(
        x_next, words.shape[-1]
    ).float()  # q(x_t+1 | x_t) as a function of x_t
    reached = torch.where((x_next == mask_id)[..., None], beta, reached)
    reached[..., mask_id] = (x_next == mask_id).float()
    joint = law * reached
    return joint / joint.sum(-1, keepdim=True)


def original_loss(
    logits: Tensor, x_0: Tensor, x_next: Tensor, t: int, num_steps: int, keep: Tensor, target: Tensor, mask_id: int
) -> Tensor:
    """Sum over the target places of KL (at t = 0: -log p(x_0)), plus ``HYBRID`` times the cross-entropy. logits [B, L,
    V], target [B, L].
    """
    mu = torch.softmax(logits, -1)
    p = step_back(mu, keep, x_next, t, num_steps, mask_id)
    if t == 0:
        base = -(p + TINY).log().gather(-1, x_0[..., None]).squeeze(-1)
    else:
        q = step_back(torch.nn.functional.one_hot(x_0, logits.shape[-1]).float(), keep, x_next, t, num_steps, mask_id)
        base = (q * ((q + TINY).log() - (p + TINY).log())).sum(-1).relu()
    cross_entropy = -(mu + TINY).log().gather(-1, x_0[..., None]).squeeze(-1)
    return ((base + HYBRID * cross_entropy) * target).sum()


# ---- training ------------------------------------------------------------------------------------------------------


def original_step_loss(
    model: DiffusionModel, canvas: Batch, lengths: Tensor, t: int, num_steps: int, generator: torch.Generator
) -> Tensor:
    """The loss of one batch at step t, times T over the number of target words (a constant of the objective's scale,
    which AdamW ignores).
    """
    x_0, target = canvas.input_ids, canvas.is_target_segment
    present = target & (canvas.columns < (canvas.source_length + lengths)[:, None])
    frequencies = sentence_frequencies(model.token_counts.to(x_0.device), x_0, present)
    word_freq_lambda = model.config.diffusion.word_freq_lambda
    chance = torch.rand(x_0.shape, generator=generator).to(x_0.device)
    noised = target & (chance >= keep_probability(t + 1, num_steps, word_freq_lambda, frequencies))
    x_next = torch.where(noised, canvas.mask_id, x_0)
    keep = keep_probability(t, num_steps, word_freq_lambda, frequencies)
    with decide_precision("auto", x_0.device).autocast():
        logits = canvas_logits(model, canvas, x_next)
    # the source is noised as well, unseen: at t = T - 1 a clean word would be impossible
    x_next = torch.where(target, x_next, canvas.mask_id)
    loss = original_loss(logits.float(), x_0, x_next, t, num_steps, keep, target, canvas.mask_id)
    return loss * num_steps / lengths.sum()


def pairs_batch(data: EncodedPairs, collator: Collator, chosen: Tensor) -> Batch:
    """A batch of these examples as pairs."""
    return collator.gather(data, chosen.numpy(), np.full(len(chosen), PAIR))


def train_original(model: DiffusionModel, data: EncodedPairs, collator: Collator, num_steps: int = NUM_STEPS) -> dict:
    """Train by the original objective within the limits of the config (max_minutes, max_steps, epochs); random batches,
    pairs only.

    Optimizer, learning rate, its course, clipping and precision are those of our own training. Returns steps, seconds
    and the median width of its canvases.
    """
    training, device, denoiser = model.config.training, model.device, model.denoiser
    optimizer = make_optimizer(denoiser, training.lr, training.weight_decay)
    generator = torch.Generator().manual_seed(training.seed)
    batches = math.ceil(len(data) / training.batch_size)
    total = min(training.max_steps or math.inf, batches * training.epochs)
    start, step, done, widths = time.monotonic(), 0, 0.0, []
    torch.manual_seed(training.seed)
    denoiser.train()
    while done < 1:
        for chosen in torch.randperm(len(data), generator=generator).split(training.batch_size):
            batch = pairs_batch(data, collator, chosen).to(device)
            widths.append(batch.input_ids.shape[1])
            t = int(torch.randint(num_steps, (), generator=generator))
            loss = original_step_loss(
                model, on_canvas(batch, batch.input_ids.shape[1]), batch.target_length, t, num_steps, generator
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(denoiser.parameters(), training.max_grad_norm or math.inf)
            warm = training.warmup_ratio
            rate = (
                (done + 1 / total) / (warm + 1 / total) if done < warm else (1 - done) / (1 - warm) if warm < 1 else 1.0
            )
            for group in optimizer.param_groups:
                group["lr"] = training.lr * training.lr_factor * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            seconds = time.monotonic() - start
            done = max(step / total, seconds / (60 * training.max_minutes) if training.max_minutes else 0.0)
            if done >= 1:
                break
    denoiser.eval()
    return {"steps": step, "seconds": seconds, "width": int(np.median(widths))}
