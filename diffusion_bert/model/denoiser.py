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
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedConfig

from ..data.batch import Batch
from .encoders import family_of
from .functions import tied_embedding, true_word_statistics
from .heads import CopyHead, Guess, SelfConditioning, TimeEmbedding, at_least_float32, at_places, expected_embedding


@dataclass
class EncodedSource:
    """What every denoising step needs of the source: computed once per source (isolated attention only)."""

    keys_values: list[tuple[Tensor, Tensor]]  # per layer, [B, heads, S, D / heads]
    states: Tensor  # [B, S, D]
    input_ids: Tensor  # [B, S]
    source_length: Tensor  # [B]
    prompt_length: Tensor  # [B]

    def select(self, rows: Tensor) -> EncodedSource:
        """The sources of these rows, repeated or dropped as the index says."""
        return EncodedSource(
            [(key[rows], value[rows]) for key, value in self.keys_values],
            self.states[rows],
            self.input_ids[rows],
            self.source_length[rows],
            self.prompt_length[rows],
        )


@dataclass
class TrueWords:
    """What the denoiser says of the N masked places of a noised batch whose true words x_0 are known."""

    log_mu: Tensor  # [N] log mu of the true word
    mean: Tensor  # [N] mean of the table under mu
    x_0: Tensor  # [N] the true words
    length_logits: Tensor  # [B, max_target_length]


