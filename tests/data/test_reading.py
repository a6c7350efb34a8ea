"""Rows from files: good ones exactly, bad ones counted by file and line, hopeless files refused in one line."""

import json
import random

import pytest

from diffusion_bert.data.pairs import Pair
from diffusion_bert.data.reading import read_file
from diffusion_bert.errors import UserError

PAIRS = [
    Pair("How are you?", "How do you do?"),
    Pair("None", "NA"),
    Pair("null", "nan"),
    Pair("", "no source"),
    Pair('\U0001f600 h\xe9, "so"', "\u65e5\u672c \U0001f468\u200d\U0001f469\u200d\U0001f467"),
]


def write(folder, name: str, content: str | bytes):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def quoted(text: str, delimiter: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in (delimiter, '"', "\n")) else text


def jsonl(pairs, names=("src", "trg")) -> str:
    return "".join(json.dumps(dict(zip(names, pair))) + "\n" for pair in pairs)


def table(pairs, names=("src", "trg"), delimiter=",") -> str:
    """In a .tsv a quotation mark is a letter."""
    write = quoted if delimiter == "," else lambda cell, _: cell
    return "".join(delimiter.join(write(cell, delimiter) for cell in row) + "\n" for row in (names, *pairs))


def refusal(path, **options) -> str:
    """The one line a hopeless file gives; it begins with its path."""
    with pytest.raises(UserError) as caught:
        read_file(path, **options)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize("names", [("src", "trg"), ("source", "target")])
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".tsv", ".JSONL", ".Csv"])
@pytest.mark.parametrize("bom, line_end", [("", "\n"), ("\ufeff", "\r\n")])
def test_pairs_come_back_exactly(tmp_path, names, ending, bom, line_end):
    """Both namings of the columns, all formats, with and without byte-order mark and CRLF; "None", "NA" and "null" are
    ordinary text.
    """
    content = (
        jsonl(PAIRS, names) if ending.lower() == ".jsonl" else table(PAIRS, names, "\t" if ending == ".tsv" else ",")
    )
    report = read_file(write(tmp_path, "data" + ending, (bom + content).replace("\n", line_end)))
    assert report.pairs == PAIRS and not report.bad_rows


def test_txt_gives_texts_without_source(tmp_path):
    """One text per line, blank lines skipped, outer blanks stripped; U+2028 ends no line."""
    report = read_file(write(tmp_path, "a.txt", "\ufeffone\r\n\r\n  two \u2028 three \nNone"))
    assert report.pairs == [Pair(None, "one"), Pair(None, "two \u2028 three"), Pair(None, "None")]


def test_csv_quotes(tmp_path):
    """Commas, doubled quotes and line ends inside quotes are text; further columns and their order do not matter."""
    content = 'id,TRG, src \n1,"b, c","a ""x"""\n\n2,"two\nlines",d\n'
    assert read_file(write(tmp_path, "a.csv", content)).pairs == [Pair('a "x"', "b, c"), Pair("d", "two\nlines")]


