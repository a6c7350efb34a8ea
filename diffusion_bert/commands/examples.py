"""Which sentences are shown while a model learns: rows of the validation data that can be shown to anybody."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from ..data.grammar import Grammar
from ..data.pairs import MixedPairs, Pair
from ..text.english import SMALL_WORDS

MOST_LOOKED_AT, MOST_KEPT, MOST_WORDS = 5000, 40, 24
ENGLISH = 0.3  # data of whose words so many are English small words is English


def showable(valid: Sequence[Pair]) -> list[tuple[Pair, str | None]]:
    """(pair, its task or None), the longest ones first, of which every word is a common one: a small word of English
    or one of the bundled grammar. Data in English without such rows is shown by pairs of that grammar, other data as
    it is.
    """
    bundled = [Pair(*pair) for pair in Grammar.load().pairs("valid", MOST_KEPT)]
    common = {word for pair in [*bundled, *Grammar.load().pairs("train", 2000)] for word in words(*pair)}
    common |= set(SMALL_WORDS)
    rows = [(pair, valid.task(n) if isinstance(valid, MixedPairs) else None) for n, pair in _some(valid)]
    clean = [row for row in rows if len(words(*row[0])) <= 2 * MOST_WORDS and set(words(*row[0])) <= common]
    if clean:
        return sorted(clean, key=lambda row: -len(words(row[0].target)))[:MOST_KEPT]
    everything = [word for pair, _ in rows for word in words(*pair)]
    if sum(word in SMALL_WORDS for word in everything) < ENGLISH * len(everything):
        return rows[:MOST_KEPT]
    task = rows[0][1]
    return [(pair if rows[0][0].source is not None else Pair(None, pair.target), task) for pair in bundled]


def words(*texts: str | None) -> list[str]:
    """The words of some texts, in small letters."""
    return re.findall(r"[^\W_]+", " ".join(text for text in texts if text).lower())


def _some(valid: Sequence[Pair]):
    """(number, pair) of at most ``MOST_LOOKED_AT`` rows."""
    return islice(enumerate(valid), MOST_LOOKED_AT)
