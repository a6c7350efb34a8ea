"""The training steps that benchmarks/speed/train_step.py compares: ours, and others' losses on the same BERT."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.common import PROMPT, synthetic_model, synthetic_pairs
from benchmarks.speed.train_baselines import (
    OriginalLoss,
    hugging_face_loss,
    masked_only_loss,
    mdlm_loss,
    mdlm_subs_loss,
)
from diffusion_bert.data.batching import Collator
from diffusion_bert.errors import UserError
from diffusion_bert.machine.precision import Precision
from diffusion_bert.model.pretrained import quiet_transformers
from diffusion_bert.training.noising import StepShare
from diffusion_bert.training.run_directory import RunDirectory
from diffusion_bert.training.state import TrainingData
from diffusion_bert.training.trainer import Trainer

NAMES = {
    "ours": "ours: Trainer.step",
    "ours_2_draws": "ours, 2 noised targets beside each source",
    "ours_fp32": "ours in float32",
    "ours_dropout": "ours with dropout 0.1",
    "ours_no_copy": "ours without copy head",
    "masked_only": "masked places only, plain",
    "hugging_face": "Hugging Face BertForMaskedLM",
    "mdlm": "MDLM, all places, one cross-entropy",
    "mdlm_subs": "MDLM, all places, SUBS table",
    "original": "original DiffusionBERT (D3PM)",
    "checkout_mdlm": "MDLM, its own code",
    "checkout_original": "original, its own code",
}
DRAWS = {"ours_2_draws": 2}  # noised targets in a row: fewer rows, so that all variants have batch_size noised targets
COUNTERPART = {"checkout_mdlm": ("mdlm", "mdlm_subs"), "checkout_original": ("original",)}


def make_step(variant: str, options: argparse.Namespace, device: torch.device):
    """A function without arguments that does one training step of the variant on the same batch."""
    draws = DRAWS.get(variant, 1)
    shape = options.batch_size // draws, options.length + (draws - 1) * (options.length // 2)
    if options.batch_size % draws:
        raise UserError(f"batch_size is {options.batch_size}: expected a multiple of {draws} for '{variant}'")
    model = synthetic_model(
        options.layers,
        options.width,
        options.heads,
        options.vocab_size,
        options.length,
        options.seed,
        copy_head=variant != "ours_no_copy",
        dropout=0.1 if variant == "ours_dropout" else 0.0,
        loss=options.loss,
        batch_size=shape[0],
        epochs=1000,
        device=str(device),
        noise_draws=draws,
        precision="fp32" if variant == "ours_fp32" else options.precision,
    )
    collator = Collator(model.tokenizer, PROMPT)
    pairs = synthetic_pairs(model, shape[0], options.length, options.seed)
    data = TrainingData(pairs, [], 1, collator, "0" * 64)
    trainer = Trainer(model, data, RunDirectory("unused"))
    batch = trainer._epoch_batches(0)[0]
    if batch.input_ids.shape != shape:
        raise RuntimeError(f"the batch is {tuple(batch.input_ids.shape)}: expected {shape}")
    if variant.startswith("ours"):
        if options.compile:
            model.denoiser.mlm.bert = torch.compile(model.denoiser.mlm.bert)
        return lambda: trainer.step(StepShare.whole([batch]))
    frequency = (model.token_counts.double() + 1).log().float()
    return baseline_step(variant, options, device, batch, frequency / frequency.max(), model.tokenizer)


def baseline_step(
    variant: str, options: argparse.Namespace, device: torch.device, batch, frequency: torch.Tensor, tokenizer
):
    """One step of another's loss on a plain BertForMaskedLM of the same size, with the optimizer of our trainer."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(options.seed)
    with quiet_transformers():
        bert = (
            BertForMaskedLM(
                BertConfig(
                    vocab_size=tokenizer.vocab_size,
                    hidden_size=options.width,
                    num_hidden_layers=options.layers,
                    num_attention_heads=options.heads,
                    intermediate_size=4 * options.width,
                    hidden_dropout_prob=0.0,
                    attention_probs_dropout_prob=0.0,
                    pad_token_id=tokenizer.pad_id,
                    max_position_embeddings=max(512, options.length),
                )
            )
            .to(device)
            .train()
        )
    parameters = list(bert.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.98), fused=True)
    autocast = Precision(options.precision == "bf16", device.type).autocast
    batch, frequency = batch.to(device), frequency.to(device)
    if variant == "checkout_original":
        from benchmarks.speed.peers import original_loss

        loss_of = original_loss(Path(options.checkout_original), frequency, tokenizer)
    elif variant == "checkout_mdlm":
        from benchmarks.speed.peers import mdlm_checkout_loss

        loss_of = mdlm_checkout_loss(Path(options.checkout_mdlm), tokenizer)
    else:
        original = OriginalLoss(frequency, tokenizer.mask_id)
        known = {
            "masked_only": masked_only_loss,
            "hugging_face": hugging_face_loss,
            "mdlm": mdlm_loss,
            "mdlm_subs": mdlm_subs_loss,
        }
        loss_of = {**known, "original": original}[variant]
    if options.compile:
        bert.bert = torch.compile(bert.bert)

    def step() -> None:
        with autocast():
            loss = loss_of(bert, batch, tokenizer.mask_id)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
