"""A text in sentences that can be worked on one by one, and what stands between them: white space, line breaks, the
marks of a list, quotes and brackets that are opened in one sentence and closed in another.
"""

import re
from collections.abc import Callable, Iterator

from .english import split_sentences

NARROW = 60  # columns: lines that are all shorter were not broken for want of room
FEW = 3  # words of a greeting

# white space, and the marks of lists, headings and quoted letters: - * > # 1. 2) (a)
_MARKER = re.compile(r"\s*(?:(?:[-*\u2022\u2013\u2014+>]|#{1,6}|\(?\d{1,3}[.)]|\(?[A-Za-z]\))[^\S\n]+(?=\S))*")
_BREAK = re.compile(r"\r\n|[\n\r\u2028\u2029\x0b\x0c\x85]")
_QUOTES = {'"': '"', "\u201c": "\u201d", "(": ")"}


def sentence_parts(text: str, fits: Callable[[str], bool] = lambda sentence: True) -> list[tuple[str, bool]]:
    """(stretch, is it a sentence) in order, so that the stretches joined are the text.

    A sentence ends as in ``split_sentences``, and at the end of a line that was not broken for want of room: before an
    empty line, an item of a list, or where the next word would still have fitted in. Between sentences stand white
    space, markers of lists, and quotes and brackets around more than one sentence. A sentence with an open quote or
    bracket goes on until that is closed, as long as it ``fits``.
    """
    parts: list[tuple[str, bool]] = []
    for block in _blocks(text):
        marker = _MARKER.match(block)[0]
        parts.append((marker, False))
        for piece in _closed(split_sentences(block[len(marker) :]), fits):
            before, sentence, after = _bare(piece)
            has_words = any(map(str.isalnum, sentence))
            parts += [(before, False), (sentence, has_words), (after, False)]
    return [part for part in parts if part[0]]


def is_fragment(sentence: str) -> bool:
    """Whether it is only a few words without a final mark: a greeting, a name, a heading, an item of a list."""
    return len(sentence.split()) <= FEW and sentence.rstrip()[-1:] not in tuple(".!?\u2026")


def fitted_in(written: str, typed: str, text: str) -> str:
    """What was ``written`` for the sentence ``typed`` of a text: with its line breaks, each instead of the space that
    is nearest to where it stood, and in a longer text without a full stop where none was typed.
    """
    if typed.strip() != text.strip() and typed.rstrip()[-1:].isalnum():
        written = written.removesuffix(".")
    spaces = [space.start() for space in re.finditer(" ", written)]
    breaks = [found for found in re.finditer(rf"[^\S\n\r]*(?:{_BREAK.pattern})\s*", typed)]
    chosen: dict[int, str] = {}
    for found in breaks:
        free = [space for space in spaces if space > max(chosen, default=-1)]
        if free:
            wanted = found.start() / len(typed) * len(written)
            chosen[min(free, key=lambda space: abs(space - wanted))] = found[0]
    return "".join(chosen.get(place, letter) for place, letter in enumerate(written))


def _blocks(text: str) -> Iterator[str]:
    """The text cut behind every line break that ends a sentence, whatever stands before it."""
    ends = [found.end() for found in _BREAK.finditer(text)]
    lines = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)]) if start < end]
    paragraphs: list[list[str]] = []
    for line in lines:
        if not paragraphs or not line.strip() or not paragraphs[-1][-1].strip() or _MARKER.match(line)[0].strip():
            paragraphs.append([])
        paragraphs[-1].append(line)
    for paragraph in paragraphs:
        block, widest = paragraph[0], max(len(line.strip()) for line in paragraph)
        for before, line in zip(paragraph, paragraph[1:]):
            if _ends(before.strip(), line.strip(), widest, paragraph[0]):
                yield block
                block = ""
            block += line
        yield block


def _ends(before: str, line: str, widest: int, first: str) -> bool:
    """Whether a sentence ends with the line ``before``, which has no mark: see ``sentence_parts``."""
    if before[-1] in ".!?\u2026":
        return False  # split_sentences tells "Mr." from an end
    if _starts_small(line):
        return widest < NARROW and _starts_small(first)  # items in small letters
    return widest < NARROW or len(f"{before} {line.split()[0]}") <= widest


def _starts_small(line: str) -> bool:
    letters = re.search(r"\w", line)
    return letters is not None and letters[0].islower()


def _closed(pieces: list[str], fits: Callable[[str], bool]) -> Iterator[str]:
    """The pieces, those together of which the first opens inside itself what only a later one closes."""
    start = 0
    while start < len(pieces):
        end = start + 1
        if _is_open(_bare(pieces[start])[1]):
            for stop in range(end + 1, len(pieces) + 1):
                joined = "".join(pieces[start:stop])
                if not fits(joined):
                    break
                if not _is_open(_bare(joined)[1]):
                    end = stop
                    break
        yield "".join(pieces[start:end])
        start = end


def _is_open(sentence: str) -> bool:
    """Whether a quote or bracket is opened and not closed."""
    return any(
        sentence.count(opening) % 2 if opening == closing else sentence.count(opening) > sentence.count(closing)
        for opening, closing in _QUOTES.items()
    )


def _bare(piece: str) -> tuple[str, str, str]:
    """(what stands before, the sentence, what stands behind): white space, and quotes and brackets whose other half is
    in another sentence, or that stand around the whole of this one.
    """
    start, end = 0, len(piece.rstrip())
    while start < end:
        core = piece[start:end]
        opened, closed = core[0] in _QUOTES, core[-1] in _QUOTES.values() and len(core) > 1
        around = opened and closed and _QUOTES[core[0]] == core[-1] and not {core[0], core[-1]} & set(core[1:-1])
        left = around or (opened and _lacks_other(core, core[0], _QUOTES[core[0]]))
        right = around or (closed and not left and _lacks_opening(core))
        if not (left or right or core[0].isspace() or core[-1].isspace()):
            break
        start += left or core[0].isspace()
        end -= right or core[-1].isspace()
    return piece[:start], piece[start:end], piece[end:]


def _lacks_other(core: str, opening: str, closing: str) -> bool:
    return core.count(opening) % 2 == 1 if opening == closing else core.count(opening) > core.count(closing)


def _lacks_opening(core: str) -> bool:
    opening = next(opening for opening, closing in _QUOTES.items() if closing == core[-1])
    return core.count('"') % 2 == 1 if opening == core[-1] else core.count(core[-1]) > core.count(opening)
