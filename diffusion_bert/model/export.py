"""A checkpoint as a directory that transformers opens.

The network has only ever written texts that follow a source, or an empty one. So the tokenizer makes ``[CLS] [SEP] text
[SEP]`` of a text, with token types 0 0 1 ... 1, and the position table is made by ``running_positions``. One thing
cannot be expressed: here [CLS] and [SEP] see the text, which isolated attention forbids. What that changes is measured
by benchmarks/quality/export_agreement.py (docs/decisions.md).
"""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import UserError
from ..machine.storage import refuse_full, written_whole

# The bias of words that have no mass is finite, so that no average of logits becomes NaN, also in half precision.
NO_MASS = -1e4


def export(model, folder: str | Path) -> None:
    """Write a ``DiffusionModel`` to a folder, wholly or not at all.

    Raises:
        UserError: the folder is not empty or cannot be written, or the network knows the time, which a masked
            language model is not.
    """
    from .pretrained import quiet_transformers

    folder = Path(folder)
    refuse_full(folder)
    if model.denoiser.bert_config.model_type != "bert":
        raise UserError(f"this model stands on {model.denoiser.bert_config.model_type}: only a BERT can be exported")
    if model.denoiser.timestep != "none":
        raise UserError(
            f"this model was trained with --timestep {model.denoiser.timestep}: a masked language model is told no"
            " time; export one without"
        )
    tokenizer, mlm = fast_tokenizer(model), masked_lm(model)
    try:
        with written_whole(folder) as draft, quiet_transformers():
            mlm.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
            (draft / "README.md").write_text(model_card(model), encoding="utf-8")
            settings = json.loads((draft / "tokenizer_config.json").read_text(encoding="utf-8"))
            # a name that every version knows, and of which none makes a tokenizer with its own idea of [CLS] and [SEP]
            settings["tokenizer_class"] = "PreTrainedTokenizerFast"
            (draft / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
            for path in draft.iterdir():
                path.chmod((draft / "README.md").stat().st_mode)  # weights are written for their owner alone
    except Exception as error:
        # safetensors, which writes the weights, reports a full disk by an exception of its own
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        raise UserError(
            f"cannot write {folder}: {getattr(error, 'strerror', None) or error}; free some space or choose another"
            " folder"
        ) from None


def masked_lm(model):
    """A ``BertForMaskedLM`` with the denoiser's weights: bidirectional, no mass on what is no word, positions that run
    on.
    """
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from .pretrained import CONFIG_KEY, OFFSET, POSITIONS, quiet_transformers, running_positions

    denoiser = model.denoiser
    settings = denoiser.bert_config.to_dict() | {
        "is_decoder": False,
        "architectures": ["BertForMaskedLM"],
        CONFIG_KEY: OFFSET,
    }
    settings["max_position_embeddings"] += OFFSET
    with quiet_transformers():
        mlm = BertForMaskedLM(BertConfig.from_dict(settings))
    weights = {name: tensor.detach().cpu().float() for name, tensor in denoiser.mlm.state_dict().items()}
    weights[POSITIONS] = running_positions(weights[POSITIONS])
    mlm.load_state_dict(weights)
    with torch.no_grad():
        mlm.cls.predictions.bias[denoiser.forbidden_bias.isinf().cpu()] = NO_MASS
    return mlm.eval()


def fast_tokenizer(model):
    """The tokenizer as transformers knows it; a text becomes ``[CLS] [SEP] text [SEP]``, a pair ``[CLS] source [SEP]
    target [SEP]``.
    """
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    text = model.tokenizer
    backend = Tokenizer.from_str(text.json)
    cls, sep = (text.tokens[index] for index in (text.cls_id, text.sep_id))
    backend.post_processor = TemplateProcessing(
        single=f"{cls}:0 {sep}:0 $A:1 {sep}:1",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, text.cls_id), (sep, text.sep_id)],
    )
    names = {"pad": text.pad_id, "unk": text.unk_id, "cls": text.cls_id, "sep": text.sep_id, "mask": text.mask_id}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{f"{name}_token": text.tokens[index] for name, index in names.items()},
        model_max_length=model.denoiser.max_target_length + 3,  # longer texts have positions that were never trained
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def model_card(model) -> str:
    """README.md of the folder: what it is, how it was trained, what is left out."""
    config, denoiser = model.config, model.denoiser
    folders = [Path(name).name for name in (config.data.data_dir, config.data.train_file) if name]
    data = (*folders, config.data.dataset_name or model.task.name)[0]
    extra = {"length head": True, "copy head": denoiser.copy_head, "self-conditioning": denoiser.self_conditioning}
    left_out = [name for name, part in extra.items() if part is not None]
    start = Path(config.model.model_name_or_path)
    base = start.name if start.exists() else config.model.model_name_or_path
    base += " (from scratch)" if config.model.from_scratch or base in ("tiny", "mini", "small") else ""
    settings = {
        "start": base,
        "task": model.task.name,
        "data": data,
        "steps T": config.diffusion.num_steps,
        "schedule": config.diffusion.schedule,
        "word_freq_lambda": config.diffusion.word_freq_lambda,
        "loss": config.training.loss,
        "lr": config.training.lr * config.training.lr_factor,
        "batch_size": config.training.batch_size,
        "attention": denoiser.attention,
        "seed": config.training.seed,
    }
    measured = ("step", "valid_nelbo", "valid_cross_entropy")
    settings |= {name: round(value, 4) for name, value in model.metrics.items() if name in measured}
    rows = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
    front = {
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "tags": ["diffusion-bert", "masked-diffusion"],
    }
    return f"""---
{chr(10).join(f"{name}: {json.dumps(value)}" for name, value in front.items())}
---
# DiffusionBERT, task {model.task.name}

The encoder and word head of a masked-diffusion language model, as a masked language model: it fills `[MASK]`s.
Left out: {", ".join(left_out)}; so it does not write paraphrases. Use the checkpoint it was exported from for that.

Texts are read as `[CLS] [SEP] text [SEP]` with token types 0 0 1 ... 1; the tokenizer of this folder does so by
itself. Trained on texts of up to {denoiser.max_target_length} word pieces. `[CLS]` and `[SEP]` see the text here and
did not in training, so words may differ a little from those of DiffusionBERT's `fill`. For a pair, which the tokenizer
joins as source and target, give position ids that count both from 0, plus 2.

| trained with | |
|---|---|
{rows}

Licence: that of the training data and, where training began with a pretrained BERT, of that model also binds these
weights. Fill it in before you publish them.
"""
