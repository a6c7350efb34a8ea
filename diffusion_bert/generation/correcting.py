"""Corrections of a typed text: the few single edits after which the model finds it clearly likelier.

An edit is judged by the leave-one-out score of the whole text, summed over all places near it: log p of the new words,
but also how much better their neighbours fit. A word that is rare but right helps its neighbours; a wrong one hurts
them. A word that stands there by mistake is one of all words, in proportion to how common they are: so a typed word
must be less likely in its place than it is anywhere, before another one takes it (``log_frequency``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from torch import Tensor

from ..data.batching import Collator
from ..data.skills import NO_SOURCE
from ..model.diffusion_model import DiffusionModel
from .canvas import Canvas
from .edits import ADD, DROP, EXCHANGE, REPLACE, SPELL, Edit, Reading, begins_sentence, is_alike, proposed_edits, read
from .leave_one_out import leave_one_out

WINDOW = 6  # word pieces on each side of an edit whose scores are compared
# nats that an edit of each kind must gain; chosen on held-out sentences so that few whole ones change
LEAST_GAIN = {REPLACE: 5.0, SPELL: 6.0, DROP: 0.0, ADD: 5.0, EXCHANGE: 6.0}
LIKENESS = 4.0  # nats by which a word of like spelling is sooner the one that was meant
Cased = Callable[[str, str], str]  # (new text, typed text) -> the new text with capitals


class Change(NamedTuple):
    """``before`` was typed where now ``after`` stands, from ``start`` on in the corrected text."""

    before: str
    after: str
    start: int
    gain: float  # nats of the leave-one-out score


class Correction(NamedTuple):
    """A corrected text, and its changes from left to right."""

    text: str
    changes: tuple[Change, ...]


class Judged(NamedTuple):
    """An edit and what it gains, in nats."""

    edit: Edit
    gain: float


@dataclass
class _Part:
    """A stretch of a text in the course of its correction, and its changes with their places in it."""

    text: str
    changes: list[Change] = field(default_factory=list)

    def best(self, judged: Sequence[Judged]) -> Judged | None:
        """The edit that gains most beyond what its kind must, and touches no change made before."""
        able = [
            (gain - LEAST_GAIN[edit.kind], number)
            for number, (edit, gain) in enumerate(judged)
            if gain > LEAST_GAIN[edit.kind] and not any(self._touches(edit, change) for change in self.changes)
        ]
        return judged[max(able)[1]] if able else None

    @staticmethod
    def _touches(edit: Edit, change: Change) -> bool:
        return edit.start < change.start + len(change.after) and change.start < edit.end

    def apply(self, edit: Edit, gain: float, cased: Cased) -> None:
        """Make an edit. What the model writes has the capitals of the whole; where a sentence was begun with a small
        letter it is begun so again.
        """
        whole, new, typed = edit.applied(self.text), edit.new, edit.typed(self.text)
        capitals = cased(whole, self.text)
        small = typed[:1].islower() and begins_sentence(self.text, edit.start) and edit.written == len(new)
        if len(capitals) == len(whole) and not small:  # a capital may be longer than its small letter
            end = edit.start + len(new)
            new = new[: len(new) - edit.written] + capitals[end - edit.written : end]
        shift = len(new) - (edit.end - edit.start)
        moved = [
            change._replace(start=change.start + shift) if change.start >= edit.end else change
            for change in self.changes
        ]
        self.changes = sorted([*moved, Change(typed, new, edit.start, gain)], key=lambda change: change.start)
        self.text = self.text[: edit.start] + new + self.text[edit.end :]


def correct(
    model: DiffusionModel,
    texts: Sequence[Sequence[str]],
    collator: Collator,
    cased: Cased,
    max_changes: int,
    limit: int,
    batch_size: int,
) -> list[Correction]:
    """Every text, given as its parts of at most ``limit`` word pieces, after at most ``max_changes`` edits: the one
    that gains most first, each judged in the text as it is by then.
    """
    parts = [[_Part(text) for text in row] for row in texts]
    known: dict[str, list[Judged]] = {}
    active = list(range(len(texts)))
    for _ in range(max_changes):
        new = list(dict.fromkeys(part.text for number in active for part in parts[number] if part.text not in known))
        known |= zip(new, judged_edits(model, new, collator, limit, batch_size))
        rest = []
        for number in active:
            best = [(part, found) for part in parts[number] if (found := part.best(known[part.text]))]
            if best:
                part, found = max(best, key=lambda row: row[1].gain - LEAST_GAIN[row[1].edit.kind])
                part.apply(*found, cased)
                rest.append(number)
        active = rest
    return [_joined(row) for row in parts]


def _joined(parts: Sequence[_Part]) -> Correction:
    """The parts as one text again."""
    starts = accumulate((len(part.text) for part in parts), initial=0)
    changes = [c._replace(start=c.start + start) for part, start in zip(parts, starts) for c in part.changes]
    return Correction("".join(part.text for part in parts), tuple(changes))


def judged_edits(
    model: DiffusionModel, texts: Sequence[str], collator: Collator, limit: int, batch_size: int
) -> list[list[Judged]]:
    """The edits worth comparing, of every text, with what they gain; none makes a text longer than ``limit``."""
    readings = [read(text, model) for text in texts]
    proposed = proposed_edits(model, readings, collator, batch_size)
    after = [[read(edit.applied(reading.text), model) for edit in edits] for reading, edits in zip(readings, proposed)]
    mask = model.tokenizer.mask_id
    canvases = [Canvas(NO_SOURCE, [], [mask] * len(reading.ids)) for reading in readings]
    rows = [reading.ids for reading in readings]
    numbers: list[tuple[int, int]] = []
    windows: list[tuple[slice, slice]] = []
    for number, reading in enumerate(readings):
        for index, changed in enumerate(after[number]):
            if len(changed.ids) <= limit and changed.ids != reading.ids:
                windows.append(_windows(reading, changed))
                words = list(changed.ids)
                place = windows[-1][1]
                words[place] = [mask] * len(words[place])
                canvases.append(Canvas(NO_SOURCE, [], words))
                rows.append(changed.ids)
                numbers.append((number, index))
    scores = leave_one_out(model, canvases, rows, collator, batch_size)
    before: list[Tensor] = scores[: len(readings)]
    judged: list[list[Judged]] = [[] for _ in readings]
    for (number, index), (old, new), score in zip(numbers, windows, scores[len(readings) :]):
        gain = float(score[new].sum()) - float(before[number][old].sum())
        edit = proposed[number][index]
        if edit.kind == REPLACE:
            typed = edit.typed(readings[number].text)
            gain += log_frequency(model, typed) + LIKENESS * is_alike(edit.new, typed)
        judged[number].append(Judged(edit, gain))
    return judged


def log_frequency(model: DiffusionModel, word: str) -> float:
    """log of the share of a word's pieces in the training targets; every piece counts once more than it was seen."""
    ids, counts = model.tokenizer.encode(word), model.token_counts
    total = float(counts.sum()) + model.tokenizer.vocab_size
    return sum(math.log((float(counts[index]) + 1 if index < len(counts) else 1.0) / total) for index in ids)


def _windows(before: Reading, after: Reading) -> tuple[slice, slice]:
    """The places that an edit changes, and ``WINDOW`` more on each side, in the pieces before and after."""
    one, other = before.ids, after.ids
    shortest = min(len(one), len(other))
    head = next((n for n in range(shortest) if one[n] != other[n]), shortest)
    tail = next((n for n in range(shortest - head) if one[-1 - n] != other[-1 - n]), shortest - head)
    start = max(0, head - WINDOW)
    return slice(start, len(one) - tail + WINDOW), slice(start, len(other) - tail + WINDOW)
