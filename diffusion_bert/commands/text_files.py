"""Files of texts to work on and of answers: read and written entry by entry, in order, with an entry for every row
however bad.

Unlike in data/reading.py no row is left out, so that entry n of the output always belongs to row n of the input. An
entry of an output is one line.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..errors import UserError
from ..text.english import is_blank, unencodable

COLUMNS, TARGETS = ("src", "source", "text"), ("trg", "target")
INPUTS, OUTPUTS = (".txt", ".jsonl", ".csv", ".tsv"), (".jsonl", ".csv", ".txt")
_LINE_ENDS = re.compile(r"[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+")


class Row(NamedTuple):
    """A text, what is wrong with it (empty: nothing), and the target beside it, where there is one and it is wanted."""

    text: str
    problem: str = ""
    target: str | None = None


def check_paths(input_file: str, output_file: str | None) -> None:
    """Refuse what can be seen to be wrong before anything is loaded; "-" is stdin or stdout."""
    if output_file is None:
        raise UserError("--input_file without --output_file: say where the answers go (- for stdout)")
    if input_file != "-":
        path = Path(input_file)
        if path.suffix.lower() not in INPUTS:
            raise UserError(
                f"--input_file {path}: unknown ending '{path.suffix}': expected one of {', '.join(INPUTS)}, or - for"
                " stdin"
            )
        if path.is_dir() or (path.exists() and not path.is_file()):
            raise UserError(f"--input_file {path} is no ordinary file: expected a file of texts, or - for stdin")
        if not path.is_file():
            raise UserError(f"--input_file {path}: no such file; check the path")
    if output_file != "-":
        path = Path(output_file)
        if path.suffix.lower() not in OUTPUTS:
            raise UserError(
                f"--output_file {path}: unknown ending '{path.suffix}': expected one of {', '.join(OUTPUTS)}, or - for"
                " stdout"
            )
        if path.is_dir() or not path.parent.is_dir():
            raise UserError(
                f"--output_file {path}: {'it is a folder' if path.is_dir() else f'no folder {path.parent}'}; choose"
                " another"
            )
        if input_file != "-" and path.exists() and path.samefile(input_file):
            raise UserError(f"--output_file {path} is the input itself: choose another")


def digest_and_size(path: Path) -> tuple[str, int]:
    """SHA-256 of a file and how many lines it has."""
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
            lines += block.count(b"\n")
            last = block[-1:]
    return digest.hexdigest(), lines + (last != b"\n")


def count_rows(path: Path) -> int:
    """How many rows ``stream_rows`` gives of a file."""
    with open(path, "rb") as file:
        return sum(1 for _ in stream_rows(file, path.suffix.lower()))


def stream_rows(file: BinaryIO, kind: str, pairs: bool = False) -> Iterator[Row]:
    """Every row of an open .txt, .jsonl, .csv or .tsv file; blank lines are none. A text that is empty or no UTF-8 has
    its problem with it. With ``pairs`` a row has the target beside its text, if there is a column of TARGETS.

    Raises:
        UserError: UTF-16 text, or a table without one of COLUMNS.
    """
    table = kind in (".csv", ".tsv")
    newline = "" if table else None
    lines = _in_utf_8(io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=newline))
    if table:
        rows = _table_rows(lines, kind)
    else:
        rows = (_json_row(line) if kind == ".jsonl" else Row(line.rstrip("\n")) for line in lines if line.strip())
    for row in rows:
        row = row if pairs else row._replace(target=None)
        problem = row.problem
        for what, text in (("text", row.text), ("target", row.target)):
            if text is not None and not problem and (wrong := _problem_of(text)):
                problem = f"the {what} {wrong}"
        yield row._replace(problem=problem)


def _in_utf_8(lines: Iterable[str]) -> Iterator[str]:
    """The lines, unless the first one begins as UTF-16 text does."""
    for number, line in enumerate(lines):
        if not number and line.startswith(("\udcff\udcfe", "\udcfe\udcff")):
            raise UserError("the input is not UTF-8 text (UTF-16 text); save it as UTF-8")
        yield line


def _problem_of(text: str) -> str:
    return unencodable(text) or ("is empty: expected some words" if is_blank(text) else "")


def _json_row(line: str) -> Row:
    from ..data.reading import named_as

    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return Row(line.rstrip("\n"), "is not JSON")
    target = None
    if isinstance(value, dict):
        target, value = named_as(value, TARGETS), named_as(value, COLUMNS)
    return (
        Row(value, target=target if isinstance(target, str) else None)
        if isinstance(value, str)
        else Row(line.rstrip("\n"), f"has no text: expected an object with {', '.join(COLUMNS)}")
    )


def _table_rows(lines: Iterable[str], kind: str) -> Iterator[Row]:
    from ..data.tables import TableRow, advice_on_header, table_rows

    rows = table_rows(lines, kind)
    first = next(rows, TableRow(1, []))
    if first.problem:
        raise UserError(f"the first line is not a readable header ({first.problem}); save the table as UTF-8")
    header = [name.strip().lower() for name in first.cells]
    column, beside = (
        next((header.index(name) for name in names if name in header), None) for names in (COLUMNS, TARGETS)
    )
    if column is None:
        names, advice = ", ".join(header)[:80] or "missing", advice_on_header(header, kind)
        raise UserError(f"the columns are {names}: expected one of {', '.join(COLUMNS)}{advice}")
    for _, cells, problem in rows:
        if problem:
            yield Row("", f"is no readable row ({problem})")
            continue
        # more cells than columns: a comma without quotation marks has cut a text
        fits = column < len(cells) <= len(header)
        advice = "" if kind == ".tsv" else "; put texts with commas in quotation marks"
        if not fits:
            yield Row("", f"has {len(cells)} columns: expected {len(header)}{advice}")
            continue
        yield Row(cells[column], target=cells[beside] if beside is not None and beside < len(cells) else None)


def header_line(kind: str, columns: Sequence[str]) -> bytes:
    """The first line of an output, where its kind has one."""
    return csv_line(columns) if kind == ".csv" else b""


def json_line(record: dict) -> bytes:
    """An entry of a .jsonl."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode(errors="replace")


def csv_line(cells: Sequence[str]) -> bytes:
    """An entry of a .csv."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow([one_line(cell) for cell in cells])
    return buffer.getvalue().encode(errors="replace")


def text_line(text: str) -> bytes:
    """An entry of a .txt."""
    return (one_line(text) + "\n").encode(errors="replace")


def one_line(text: str) -> str:
    """The text with spaces for its line ends."""
    return _LINE_ENDS.sub(" ", text)


def whole_lines(file: BinaryIO) -> int:
    """Cut off a last line that is not whole; how many lines are left. The file ends up positioned at its end."""
    file.seek(0)
    lines = end = position = 0
    while block := file.read(2**20):
        lines += block.count(b"\n")
        if (last := block.rfind(b"\n")) >= 0:
            end = position + last + 1
        position += len(block)
    if end < position:
        file.truncate(end)
    file.seek(end)
    return lines
