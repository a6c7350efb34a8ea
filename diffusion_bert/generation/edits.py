"""What could be wrong with a typed text: single edits that the model may prefer, before they are compared.

Five kinds: another word in the place of one, the right spelling of one that the model does not know, one of two equal
neighbours dropped, a word added, two neighbours exchanged. Words are proposed by the model, which sees everything but
the place in question.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.batching import Collator
from ..data.skills import NO_SOURCE
from ..model.diffusion_model import DiffusionModel
from .canvas import Canvas
from .denoise import vocabulary_flags
from .infilling import final_mark, pieces_of_words, stands_at_apostrophe
from .leave_one_out import log_probs_at

REPLACE, SPELL, DROP, ADD, EXCHANGE = "replace", "spell", "drop", "add", "exchange"
UNSURE = 1.0  # nats by which another word must be likelier where a word stands before it is doubted
DOUBTED, GAPS, PAIRS = 3, 4, 3  # the most doubtful places of each kind are tried
UNKNOWN_DOUBT, MOST_DOUBT = 1.5, 6.0  # of a name or a word of several pieces; what counts of any, where a word may lack
WORDS_TRIED = 2  # the likeliest words at a doubted place
LIKELY_WORDS = 100  # among so many one that is spelled alike is looked for
ALIKE, MISSPELLED = 0.55, 0.75  # of difflib's ratio, from which words are spelled alike, or one is the other misspelled


@dataclass(frozen=True)
class Edit:
    """``text[start:end]`` becomes ``new``, of which the last ``written`` characters are the model's."""

    kind: str
    start: int
    end: int
    new: str
    written: int = 0

    def typed(self, text: str) -> str:
        """What it takes away."""
        return text[self.start : self.end]

    def applied(self, text: str) -> str:
        """The text after the edit; all else is as it was."""
        return text[: self.start] + self.new + text[self.end :]


@dataclass
class Reading:
    """A typed text as the model reads it.

    ids: its word pieces, and those of a final mark that it lacks. words: the places of each word that may be changed.
    spans: (start, end) in the text of every typed piece.
    """

    text: str
    ids: list[int]
    spans: list[tuple[int, int]]
    words: list[list[int]]

    def span(self, word: Sequence[int]) -> tuple[int, int]:
        """Where a word begins and ends in the text."""
        return self.spans[word[0]][0], self.spans[word[-1]][1]

    def typed(self, word: Sequence[int]) -> str:
        """A word as it was typed."""
        return self.text[slice(*self.span(word))]


def read(text: str, model: DiffusionModel) -> Reading:
    """The text with its words; a word at an apostrophe, a number, and what the vocabulary does not know are none."""
    tokenizer = model.tokenizer
    ids, spans = tokenizer.encode_with_offsets(text)
    words = []
    for word in pieces_of_words(text, ids, spans, tokenizer):
        if word and not stands_at_apostrophe(text, spans[word[0]][0], spans[word[-1]][1]):
            typed = text[spans[word[0]][0] : spans[word[-1]][1]]
            if typed.isalpha() and tokenizer.unk_id not in [ids[place] for place in word]:
                words.append(word)
    return Reading(text, ids + final_mark(text, tokenizer), spans, words)


def proposed_edits(
    model: DiffusionModel, readings: Sequence[Reading], collator: Collator, batch_size: int
) -> list[list[Edit]]:
    """The edits worth comparing, of every text."""
    rows: list[tuple[Canvas, int]] = []
    owners: list[tuple[int, str, list[int]]] = []
    for number, reading in enumerate(readings):
        for word in reading.words:
            if not is_name(reading, word):
                rows.append(_hidden(model, reading.ids, word[0], word[-1] + 1))
                owners.append((number, REPLACE, word))
            if takes_a_word_behind(reading, word):
                rows.append(_hidden(model, reading.ids, word[-1] + 1, word[-1] + 1))
                owners.append((number, ADD, word))
    found: list[list[tuple[float, str, list[int], Tensor, Tensor]]] = [[] for _ in readings]
    banned = _banned(model)
    for start in range(0, len(rows), batch_size):
        group = rows[start : start + batch_size]
        log_mu = log_probs_at(model, [canvas for canvas, _ in group], [place for _, place in group], collator)
        own = [
            readings[number].ids[word[0]] if kind == REPLACE else 0
            for number, kind, word in owners[start : start + batch_size]
        ]
        log_own = log_mu.gather(-1, torch.tensor(own, device=log_mu.device)[:, None]).squeeze(-1).tolist()
        best = log_mu.masked_fill(banned, float("-inf")).topk(min(LIKELY_WORDS, int((~banned).sum())))
        for (number, kind, word), mine, values, words in zip(
            owners[start : start + batch_size], log_own, best.values.cpu(), best.indices.cpu()
        ):
            alone = kind == REPLACE and len(word) == 1
            doubt = float(values[0]) - (mine if alone else 0.0)
            found[number].append((doubt, kind, word, values, words))
    return [_edits_of(model, reading, places) for reading, places in zip(readings, found)]


def _hidden(model: DiffusionModel, ids: list[int], start: int, end: int) -> tuple[Canvas, int]:
    """A canvas of ``ids`` with one [MASK] for the places from ``start`` to ``end``, and its place."""
    words = [*ids[:start], model.tokenizer.mask_id, *ids[end:]]
    tau = float(model.schedule.tau(torch.tensor(1 / len(words), dtype=torch.float64)))
    return Canvas(NO_SOURCE, [], words, tau), start


def _banned(model: DiffusionModel) -> Tensor:
    """[V] pieces that are no whole word: ##pieces, marks, and what is never written."""
    tokenizer = model.tokenizer
    flags = vocabulary_flags(model, tokenizer.continuation | tokenizer.signs)
    flags[torch.tensor(tokenizer.unwritable_ids, device=flags.device)] = True
    flags[len(tokenizer.tokens) :] = True
    return flags


