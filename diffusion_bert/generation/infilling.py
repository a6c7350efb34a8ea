"""Texts with holes: find or make the places to be written, and splice what was written back into what the user
typed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..data.skills import NO_SOURCE
from ..data.tokenizer import TextTokenizer
from ..diffusion.schedule import NoiseSchedule
from ..text.english import MASK
from .canvas import CONTINUATION, FREE, NEW_WORD, Canvas

CLOSING = re.compile(r"[.,;:?!)\]%]")
FILL_SHARE = 1 / 3  # of the words, when fill chooses them itself


@dataclass
class MaskedText:
    """A typed text, its canvas, and the (start, end) of each of its places in the text."""

    text: str
    canvas: Canvas
    spans: list[tuple[int, int]]


def tokenize_masked(text: str, tokenizer: TextTokenizer) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids and offsets of a text in which the literal [MASK] is the mask token; all other text is ordinary."""
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    position = 0
    for part in re.split(f"({re.escape(MASK)})", text):
        if part == MASK:
            ids.append(tokenizer.mask_id)
            spans.append((position, position + len(MASK)))
        elif part:
            part_ids, part_spans = tokenizer.encode_with_offsets(part, goes_on=position > 0 and not part[0].isspace())
            ids += part_ids
            spans += [(position + start, position + end) for start, end in part_spans]
        position += len(part)
    return ids, spans


def mask_text(text: str, tokenizer: TextTokenizer, schedule: NoiseSchedule, rng: random.Random) -> MaskedText:
    """The [MASK]s of a text as places to be written; in a text without one a third of its words, chosen by ``rng``.

    Denoising starts at the time when the average masked share u equals the masked share of this text.
    """
    ids, spans = tokenize_masked(text, tokenizer)
    constraints = [FREE] * len(ids)
    if tokenizer.mask_id in ids:
        for place, (start, _) in enumerate(spans):
            if ids[place] == tokenizer.mask_id:
                glued = start > 0 and (text[start - 1].isalnum() or text[:start].endswith(MASK))
                constraints[place] = CONTINUATION if glued else NEW_WORD
    else:
        words = _words(text, ids, spans, tokenizer)
        for word in rng.sample(words, max(1, round(len(words) * FILL_SHARE))):
            for number, place in enumerate(word):
                ids[place] = tokenizer.mask_id
                constraints[place] = FREE if number else NEW_WORD
    share = ids.count(tokenizer.mask_id) / len(ids)
    tau = float(schedule.tau(torch.tensor(share)))
    return MaskedText(text, Canvas(NO_SOURCE, [], ids, tau, constraints), spans)


def _words(text: str, ids: list[int], spans: list[tuple[int, int]], tokenizer: TextTokenizer) -> list[list[int]]:
    """The places of each whole word; punctuation is no word, unless there is nothing else."""
    words: list[list[int]] = []
    for place, index in enumerate(ids):
        if tokenizer.continuation[index] and words:
            words[-1].append(place)
        elif any(character.isalnum() for character in text[slice(*spans[place])]):
            words.append([place])
        else:
            words.append([])
    return [word for word in words if word] or [list(range(len(ids)))]


def splice(
    masked: MaskedText, ids: list[int], tokenizer: TextTokenizer, cased: Callable[[str, str], str]
) -> list[tuple[str, int | None]]:
    """The typed text with only the masked places replaced by the tokens ``ids``, in pieces: (text, its place, or None
    for what was typed).

    A punctuation mark written in the place of a word takes the space before it along, unless the place was typed as
    [MASK]. ``cased(whole, typed)`` chooses capitals with the whole sentence in view; they are taken over for the new
    words only.
    """
    text, spans, words = masked.text, masked.spans, masked.canvas.words
    pieces: list[tuple[str, int | None]] = []
    position = 0
    for place, (start, end) in enumerate(spans):
        if words[place] != tokenizer.mask_id:
            continue
        token = tokenizer.tokens[ids[place]]
        between = text[position:start]
        # a further piece of the same masked word: a new word needs a space of its own
        if (
            place
            and start == spans[place - 1][1]
            and words[place - 1] == tokenizer.mask_id
            and tokenizer.pieces.has_space(token)
        ):
            between += " "
        written = tokenizer.pieces.surface(token)
        if MASK not in text and CLOSING.fullmatch(
            written
        ):  # a punctuation mark in the place of a word that nobody asked for stands at the word before
            between = between.removesuffix(" ")
        pieces += [(between, None), (written, place)]
        position = end
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
