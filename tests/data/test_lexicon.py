"""Known words of several pieces: counted from targets, kept flat, and asked what may stand between given pieces."""

import itertools
import random

import torch

from diffusion_bert.data import lexicon
from diffusion_bert.data.lexicon import ANY, Lexicon, WordCounts, words_of

CONTINUES = torch.tensor([False] * 5 + [True] * 4)  # pieces 5 to 8 go on with a word


def test_words_of_a_sequence():
    """Pieces that begin a word, with their continuations; single ones and stray continuations are left out."""
    assert words_of([5, 1, 2, 6, 7, 3, -1, 8, 4, 5], CONTINUES.tolist()) == [(2, 6, 7), (4, 5)]
    assert words_of([], CONTINUES.tolist()) == []


def test_counting(monkeypatch):
    """The most frequent words come first, known ones before them; no more than the bound are kept; sequences pass."""
    blocks = [[1, 5, 2, 6, 2, 6], [3, 2, 6, 7, 1, 5, 2, 6], [4]]
    counts = WordCounts(CONTINUES)
    assert list(counts.watched(blocks)) == blocks
    flat = counts.flat()
    assert flat.dtype == torch.int32 and words_of(flat.tolist(), CONTINUES.tolist()) == [(2, 6), (1, 5), (2, 6, 7)]
    again = words_of(counts.flat([(4, 8), (1, 5)]).tolist(), CONTINUES.tolist())
    assert again == [(4, 8), (1, 5), (2, 6), (2, 6, 7)]
    monkeypatch.setattr(lexicon, "MOST_WORDS", 2)
    assert words_of(counts.flat().tolist(), CONTINUES.tolist()) == [(2, 6), (1, 5)]
    assert len(WordCounts(CONTINUES).flat()) == 0


def test_what_may_stand_between():
    """``between`` and ``has`` against a search through all words."""
    rng = random.Random(0)
    words = {(rng.randrange(5), *(rng.randrange(5, 9) for _ in range(rng.randint(1, 4)))) for _ in range(40)}
    known = Lexicon(words)
    parts = [(), *itertools.chain.from_iterable(itertools.product(range(5, 9), repeat=size) for size in (1, 2))]
    befores = [(0, (first, *part), ()) for first in range(5) for part in parts] + [(0, (), ())]
    befores += [(lead, part, begin) for lead in (1, 2, ANY) for part in parts for begin in ((), (2,), (3, 6))]
    for (lead, before, begin), after, room in itertools.product(befores, parts, (0, 1, ANY)):

        def fits(part, lead=lead, begin=begin, room=room):
            return any(
                word[at : at + len(part)] == part
                and 0 <= len(word) - at - len(part) <= room
                and (min(1, lead) <= at <= lead or (begin and at == lead + len(begin) and word[: len(begin)] == begin))
                for word in words
                for at in range(len(word))
            )

        expected = {piece for piece in range(9) if fits((*before, piece, *after))}
        assert set(known.between(before, lead, after, room, begin)) == expected
        if part := (*before, *after):
            assert known.has(part, lead, room, begin) == (fits(part) or (len(part) == 1 and not lead))
