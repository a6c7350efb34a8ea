"""Passes through the encoder: whole sequences, a source by itself, or targets beside a source encoded before."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache

from ..data.batch import Batch
from .heads import Guess, expected_embedding


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


class EncoderPasses(nn.Module):
    """The passes of a denoiser; its parts are built by the class that inherits them (denoiser.py)."""

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
        embeddings, time, valid, positions = self._with_time(embeddings, tau, valid, positions)
        draw = F.pad(draw, (0, valid.shape[1] - draw.shape[1]), value=0)  # the time token belongs to the target
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
        embeddings, time, valid, positions = self._with_time(embeddings, tau, valid, positions)
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

    def _with_time(
        self, embeddings: Tensor, tau: Tensor, valid: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Embeddings, valid places and positions with what tells the network the time, and that itself [B, layers, D].

        As a prefix the time is a token. Attention does not mind the order of its inputs: it stands in the last column,
        at the first position of the target.
        """
        time = None if self.time_embedding is None else self.time_embedding(tau)
        if self.timestep == "prefix":
            embeddings = torch.cat([embeddings, time], dim=1)
            valid = F.pad(valid, (0, 1), value=True)
            positions = F.pad(positions, (0, 1), value=0)
        return embeddings, time, valid, positions

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
