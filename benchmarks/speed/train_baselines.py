"""The training losses that others use, in a few lines each, on the same BERT: what benchmarks/speed/train_step.py
compares ours with.

Each takes a ``BertForMaskedLM`` and a batch and returns a scalar. Shapes: B batch, L length, V vocabulary, N masked
places.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def noised(batch, mask_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """(x_t, where it is masked [B, L], t [B]): linear schedule, one time per example, target words only."""
    t = (
        torch.rand((), device=batch.input_ids.device)
        + torch.arange(len(batch), device=batch.input_ids.device) / len(batch)
    ) % 1
    masked = batch.target_mask & (torch.rand(batch.input_ids.shape, device=t.device) < t[:, None])
    return torch.where(masked, mask_id, batch.input_ids), masked, t


def masked_only_loss(model, batch, mask_id: int) -> Tensor:
    """Plain cross-entropy with the vocabulary projection at masked places only: no copy head, no length, no schedule,
    no source isolation.
    """
    x_t, masked, _ = noised(batch, mask_id)
    states = model.bert(x_t, attention_mask=batch.valid).last_hidden_state
    return F.cross_entropy(model.cls(states[masked]).float(), batch.input_ids[masked])


def hugging_face_loss(model, batch, mask_id: int) -> Tensor:
    """``BertForMaskedLM(labels=...)``: logits everywhere, -100 where nothing is asked."""
    x_t, masked, _ = noised(batch, mask_id)
    return model(x_t, attention_mask=batch.valid, labels=torch.where(masked, batch.input_ids, -100)).loss


def mdlm_loss(model, batch, mask_id: int) -> Tensor:
    """MDLM (arXiv 2406.07524) as one cross-entropy over all places with weight 1/t at the masked ones (the form in
    dllm).
    """
    x_t, masked, t = noised(batch, mask_id)
    logits = model(x_t, attention_mask=batch.valid).logits.float()
    nll = F.cross_entropy(logits.flatten(0, 1), batch.input_ids.flatten(), reduction="none").view(x_t.shape)
    return (nll * masked / t.clamp(min=1e-3)[:, None]).sum() / batch.target_mask.sum()


def mdlm_subs_loss(model, batch, mask_id: int) -> Tensor:
    """MDLM as in the authors' code (SUBS): a table of log-probabilities for every place, clean places carried over,
    weight 1/t.
    """
    x_t, masked, t = noised(batch, mask_id)
    logits = model(x_t, attention_mask=batch.valid).logits.float()
    logits[..., mask_id] = -1e6
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    log_p[~masked] = -1e6
    log_p[~masked, x_t[~masked]] = 0.0
    nll = -log_p.gather(-1, batch.input_ids[..., None]).squeeze(-1) / t.clamp(min=1e-3)[:, None]
    return (nll * batch.target_mask).sum() / batch.target_mask.sum()


class OriginalLoss:
    """DiffusionBERT's own loss (arXiv 2211.15029): D3PM posteriors as full tables over the vocabulary, hybrid
    cross-entropy 3e-4.

    q(x_{t+1} | x_0) with the word frequency centred per sentence, x_{t+1} drawn from it, KL between q(x_t | x_{t+1},
    x_0) and the same with the network's p(x_0) in place of x_0, at every place of the canvas; one t per batch; every
    factor a [B, L, V] tensor.
    """

    def __init__(
        self, frequency: Tensor, mask_id: int, num_steps: int = 64, word_freq_lambda: float = 0.3, hybrid: float = 3e-4
    ):
        self.frequency, self.mask_id, self.num_steps, self.hybrid = frequency, mask_id, num_steps, hybrid
        grid = torch.arange(num_steps + 1, device=frequency.device) / num_steps
        self.alpha = 1 - grid
        self.weight = word_freq_lambda * torch.sin(math.pi * grid)

    def marginal(self, x_0: Tensor, warp: Tensor, t: int) -> Tensor:
        """q(x_t | x_0) [B, L, V] for x_0 given as a distribution."""
        if t == 0:
            return x_0
        kept = torch.clip(self.alpha[t] + warp[..., None] * self.weight[t], 0.0, 0.999) * x_0
        mask = 1 - kept.sum(-1, keepdim=True) + kept[..., self.mask_id : self.mask_id + 1]
        return torch.cat((kept[..., : self.mask_id], mask, kept[..., self.mask_id + 1 :]), -1)

    def backward_step(self, x_next: Tensor, t: int) -> Tensor:
        """q(x_{t+1} | x_t) for the drawn x_{t+1}, as a function of x_t [B, L, V]."""
        beta = 1 / (self.num_steps - t)
        drawn = F.one_hot(x_next, len(self.frequency))
        at_mask = drawn[..., self.mask_id : self.mask_id + 1]
        before = (1 - beta) * drawn[..., : self.mask_id] + beta * at_mask
        after = (1 - beta) * drawn[..., self.mask_id + 1 :] + beta * at_mask
        return torch.cat((before, at_mask, after), -1)

    def __call__(self, model, batch, mask_id: int) -> Tensor:
        x_0, tiny = batch.input_ids, 1e-20
        t = int(torch.randint(self.num_steps - 1, (1,)))  # at T - 1 the source, which is never noised, has no posterior
        warp = self.frequency[x_0]
        warp = warp - warp.mean(-1, keepdim=True)
        clean = F.one_hot(x_0, len(self.frequency)).reshape(*x_0.shape, len(self.frequency))
        at_t, at_next = self.marginal(clean, warp, t), self.marginal(clean, warp, t + 1)
        x_next = torch.distributions.Categorical(logits=torch.log(at_next + tiny)).sample()
        x_next = torch.where(batch.target_mask, x_next, x_0)
        step = self.backward_step(x_next, t)
        q = step * at_t
        q = q / q.sum(-1, keepdim=True)
        p_0 = torch.softmax(model(x_next, attention_mask=batch.valid).logits.float(), -1)
        p = step * self.marginal(p_0, warp, t)
        p = p / p.sum(-1, keepdim=True)
        places = batch.target_mask
        kl = torch.relu((q * (torch.log(q + tiny) - torch.log(p + tiny))).sum(-1))
        first = -torch.log(torch.relu(p) + tiny).gather(-1, x_0[..., None]).squeeze(-1)
        hybrid = -torch.log(torch.relu(p_0) + tiny).gather(-1, x_0[..., None]).squeeze(-1)
        start = float(t == 0)  # as there, both are computed
        return ((start * first + (1 - start) * kl + self.hybrid * hybrid) * places).sum() / len(batch)
