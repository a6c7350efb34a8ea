"""Texts with holes: find or make the places to be written, and splice what was written back into what the user
typed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..data.skills import NO_SOURCE
from ..data.tokenizer import TextTokenizer
from ..diffusion.schedule import NoiseSchedule
from ..text.english import MASK
from ..text.masks import GAP, HOLE, is_mark, missing_mark, shown
from .canvas import CONTINUATION, FREE, NEW_WORD, NO_SIGN, Canvas
from .tracing import align

CLOSING = re.compile(r"[.,;:?!)\]%]")
GLUED = re.compile(r"[^\W_]['\u2019]")  # a letter and an apostrophe, read towards the word
FILL_SHARE = 1 / 3  # of the words, when fill chooses them itself


@dataclass
class MaskedText:
    """A typed text, its canvas, and the (start, end) of each of its places in the text."""

    text: str
    canvas: Canvas
    spans: list[tuple[int, int]]


def tokenize_masked(
    text: str, tokenizer: TextTokenizer, gap_lengths: Sequence[int] = ()
) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids and offsets of a text in which the literal [MASK] is the mask token, and [MASK*] as many of them as
    ``gap_lengths`` says of each in turn (default: one); all other text is ordinary.

    A sign that the tokenizer drops (an accent of its own, a joiner) belongs to the word that it stands in or at. Of a
    gap the first place has its offsets, the others are empty stretches at its end.
    """
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    position, lengths = 0, iter(gap_lengths)
    for part in HOLE.split(text):
        end = position + len(part)
        if part in (MASK, GAP):
            more = next(lengths, 1) - 1 if part == GAP else 0
            ids += [tokenizer.mask_id] * (1 + more)
            spans += [(position, end), *[(end, end)] * more]
        elif part:
            part_ids, part_spans = tokenizer.encode_with_offsets(part, goes_on=position > 0 and not part[0].isspace())
            ids += part_ids
            spans += [(position + start, position + stop) for start, stop in _widened(part, part_spans)]
        position = end
    return ids, spans


