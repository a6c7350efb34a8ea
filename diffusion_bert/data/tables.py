"""Rows of comma- and tab-separated files, one after the other, each bad one by itself.

In a .tsv a quotation mark is a letter like any other and a row is a line. In a .csv a field may stand in quotes, with
spaces around them, and then hold commas, line ends and doubled quotes. A quote that is never closed costs its own line
only: reading goes on in the line below. No field is too long. What parts the fields of a .csv is read off its header:
commas, or the semicolons or tabs of some spreadsheets; a line such as sep=; above it says so too.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SEPARATORS = (",", ";", "\t")
_DECLARED = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
MOST_LINES = 10_000  # of one row in quotes; behind so many lines a quote counts as never closed
MISPLACED, OPEN = (
    f"{what}; write a quote inside quotes twice"
    for what in ("quotes that do not match", "a quote that is never closed")
)


class TableRow(NamedTuple):
    """The cells of a row, the number of its first line (from 1), and what is wrong with it (empty: nothing)."""

    line: int
    cells: list[str]
    problem: str = ""


def is_table(suffix: str) -> bool:
    """Whether a file of this ending is a table."""
    return suffix in (".csv", ".tsv")


def advice_on_header(header: list[str], suffix: str) -> str:
    """What may be wrong where a header lacks its columns, or nothing."""
    if any("\0" in name for name in header):
        return "; the file is UTF-16 text, save it as UTF-8"
    if suffix == ".tsv" and len(header) == 1 and any(mark in header[0] for mark in ",;"):
        return "; no tabs part them: let the name of the file end in .csv"
    return ""


def table_rows(lines: Iterable[str], suffix: str) -> Iterator[TableRow]:
    """The rows of a table whose file ends in ``suffix``, header first; blank lines are no rows. The lines have their
    ends.
    """
    numbered = enumerate(lines, 1)
    if suffix == ".tsv":
        for number, line in numbered:
            if line.strip():
                yield TableRow(number, line.rstrip("\r\n").split("\t"))
        return
    waiting: deque[tuple[int, str]] = deque()  # lines that were read ahead
    width, separator = 0, ""
    while (current := waiting.popleft() if waiting else next(numbered, None)) is not None:
        number, line = current
        if not line.strip():
            continue
        if not separator:
            if declared := _DECLARED.fullmatch(line):
                separator = declared[1]
                continue
            separator = _separator_of(line)
        if '"' not in line:
            row = TableRow(number, line.rstrip("\r\n").split(separator))
        else:
            row = _quoted_row(number, line, numbered, waiting, width, separator)
        width = width or len(row.cells)
        yield row


def _separator_of(header: str) -> str:
    """What parts the fields of a header: a comma where there is one."""
    return next((separator for separator in SEPARATORS if separator in header), SEPARATORS[0])


def _quoted_row(number: int, line: str, numbered, waiting: deque, width: int, separator: str) -> TableRow:
    """The row that begins in this line; the lines that belong to it are taken from ``waiting`` and ``numbered``."""
    cells, is_open = _cells(line, separator)
    if cells is not None:
        return TableRow(number, cells)
    if not is_open:
        return TableRow(number, [], MISPLACED)
    taken: list[str] = []
    while len(taken) < MOST_LINES:
        if len(taken) == len(waiting):
            if (following := next(numbered, None)) is None:
                break
            waiting.append(following)
        taken.append(waiting[len(taken)][1])
        if _end_of_quote(taken[-1], 0) < 0:
            continue
        cells, is_open = _cells(line + "".join(taken), separator)
        if cells is None and is_open:  # another field is open now
            continue
        likely = len(cells or ()) == width or len(taken) > 1  # two lines of other cells: one row with too many
        alone = likely and _is_row_by_itself(line, width, separator)
        if cells is None or alone and all(_fits(text, width, separator) for text in taken):
            break
        for _ in taken:
            waiting.popleft()
        return TableRow(number, cells)
    return TableRow(number, [], OPEN)


def _cells(text: str, separator: str) -> tuple[list[str] | None, bool]:
    """The cells of a row and False; or None and whether a quote is still open at its end (else it is misplaced)."""
    text, cells, start = text.rstrip("\r\n"), [], 0
    while True:
        begin = start
        while text[begin : begin + 1] in (" ", "\t") and text[begin] != separator:
            begin += 1
        if text[begin : begin + 1] == '"':
            end = _end_of_quote(text, begin + 1)
            if end < 0:
                return None, True
            cells.append(text[begin + 1 : end].replace('""', '"'))
            next_one = text.find(separator, end)
            if text[end + 1 : None if next_one < 0 else next_one].strip():
                return None, False
        else:
            next_one = text.find(separator, start)
            cells.append(text[start : None if next_one < 0 else next_one])
        if next_one < 0:
            return cells, False
        start = next_one + 1


def _end_of_quote(text: str, start: int) -> int:
    """Where the quote ends in which ``start`` lies, or -1; doubled ones do not end it."""
    while (at := text.find('"', start)) >= 0 and text[at + 1 : at + 2] == '"':
        start = at + 2
    return at


def _is_row_by_itself(line: str, width: int, separator: str) -> bool:
    """Whether a line with an open quote has all its cells if that quote is a letter; a comma in a sentence, before a
    space, parts no cells.
    """
    return width > 1 and line.replace(f"{separator} ", "").count(separator) == width - 1


def _fits(line: str, width: int, separator: str) -> bool:
    """Whether a line is a row of ``width`` cells, or blank, or has its cells if its quotes are letters."""
    cells, _ = _cells(line, separator)
    if cells is None:
        return not line.strip() or _is_row_by_itself(line, width, separator)
    return not line.strip() or len(cells) == width
