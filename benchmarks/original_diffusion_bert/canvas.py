"""The canvas of the released DiffusionBERT code, whose [SEP] and [PAD] are words like others: how our network reads it,
what bounds its -log p(target | source), and how it is written on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_bert.data.batch import Batch
from diffusion_bert.data.batching import Collator
from diffusion_bert.data.skills import PAIR
from diffusion_bert.diffusion.process import AbsorbingDiffusion
from diffusion_bert.diffusion.schedule import NoiseSchedule
from diffusion_bert.diffusion.times import T_EVAL, sample_times
from diffusion_bert.generation.decoding import repetition_rules
from diffusion_bert.generation.denoise import vocabulary_flags
from diffusion_bert.model.diffusion_model import DiffusionModel
from diffusion_bert.samplers import SamplerOptions, sample_confidence


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