def _widened(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The offsets of pieces with what the tokenizer dropped beside them, up to the next white space: it goes with the
    piece before; at the beginning of a word with the piece behind, unless it is a mark on what stands before.
    """
    wide: list[tuple[int, int]] = []
    for number, (start, end) in enumerate(spans):
        before = wide[-1][1] if wide else 0
        while start > before and not text[start - 1].isspace():
            start -= 1
        stop = spans[number + 1][0] if number + 1 < len(spans) else len(text)
        in_word = stop == len(text) or any(map(str.isalnum, text[start:end]))
        while end < stop and not text[end].isspace() and (in_word or is_mark(text[end])):
            end += 1
        wide.append((start, end))
    return wide


def mask_text(
    text: str,
    tokenizer: TextTokenizer,
    schedule: NoiseSchedule,
    rng: random.Random,
    allow_punctuation: bool = False,
    limit: int | None = None,
    gap_lengths: Sequence[int] = (),
) -> MaskedText:
    """The [MASK]s and gaps of a text as places to be written; in a text without one a third of its words, chosen by
    ``rng``. The gaps [MASK*] have the ``gap_lengths``.

    A [MASK] means a word: unless ``allow_punctuation``, no punctuation mark may stand there, nor at the ends of a gap,
    and a text without a final mark is read with one, which is no part of the answer (where it fits into ``limit`` word
    pieces). Denoising starts at the time when the average masked share u equals the masked share of this text.
    """
    ids, spans = tokenize_masked(text, tokenizer, gap_lengths)
    constraints = [FREE] * len(ids)
    if tokenizer.mask_id in ids:
        constraints = _constraints(text, ids, spans, tokenizer.mask_id, 0 if allow_punctuation else NO_SIGN)
    else:
        words = _words(text, ids, spans, tokenizer)
        for word in rng.sample(words, max(1, round(len(words) * FILL_SHARE))):
            for number, place in enumerate(word):
                ids[place] = tokenizer.mask_id
                constraints[place] = FREE if number else NEW_WORD
    final = [] if allow_punctuation else final_mark(text, tokenizer)
    if limit is None or len(ids) + len(final) <= limit:
        ids, constraints = ids + final, constraints + [FREE] * len(final)
    share = ids.count(tokenizer.mask_id) / len(ids)
    tau = float(schedule.tau(torch.tensor(share)))
    return MaskedText(text, Canvas(NO_SOURCE, [], ids, tau, constraints), spans)


def _constraints(text: str, ids: list[int], spans: list[tuple[int, int]], mask_id: int, no_sign: int) -> list[int]:
    """What may stand at each place of a text with holes: a [MASK] and the first place of a gap begin a word, or go on
    with the one they are glued to; inside a gap anything may stand.
    """
    inside = [index == mask_id and start == end for index, (start, end) in zip(ids, spans)]
    constraints = [FREE] * len(ids)
    for place, (start, _) in enumerate(spans):
        if ids[place] != mask_id:
            continue
        if not inside[place]:
            before = shown(text[:start])
            glued = before[-1:].isalnum() or before.endswith((MASK, GAP))
            constraints[place] = (CONTINUATION if glued else NEW_WORD) + no_sign
        if not any(inside[place + 1 : place + 2]):  # the last of its gap
            constraints[place] |= no_sign
    return constraints


def final_mark(text: str, tokenizer: TextTokenizer) -> list[int]:
    """The id of the mark that the text lacks at its end, if it lacks one that the vocabulary has."""
    mark = missing_mark(text)
    ids = tokenizer.encode_with_offsets(mark, goes_on=True)[0] if mark else []
    return ids if len(ids) == 1 and ids[0] not in tokenizer.unwritable_ids else []


def _words(text: str, ids: list[int], spans: list[tuple[int, int]], tokenizer: TextTokenizer) -> list[list[int]]:
    """The places of each whole word; punctuation is no word, unless there is nothing else. A word with an apostrophe
    in it stays as it was typed, unless all are such.
    """
    whole = [word for word in pieces_of_words(text, ids, spans, tokenizer) if word]
    plain = [word for word in whole if not stands_at_apostrophe(text, spans[word[0]][0], spans[word[-1]][1])]
    return plain or whole or [list(range(len(ids)))]


def stands_at_apostrophe(text: str, start: int, end: int) -> bool:
    """Whether the stretch from ``start`` to ``end`` is glued to an apostrophe with letters on its other side."""
    return any(map(GLUED.fullmatch, (shown(text[:start])[-2:], shown(text[end:])[:2][::-1])))


def pieces_of_words(
    text: str, ids: list[int], spans: list[tuple[int, int]], tokenizer: TextTokenizer
) -> list[list[int]]:
    """The places of each word, none for a punctuation mark."""
    words: list[list[int]] = []
    for place, index in enumerate(ids):
        if tokenizer.continuation[index] and words:
            words[-1].append(place)
        elif any(character.isalnum() for character in text[slice(*spans[place])]):
            words.append([place])
        else:
            words.append([])
    return words


def _runs(masked: MaskedText, mask_id: int) -> list[list[int]]:
    """The masked places, those together that stand directly beside each other in the text."""
    runs: list[list[int]] = []
    for place, (start, _) in enumerate(masked.spans):
        if masked.canvas.words[place] == mask_id:
            if runs and runs[-1][-1] == place - 1 and masked.spans[place - 1][1] == start:
                runs[-1].append(place)
            else:
                runs.append([place])
    return runs


def _written(run: list[int], ids: list[int], tokenizer: TextTokenizer) -> list[tuple[str, int | None]]:
    """What was written in a run of places, (text, place), with a reader's spacing between its words."""
    if len(run) > 1 and not tokenizer.continuation[ids[run[0]]]:
        run_ids = [ids[place] for place in run]
        parts = align(tokenizer.text(run_ids), run_ids, tokenizer)
        if all(text.isspace() if place is None else True for text, place in parts):
            return [(text, None if place is None else run[place]) for text, place in parts]
    pieces: list[tuple[str, int | None]] = []
    for place in run:
        token = tokenizer.tokens[ids[place]]
        pieces += [(" ", None)] if pieces and tokenizer.pieces.has_space(token) else []
        pieces.append((tokenizer.pieces.surface(token), place))
    return pieces


def splice(
    masked: MaskedText, ids: list[int], tokenizer: TextTokenizer, cased: Callable[[str, str], str]
) -> list[tuple[str, int | None]]:
    """The typed text with only the masked places replaced by the tokens ``ids``, in pieces: (text, its place, or None
    for what was typed).

    A punctuation mark written in the place of a word takes the space before it along, unless the place was typed as
    [MASK] or [MASK*]. ``cased(whole, typed)`` chooses capitals with the whole sentence in view; they are taken over for
    the new words only.
    """
    text, spans = masked.text, masked.spans
    pieces: list[tuple[str, int | None]] = []
    position = 0
    for run in _runs(masked, tokenizer.mask_id):
        start = spans[run[0]][0]
        between = text[position:start]
        written = _written(run, ids, tokenizer)
        # a punctuation mark in the place of a word that nobody asked for stands at the word before
        if HOLE.search(text) is None and CLOSING.fullmatch(written[0][0]):
            between = between.removesuffix(" ")
        pieces += [(between, None), *written]
        position = spans[run[-1]][1]
    pieces.append((text[position:], None))
    whole = "".join(piece for piece, _ in pieces)
    capitals = cased(whole, text)
    if len(capitals) != len(whole):  # a capital that is longer than its small letter
        return pieces
    spliced, at = [], 0
    for piece, place in pieces:
        spliced.append((piece if place is None else capitals[at : at + len(piece)], place))
        at += len(piece)
    return spliced
