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

from diffusion_bert.data.batch import Batch
from diffusion_bert.data.batching import Collator
from diffusion_bert.data.encoded import EncodedPairs
from diffusion_bert.data.skills import PAIR
from diffusion_bert.diffusion.process import AbsorbingDiffusion
from diffusion_bert.diffusion.schedule import NoiseSchedule
from diffusion_bert.generation.decoding import repetition_rules
from diffusion_bert.generation.denoise import vocabulary_flags
from diffusion_bert.machine.precision import decide_precision
from diffusion_bert.model.diffusion_model import DiffusionModel
from diffusion_bert.samplers import SamplerOptions, sample_confidence
from diffusion_bert.training.objective import sample_times
from diffusion_bert.training.optimizer import make_optimizer
from diffusion_bert.training.yardstick import T_EVAL

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


# ---- the canvas ----------------------------------------------------------------------------------------------------


def on_canvas(batch: Batch, width: int) -> Batch:
    """The batch on a canvas of ``width`` columns all of which the network may look at; everything behind the source is
    target.
    """
    ids = torch.nn.functional.pad(batch.input_ids, (0, width - batch.input_ids.shape[1]), value=batch.pad_id)
    return Batch(
        ids, batch.source_length, batch.prompt_length, width - batch.source_length - 1, batch.pad_id, batch.mask_id
    )


def canvas_logits(model: DiffusionModel, canvas: Batch, x_t: Tensor) -> Tensor:
    """Logits of every place, [B, L, V]; [SEP] and [PAD] are words like others."""
    states = model.denoiser.hidden_states(canvas, x_t, torch.zeros(len(canvas), device=x_t.device))
    return model.denoiser.mlm.cls(states)


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


@torch.no_grad()
def canvas_nelbo(model: DiffusionModel, batches: list[Batch], width: int, seed: int = 0) -> tuple[float, float]:
    """(bound in nats, target word pieces) on -log p(target | source), length included, as our yardstick has it: T =
    1000, fixed noise.

    Any network that gives mu bounds it by the exact reverse process of the plain schedule; the length is in the [SEP]
    and the [PAD]s, which count. The canvas is ``width`` wide, as in training, and wider only where a batch needs it:
    every further [PAD] would be charged.
    """
    diffusion, generator = (
        AbsorbingDiffusion(NoiseSchedule("mutual"), model.tokenizer.mask_id),
        torch.Generator().manual_seed(seed),
    )
    nats = tokens = 0.0
    for batch in batches:
        t = sample_times(len(batch), T_EVAL, generator).to(model.device)
        batch = batch.to(model.device)
        canvas = on_canvas(batch, max(width, batch.input_ids.shape[1]))
        x_t = diffusion.q_sample(canvas.input_ids, t.double() / T_EVAL, canvas.is_target_segment, generator)
        rows, columns = (x_t == canvas.mask_id).nonzero(as_tuple=True)
        logits = canvas_logits(model, canvas, x_t)[rows, columns].float()
        logits[:, canvas.mask_id] = float("-inf")
        kl = diffusion.kl(
            torch.log_softmax(logits, -1),
            canvas.input_ids[rows, columns],
            (t[rows] - 1).double() / T_EVAL,
            t[rows].double() / T_EVAL,
        )
        nats += T_EVAL * float(kl.reveal.sum())
        tokens += float(batch.target_length.sum())
    return nats, tokens


@torch.no_grad()
def write_on_canvas(
    model: DiffusionModel, sources: list[list[int]], collator: Collator, width: int, batch_size: int = 64
) -> list:
    """(ids, calls) for every source by our confidence sampler at temperature 0, on a canvas of ``width``; a target ends
    at its [SEP] or [PAD].

    As with our own models no word stands beside itself and none begins with a ##piece; and one place is written per
    call, the best it can do.
    """
    tokenizer, results = model.tokenizer, []
    stops = {tokenizer.sep_id, tokenizer.pad_id}
    banned = torch.tensor([index for index in tokenizer.unwritable_ids if index not in stops], device=model.device)
    continuation = vocabulary_flags(model, tokenizer.continuation)
    for start in range(0, len(sources), batch_size):
        batch = collator.batch([(PAIR, source, [0]) for source in sources[start : start + batch_size]]).to(model.device)
        canvas = on_canvas(batch, max(width, batch.input_ids.shape[1]))
        x_t = torch.where(canvas.is_target_segment, canvas.mask_id, canvas.input_ids)

        def denoise(ids: Tensor, tau: Tensor, active: Tensor, canvas: Batch = canvas) -> Tensor:
            fields = (canvas.input_ids, canvas.source_length, canvas.prompt_length, canvas.target_length)
            part = Batch(*(field[active] for field in fields), canvas.pad_id, canvas.mask_id)
            rows, columns = (ids == canvas.mask_id).nonzero(as_tuple=True)
            logits = canvas_logits(model, part, ids)[rows, columns].float()
            logits[:, banned] = float("-inf")
            logits.masked_fill_((columns == part.source_length[rows])[:, None] & continuation, float("-inf"))
            return torch.log_softmax(logits, -1)

        rules = repetition_rules(
            model,
            "adjacent",
            sources[start : start + batch_size],
            [False] * len(batch),
            [-1] * len(batch),
            model.device,
        )
        rules.repeatable[list(stops)] = True
        tau = torch.ones(len(batch), dtype=torch.float64, device=model.device)
        options = SamplerOptions(steps=canvas.input_ids.shape[1], temperature=0.0, repeats=rules)
        output = sample_confidence(denoise, x_t, NoiseSchedule("mutual"), canvas.mask_id, tau, options)
        for ids, first, calls in zip(output.x_0.tolist(), batch.source_length.tolist(), output.nfe.tolist()):
            target = ids[first:]
            results.append(
                (target[: next((place for place, token in enumerate(target) if token in stops), len(target))], calls)
            )
    return results
