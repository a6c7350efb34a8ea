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

MOST_ROOM = 8  # a run of masked places counts as at most so long


class Stretch(NamedTuple):
    """Pieces of one word that stand side by side. ``is_open``: a masked place comes before them; ``room``: how many
    pieces may still come behind; ``start``, ``end``: their places.
    """

    pieces: tuple[int, ...]
    is_open: bool
    room: int
    start: int
    end: int


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
        self._anywhere: dict[tuple[int, int], Tensor] = {}

    def forbid(self, x_t: Tensor, rows: Tensor, columns: Tensor, log_mu: Tensor, mask_id: int) -> None:
        """Take the mass of pieces that would make an unknown word of what stands already, in place; log_mu [N, V] at
        the places (rows, columns). A place where nothing else is possible keeps its words.
        """
        texts = {row: x_t[row].tolist() for row in set(rows.tolist())}
        forbidden = self.continuation.repeat(len(rows), 1)  # [N, V]
        at: list[int] = []
        allowed: list[int] = []
        for number, (row, column) in enumerate(zip(rows.tolist(), columns.tolist())):
            left, right = self._left(texts[row], column, mask_id), self._right(texts[row], column, mask_id)
            if left.is_open and not left.pieces and not right.pieces:
                forbidden[number] &= ~self._somewhere(row, right.room)
                continue
            ends = not left.pieces or self._known(row, left.pieces, left.is_open, 0)  # a new word may begin
            if right.pieces or not ends:
                forbidden[number] = True
            for lexicon in (self.lexicon, self.own[row]):
                found: list[int] = []
                if left.pieces or left.is_open:
                    found += lexicon.between(left.pieces, left.is_open, right.pieces, right.room)
                if right.pieces and ends:
                    found += lexicon.between((), False, right.pieces, right.room)
                at += [number] * len(found)
                allowed += found
        forbidden[at, allowed] = False
        forbidden = forbidden.to(log_mu.device)
        stuck = log_mu.masked_fill(forbidden, float("-inf")).amax(-1, keepdim=True).isneginf()
        log_mu.masked_fill_(forbidden & ~stuck, float("-inf"))

    def clash(
        self, x_t: Tensor, rows: Tensor, columns: Tensor, words: Tensor, chosen: Tensor, score: Tensor, mask_id: int
    ) -> Tensor:
        """Which of the places [N] chosen for ``words`` make an unknown word with pieces chosen in the same call at a
        place of higher ``score``, [N] bool. The best-scored chosen place of a row is never one of them.
        """
        clash = torch.zeros_like(chosen)
        numbers: dict[int, dict[int, int]] = {}
        for number in chosen.nonzero().squeeze(-1).tolist():
            numbers.setdefault(int(rows[number]), {})[int(columns[number])] = number
        for row, of_place in numbers.items():
            text = x_t[row].tolist()
            for place, number in of_place.items():
                text[place] = int(words[number])
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
            pieces = (*left.pieces, text[place], *right.pieces)
            nothing_before = not left.pieces and not left.is_open
            if nothing_before or not self._known(row, pieces, left.is_open, right.room):
                yield Stretch(pieces, left.is_open, right.room, left.start, right.end)
            place = right.end

    def _known(self, row: int, pieces: tuple[int, ...], is_open: bool, room: int) -> bool:
        return self.lexicon.has(pieces, is_open, room) or self.own[row].has(pieces, is_open, room)

    def _somewhere(self, row: int, room: int) -> Tensor:
        """[V] bool: the continuations that known words have, with at most ``room`` pieces behind them."""
        total = torch.zeros_like(self.continuation)
        for lexicon in (self.lexicon, self.own[row]):
            key = id(lexicon), room
            if key not in self._anywhere:
                self._anywhere[key] = torch.zeros_like(self.continuation)
                self._anywhere[key][list(lexicon.between((), True, (), room))] = True
            total |= self._anywhere[key]
        return total

    def _left(self, text: list[int], place: int, mask_id: int) -> Stretch:
        """The pieces of a word that end before ``place``."""
        start = place
        while start > 0 and self._continues[text[start - 1]]:
            start -= 1
        if start == 0 or text[start - 1] == mask_id:
            return Stretch(tuple(text[start:place]), start > 0, 0, start, place)
        return Stretch(tuple(text[start - 1 : place]), False, 0, start - 1, place)

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
        return Stretch(tuple(text[place + 1 : end]), False, room, place + 1, end)
