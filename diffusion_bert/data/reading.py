"""Rows of text from files: .jsonl, .csv, .tsv and .txt, read line by line, with every malformed row counted and named.

Our own reader on purpose: the ``datasets`` library reads the text "None" or "NA" in a CSV as missing, and one bad JSON
row stops a whole file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..text.english import is_blank, unencodable
from .pairs import Pair, StyledPair
from .tables import TableRow, advice_on_header, is_table, table_rows

SOURCE_NAMES, TARGET_NAMES, STYLE_NAMES = ("src", "source"), ("trg", "target"), ("style", "tone")
LONGEST_STYLE = 40  # characters
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # what such a file begins with
FORMATS = (".jsonl", ".csv", ".tsv", ".txt")


@dataclass
class ReadReport:
    """What a file gave: pairs, and the rows that were left out with their reason."""

    path: Path
    max_bad_rows: int = 20
    pairs: list[Pair] = field(default_factory=list)
    bad_rows: list[str] = field(default_factory=list)
    unit: str = "line"

    def reject(self, line: int, reason: str) -> None:
        self.bad_rows.append(f"{self.path}, {self.unit} {line}: {reason}")
        if len(self.bad_rows) > self.max_bad_rows:
            raise UserError(
                f"{self.bad_rows[0]} - and {len(self.bad_rows) - 1} more malformed rows, over --max_bad_rows"
                f" {self.max_bad_rows}; correct the file or raise the limit"
            )


def read_file(path: str | Path, max_bad_rows: int = 20) -> ReadReport:
    """All rows of one file; raises as ``stream_file`` does."""
    report = ReadReport(Path(path), max_bad_rows)
    report.pairs.extend(stream_file(report))
    return report


def stream_file(report: ReadReport) -> Iterator[Pair]:
    """The rows of ``report.path`` one after the other; malformed ones are left out and reported.

    Raises:
        UserError: not there, unknown ending, not UTF-8, no usable row, missing columns, or more than ``max_bad_rows``
            malformed rows.
    """
    path = report.path
    if path.is_dir():
        raise UserError(f"{path} is a folder: expected a file; for a folder with train.jsonl use --data_dir")
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path}: unknown file type '{path.suffix}': expected one of {', '.join(FORMATS)}")
    reader = {".jsonl": _read_jsonl, ".txt": _read_txt}.get(path.suffix.lower(), _read_table)
    usable = False
    try:
        # utf-8-sig drops a byte-order mark; newline="" leaves the line ends inside quotes as they are
        with open(path, encoding="utf-8-sig", newline="" if is_table(path.suffix.lower()) else None) as lines:
            for pair in reader(lines, report):
                usable = True
                yield pair
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check its permissions") from None
    except UnicodeDecodeError as error:
        what = "UTF-16 text" if error.object.startswith(UTF_16) else f"byte 0x{error.object[error.start]:02x}"
        raise UserError(f"{path} is not UTF-8 text ({what}); save it as UTF-8") from None
    if not usable:
        hint = f"; first problem: {report.bad_rows[0]}" if report.bad_rows else ""
        raise UserError(f"{path} holds no usable row{hint}: expected at least one")


def _read_txt(lines, report: ReadReport) -> Iterator[Pair]:
    for number, line in enumerate(lines, 1):
        if is_blank(text := line.strip()):
            continue
        if problem := unencodable(text):
            report.reject(number, problem)
        else:
            yield Pair(None, text)


def _read_jsonl(lines, report: ReadReport) -> Iterator[Pair]:
    """Pairs, or plain texts: the first row decides which, and rows of the other kind are malformed."""
    pairs_so_far = texts_so_far = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else error
            report.reject(number, f"not JSON ({why}; every line is an object by itself)")
            continue
        except RecursionError:
            report.reject(number, "JSON nested too deeply")
            continue
        if not isinstance(row, dict):
            report.reject(number, f"expected an object with src and trg, got {type(row).__name__}")
            continue
        source, target, style = (named_as(row, names) for names in (SOURCE_NAMES, TARGET_NAMES, STYLE_NAMES))
        text = named_as(row, ("text",)) if source is None and target is None and not pairs_so_far else None
        if text is None and texts_so_far:
            report.reject(number, "text is missing, which the rows before have")
            continue
        pair = checked_pair(source if text is None else "", target if text is None else text, report, number, style)
        if pair is None:
            continue
        if text is None:
            pairs_so_far += 1
        else:
            texts_so_far += 1
            pair = StyledPair(None, pair.target, pair.style) if pair.style else Pair(None, pair.target)
        yield pair


def _read_table(lines, report: ReadReport) -> Iterator[Pair]:
    rows = table_rows(lines, report.path.suffix.lower())
    first = next(rows, TableRow(1, []))
    if first.problem:
        raise UserError(
            f"{report.path}, line {first.line}: not a readable table ({first.problem}); save it as UTF-8 with a header"
            " line src,trg"
        )
    header = [name.strip().lower() for name in first.cells]
    columns = [
        next((header.index(name) for name in names if name in header), None) for names in (SOURCE_NAMES, TARGET_NAMES)
    ]
    if None in columns:
        raise UserError(
            f"{report.path}, line {first.line}: columns are {', '.join(header)[:80] or 'missing'}: expected src and trg"
            f" (or source and target){advice_on_header(header, report.path.suffix.lower())}"
        )
    style = next((header.index(name) for name in STYLE_NAMES if name in header), None)
    for number, row, problem in rows:
        if problem:
            report.reject(number, problem)
        elif not any(cell.strip() for cell in row):
            continue
        elif len(row) != len(header):
            report.reject(number, f"{len(row)} fields where the header has {len(header)}")
        else:
            tone = None if style is None else row[style]
            if (pair := checked_pair(row[columns[0]], row[columns[1]], report, number, tone)) is not None:
                yield pair


def named_as(row: dict, names: tuple[str, ...]):
    """The value of the first of these names that a row has, in whatever case it is written; None if it has none."""
    folded = {name.strip().lower(): value for name, value in reversed(row.items()) if isinstance(name, str)} | row
    return next((folded[name] for name in names if name in folded), None)


def checked_pair(source, target, report: ReadReport, number: int, style=None) -> Pair | None:
    """A pair of stripped strings, or None with the reason on record. An empty source is legal, an empty target teaches
    nothing.

    An empty style is none; others are small letters, digits, spaces, - and '.
    """
    for name, value in (("src", source), ("trg", target)):
        if not isinstance(value, str):
            report.reject(number, f"{name} is {'missing' if value is None else type(value).__name__}: expected text")
            return None
        if problem := unencodable(value):
            report.reject(number, f"{name} {problem}")
            return None
    if is_blank(target):
        report.reject(number, "trg is empty: expected text")
        return None
    if style is None or (isinstance(style, str) and not style.strip()):
        return Pair(source.strip(), target.strip())
    if not isinstance(style, str):
        report.reject(number, f"style is {type(style).__name__}: expected a name")
        return None
    name = " ".join(style.lower().split())
    if len(name) > LONGEST_STYLE or not all(letter.isalnum() or letter in " -'" for letter in name):
        report.reject(
            number,
            f"style is '{name[:LONGEST_STYLE]}': expected a name of at most {LONGEST_STYLE} letters, digits, spaces, -"
            " and '",
        )
        return None
    return StyledPair(source.strip(), target.strip(), name)
