"""What a sampler calls, from top to bottom: network -> guidance -> time correction -> words that may not be written.

Canvases, times, rows and places come from the host and are sent to the network's device, where log mu stays: nothing is
read back here.

Shapes: B rows of a group, A rows sent in one call, T places, N masked places, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.batching import Collator
from ..data.skills import NO_SOURCE, is_pair
from ..model.diffusion_model import DiffusionModel
from ..model.heads import Guess
from ..samplers import guide
from .canvas import CONTINUATION, NEW_WORD, NO_SIGN, Canvas, stacked


@torch.no_grad()
def guided_denoiser(
    model: DiffusionModel,
    group: Sequence[Canvas],
    collator: Collator,
    time_correction: bool = True,
    guidance_scale: float = 0.0,
    remember: bool = False,
) -> tuple[Tensor, GuidedDenoiser]:
    """The tensor x_t [B, T] of a group of canvases and the ``GuidedDenoiser`` for it.

    Guidance is for pairs: a text that is filled or continued has no source to be guided by.
    """
    x_t, constraints = stacked(group, model.tokenizer, "cpu")
    guided = torch.tensor([is_pair(canvas.skill) for canvas in group])
    known = list(group)
    if guidance_scale and bool(guided.any()):
        known += [dataclasses.replace(canvas, skill=NO_SOURCE, source=[]) for canvas in group]
    network = Network(model, known, collator, x_t.shape[1])
    corrected = time_correction and model.config.diffusion.time_correction
    return x_t, GuidedDenoiser(model, network, constraints, corrected, guidance_scale, guided, remember)


class GuidedDenoiser:
    """The ``denoise`` of one group of canvases (``samplers.Denoise``): network -> specials -> guidance -> time
    correction -> constraints.

    Args:
        model: for its diffusion, tokenizer and settings.
        network: log mu of the network alone. With guidance it knows 2 B rows, the second half being the first without
            source.
        constraints: [B, T] of FREE / NEW_WORD / CONTINUATION, plus NO_SIGN.
        time_correction: whether mu is corrected for the time (diffusion/process.py).
        guidance_scale: w of ``samplers.guide``, used for the rows ``guided`` [B].
        remember: keep the network's answer for each row; while nothing is revealed there, it is only corrected for the
            new time.

    ``nfe`` [B] counts the passes of the network each row took part in; guidance counts two.
    """

    def __init__(
        self,
        model: DiffusionModel,
        network: Network,
        constraints: Tensor,
        time_correction: bool = True,
        guidance_scale: float = 0.0,
        guided: Tensor | None = None,
        remember: bool = False,
    ):
        self.model, self.network, self.constraints, self.time_correction = model, network, constraints, time_correction
        self.scale = guidance_scale
        self.guided = (
            torch.zeros(len(constraints), dtype=torch.bool, device=constraints.device) if guided is None else guided
        )
        self.nfe = torch.zeros(len(constraints), dtype=torch.long, device=constraints.device)
        # a network that knows the time, or what it said before, gives another answer at every call
        constant = model.denoiser.timestep == "none" and model.denoiser.self_conditioning is None
        self.memory: dict[int, tuple[Tensor, Tensor]] | None = {} if remember and constant else None
        self.unwritable = torch.tensor(model.tokenizer.unwritable_ids, device=model.device)
        self.continuation = vocabulary_flags(model, model.tokenizer.continuation)
        self.signs = vocabulary_flags(model, model.tokenizer.signs)

    def __call__(self, canvas: Tensor, tau: Tensor, active: Tensor) -> Tensor:
        """log mu [N, V] at the masked places of ``canvas`` [A, T], in row-major order, at times tau [A]; ``active`` [A]
        are the rows of the group.
        """
        rows, columns = (canvas == self.model.tokenizer.mask_id).nonzero(as_tuple=True)
        ask = self._ask if self.memory is None else self._remembered
        log_mu = ask(canvas, tau, active, rows, columns)
        if self.time_correction:
            log_mu = self.model.diffusion.correct_for_time(log_mu, tau[rows], in_place=True)
        log_mu[:, self.unwritable] = float("-inf")
        kind = self.constraints[active[rows], columns]
        kinds = ((NEW_WORD, self.continuation), (CONTINUATION, ~self.continuation), (NO_SIGN, self.signs))
        for only, forbidden in kinds:
            places = (kind & only).nonzero().squeeze(-1)
            if len(places):
                places = places.to(log_mu.device)
                log_mu[places] = log_mu[places].masked_fill(forbidden, float("-inf"))
        return log_mu

    def _ask(self, canvas: Tensor, tau: Tensor, active: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """One pass of the network; with guidance the rows without source go along in the same pass."""
        twice = self.guided[active] if self.scale else torch.zeros_like(active, dtype=torch.bool)
        self.nfe[active] += 1 + twice.long()
        if not bool(twice.any()):
            return self.network(canvas, tau, active, rows, columns)
        number = twice.long().cumsum(0) - 1 + len(active)  # rows of the second half, within the call
        also = twice[rows]
        log_mu = self.network(
            torch.cat([canvas, canvas[twice]]),
            torch.cat([tau, tau[twice]]),
            torch.cat([active, active[twice] + len(self.guided)]),
            torch.cat([rows, number[rows[also]]]),
            torch.cat([columns, columns[also]]),
        )
        with_source, without = log_mu.split([len(rows), int(also.sum())])
        if bool(also.all()):
            return self._guide(with_source, without)
        also = also.nonzero().squeeze(-1).to(log_mu.device)
        with_source[also] = self._guide(with_source[also], without)  # the others are as if they were alone
        return with_source

    def _guide(self, with_source: Tensor, without: Tensor) -> Tensor:
        """Guided log mu [N, V] of words that may be written."""
        for log_mu in (with_source, without):
            log_mu[:, self.unwritable] = float("-inf")
        return guide(with_source, without, self.scale)

    def _remembered(self, canvas: Tensor, tau: Tensor, active: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The network's log mu; asked only for rows that have changed since their last call."""
        numbers = active.tolist()
        new = torch.tensor(
            [n not in self.memory or not torch.equal(self.memory[n][0], row) for n, row in zip(numbers, canvas)],
            device=canvas.device,
        )
        if bool(new.any()):
            asked = new[rows]
            local = new.long().cumsum(0) - 1
            answer = self._ask(canvas[new], tau[new], active[new], local[rows[asked]], columns[asked])
            sizes = torch.bincount(local[rows[asked]], minlength=int(new.sum())).tolist()
            for number, row, part in zip(active[new].tolist(), canvas[new], answer.split(sizes)):
                self.memory[number] = row, part.clone()
        return torch.cat([self.memory[number][1] for number in numbers])


