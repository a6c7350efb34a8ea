"""What all samplers share: their options, their result, and the state of a run, so that each file is left with its one
algorithm.

The canvas and all that is decided about it are on the host, and small; only log mu is on the denoiser's device.

Shapes: B rows, T places of the target canvas, N places looked at in row-major order, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.random_numbers import RandomNumbers
from .places import Places
from .repetition import Repeats
from .spelling import Spelling
from .words import NUMBERS, WordOptions, draw_words

# (x_t [B, T], tau [B], rows [B]) -> log mu [N, V] at the masked places of x_t, in row-major order; the sampler may
# write into it. ``rows`` are the places of these sequences in the batch the sampler was started with: others are not
# sent.
Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]
Callback = Callable[[int, Tensor], None]


@dataclass
class SamplerOptions(WordOptions):
    """steps: most denoiser calls per row. The others belong to one sampler each; see there.

    repeats: what may not be written next to itself; spelling: which words there are. None leaves the samplers exact.
    """

    steps: int = 16
    margin: bool = False
    gamma: float = 0.1
    remask_cap: float = 0.04
    remask_order: str = "confidence"
    repeats: Repeats | None = None
    spelling: Spelling | None = None


@dataclass
class SampleOutput:
    """x_0 [B, T]: the finished canvas. nfe [B]: calls of ``denoise`` each row took part in.

    log_prob [B]: sum of log mu (before temperature) of each word at the moment it was revealed; candidates are ranked
    by it.
    """

    x_0: Tensor
    nfe: Tensor
    log_prob: Tensor


class SamplingState:
    """One run of a sampler: the canvas ``x_t`` [B, T] as it is now, the times ``tau`` [B] at which its rows started,
    and what is counted.
    """

    def __init__(
        self,
        denoise: Denoise,
        x_t: Tensor,
        mask_id: int,
        tau: Tensor,
        options: SamplerOptions,
        keys: Tensor | None,
        callback: Callback | None,
    ):
        self.denoise, self.mask_id, self.options, self.callback = denoise, mask_id, options, callback
        self.x_t = x_t.clone()
        keys = torch.randint(-(2**63), 2**63 - 1, (len(x_t),)) if keys is None else keys
        self.numbers = RandomNumbers(keys, x_t.shape[1], x_t.device)
        self.tau = tau.to(torch.float64)
        self.nfe = torch.zeros(len(x_t), dtype=torch.long, device=x_t.device)
        # of the word at each place, when it was revealed
        self.log_prob = torch.zeros(x_t.shape, dtype=torch.float64, device=x_t.device)
        self.steps_done = 0

    @property
    def masked(self) -> Tensor:
        """[B, T] places still to be written."""
        return self.x_t == self.mask_id

    def uniform(self, places: Places) -> Tensor:
        """A uniform number for each of the places, [N] float64."""
        return self.numbers.at(places.rows, places.columns, 1)[:, 0]

    def predict(self, wanted: Tensor, tau_t: Tensor) -> Places:
        """Call the denoiser for the rows with a place in ``wanted`` [B, T], at times tau_t [B]; log mu of the wanted
        places.

        With ``repeats`` and ``spelling`` the words that may not stand there lose their mass.
        """
        rows = wanted.any(-1).nonzero().squeeze(-1)
        canvas = self.x_t[rows]
        log_mu = self.denoise(canvas, tau_t[rows], rows)
        self.nfe[rows] += 1
        local, columns = (canvas == self.mask_id).nonzero(as_tuple=True)
        places = Places(rows[local], columns, log_mu)
        return self._forbid(places.select(wanted[places.rows, columns]))

    def draw(self, places: Places, measure: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """A word for every place, [N] from mu'; ``measure`` as in ``Places.read``."""
        uniform = self.numbers.at(places.rows, places.columns, NUMBERS)
        return places.read(draw_words(places.log_mu, self.options, uniform.to(places.log_mu.device)), measure)

    def reveal(self, places: Places, words: Tensor, chosen: Tensor, last: bool = False) -> None:
        """Write ``words`` [N] at the ``chosen`` places [N].

        With ``repeats``, of equal words that may not stand together only the most probable is written, with
        ``spelling`` only the most probable piece of an unknown word: the other place stays masked until a later call
        can see its neighbour. When this is the ``last`` call, another one is drawn at
        once, without the word beside it.
        """
        log_prob = places.log_prob(words)
        allowed = chosen
        if self.options.repeats is not None:
            allowed = chosen & ~self.options.repeats.clash(
                self.x_t, places.rows, places.columns, words, chosen, log_prob
            )
        if self.options.spelling is not None:
            allowed = allowed & ~self.options.spelling.clash(
                self.x_t, places.rows, places.columns, words, allowed, log_prob, self.mask_id
            )
        rows, columns = places.rows[allowed], places.columns[allowed]
        self.x_t[rows, columns] = words[allowed]
        self.log_prob[rows, columns] = log_prob[allowed].double()
        left = chosen & ~allowed
        if last and bool(left.any()):  # the most probable one of each row is always allowed: this ends
            rest = self._forbid(places.select(left))
            self.reveal(rest, self.draw(rest), torch.ones_like(rest.rows, dtype=torch.bool), last)

    def remask(self, chosen: Tensor) -> None:
        """Put [MASK] back at the places ``chosen`` [B, T]."""
        self.x_t[chosen] = self.mask_id
        self.log_prob[chosen] = 0.0

    def end_step(self) -> None:
        """End of a step: the callback gets (step, x_t)."""
        if self.callback is not None:
            self.callback(self.steps_done, self.x_t)
        self.steps_done += 1

    def output(self) -> SampleOutput:
        return SampleOutput(self.x_t, self.nfe, self.log_prob.sum(-1))

    def _forbid(self, places: Places) -> Places:
        for rule in (self.options.repeats, self.options.spelling) if len(places) else ():
            if rule is not None:
                rule.forbid(self.x_t, places.rows, places.columns, places.log_mu, self.mask_id)
        return places
