"""BERT as the denoiser mu = p(x_0 | x_t, source).

One sequence is ``[CLS] prompt source [SEP] target [SEP]``, token types 0 | 1; source and target each count their
positions from 0 (docs/decisions.md: a small model learns about twice as fast as with positions that run on). With
source-isolated attention (the default) source positions see only the source, target positions see everything. Two exact
things follow: the source is encoded once and its keys and values serve every denoising step, candidate and length; and
[CLS] can carry p(length | source). The word head runs on masked places only; a copy head lets them point at words of
the source.

Shapes: B batch, L sequence, S source segment, T target segment (words and the closing [SEP]), N masked places, V
vocabulary, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from ..data.batch import Batch
from .attention import use_attention
from .encoders import family_of
from .functions import tied_embedding, true_word_statistics
from .heads import CopyHead, Guess, SelfConditioning, TimeEmbedding, at_least_float32, at_places
from .passes import EncoderPasses


@dataclass
class TrueWords:
    """What the denoiser says of the N masked places of a noised batch whose true words x_0 are known."""

    log_mu: Tensor  # [N] log mu of the true word
    mean: Tensor  # [N] mean of ``per_word`` under mu
    x_0: Tensor  # [N] the true words
    length_logits: Tensor  # [B, max_target_length]


class BertDenoiser(EncoderPasses):
    """A Hugging Face BERT (or another of encoders.py) with a length head, an optional copy head and optional time
    conditioning.

    Args:
        bert_config: architecture; a private copy is changed.
        forbidden_ids: ids that never get mass: [PAD], [CLS], [SEP], [MASK].
        max_target_length: longest target in word pieces; the length head speaks of 1..max_target_length.
        attention: ``isolated`` or ``full`` (source sees the target too: no cache, lengths from a pass of their own).
        copy_head: whether mu mixes in a pointer distribution over the source.
        timestep: ``none``, ``prefix`` (the paper's PTE) or ``layerwise`` (LTE).
        self_conditioning: whether masked places take in what was expected at them before (``SelfConditioning``).
    """

    def __init__(
        self,
        bert_config: PreTrainedConfig,
        forbidden_ids: list[int],
        max_target_length: int = 64,
        attention: str = "isolated",
        copy_head: bool = True,
        timestep: str = "none",
        self_conditioning: bool = False,
    ):
        super().__init__()
        self.family = family_of(bert_config)
        config = self.family.private_config(bert_config)
        self.mlm = self.family.model_class(config)
        use_attention(self.mlm.config)
        self.target_embedding = None if self.family.token_types else nn.Parameter(torch.zeros(config.hidden_size))
        self.bert_config, self.max_target_length = config, max_target_length
        self.attention, self.timestep = attention, timestep
        self.skips_unread = True  # whether the last layer of a training step may leave out places that no head reads
        width = config.hidden_size
        self.length_head = nn.Linear(width, max_target_length)
        self.copy_head = CopyHead(width) if copy_head else None
        self.time_embedding = (
            TimeEmbedding(width, config.num_hidden_layers if timestep == "layerwise" else 1)
            if timestep != "none"
            else None
        )
        for module in (self.length_head, self.copy_head, self.time_embedding):
            if module is not None:
                module.apply(self._init_linear)
        if self.copy_head is not None:
            nn.init.constant_(self.copy_head.gate.bias, CopyHead.INITIAL_GATE)
        self.self_conditioning = SelfConditioning(width) if self_conditioning else None
        bias = torch.zeros(config.vocab_size)
        bias[forbidden_ids] = float("-inf")
        self.register_buffer("forbidden_bias", bias, persistent=False)

    def _init_linear(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.bert_config.initializer_range)
            nn.init.zeros_(module.bias)

    # ---- heads ------------------------------------------------------------------------------------------------------

    def length_logits(self, source_states: Tensor) -> Tensor:
        """Logits of p(length | source) for 1..max_target_length, [B, max_target_length], from the state of [CLS]."""
        return self.length_head(source_states[:, 0])

    def word_log_probs(
        self,
        states: Tensor,
        places: tuple[Tensor, Tensor],
        source_states: Tensor,
        source_ids: Tensor,
        copyable: Tensor,
        embedding_table: Tensor | None = None,
    ) -> Tensor:
        """log mu at N places, [N, V] float32 or better: the vocabulary head, mixed with the copy head if there is one.

        states [B, T, D], places = rows and columns [N] into them, source_states [B, S, D], source_ids and copyable [B,
        S], embedding_table as in ``tied_embedding``.
        """
        logits = self.family.logits(self.mlm, at_places(states, places), embedding_table)
        logits = at_least_float32(logits).add_(self.forbidden_bias)  # in place: nobody else reads them
        if self.copy_head is None:
            return torch.log_softmax(logits, dim=-1)
        return self.copy_head(
            logits, states, places, source_states, source_ids, self._may_be_copied(source_ids, copyable)
        )

    def _may_be_copied(self, source_ids: Tensor, copyable: Tensor) -> Tensor:
        return copyable & self.forbidden_bias[source_ids].isfinite()  # a forbidden word has no mass to add to

    def forward(
        self,
        batch: Batch,
        x_t: Tensor,
        tau: Tensor,
        guess: Tensor | None = None,
        two_pass: bool = False,
        places: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """log mu at the masked places of x_t in row-major order [N, V], and length logits [B, max_target_length]. x_t
        [B, L], tau [B].

        For self-conditioning ``guess`` [N, D] is what was expected at these places; ``two_pass`` makes it by a first
        pass without gradient. places are ``batch.masked_places(x_t)`` where they are known already: finding them makes
        the host wait for a GPU.
        """
        places = batch.masked_places(x_t) if places is None else places
        words, embedding_table = self._tied_embedding(x_t)
        states = self._conditioned_states(batch, x_t, tau, places, guess, two_pass, words)
        return self._log_mu(batch, states, places, embedding_table), self._length_logits(batch, states)

    def _tied_embedding(self, x_t: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """``tied_embedding`` where the head shares the embedding table and a gradient is wanted."""
        shared = self._words.weight is self.mlm.get_output_embeddings().weight
        return tied_embedding(self._words, x_t) if shared and torch.is_grad_enabled() else (None, None)

    def _log_mu(
        self, batch: Batch, states: Tensor, places: tuple[Tensor, Tensor], embedding_table: Tensor | None = None
    ) -> Tensor:
        width = batch.source_width
        return self.word_log_probs(
            states, places, states[:, :width], batch.input_ids[:, :width], batch.copyable[:, :width], embedding_table
        )

    def _conditioned_states(
        self,
        batch,
        x_t,
        tau,
        places,
        guess: Tensor | None = None,
        two_pass: bool = False,
        words: Tensor | None = None,
        read: Tensor | None = None,
    ) -> Tensor:
        """``hidden_states`` with the guess of self-conditioning, if the network has it; arguments as in ``forward``."""
        if self.self_conditioning is not None and two_pass:
            with torch.no_grad():
                guess = self.expected_embedding(self._log_mu(batch, self.hidden_states(batch, x_t, tau), places))
            # older torch would keep the weights' bf16 copies of this pass, which have no gradient
            torch.clear_autocast_cache()
        elif self.self_conditioning is not None and guess is None and self.training:
            # so the projection takes part in every step
            guess = self.length_head.weight.new_zeros(len(places[0]), self.bert_config.hidden_size)
        return self.hidden_states(batch, x_t, tau, None if guess is None else Guess(*places, guess), words, read)

    def _length_logits(self, batch: Batch, states: Tensor) -> Tensor:
        return self.length_logits(states if self.attention == "isolated" else self.encode_source(batch).states)

    def _read(self, batch: Batch, places: tuple[Tensor, Tensor]) -> Tensor | None:
        """Which states the heads will read, [B, L] bool: masked places, [CLS], and what may be copied. None where
        leaving out others does not pay: a GPU would have to wait for their number, and a compiled encoder would be
        compiled again for each.
        """
        if not self.skips_unread or batch.input_ids.device.type != "cpu" or self.family.place_by_place is None:
            return None
        read = torch.zeros_like(batch.input_ids, dtype=torch.bool) if self.copy_head is None else batch.copyable.clone()
        read[places] = True
        read[:, 0] = True
        return read

    def true_words(
        self,
        batch: Batch,
        x_t: Tensor,
        tau: Tensor,
        per_word: Tensor | None = None,
        two_pass: bool = False,
        places: tuple[Tensor, Tensor] | None = None,
    ) -> TrueWords:
        """What the loss needs to know of mu, and no more: faster than ``forward``, which writes down all N x V numbers.

        per_word [V] holds one number per word whose mean under mu is wanted; the rest as in ``forward``.
        """
        places = rows, columns = batch.masked_places(x_t) if places is None else places
        words, embedding_table = self._tied_embedding(x_t)
        states = self._conditioned_states(
            batch, x_t, tau, places, two_pass=two_pass, words=words, read=self._read(batch, places)
        )
        x_0 = batch.input_ids[rows, columns]
        # one mean fits all callers: in the type of the result, on the device of the weights
        values = None if per_word is None else per_word.to(torch.promote_types(states.dtype, torch.float32))
        logits = self.family.logits(self.mlm, at_places(states, places), embedding_table)
        log_mu, mean = true_word_statistics(logits, self.forbidden_bias, x_0, values)
        if self.copy_head is not None:
            width = batch.source_width
            source_ids = batch.input_ids[:, :width]
            copyable = self._may_be_copied(source_ids, batch.copyable[:, :width])
            weights, log_g, log_not_g = self.copy_head.attend(states, places, states[:, :width], copyable)
            ids = source_ids[rows]
            log_mu = self.copy_head.mix(log_mu, log_g, log_not_g, (weights * (ids == x_0[:, None])).sum(-1))
            if values is not None:
                mean = log_not_g.exp() * mean + log_g.exp() * (weights * values[ids]).sum(-1)
        return TrueWords(log_mu, mean, x_0, self._length_logits(batch, states))