@pytest.mark.parametrize(
    "row, reason",
    [
        ('{"src": "a", "trg": ', "not JSON"),
        ("hello", "not JSON"),
        ('["a", "b"]', "got list"),
        ('"a"', "got str"),
        ('{"src": "a"}', "trg is missing"),
        ('{"text": "a"}', "src is missing"),
        ('{"src": null, "trg": "b"}', "src is missing"),
        ('{"src": "a", "trg": 5}', "trg is int"),
        ('{"src": ["a"], "trg": "b"}', "src is list"),
        ('{"src": "a", "trg": "  "}', "trg is empty"),
        ('{"src": "a \\ud83d", "trg": "b"}', "src holds half of a character"),
        ('{"src": "a", "trg": "b\\u0000"}', "trg holds a zero byte"),
        ("[" * 100_000, "nested"),
        ('{"src": "a", "trg": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_bad_json_rows_are_named(tmp_path, row, reason):
    """A malformed row costs that row only, and is on record with file, line and reason."""
    path = write(tmp_path, "a.jsonl", jsonl(PAIRS[:1]) + "\n" + row + "\n" + jsonl(PAIRS[1:2]))
    report = read_file(path)
    assert report.pairs == PAIRS[:2]
    assert (
        len(report.bad_rows) == 1
        and report.bad_rows[0].startswith(f"{path}, line 3: ")
        and reason in report.bad_rows[0]
    )


@pytest.mark.parametrize(
    "row, reason, line",
    [
        ("only one", "1 fields where the header has 2", 3),
        ("a,b,c", "3 fields", 3),
        ("a,  ", "trg is empty", 3),
        ('a,"two\nlines",c', "3 fields", 3),
        ('"a" b,c', "quotes that do not match", 3),
        ("a,b\0", "zero byte", 3),
    ],
)
def test_bad_table_rows_are_named(tmp_path, row, reason, line):
    """The same for tables; a row over several lines is named by its first."""
    path = write(tmp_path, "a.csv", f"src,trg\nx,y\n{row}\nv,w\n")
    report = read_file(path)
    assert report.pairs == [Pair("x", "y"), Pair("v", "w")]
    assert (
        len(report.bad_rows) == 1
        and report.bad_rows[0].startswith(f"{path}, line {line}: ")
        and reason in report.bad_rows[0]
    )


@pytest.mark.parametrize(
    ("row", "rest", "pairs"),
    [
        ('a,"b', "c,d\ne,f\n", [("c", "d"), ("e", "f")]),
        ('a,"b', 'c,d\ne,"f"\n', [("c", "d"), ("e", "f")]),
        ('"a,b', 'c,d\n"e ""f""",g\n', [("c", "d"), ('e "f"', "g")]),
        ('"Who is he?,Who is that man?', "c,d\n" * 20 + 'e",f\n', [("c", "d")] * 20 + [('e"', "f")]),
    ],
)
def test_an_open_quote_costs_its_own_line(tmp_path, row, rest, pairs):
    """A quote that is never closed is on record by its line, and reading goes on below it."""
    path = write(tmp_path, "a.csv", f"src,trg\nx,y\n{row}\n{rest}")
    report = read_file(path)
    assert report.pairs == [("x", "y"), *pairs]
    assert len(report.bad_rows) == 1 and f"{path}, line 3: a quote that is never closed" in report.bad_rows[0]


@pytest.mark.parametrize("ending", [".tsv", ".csv"])
def test_a_quote_in_521_rows(tmp_path, ending):
    """20 good rows, one that opens with a quotation mark, 500 good rows: all are pairs in a .tsv; in a .csv the one is
    named.
    """
    tab = "\t" if ending == ".tsv" else ","
    good = [(f"source {number}", f"target {number}") for number in range(520)]
    rows = [("src", "trg"), *good[:20], ('"Who is he?', "Who is that man?"), *good[20:]]
    report = read_file(write(tmp_path, f"a{ending}", "".join(tab.join(row) + "\n" for row in rows)))
    assert report.pairs == (rows[1:] if ending == ".tsv" else good)
    assert [row.split(": ")[0].rsplit(" ")[-1] for row in report.bad_rows] == ["22"] * (ending == ".csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'SRC,"Trg"\n"a", "b"\n'),
        ("a.csv", '\n Source , TARGET \n\n  "a" , "b" \n\n'),
        ("a.tsv", "\nSRC\tTRG\n\na\tb\n"),
        ("a.jsonl", '\n{"Src": "a", "TRG": "b"}\n\n'),
        ("a.jsonl", '{"SOURCE": "a", "Target": "b"}\n'),
    ],
)
def test_headers_in_any_case_and_spaces_around_quotes(tmp_path, name, content):
    """Names of columns and keys do not mind their case; blank lines are nowhere a row."""
    assert read_file(write(tmp_path, name, content)).pairs == [("a", "b")]


@pytest.mark.parametrize(
    "content",
    [
        "src;trg\na, b;c\n",
        "src\ttrg\na, b\tc\n",
        "SRC ; Trg\n\n a, b ; c \n",
        'sep=;\nsrc;trg\n"a, b";c\n',
        'SEP=,\r\nsrc,trg\r\n"a, b",c\r\n',
        '"sep=|"\nsrc|trg\na, b|c\n',
        'src;trg\n"a, b";"c"\n',
        'src\ttrg\n "a, b"\t"c"\n',
        "\ufeffsrc;trg\ra, b;c\r",
        "id;trg;src\n1;c;a, b\n",
    ],
)
def test_what_parts_the_fields_of_a_csv(tmp_path, content):
    """Commas, or the semicolons or tabs of a spreadsheet, as the header or a line above it says."""
    assert read_file(write(tmp_path, "a.csv", content)).pairs == [("a, b", "c")]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_quotes_whatever_parts_the_fields(tmp_path, separator):
    """Fields in quotes may hold what parts them, and line ends; a quote that is never closed costs its own line."""
    rows = [f'"a{separator} ""b""\nc"', "x"], ['"Who is he?', "Who?"], ["y", "z"], ['5"', "w"]
    content = "".join(separator.join(row) + "\n" for row in (["src", "trg"], *rows))
    report = read_file(write(tmp_path, "a.csv", content))
    assert report.pairs == [(f'a{separator} "b"\nc', "x"), ("y", "z"), ('5"', "w")]
    assert len(report.bad_rows) == 1 and ", line 4: a quote that is never closed" in report.bad_rows[0]


def test_bad_text_lines_are_named(tmp_path):
    """A line of a .txt with zero bytes (binary, UTF-16 without mark) is no text."""
    report = read_file(write(tmp_path, "a.txt", "good\nb\0a\0d\0\n"))
    assert report.pairs == [Pair(None, "good")] and ", line 2: " in report.bad_rows[0]


@pytest.mark.parametrize("limit", [0, 3])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_too_many_bad_rows_stop(tmp_path, kind, limit):
    """Up to ``max_bad_rows`` are tolerated; one more stops with the first one's file and line, and the limit."""
    good, bad = ('{"src": "a", "trg": "b"}\n', "{\n") if kind == "jsonl" else ("a,b\n", "a\n")
    start = "" if kind == "jsonl" else "src,trg\n"
    first = 2 if kind == "jsonl" else 3
    assert (
        len(read_file(write(tmp_path, f"a.{kind}", start + good + bad * limit + good), max_bad_rows=limit).bad_rows)
        == limit
    )
    path = write(tmp_path, f"a.{kind}", start + good + bad * (limit + 1) + good)
    message = refusal(path, max_bad_rows=limit)
    assert f"{path}, line {first}: " in message and f"--max_bad_rows {limit}" in message


def test_a_raised_limit_is_kept(tmp_path):
    """No hidden limit stands behind max_bad_rows."""
    path = write(tmp_path, "a.jsonl", "{\n" * 10_500 + jsonl(PAIRS))
    assert len(read_file(path, max_bad_rows=20_000).bad_rows) == 10_500


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.jsonl", "", "no usable row"),
        ("a.txt", "", "no usable row"),
        ("a.txt", " \n\n\t\n", "no usable row"),
        ("a.jsonl", "\n \n", "no usable row"),
        ("a.csv", "", "columns are missing"),
        ("a.csv", "src,trg\n", "no usable row"),
        ("a.csv", "question,answer\na,b\n", "question, answer"),
        ("a.csv", "src|trg\na|b\n", "expected src and trg"),
        ("a.tsv", "src,trg\na,b\n", "let the name of the file end in .csv"),
        ("a.tsv", "src;trg\na;b\n", "let the name of the file end in .csv"),
        ("a.csv", "src,trg\na,b\n".encode("utf-16"), "UTF-16"),
        ("a.csv", "src,trg\na,b\n".encode("utf-16-be"), "UTF-16"),
        ("a.tsv", "src\ttrg\na\tb\n".encode("utf-16-le"), "UTF-16"),
        ("a.jsonl", '{"src": "a", "trg": "b"}\n'.encode("utf-16"), "UTF-16"),
        ("a.jsonl", '[{"src": "a", "trg": "b"},\n{"src": "c", "trg": "d"}]\n', "every line is an object by itself"),
        ("a.jsonl", '{"src": "a", "trg": "b"},\n', "every line is an object by itself"),
        ("a.txt", "\u200b\n\ufeff\n\u2060 \n", "no usable row"),
        ("a.csv", '"src,trg\na,b\n', "line 1"),
        ("a.jsonl", '{"a": 1}\n', "line 1"),
        ("a.jsonl", jsonl(PAIRS).encode("utf-16"), "not UTF-8"),
        ("a.csv", table(PAIRS).encode("utf-16"), "not UTF-8"),
        ("a.csv", table(PAIRS[:2]).encode("utf-16-le"), "expected src and trg"),
        ("a.txt", "one\ntwo\n".encode("utf-16-le"), "zero byte"),
        ("a.txt", "caf\xe9".encode("latin-1"), "0xe9"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "0x89"),
        ("a.jsonl", random.Random(0).randbytes(3000), "not UTF-8"),
        ("a.parquet", "x", ".jsonl, .csv, .tsv, .txt"),
        ("a.json", "[]", ".jsonl, .csv, .tsv, .txt"),
        ("data", "x", "unknown file type"),
    ],
)
def test_hopeless_files_are_refused(tmp_path, name, content, expected):
    """Empty, binary, of another encoding, kind or shape: one line says what came and what is expected."""
    assert expected in refusal(write(tmp_path, name, content))


@pytest.mark.parametrize("name", ["folder", "folder.jsonl"])
def test_a_folder_is_no_file(tmp_path, name):
    """A folder is refused with the option that takes one."""
    (tmp_path / name).mkdir()
    assert "--data_dir" in refusal(tmp_path / name)


def test_missing_files(tmp_path):
    """A file that is not there, or below another file."""
    assert "no such file" in refusal(tmp_path / "absent.csv")
    write(tmp_path, "file", "x")
    refusal(tmp_path / "file" / "a.csv")


def test_a_line_of_five_megabytes(tmp_path):
    """Long rows are neither cut nor refused here."""
    text = "word " * 1_000_000 + "end"
    assert read_file(write(tmp_path, "a.jsonl", jsonl([("a", text)]))).pairs[0].target == text
    assert read_file(write(tmp_path, "a.csv", table([("a", text)]))).pairs[0].target == text
