"""What our decoding is compared with: the loop that one writes first, and a slow one that keeps nothing from call to
call.
"""

from __future__ import annotations

import torch

from benchmarks.common import PROMPT
from diffusion_bert.data.batching import Collator
from diffusion_bert.data.skills import PAIR
from diffusion_bert.model.diffusion_model import DiffusionModel
from diffusion_bert.samplers import SAMPLERS, SamplerOptions

PLAIN_CANVAS = 64


@torch.no_grad()
def plain_loop(
    bert, model: DiffusionModel, sources: list[list[int]], each: int, steps: int, temperature: float, batch_size: int
) -> torch.Tensor:
    """MaskGIT on whole sequences, as one writes it first: [n, 64] words for ``each`` candidates of every source."""
    tokenizer, device, written = model.tokenizer, model.device, []
    prompt = Collator(tokenizer, PROMPT).prompts[PAIR]
    rows = [[tokenizer.cls_id, *prompt, *source, tokenizer.sep_id] for source in sources for _ in range(each)]
    for start in range(0, len(rows), batch_size):
        group = rows[start : start + batch_size]
        width = max(map(len, group)) + PLAIN_CANVAS + 1
        x = torch.full((len(group), width), tokenizer.pad_id, device=device)
        is_canvas = torch.zeros_like(x, dtype=torch.bool)
        for row, first in enumerate(group):
            ids = [*first, *[tokenizer.mask_id] * PLAIN_CANVAS, tokenizer.sep_id]
            x[row, : len(ids)] = torch.tensor(ids)
            is_canvas[row, len(first) : len(first) + PLAIN_CANVAS] = True
        for step in range(steps, 0, -1):
            logits = bert(x, attention_mask=x != tokenizer.pad_id).logits
            logits[..., tokenizer.forbidden_ids] = float("-inf")
            p = torch.softmax(logits / temperature, -1)
            words = torch.multinomial(p.flatten(0, 1), 1).view(x.shape)
            masked = (x == tokenizer.mask_id) & is_canvas
            confidence = p.gather(-1, words[..., None]).squeeze(-1).masked_fill(~masked, -1.0)
            kept = PLAIN_CANVAS * (step - 1) // steps  # places that stay masked
            reveal = confidence.argsort(-1, descending=True)[
                :, : PLAIN_CANVAS - kept - int((~masked & is_canvas)[0].sum())
            ]
            x.scatter_(1, reveal, words.gather(1, reveal))
        written.append(x[is_canvas].view(len(group), PLAIN_CANVAS))
    return torch.cat(written)


@torch.no_grad()
def slow_reference(model: DiffusionModel, canvas, steps: int, sampler: str) -> list[int]:
    """One canvas, nothing kept from call to call: the whole sequence through the network, words of every place of the
    target.
    """
    tokenizer = model.tokenizer
    batch = Collator(tokenizer, PROMPT).batch([(canvas.skill, canvas.source, canvas.words)]).to(model.device)
    width = int(batch.source_length)
    continuation = torch.zeros(model.denoiser.bert_config.vocab_size, dtype=torch.bool, device=model.device)
    continuation[: tokenizer.vocab_size] = tokenizer.continuation.to(model.device)

    def denoise(x_t, tau, _active):
        sequence = batch.input_ids.clone()
        sequence[:, width:] = x_t
        states = model.denoiser.hidden_states(batch, sequence, tau)
        rows = torch.zeros(x_t.shape[1], dtype=torch.long, device=x_t.device)
        places = rows, width + torch.arange(x_t.shape[1], device=x_t.device)  # of the whole target, its [SEP] too
        log_mu = model.denoiser.word_log_probs(
            states, places, states[:, :width], batch.input_ids[:, :width], batch.copyable[:, :width]
        )
        if model.config.diffusion.time_correction:
            log_mu = model.diffusion.correct_for_time(log_mu, tau.expand(len(rows)))
        log_mu[:, tokenizer.unwritable_ids] = float("-inf")
        log_mu[0, continuation] = float("-inf")
        return log_mu[x_t[0] == tokenizer.mask_id]

    x_t = torch.tensor([[*canvas.words, tokenizer.sep_id]], device=model.device)
    settings = SamplerOptions(steps=steps, temperature=0.0)
    output = SAMPLERS[sampler](
        denoise, x_t, model.schedule, tokenizer.mask_id, torch.ones(1, dtype=torch.float64), settings
    )
    return output.x_0[0, :-1].tolist()