class BertDenoiser(nn.Module):
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
        self.target_embedding = None if self.family.token_types else nn.Parameter(torch.zeros(config.hidden_size))
        self.bert_config, self.max_target_length = config, max_target_length
        self.attention, self.timestep = attention, timestep
        self.leaves_out = True  # whether the last layer of a training step may leave out places that no head reads
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

    # ---- passes through the encoder ---------------------------------------------------------------------------------

    def hidden_states(
        self,
        batch: Batch,
        x_t: Tensor,
        tau: Tensor,
        guess: Guess | None = None,
        words: Tensor | None = None,
        read: Tensor | None = None,
    ) -> Tensor:
        """One pass over whole sequences, [B, L, D]: training, and sampling with full attention. x_t [B, L], tau [B].

        ``words`` [B, L, D] are the embeddings of x_t where they are known already; ``read`` [B, L] says which states
        will be used (default: all): the last layer may then leave out others, which come back as zeros.
        """
        embeddings = self._embed(x_t, guess, words)
        valid, draw, positions = batch.valid, batch.draw, batch.positions  # [B, L]
        time = None
        if self.time_embedding is not None:
            time = self.time_embedding(tau)  # [B, layers, D]
        if self.timestep == "prefix":
            # attention does not mind the order of its inputs: the time token stands in the last column, at the first
            # target position
            embeddings = torch.cat([embeddings, time], dim=1)
            valid = F.pad(valid, (0, 1), value=True)
            draw = F.pad(draw, (0, 1), value=0)
            positions = torch.cat([positions, torch.zeros_like(batch.source_length[:, None])], dim=1)
        is_target = draw >= 0
        allowed = valid[:, None, :].expand(-1, valid.shape[1], -1)
        if self.attention == "isolated":
            allowed = allowed & (~is_target[:, None, :] | (draw[:, :, None] == draw[:, None, :]))
        if read is not None:
            read = F.pad(read, (0, embeddings.shape[1] - read.shape[1])).flatten().nonzero().squeeze(-1)
        states = self._run(embeddings, is_target.long(), positions, allowed, time, is_target, read=read)
        return states[:, : x_t.shape[1]]

    def encode_source(self, batch: Batch) -> EncodedSource:
        """Encode the source segments once (isolated attention): states, keys and values that no target can change."""
        ids = batch.source_ids()
        seen = torch.arange(ids.shape[1], device=ids.device) < batch.source_length[:, None]  # [B, S]
        cache = DynamicCache() if self.family.caches else None
        states = self._run(
            self._embed(ids),
            torch.zeros_like(ids),
            torch.arange(ids.shape[1], device=ids.device).expand_as(ids),
            seen[:, None, :].expand(-1, ids.shape[1], -1),
            cache=cache,
        )
        keys_values = [(layer.keys, layer.values) for layer in cache.layers] if cache is not None else []
        return EncodedSource(keys_values, states, ids, batch.source_length, batch.prompt_length)

    def target_states(
        self, source: EncodedSource, x_t: Tensor, target_length: Tensor, tau: Tensor, guess: Guess | None = None
    ) -> Tensor:
        """Hidden states of target segments [B, T, D], given the encoded source. x_t [B, T] holds the words, [SEP] and
        padding.
        """
        embeddings = self._embed(x_t, guess)
        columns = torch.arange(x_t.shape[1], device=x_t.device)
        valid = columns <= target_length[:, None]  # words and [SEP]
        positions = columns.expand_as(x_t)
        time = None if self.time_embedding is None else self.time_embedding(tau)
        if self.timestep == "prefix":
            embeddings = torch.cat([embeddings, time], dim=1)
            valid = F.pad(valid, (0, 1), value=True)
            positions = torch.cat([positions, torch.zeros_like(source.source_length[:, None])], dim=1)
        seen = torch.arange(source.input_ids.shape[1], device=x_t.device) < source.source_length[:, None]  # [B, S]
        allowed = torch.cat([seen, valid], dim=1)[:, None, :].expand(-1, valid.shape[1], -1)
        # a fresh cache on the same tensors: appending concatenates, so the source's own keys and values stay as they
        # are
        cache = DynamicCache()
        for layer, (key, value) in enumerate(source.keys_values):
            cache.update(key, value, layer)
        states = self._run(
            embeddings, torch.ones_like(positions), positions, allowed, time, torch.ones_like(valid), cache
        )
        return states[:, : x_t.shape[1]]

    @property
    def _words(self) -> nn.Embedding:
        return self.mlm.get_submodule(self.family.words)

    @property
    def keeps_source(self) -> bool:
        """Whether sampling encodes a source once, for ``target_states``, or whole sequences at every step, by
        ``forward``.
        """
        return self.attention == "isolated" and self.family.caches

    def _embed(self, ids: Tensor, guess: Guess | None = None, words: Tensor | None = None) -> Tensor:
        """Word embeddings [B, L, D], with the guess added at its places."""
        embeddings = self._words(ids) if words is None else words
        return embeddings if guess is None else self.self_conditioning(embeddings, guess)

    def expected_embedding(self, log_mu: Tensor) -> Tensor:
        """What self-conditioning keeps of log mu [N, V] for the next call: [N, D]."""
        return expected_embedding(log_mu, self._words.weight)

    def _run(
        self, embeddings, token_types, positions, allowed, time=None, is_target=None, cache=None, read=None
    ) -> Tensor:
        """The only call of the encoder: explicit 4-D mask [B, 1, Q, K], True = may look. read [M]: see
        ``hidden_states``, as flat places.
        """
        if self.target_embedding is not None:
            embeddings = embeddings + token_types[..., None] * self.target_embedding
        extra = (
            None if self.timestep != "layerwise" or time is None else time[:, :, None] * is_target[:, None, :, None]
        )  # [B, layers, Q, D]
        with self.family.changed_layers(self.mlm, extra, read):
            states = self.family.run(self.mlm, embeddings, token_types, positions, allowed, cache)
        if read is None:
            return states
        return (
            states.new_zeros(token_types.numel(), states.shape[-1])
            .index_copy(0, read, states)
            .view(*token_types.shape, -1)
        )

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
        table: Tensor | None = None,
    ) -> Tensor:
        """log mu at N places, [N, V] float32 or better: the vocabulary head, mixed with the copy head if there is one.

        states [B, T, D], places = rows and columns [N] into them, source_states [B, S, D], source_ids and copyable [B,
        S], table as in ``tied_embedding``.
        """
        logits = self.family.logits(self.mlm, at_places(states, places), table)
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
        words, table = self._tied_embedding(x_t)
        states = self._conditioned_states(batch, x_t, tau, places, guess, two_pass, words)
        return self._log_mu(batch, states, places, table), self._length_logits(batch, states)

    def _tied_embedding(self, x_t: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """``tied_embedding`` where the head shares the embeddings' table and a gradient is wanted."""
        shared = self._words.weight is self.mlm.get_output_embeddings().weight
        return tied_embedding(self._words, x_t) if shared and torch.is_grad_enabled() else (None, None)

    def _log_mu(
        self, batch: Batch, states: Tensor, places: tuple[Tensor, Tensor], table: Tensor | None = None
    ) -> Tensor:
        width = batch.source_width
        return self.word_log_probs(
            states, places, states[:, :width], batch.input_ids[:, :width], batch.copyable[:, :width], table
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
            guess = self.length_head.weight.new_zeros(
                len(places[0]), self.bert_config.hidden_size
            )  # so the projection takes part in every step
        return self.hidden_states(batch, x_t, tau, None if guess is None else Guess(*places, guess), words, read)

    def _length_logits(self, batch: Batch, states: Tensor) -> Tensor:
        return self.length_logits(states if self.attention == "isolated" else self.encode_source(batch).states)

    def _read(self, batch: Batch, places: tuple[Tensor, Tensor]) -> Tensor | None:
        """Which states the heads will read, [B, L] bool: masked places, [CLS], and what may be copied. None where
        leaving out others does not pay: a GPU would have to wait for their number, and a compiled encoder would be
        compiled anew for each.
        """
        if not self.leaves_out or batch.input_ids.device.type != "cpu" or self.family.place_by_place is None:
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
        table: Tensor | None = None,
        two_pass: bool = False,
        places: tuple[Tensor, Tensor] | None = None,
    ) -> TrueWords:
        """What the loss needs to know of mu, and no more: faster than ``forward``, which writes down all N x V numbers.

        table [V] holds one number per word whose mean under mu is wanted; the rest as in ``forward``.
        """
        places = rows, columns = batch.masked_places(x_t) if places is None else places
        words, table_of_words = self._tied_embedding(x_t)
        states = self._conditioned_states(
            batch, x_t, tau, places, two_pass=two_pass, words=words, read=self._read(batch, places)
        )
        x_0 = batch.input_ids[rows, columns]
        # one mean fits all callers: in the type of the result, on the device of the weights
        values = None if table is None else table.to(torch.promote_types(states.dtype, torch.float32))
        logits = self.family.logits(self.mlm, at_places(states, places), table_of_words)
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
