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
from .model_card import export_card

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
    with written_whole(folder) as draft, quiet_transformers():
        mlm.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        (draft / "README.md").write_text(export_card(model), encoding="utf-8")
        settings = json.loads((draft / "tokenizer_config.json").read_text(encoding="utf-8"))
        # a name that every version knows, and of which none makes a tokenizer with its own idea of [CLS] and [SEP]
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        (draft / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


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


def special_tokens(tokenizer) -> dict[str, str]:
    """pad_token, unk_token, cls_token, sep_token and mask_token of a ``TextTokenizer``, as transformers calls them."""
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), tokenizer.special_ids))
    return {f"{name}_token": tokenizer.tokens[index] for name, index in names.items()}


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
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **special_tokens(text),
        model_max_length=model.denoiser.max_target_length + 3,  # longer texts have positions that were never trained
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
