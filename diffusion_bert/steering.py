"""What stands between the network and a sampler: remembered answers, guidance, the time correction, words that may not
be written.

Shapes: B rows of a group, A rows sent in one call, T places, N masked places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .model.diffusion_model import DiffusionModel
from .samplers import Repeats, guide

FREE, NEW_WORD, CONTINUATION = 0, 1, 2  # what may stand at a place: anything, no ##piece, only a ##piece
# (canvas [A, T], tau [A], active [A], rows [N], columns [N]) -> log mu [N, V] of the network alone; rows count within
# the call
Network = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


class Denoise:
    """The ``denoise`` of one group of canvases (samplers.common.Denoise): network -> specials -> guidance -> time
    correction -> constraints.

    Args:
        model: for its diffusion, tokenizer and settings.
        network: log mu of the network alone. With guidance it knows 2 B rows, the second half being the first without
            source.
        constraints: [B, T] of FREE / NEW_WORD / CONTINUATION.
        time_correction: whether mu is corrected for the time (diffusion.py).
        guidance_scale: w of samplers.guide, used for the rows ``guided`` [B].
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
        # a network that is told the time, or what it said before, gives another answer at every call
        constant = model.denoiser.timestep == "none" and model.denoiser.self_conditioning is None
        self.memory: dict[int, tuple[Tensor, Tensor]] | None = {} if remember and constant else None
        self.unwritable = torch.tensor(model.tokenizer.unwritable_ids, device=constraints.device)
        self.continuation = vocabulary_flags(model, model.tokenizer.continuation)

    def __call__(self, canvas: Tensor, tau: Tensor, active: Tensor) -> Tensor:
        rows, columns = (canvas == self.model.tokenizer.mask_id).nonzero(as_tuple=True)
        log_mu = (
            self._ask(canvas, tau, active, rows, columns)
            if self.memory is None
            else self._remembered(canvas, tau, active, rows, columns)
        )
        if self.time_correction:
            log_mu = self.model.diffusion.correct_for_time(log_mu, tau[rows])
        log_mu[:, self.unwritable] = float("-inf")
        kind = self.constraints[active[rows], columns]
        for only, forbidden in ((NEW_WORD, self.continuation), (CONTINUATION, ~self.continuation)):
            places = (kind == only).nonzero().squeeze(-1)
            if len(places):
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
        log_mu[:, self.unwritable] = float("-inf")
        with_source, without = log_mu.split([len(rows), int(also.sum())])
        if bool(also.all()):
            return guide(with_source, without, self.scale)
        with_source[also] = guide(with_source[also], without, self.scale)
        return with_source

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


def vocabulary_flags(model: DiffusionModel, flags: Tensor) -> Tensor:
    """A flag per piece of the tokenizer as one per entry of the embedding table, which may be larger: False beyond,
    [V].
    """
    table = torch.zeros(model.denoiser.bert_config.vocab_size, dtype=torch.bool, device=model.device)
    table[: len(flags)] = flags.to(model.device)
    return table


def repetition_rules(
    model: DiffusionModel, mode: str, sources: Sequence[Sequence[int]], counted: Sequence[bool], before: Sequence[int]
):
    """``Repeats`` for rows with these sources, or None when ``mode`` is off.

    counted: rows whose content words are counted too when ``mode`` is content: pieces that begin a word and are rarer
    than average (informativeness above 0). before: the word piece before the first place, or -1.
    """
    if mode == "off":
        return None
    width = max(2, *map(len, sources)) if sources else 2
    ids = torch.tensor([[*source, *[-1] * (width - len(source))] for source in sources], device=model.device)
    content = vocabulary_flags(model, ~model.tokenizer.continuation)
    table = model.schedule.informativeness
    content &= torch.zeros_like(content) if table is None else table > 0
    return Repeats(
        source_ids=ids,
        repeatable=vocabulary_flags(model, model.tokenizer.repeatable),
        content=content,
        counted=torch.tensor([bool(flag) and mode == "content" for flag in counted], device=model.device),
        before=torch.tensor(list(before), device=model.device),
    )