def is_name(reading: Reading, word: Sequence[int]) -> bool:
    """Whether a word has capitals that the beginning of a sentence does not explain."""
    typed, start = reading.typed(word), reading.span(word)[0]
    begins = begins_sentence(reading.text, start)
    return typed != "I" and (any(map(str.isupper, typed[1:])) or (typed[:1].isupper() and not begins))


def begins_sentence(text: str, start: int) -> bool:
    """Whether what stands at ``start`` is the first of the text, or follows a final mark."""
    before = text[:start].rstrip(" \t\r\n\"'([\u201c\u2018")
    return not before or before[-1] in ".!?:"


def takes_a_word_behind(reading: Reading, word: Sequence[int]) -> bool:
    """Whether a word may be added behind another: a space, a mark that ends something, or nothing follows."""
    rest = reading.text[reading.span(word)[1] :]
    return not rest or rest[0].isspace() or rest[0] in ".!?,;:"


def _edits_of(model: DiffusionModel, reading: Reading, places: list) -> list[Edit]:
    """The edits of one text, from what the model expects at its words and gaps."""
    rows = sorted((row for row in places if row[1] == REPLACE), key=lambda row: -row[0])
    # a word of several pieces has no number of its own to be doubted by
    wrong = [row for row in rows if row[0] > UNSURE][:DOUBTED] + [row for row in rows if len(row[2]) > 1][:DOUBTED]
    edits = []
    for _, _, word, _, words in wrong:
        typed, beside = reading.typed(word), _neighbours(reading, word)
        surfaces = [model.tokenizer.surface(index) for index in words.tolist()]
        fit = [surface for surface in surfaces if surface.lower() not in {typed.lower(), *beside}]
        unknown = is_unknown(model, [reading.ids[place] for place in word])
        near = is_misspelled if unknown else is_alike
        alike = [surface for surface in fit if near(surface, typed)][:1]
        for new in dict.fromkeys([*fit[:WORDS_TRIED], *alike]):
            kind = SPELL if unknown and is_misspelled(new, typed) else REPLACE
            edits.append(Edit(kind, *reading.span(word), new, len(new)))
    doubts = {row[2][0]: row[0] for row in rows if len(row[2]) == 1}
    doubts |= {place: UNKNOWN_DOUBT for word in reading.words for place in word if word[0] not in doubts}
    gaps = [row for row in places if row[1] == ADD]
    for _, _, word, _, words in sorted(gaps, key=lambda row: -row[0] - _doubt_around(doubts, row[2]))[:GAPS]:
        beside = {reading.typed(word).lower(), *_neighbours(reading, word)}
        surfaces = [model.tokenizer.surface(index) for index in words[:10].tolist()]
        new = next((surface for surface in surfaces if surface.lower() not in beside), None)
        if new is not None:
            edits.append(Edit(ADD, *reading.span(word), f"{reading.typed(word)} {new}", len(new)))
    return edits + _edits_of_neighbours(reading, doubts)


def _doubt_around(doubts: dict[int, float], word: Sequence[int]) -> float:
    """How doubtful the words before and behind a gap are, on average."""
    return sum(min(max(doubts.get(place, 0.0), 0.0), MOST_DOUBT) for place in (word[-1], word[-1] + 1)) / 2


def _edits_of_neighbours(reading: Reading, doubts: dict[int, float]) -> list[Edit]:
    """Equal neighbours of which one may go, and doubted ones that may change places."""
    edits, pairs = [], []
    for one, other in zip(reading.words, reading.words[1:]):
        (start, middle), (begin, end) = reading.span(one), reading.span(other)
        first, second = reading.typed(one), reading.typed(other)
        if other[0] != one[-1] + 1 or not reading.text[middle:begin].isspace():
            continue
        if first.lower() == second.lower():
            edits.append(Edit(DROP, start, end, first))
        elif min(doubts[one[0]], doubts[other[0]]) > UNSURE:
            capital = begins_sentence(reading.text, start) and first[:1].isupper() and first != "I"
            new = (second[:1].upper() + second[1:], first.lower()) if capital else (second, first)
            doubt = doubts[one[0]] + doubts[other[0]]
            pairs.append((doubt, Edit(EXCHANGE, start, end, reading.text[middle:begin].join(new))))
    return edits + [edit for _, edit in sorted(pairs, key=lambda row: -row[0])[:PAIRS]]


def _neighbours(reading: Reading, word: Sequence[int]) -> set[str]:
    """The pieces that stand beside a word, in small letters."""
    return {
        reading.text[slice(*reading.spans[place])].lower()
        for place in (word[0] - 1, word[-1] + 1)
        if 0 <= place < len(reading.spans)
    }


def is_unknown(model: DiffusionModel, word: Sequence[int]) -> bool:
    """Whether a word is of several pieces that are no word of the training targets."""
    return len(word) > 1 and tuple(word) not in model.known_words.words


def is_misspelled(new: str, typed: str) -> bool:
    """Whether a word looks like another one with a slip of the finger in it."""
    new, typed = new.lower(), typed.lower()
    slipped = sorted(new) == sorted(typed) or difflib.SequenceMatcher(None, new, typed).ratio() >= MISSPELLED
    return new[:1] == typed[:1] and slipped


def is_alike(new: str, typed: str) -> bool:
    """Whether two words are spelled alike: one may have been typed for the other."""
    new, typed = new.lower(), typed.lower()
    return new[:1] == typed[:1] and difflib.SequenceMatcher(None, new, typed).ratio() >= ALIKE
