"""How a text came into being: what a sampler wrote at which step, and the frames in which that can be shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.tokenizer import TextTokenizer

BLANK = "_"
GIVEN, HIDDEN = -1, 0  # the "step" of a cell that was there from the start, and of one still masked


@dataclass
class History:
    """One canvas through a sampler.

    changes: (step from 1 on, place, id), in order; the id is that of [MASK] where a sampler took a word back.
    confidence: per step the largest mu at each place when the model last looked at it, [steps, T]; empty unless asked
    for.
    """

    changes: list[tuple[int, int, int]] = field(default_factory=list)
    confidence: list[list[float]] = field(default_factory=list)


class Tracer:
    """Listens to ``decoding.decode``; ``histories`` has one entry per canvas, by its number.

    Args:
        confidence: also keep how sure the model was of its likeliest word at every place and step.
    """

    def __init__(self, confidence: bool = False):
        self.confidence = confidence
        self.histories: dict[int, History] = {}

    def listen(
        self, numbers: Sequence[int], x_t: Tensor, mask_id: int, denoise: Callable
    ) -> tuple[Callable, Callable[[int, Tensor], None]]:
        """(denoise, callback) for a sampler that is about to work on the canvases ``numbers``, the rows of x_t [B,
        T].
        """
        histories = [self.histories.setdefault(number, History()) for number in numbers]
        before = x_t.clone()
        sure = torch.zeros(x_t.shape, dtype=torch.float64, device=x_t.device)

        def listening(canvas: Tensor, tau: Tensor, active: Tensor) -> Tensor:
            log_mu = denoise(canvas, tau, active)
            rows, columns = (canvas == mask_id).nonzero(as_tuple=True)
            sure[active[rows], columns] = log_mu.amax(-1).double().exp()
            return log_mu

        def callback(step: int, x_t: Tensor) -> None:
            changed = x_t != before
            rows, columns = changed.nonzero(as_tuple=True)
            for row, column, token in zip(rows.tolist(), columns.tolist(), x_t[changed].tolist()):
                histories[row].changes.append((step + 1, column, token))
            before.copy_(x_t)
            if self.confidence:
                for history, row in zip(histories, sure.tolist()):
                    history.confidence.append(row)

        return listening if self.confidence else denoise, callback

    def rewritten(self, number: int, places: Sequence[int], ids: Sequence[int], mask_id: int) -> None:
        """A finished canvas was changed: two more steps, one that hides the places and one that writes them."""
        history = self.histories[number]
        history.confidence += history.confidence[-1:] * 2  # what the model said of them is not asked again
        changes = history.changes
        last = changes[-1][0] if changes else 0
        changes += [(last + 1, place, mask_id) for place in places]
        changes += [(last + 2, place, index) for place, index in zip(places, ids)]

    def left_out(self, number: int, places: Sequence[int]) -> None:
        """Places of a finished canvas are no part of its text any more: its history is told without them."""
        history = self.histories[number]
        moved = {old: old - sum(place < old for place in places) for _, old, _ in history.changes if old not in places}
        history.changes = [(step, moved[old], index) for step, old, index in history.changes if old in moved]
        history.confidence = [[c for place, c in enumerate(row) if place not in places] for row in history.confidence]


class Cell(NamedTuple):
    """A stretch of a frame; ``step`` in which it was revealed, or GIVEN, or HIDDEN (then the text is blanks)."""

    text: str
    step: int


@dataclass
class Trace:
    """The history of one finished text.

    parts: the text in pieces (piece, its place), place None for what was there from the start.
    changes: (step, place, word), word None for [MASK].
    """

    parts: list[tuple[str, int | None]]
    changes: list[tuple[int, int, str | None]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(piece for piece, _ in self.parts)

    def behind(self, given: str) -> Trace:
        """What came behind the ``given`` beginning of the text."""
        if self.parts[0] == (given, None):
            return Trace(self.parts[1:], self.changes)
        return Trace([(self.text[len(given) :], None)])

    def frames(self) -> Iterator[tuple[int, list[Cell]]]:
        """(step, cells) of the start, step 0, and of every step in which something changed. All places keep their room,
        so that nothing moves about; the last frame reads as the text.
        """
        final = {place: word for _, place, word in self.changes}
        shown: dict[int, tuple[str, int]] = {}
        yield 0, self._cells(shown, final)
        for number, (step, place, word) in enumerate(self.changes):
            if word is None:
                shown.pop(place, None)
            else:
                shown[place] = word, step
            if number + 1 == len(self.changes) or self.changes[number + 1][0] != step:
                yield step, self._cells(shown, final)

    def _cells(self, shown: dict[int, tuple[str, int]], final: dict[int, str | None]) -> list[Cell]:
        cells = []
        for piece, place in self.parts:
            if place is None:
                cells.append(Cell(piece, GIVEN))
            elif place not in shown:
                cells.append(Cell(BLANK * len(piece), HIDDEN))
            else:
                word, step = shown[place]
                cells.append(Cell(piece if word == final[place] else word, step))
        return cells


def trace_of(history: History, parts: list[tuple[str, int | None]], tokenizer: TextTokenizer) -> Trace:
    """The trace of a text with these parts."""
    wanted = {place for _, place in parts}
    words = [
        (step, place, None if token == tokenizer.mask_id else tokenizer.surface(token))
        for step, place, token in history.changes
        if place in wanted
    ]
    return Trace(parts, words)


def join_traces(traces: Sequence[Trace]) -> Trace:
    """One after the other."""
    whole = Trace([])
    for trace in traces:
        places = 1 + max((place for _, place in whole.parts if place is not None), default=-1)
        steps = whole.changes[-1][0] if whole.changes else 0
        whole.parts += [(piece, None if place is None else place + places) for piece, place in trace.parts]
        whole.changes += [(step + steps, place + places, word) for step, place, word in trace.changes]
    return whole


def align(text: str, ids: Sequence[int], tokenizer: TextTokenizer, start: int = 0) -> list[tuple[str, int | None]]:
    """``text`` from ``start`` on cut into the pieces ``ids`` it was made of, whatever became of their spacing and
    capitals: parts of a trace.

    Where that fails the whole text is one part without a place: a trace of one frame.
    """
    parts: list[tuple[str, int | None]] = [(text[:start], None)] if start else []
    position = start
    for place, index in enumerate(ids):
        word = tokenizer.surface(index)
        begin = position
        while begin < len(text) and text[begin].isspace():
            begin += 1
        end = begin + len(word)
        if text[begin:end].casefold() != word.casefold():
            return [(text, None)]
        parts += [(text[position:begin], None)] if begin > position else []
        parts.append((text[begin:end], place))
        position = end
    return parts + [(text[position:], None)] if position < len(text) else parts
