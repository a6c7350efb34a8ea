"""The encoder families the denoiser can stand on: what each calls its parts, and how one pass goes through it.

| family | distinguishes source and target by | positions | source kept between denoising steps |
|---|---|---|---|
| BERT | token types | learned | yes |
| RoBERTa | a learned vector on the target, zero at first | learned, from padding_idx + 1 on | yes |
| DistilBERT | the same vector | learned | no |
| ModernBERT | the same vector | rotary; most layers look no further than a window | no |

Every pass gets its mask explicitly, [B, 1, Q, K], True = may look: all four take it as it is, so the source stays
isolated in each. The families without a cache encode the whole sequence at every step.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import transformers
from torch import Tensor, nn
from torch.func import functional_call

# what a pass calls its cache: transformers 5.24 gave it a new name, and warns at the old one
CACHE = "cache" if "cache" in inspect.signature(transformers.BertModel.forward).parameters else "past_key_values"


def shared_names(module: nn.Module, weight: nn.Parameter) -> list[str]:
    """The names by which a module knows this parameter."""
    return [name for name, parameter in module.named_parameters() if parameter is weight]


def _adds(extra: Tensor):
    """A pre-hook that adds ``extra`` to the hidden states a layer receives."""

    def hook(_module, inputs):
        return (inputs[0] + extra, *inputs[1:])

    return hook


def _takes(places: Tensor):
    """A pre-hook that leaves a module only these of the flat places [M] of its inputs [B, Q, D]."""

    def hook(_module, inputs):
        return tuple(values.flatten(0, 1).index_select(0, places) for values in inputs)

    return hook


@dataclass(frozen=True)
class Family:
    """One family: names of its parts within the masked language model, and what it can do. Here BERT and RoBERTa."""

    config_class: type
    model_class: type
    encoder: str  # the encoder, and with a dot the opening of its weights' names
    layers: str
    words: str  # the embedding table
    # where in a layer the work on each place by itself begins: from here on places can be left out; None: there is no
    # such part
    place_by_place: str | None = "attention.output"
    caches: bool = True  # whether it can keep keys and values of the source
    token_types: bool = False
    dropout: tuple[str, ...] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    inner_size: str = "intermediate_size"
    head: tuple[str, ...] = ("lm_head",)  # modules or functions from states to logits

    def private_config(self, config):
        """A copy to change. is_decoder makes BERT and RoBERTa accept a cache. It would also make them silently causal
        without the explicit mask.
        """
        flags = {"is_decoder": True, "use_cache": True, "add_cross_attention": False} if self.caches else {}
        return self.config_class.from_dict({**config.to_dict(), **flags, "chunk_size_feed_forward": 0})

    def offset(self, config) -> int:
        """Rows of the position table before that of position 0."""
        return 0

    def max_positions(self, config) -> int:
        """How many positions there are."""
        return config.max_position_embeddings - self.offset(config)

    def part(self, mlm: nn.Module, name: str) -> nn.Module:
        """A part of the masked language model by its dotted name."""
        return mlm.get_submodule(name)

    def logits(self, mlm: nn.Module, states: Tensor, table: Tensor | None = None) -> Tensor:
        """The vocabulary head: [N, D] -> [N, V]; ``table`` stands in for the embedding table [V, D], which the head
        shares.
        """
        for name in self.head:
            part = getattr(mlm, name)
            own = (
                []
                if table is None or not isinstance(part, nn.Module)
                else shared_names(part, mlm.get_submodule(self.words).weight)
            )
            states = functional_call(part, dict.fromkeys(own, table), (states,)) if own else part(states)
        return states

    @contextlib.contextmanager
    def changed_layers(self, mlm: nn.Module, extra: Tensor | None, read: Tensor | None) -> Iterator[None]:
        """Let layer l add ``extra[:, l]`` [B, layers, Q, D] to what it receives. With ``read``, flat places [M], the
        last layer does its per-place part for these places only, and its result is [M, D].
        """
        layers, hooks = mlm.get_submodule(self.layers), []
        if extra is not None:
            hooks += [layer.register_forward_pre_hook(_adds(own)) for layer, own in zip(layers, extra.unbind(1))]
        if read is not None:
            hooks.append(layers[-1].get_submodule(self.place_by_place).register_forward_pre_hook(_takes(read)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def run(
        self, mlm: nn.Module, embeddings: Tensor, token_types: Tensor, positions: Tensor, allowed: Tensor, cache=None
    ) -> Tensor:
        """Hidden states [B, Q, D] from word embeddings [B, Q, D]; token_types and positions [B, Q], allowed [B, Q, K]
        bool.
        """
        if mlm.config.type_vocab_size < 2 or not self.token_types:
            token_types = torch.zeros_like(token_types)
        return getattr(mlm, self.encoder)(
            inputs_embeds=embeddings,
            token_type_ids=token_types,
            position_ids=positions + self.offset(mlm.config),
            attention_mask=allowed[:, None],
            use_cache=cache is not None,
            **{CACHE: cache},
        ).last_hidden_state


class Roberta(Family):
    """Its position table begins with rows for padding."""

    def offset(self, config) -> int:
        return config.pad_token_id + 1


class DistilBert(Family):
    """Half a BERT: no token types, no cache."""

    def run(
        self, mlm: nn.Module, embeddings: Tensor, token_types: Tensor, positions: Tensor, allowed: Tensor, cache=None
    ) -> Tensor:
        return mlm.distilbert(
            inputs_embeds=embeddings, position_ids=positions, attention_mask=allowed[:, None]
        ).last_hidden_state


class ModernBert(Family):
    """Rotary positions; its local layers see the places whose positions lie within half a window, in source and target
    alike.
    """

    def run(
        self, mlm: nn.Module, embeddings: Tensor, token_types: Tensor, positions: Tensor, allowed: Tensor, cache=None
    ) -> Tensor:
        near = (positions[:, :, None] - positions[:, None, :]).abs() <= mlm.config.sliding_window
        # padding may be far from all it is allowed to see; without anything to see it would become NaN
        near = (allowed & near) | torch.eye(positions.shape[1], dtype=torch.bool, device=positions.device)
        masks = {"full_attention": allowed[:, None], "sliding_attention": near[:, None]}
        return mlm.model(inputs_embeds=embeddings, position_ids=positions, attention_mask=masks).last_hidden_state


FAMILIES = {
    "bert": Family(
        transformers.BertConfig,
        transformers.BertForMaskedLM,
        "bert",
        "bert.encoder.layer",
        "bert.embeddings.word_embeddings",
        token_types=True,
        head=("cls",),
    ),
    "roberta": Roberta(
        transformers.RobertaConfig,
        transformers.RobertaForMaskedLM,
        "roberta",
        "roberta.encoder.layer",
        "roberta.embeddings.word_embeddings",
    ),
    "distilbert": DistilBert(
        transformers.DistilBertConfig,
        transformers.DistilBertForMaskedLM,
        "distilbert",
        "distilbert.transformer.layer",
        "distilbert.embeddings.word_embeddings",
        place_by_place=None,
        caches=False,
        dropout=("dropout", "attention_dropout"),
        inner_size="hidden_dim",
        head=("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
    ),
    "modernbert": ModernBert(
        transformers.ModernBertConfig,
        transformers.ModernBertForMaskedLM,
        "model",
        "model.layers",
        "model.embeddings.tok_embeddings",
        place_by_place=None,
        caches=False,
        dropout=("embedding_dropout", "mlp_dropout", "attention_dropout"),
        head=("head", "decoder"),
    ),
}


def family_of(config) -> Family:
    """The family of a transformers configuration."""
    return FAMILIES[config.model_type]


def config_from(architecture: dict):
    """The configuration of a checkpoint's architecture."""
    return FAMILIES[architecture.get("model_type", "bert")].config_class.from_dict(architecture)
