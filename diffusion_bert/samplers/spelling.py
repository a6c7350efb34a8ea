"""No invented words: a continuation piece stands only where it makes a known word.

Without it a model whose words have pieces writes "theience": pieces that are revealed in one call do not see each
other, and a small model does not know all words by heart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.lexicon import ANY, Lexicon

SAMPLE = 64  # pieces that begin a word, by which it is seen whether any may stand
MOST_ROOM = 12  # a run of masked places counts as at most so long


class Stretch(NamedTuple):
    """Pieces of one word that stand side by side from place ``start`` to ``end``. ``lead``: how many masked places come
    before them, behind the ``beginning`` of a word; ``room``: how many pieces may still come behind.
    """

    pieces: tuple[int, ...]
    lead: int
    room: int
    start: int
    end: int
    beginning: tuple[int, ...] = ()


@dataclass
class Spelling:
    """Which words are known, for the rows of one run.

    lexicon: the words of several pieces that all rows may write. own: for each row those of its source and of its
    given words, which may be written there, too. continuation [V] bool: pieces that continue a word.
    """

    lexicon: Lexicon
    own: Sequence[Lexicon]
    continuation: Tensor

    def __post_init__(self):
        self._continues = self.continuation.tolist()
        self._columns = self.continuation.nonzero().squeeze(-1)  # [C] the continuations
        self._column = {piece: column for column, piece in enumerate(self._columns.tolist())}
        starts = (~self.continuation).nonzero().squeeze(-1)
        self._some_starts = starts[:: max(1, len(starts) // SAMPLE)]
        self._anywhere: dict[tuple[int, int, int], Tensor] = {}

    def forbid(self, x_t: Tensor, rows: Tensor, columns: Tensor, log_mu: Tensor, mask_id: int) -> None:
        """Take the mass of pieces that would make an unknown word of what stands already, in place; log_mu [N, V] at
        the places (rows, columns). A place where nothing else is possible keeps its words.
        """
        if not len(self._columns):  # every piece is a word
            return
        kept = torch.zeros(len(rows), len(self._columns), dtype=torch.bool)  # most places lose continuations only
        bound: dict[int, list[int]] = {}  # places where a new word may not begin, or few may, and which
        at: list[int] = []
        allowed: list[int] = []
        texts = {row: x_t[row].tolist() for row in set(rows.tolist())}
        for number, (row, column) in enumerate(zip(rows.tolist(), columns.tolist())):
            left, right = self._left(texts[row], column, mask_id), self._right(texts[row], column, mask_id)
            ends = not left.pieces or self._known(row, left._replace(room=0))  # a new word may begin
            anywhere = left.lead and not left.pieces and not right.pieces  # many words: a table instead of a list
            if anywhere:
                kept[number] = self._somewhere(row, left.lead, right.room)
            if right.pieces or not ends:
                bound[number] = []
            for lexicon in (self.lexicon, self.own[row]):
                found: tuple[int, ...] = ()
                if anywhere and left.beginning:
                    found = lexicon.going_on(left.beginning, left.lead, right.room)
                elif not anywhere and (left.pieces or left.lead):
                    found = lexicon.between(left.pieces, left.lead, right.pieces, right.room, left.beginning)
                at += [number] * len(found)
                allowed += [self._column[piece] for piece in found]
                if right.pieces and ends:
                    bound[number] += lexicon.between((), 0, right.pieces, right.room)
        kept[at, allowed] = True
        self._take(log_mu, kept.to(log_mu.device), bound)

    def _take(self, log_mu: Tensor, kept: Tensor, bound: dict[int, list[int]]) -> None:
        """Leave of the continuations those ``kept`` [N, C], and at the ``bound`` places of the others those named; a
        place that would be left with nothing stays as it is. Nothing is read back from the device.
        """
        columns = self._columns.to(log_mu.device)
        before = log_mu.index_select(-1, columns)  # [N, C]
        after = before.masked_fill(~kept, float("-inf"))
        starts = log_mu.index_select(-1, self._some_starts.to(log_mu.device)).amax(-1)  # [N] -inf: continuations only
        if bound:
            numbers = torch.tensor(list(bound), device=log_mu.device)
            taken = (~self.continuation).repeat(len(bound), 1)
            for place, allowed in enumerate(bound.values()):
                taken[place, allowed] = False
            whole = log_mu[numbers]
            few = whole.masked_fill(taken.to(log_mu.device), float("-inf"))
            starts[numbers] = few.index_fill(-1, columns, float("-inf")).amax(-1)
        stuck = after.amax(-1).isneginf() & starts.isneginf()
        if bound:
            log_mu[numbers] = torch.where(stuck[numbers, None], whole, few)
        log_mu.index_copy_(-1, columns, torch.where(stuck[:, None], before, after))

    def clash(
        self, x_t: Tensor, rows: Tensor, columns: Tensor, words: Tensor, chosen: Tensor, score: Tensor, mask_id: int
    ) -> Tensor:
        """Which of the places [N] chosen for ``words`` make an unknown word with pieces chosen in the same call at a
        place of higher ``score``, [N] bool. The best-scored chosen place of a row is never one of them.
        """
        clash = torch.zeros_like(chosen)
        numbers: dict[int, dict[int, int]] = {}
        row_of, column_of, word_of = rows.tolist(), columns.tolist(), words.tolist()
        for number in chosen.nonzero().squeeze(-1).tolist():
            numbers.setdefault(row_of[number], {})[column_of[number]] = number
        for row, of_place in numbers.items():
            text = x_t[row].tolist()
            for place, number in of_place.items():
                text[place] = word_of[number]
            for stretch in self._unknown(row, text, mask_id):
                # the place behind belongs to them: it ends the word
                found = [of_place[p] for p in range(stretch.start, stretch.end + 1) if p in of_place]
                if len(found) > 1:
                    best = max(found, key=lambda number: (float(score[number]), -number))
                    clash[[number for number in found if number != best]] = True
        return clash

    def unknown_places(self, x_0: Tensor, written: Tensor, mask_id: int) -> Tensor:
        """The ``written`` places [B, T] bool of unknown words in finished rows x_0 [B, T]."""
        found = torch.zeros_like(written)
        for row, text in enumerate(x_0.tolist()):
            for stretch in self._unknown(row, text, mask_id):
                found[row, stretch.start : stretch.end] = True
        return found & written

    def _unknown(self, row: int, text: list[int], mask_id: int) -> Iterator[Stretch]:
        """Stretches of a row that no known word has."""
        place = 0
        while place < len(text):
            if not self._continues[text[place]]:
                place += 1
                continue
            left, right = self._left(text, place, mask_id), self._right(text, place, mask_id)
            stretch = left._replace(pieces=(*left.pieces, text[place], *right.pieces), room=right.room, end=right.end)
            if not (left.pieces or left.lead) or not self._known(row, stretch):
                yield stretch
            place = right.end

    def _known(self, row: int, part: Stretch) -> bool:
        return any(
            lexicon.has(part.pieces, part.lead, part.room, part.beginning) for lexicon in (self.lexicon, self.own[row])
        )

    def _somewhere(self, row: int, lead: int, room: int) -> Tensor:
        """[C] bool: the continuations that known words have behind at most ``lead`` pieces and before at most
        ``room``.
        """
        key = id(self.own[row]), lead, room
        if key not in self._anywhere:
            table = torch.zeros(len(self._columns), dtype=torch.bool, device=self._columns.device)
            for lexicon in (self.lexicon, self.own[row]):
                table[[self._column[piece] for piece in lexicon.between((), lead, (), room)]] = True
            self._anywhere[key] = table
        return self._anywhere[key]

    def _left(self, text: list[int], place: int, mask_id: int) -> Stretch:
        """The pieces of a word that end before ``place``."""
        start = self._begin(text, place)
        if start > 0 and text[start - 1] != mask_id:
            return Stretch(tuple(text[start - 1 : place]), 0, 0, start - 1, place)
        first = start
        while first > 0 and text[first - 1] == mask_id:
            first -= 1
        lead, beginning = min(start - first, MOST_ROOM), ()
        if first > 0:
            begin = self._begin(text, first)
            if begin > 0 and text[begin - 1] != mask_id:
                beginning = tuple(text[begin - 1 : first])
            else:
                lead = ANY  # pieces of a word whose beginning is not written yet
        return Stretch(tuple(text[start:place]), lead, 0, start, place, beginning)

    def _begin(self, text: list[int], place: int) -> int:
        """Where the continuations begin that end before ``place``."""
        while place > 0 and self._continues[text[place - 1]]:
            place -= 1
        return place

    def _right(self, text: list[int], place: int, mask_id: int) -> Stretch:
        """The continuations behind ``place``, and the room for more of them."""
        end = place + 1
        while end < len(text) and self._continues[text[end]]:
            end += 1
        last = end
        while last < len(text) and text[last] == mask_id:
            last += 1
        goes_on = last > end and last < len(text) and self._continues[text[last]]
        room = ANY if goes_on else min(last - end, MOST_ROOM)
        return Stretch(tuple(text[place + 1 : end]), 0, room, place + 1, end)