class Network:
    """log mu of the network alone, for the canvases of one group, of which several may share a source.

    With isolated attention every distinct source is encoded once, for all steps, candidates and lengths. With full
    attention the source depends on the target, so whole sequences go through the network at every call.

    With self-conditioning every call gets what the call before expected at the places that are still masked. Nothing
    else is known: in a first call, or at a place that has been masked again, the guess is zeros.
    """

    def __init__(self, model: DiffusionModel, group: Sequence[Canvas], collator: Collator, width: int):
        """``width``: places T of the canvases, the closing [SEP] and padding included."""
        self.denoiser = model.denoiser
        self.device = model.device
        self.lengths = torch.tensor([len(canvas.words) for canvas in group])
        if self.denoiser.keeps_source:
            distinct = list(dict.fromkeys((canvas.skill, tuple(canvas.source)) for canvas in group))
            batch = collator.batch([(skill, source, [0]) for skill, source in distinct]).to(model.device)
            self.encoded = self.denoiser.encode_source(batch)
            self.copyable = batch.copyable[:, : self.encoded.input_ids.shape[1]]
            number = {source: index for index, source in enumerate(distinct)}
            index = [number[canvas.skill, tuple(canvas.source)] for canvas in group]
            self.source_of_row = torch.tensor(index)  # [B]
            self.active: Tensor | None = None  # the rows of the last call: they change only when a row is finished
        else:
            whole = [(canvas.skill, canvas.source, canvas.words) for canvas in group]
            self.whole = collator.batch(whole)
        self.expected: Tensor | None = None
        if self.denoiser.self_conditioning is not None:  # [B, T, D]
            size = (len(group), width, self.denoiser.bert_config.hidden_size)
            self.expected = self.denoiser.length_head.weight.new_zeros(size)

    def __call__(self, canvas: Tensor, tau: Tensor, active: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """log mu [N, V] at the places (rows, columns) [N] of ``canvas`` [A, T], at times tau [A]; rows count within the
        call, ``active`` [A] are the rows of the group.
        """
        there = tuple(index.to(self.device) for index in (active[rows], columns))
        guess = None if self.expected is None else self.expected[there]
        predict = self._from_sources if self.denoiser.keeps_source else self._from_whole_sequences
        log_mu = predict(canvas, tau, active, rows, columns, guess)
        if self.expected is not None:
            self.expected[active.to(self.device)] = 0.0
            self.expected[there] = self.denoiser.expected_embedding(log_mu).to(self.expected.dtype)
        return log_mu

    def _from_sources(self, canvas, tau, active, rows, columns, guess: Tensor | None) -> Tensor:
        if self.active is None or not torch.equal(self.active, active):
            index = self.source_of_row[active].to(self.device)
            self.active, self.source, self.may_copy = active, self.encoded.select(index), self.copyable[index]
        places = rows.to(self.device), columns.to(self.device)
        source, guess = self.source, None if guess is None else Guess(*places, guess)
        sent = (tensor.to(self.device) for tensor in (canvas, self.lengths[active], tau))
        states = self.denoiser.target_states(source, *sent, guess)
        return self.denoiser.word_log_probs(states, places, source.states, source.input_ids, self.may_copy)

    def _from_whole_sequences(self, canvas, tau, active, rows, columns, guess: Tensor | None) -> Tensor:
        whole, lengths = self.whole, self.lengths[active]
        ids, source_length, prompt_length = (
            values[active] for values in (whole.input_ids, whole.source_length, whole.prompt_length)
        )
        part = Batch(ids, source_length, prompt_length, lengths, whole.pad_id, whole.mask_id)
        x_t = part.input_ids.clone()
        x_t[part.target_mask] = canvas[torch.arange(canvas.shape[1]) < lengths[:, None]]
        places = tuple(index.to(self.device) for index in part.masked_places(x_t))
        return self.denoiser(part.to(self.device), x_t.to(self.device), tau.to(self.device), guess, places=places)[0]


def vocabulary_flags(model: DiffusionModel, flags: Tensor, device: torch.device | str | None = None) -> Tensor:
    """A flag per piece of the tokenizer as one per entry of the embedding table, which may be larger: False beyond,
    [V], on a ``device`` (default: the model's).
    """
    table = torch.zeros(model.denoiser.bert_config.vocab_size, dtype=torch.bool, device=device or model.device)
    table[: len(flags)] = flags.to(table.device)
    return table
