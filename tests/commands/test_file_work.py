"""Work on files: order, resuming at any byte, bad rows, formats, refusals, memory."""

import csv
import io
import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffusion_bert.commands.command_table import text_commands
from diffusion_bert.commands.file_work import Entries, open_output, transform, work_on_file
from diffusion_bert.commands.text_files import Row, stream_rows, whole_lines
from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.data.reading import read_file
from diffusion_bert.generation.generator import DiffusionTextGenerator
from tests.helpers.models import new_model, refusal, tiny_model
from tests.helpers.scripts import run, start

TEXTS = [
    "How can I learn to cook?",
    "\u200b",
    "Where is the museum?",
    "museum " * 200,
    "How are you?",
    "We will [MASK] the museum.",
    "Is it open?",
]
FAST = {"num_steps": 2, "num_samples": 2, "best_of": 1, "batch_size": 3, "device": "cpu"}  # chunks of 3 texts


def generator(**options) -> DiffusionTextGenerator:
    return DiffusionTextGenerator(tiny_model(), SamplingConfig(**{**FAST, **options}))


def entries(kind: str, command: str = "para", **options) -> Entries:
    """How the answers of a command become lines."""
    return Entries(text_commands(generator(**options))[command], kind)


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(input, what an uninterrupted run makes of it) as .jsonl and .csv."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "in.txt").write_text("\n".join(TEXTS) + "\n")
    made = {}
    for kind in (".jsonl", ".csv"):
        work_on_file(generator(), "para", str(folder / "in.txt"), str(folder / f"out{kind}"), {})
        made[kind] = (folder / f"out{kind}").read_bytes()
    return folder, made


def test_a_second_writer_touches_nothing(texts, tmp_path):
    """While an output is being written a second call is refused, with --overwrite too, and what says how it was made
    stays.
    """
    path = tmp_path / "out.jsonl"
    job = {"command": "para"}
    with open_output(path, job, False, False) as file:
        file.write(b"kept\n")
        file.flush()
        for overwrite in (False, True):
            assert "another process" in refusal(lambda: open_output(path, job, False, overwrite).__enter__())  # noqa: B023, PLC2801
    assert path.read_bytes() == b"kept\n" and json.loads((tmp_path / "out.jsonl.job.json").read_text()) == job


def test_input_that_is_refused_leaves_no_output(tmp_path):
    """A table without a column of texts is refused; after its correction the same call works."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("words\nhello\n")
    assert "expected one of" in refusal(
        work_on_file, generator(), "para", str(source), str(target), {"input_sha256": "1"}
    )
    source.write_text("text\nhello\n")
    work_on_file(generator(), "para", str(source), str(target), {"input_sha256": "2"})
    assert (
        target.read_text().splitlines()[0] == "source,output_1,output_2" and len(target.read_text().splitlines()) == 2
    )


def test_freed_memory_is_given_back_after_every_chunk(texts, tmp_path, monkeypatch):
    """Chunks of many widths would leave gaps (test_memory.py)."""
    given: list[bool] = []
    monkeypatch.setattr("diffusion_bert.commands.file_work.give_back_freed_memory", lambda: given.append(True))
    work_on_file(generator(), "para", str(texts), str(tmp_path / "out.jsonl"), {})
    assert len(given) == 3  # 7 texts in chunks of 3


def test_an_entry_for_every_row_in_order(whole):
    """Sources in their order; bad rows have an empty list; the others as many outputs as were asked for."""
    records = [json.loads(line) for line in whole[1][".jsonl"].decode().splitlines()]
    assert [record["source"] for record in records] == TEXTS
    assert [len(record["outputs"]) for record in records] == [2, 0, 2, 0, 2, 2, 2]
    rows = list(csv.reader(io.StringIO(whole[1][".csv"].decode())))
    assert rows[0] == ["source", "output_1", "output_2"] and [row[0] for row in rows[1:]] == TEXTS
    assert [[text for text in row[1:] if text] for row in rows[1:]] == [record["outputs"] for record in records]


@pytest.mark.parametrize("kind", [".jsonl", ".csv"])
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(share=st.floats(0, 1))
def test_continued_after_any_byte(whole, kind, share):
    """Whatever was on the disk when the process died: the same command makes the file of an uninterrupted run, byte for
    byte.
    """
    folder, made = whole
    path = folder / f"out{kind}"
    cut = round(share * len(made[kind]))
    path.write_bytes(made[kind][:cut])
    summary = work_on_file(generator(), "para", str(folder / "in.txt"), str(path), {})
    assert path.read_bytes() == made[kind] and summary.entries == len(TEXTS)
    assert summary.found == max(0, made[kind][:cut].count(b"\n") - (kind == ".csv"))


def test_stopped_in_the_middle(whole, tmp_path):
    """An interrupt in the second chunk leaves the first one whole; the next run goes on there and asks the model for
    the rest only.
    """
    rows = [Row(text) for text in "abcdefgh"]
    calls = []

    def work(texts, rows, stop=False):
        calls.append(rows[0])
        if rows[0] == 3 and stop:
            raise KeyboardInterrupt
        return [[f"{row.text}{number}"] for row, number in zip(texts, rows)]

    with open(tmp_path / "out.jsonl", "ab+") as target, pytest.raises(KeyboardInterrupt):
        transform(iter(rows), target, entries(".jsonl"), 3, lambda texts, rows: work(texts, rows, True))
    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 3
    with open(tmp_path / "out.jsonl", "ab+") as target:
        assert transform(iter(rows), target, entries(".jsonl"), 3, work).found == 3
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["outputs"] for line in lines] == [["a0"], ["b1"], ["c2"], ["d3"], ["e4"], ["f5"], ["g6"], ["h7"]]
    assert calls == [0, 3, 3, 6]


def test_complete_output_is_left_alone(whole):
    """The same command once more changes nothing."""
    folder, made = whole
    (folder / "out.jsonl").write_bytes(made[".jsonl"])
    before = (folder / "out.jsonl").stat().st_mtime_ns
    summary = work_on_file(generator(), "para", str(folder / "in.txt"), str(folder / "out.jsonl"), {})
    assert summary.found == summary.entries == len(TEXTS) and (folder / "out.jsonl").read_bytes() == made[".jsonl"]
    assert (folder / "out.jsonl").stat().st_mtime_ns == before


def test_every_text_has_its_own_seed(tmp_path):
    """The same text twice gives different answers; the same file twice the same."""
    (tmp_path / "in.txt").write_text("How can I learn to cook?\n" * 4)
    outputs = []
    for name in ("a.jsonl", "b.jsonl"):
        work_on_file(generator(temperature=1.0), "para", str(tmp_path / "in.txt"), str(tmp_path / name), {})
        outputs.append((tmp_path / name).read_text())
    assert outputs[0] == outputs[1] and len(set(outputs[0].splitlines())) == 4


def test_made_otherwise_is_refused(whole):
    """Other options, command, input or checkpoint, no note of how it was made, or stdin: refused; what is there stays.
    --overwrite starts over.
    """
    folder, made = whole
    source, path, note = folder / "in.txt", folder / "out.jsonl", folder / "out.jsonl.job.json"
    path.write_bytes(made[".jsonl"])
    before = path.read_bytes(), note.read_bytes()
    other = folder / "other.txt"
    other.write_text("How are you?\n")
    for words, g, command, file, made_with in (
        ("another temperature (then 0.7, now 0.5)", generator(temperature=0.5), "para", source, {}),
        ("another command (then para, now fill)", generator(), "fill", source, {}),
        ("another input", generator(), "para", other, {}),
        ("another weights", generator(), "para", source, {"weights_sha256": "x"}),
        ("cannot be continued", generator(), "para", "-", {}),
    ):
        assert words in refusal(work_on_file, g, command, str(file), str(path), made_with)
        assert (path.read_bytes(), note.read_bytes()) == before
    note.write_text("{")
    assert "nothing says how it was made" in refusal(work_on_file, generator(), "para", str(source), str(path), {})
    work_on_file(generator(), "para", str(other), str(path), {}, overwrite=True)
    assert json.loads(path.read_text())["source"] == "How are you?"
    work_on_file(generator(), "para", str(source), str(path), {}, overwrite=True)
    assert path.read_bytes() == made[".jsonl"]


def test_two_writers(tmp_path):
    """While one process writes, another is refused."""
    pytest.importorskip("fcntl")
    with open_output(tmp_path / "out.jsonl", {}, False, False):
        assert "another process" in refusal(open_output(tmp_path / "out.jsonl", {}, False, False).__enter__)


def test_commands(tmp_path):
    """fill, mask and complete: mask needs a [MASK]; an option that only some texts allow costs only those."""
    path = tmp_path / "in.txt"
    path.write_text("The [MASK] is open.\nNo hole here.\n")
    out = tmp_path / "out.jsonl"
    for command, expected in (("fill", [2, 2]), ("mask", [2, 0]), ("complete", [2, 2])):
        summary = work_on_file(generator(), command, str(path), str(out), {}, overwrite=True)
        assert [len(json.loads(line)["outputs"]) for line in out.read_text().splitlines()] == expected
    path.write_text("How?\n" + "Where is the open museum today " * 3 + "\nHow are you?\n")
    summary = work_on_file(generator(length="long"), "para", str(path), str(out), {}, overwrite=True)
    assert [len(json.loads(line)["outputs"]) for line in out.read_text().splitlines()] == [2, 0, 2]
    assert summary.problems[0][0] == 2 and "length is long" in summary.problems[0][1]


PAIRS = "src,trg\nHow are you?,How do you do?\nIs it open?,\nmuseum,Where is the museum?\n"
SINGLE = '{"text": "Is it open?"}\n{"src": "a", "trg": "Is it open?"}\n{"src": "   "}\n'


def test_scores_of_a_file(tmp_path):
    """score reads pairs and single texts; a row without a score keeps its place with empty numbers; the numbers are
    those of Python; a .txt holds the NELBO alone.
    """
    g, source = generator(score_draws=4), tmp_path / "in.csv"
    source.write_text(PAIRS)
    summary = work_on_file(g, "score", str(source), str(tmp_path / "out.csv"), {})
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [row["target"] for row in rows] == ["How do you do?", "", "Where is the museum?"]
    expected = g.score("museum", "Where is the museum?")
    assert float(rows[2]["nelbo"]) == pytest.approx(expected.nelbo, abs=1e-3)
    assert int(rows[2]["word_pieces"]) == len(expected.pieces) and rows[1]["nelbo"] == "" != rows[0]["nelbo"]
    assert [entry for entry, _ in summary.problems] == [2] and "the target is empty" in summary.problems[0][1]
    source = tmp_path / "in.jsonl"
    source.write_text(SINGLE)
    work_on_file(g, "score", str(source), str(tmp_path / "out.jsonl"), {})
    one, pair, empty = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert one["target"] is None and one["nelbo"] == pytest.approx(g.score("Is it open?").nelbo, abs=1e-3)
    assert pair["nelbo"] == pytest.approx(g.score("a", "Is it open?").nelbo, abs=1e-3) and empty["nelbo"] is None
    assert len(one["pieces"]) == one["word_pieces"] and one["length"] > 0 < one["standard_error"]
    work_on_file(g, "score", str(source), str(tmp_path / "out.txt"), {})
    lines = (tmp_path / "out.txt").read_text().split("\n")
    assert float(lines[0]) == pytest.approx(one["nelbo"], abs=1e-3) and lines[2] == ""


def test_targets_are_read_for_score_alone(tmp_path):
    """Other commands do not mind an empty target, as before."""
    (tmp_path / "in.csv").write_text(PAIRS)
    summary = work_on_file(generator(), "para", str(tmp_path / "in.csv"), str(tmp_path / "out.jsonl"), {})
    assert summary.problems == [] and summary.entries == 3


def test_corrections_of_a_file(tmp_path):
    """fix: the corrected text and its changes, as from Python; what cannot be corrected keeps its place."""
    g, source = generator(), tmp_path / "in.txt"
    source.write_text("Where is the the museum?\nThe [MASK] is open.\nHow are you?\n")
    for kind in (".jsonl", ".csv", ".txt"):
        work_on_file(g, "fix", str(source), str(tmp_path / f"out{kind}"), {})
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = [g.correct_text(text).text for text in ("Where is the the museum?", "How are you?")]
    assert [record["outputs"] for record in records] == [[expected[0]], [], [expected[1]]]
    for record in records:
        for change in record["changes"]:
            assert record["outputs"][0][change["start"] :].startswith(change["after"])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [row["output_1"] for row in rows] == [expected[0], "", expected[1]]
    assert (tmp_path / "out.txt").read_text() == f"{expected[0]}\n\n{expected[1]}\n"


def test_commands_of_several_tasks(tmp_path):
    """Each task of a checkpoint works on files by the command that it has in the loop, and answers as there; one that
    it lacks is refused.
    """
    path, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
    path.write_text("Where is the museum?\nHow are you?\n")
    several = DiffusionTextGenerator(new_model(task_name="qqp,CC"), SamplingConfig(**{**FAST, "batch_size": 2}))
    outputs = {}
    for command, task in (("para", "qqp"), ("reply", "CC")):
        work_on_file(several, command, str(path), str(out), {}, overwrite=True)
        outputs[command] = [json.loads(line)["outputs"] for line in out.read_text().splitlines()]
        assert outputs[command] == several.rewrite(path.read_text().splitlines(), task=task, numbers=[0, 1])
    assert outputs["para"] != outputs["reply"]
    out.unlink()
    assert (
        "para, reply, fill" in refusal(work_on_file, several, "simplify", str(path), str(out), {}) and not out.exists()
    )


def test_an_option_that_no_text_allows(texts, tmp_path):
    """It is refused at once instead of being told for every row; nothing is written."""
    message = refusal(work_on_file, generator(length="60"), "para", str(texts), str(tmp_path / "out.jsonl"), {})
    assert "length is 60" in message and (tmp_path / "out.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        (".txt", b"\xef\xbb\xbfa b\r\n\n \nlast", [("a b", ""), ("last", "")]),
        (".txt", b"caf\xe9\nok\n", [("caf\udce9", "half of a character"), ("ok", "")]),
        (
            ".jsonl",
            b'{"src": "a"}\n{"source": "b", "x": 1}\n"c"\n{"trg": "d"}\nnot\n\n[1]\n{"text": 5}\n',
            [
                ("a", ""),
                ("b", ""),
                ("c", ""),
                ('{"trg": "d"}', "no text"),
                ("not", "not JSON"),
                ("[1]", "no text"),
                ('{"text": 5}', "no text"),
            ],
        ),
        (".csv", b'id,Text\n1,"a, ""b""\nc"\n2\n3,d\n', [('a, "b"\nc', ""), ("", "has 1 columns"), ("d", "")]),
        (".tsv", b"src\ttrg\na\tb\n", [("a", "")]),
        (".csv", b"text\nHello, how are you?\nfine\n", [("", "quotation marks"), ("fine", "")]),
    ],
)
def test_rows_of_every_kind(kind, content, expected):
    """A row for every row, bad ones with their reason."""
    rows = list(stream_rows(io.BytesIO(content), kind))
    assert [row.text for row in rows] == [text for text, _ in expected]
    for row, (_, words) in zip(rows, expected):
        assert words in row.problem and bool(words) == bool(row.problem)


GOOD = [f"text {number}" for number in range(40)]
LONG = "x" * 200_000
FILES = [  # name, content, the texts that are its rows; None for a row that is bad
    (".tsv", 'src\ttrg\n"Who is he?\tWho is that man?\n' + "\n".join(f"{t}\ty" for t in GOOD), ['"Who is he?', *GOOD]),
    (".tsv", 'src\n"a\n\nb"\n', ['"a', 'b"']),
    (".tsv", f"SRC\r\n{LONG}\r\n \r\nb", [LONG, "b"]),
    (".csv", 'src,trg\n"Who is he?,Who is that man?\n' + "\n".join(f"{t},y" for t in GOOD), [None, *GOOD]),
    (".csv", 'src,trg\n"Who is he?,Who?\na,b\nc,d\n5",x\nlast,z\n', [None, "a", "c", '5"', "last"]),
    (".csv", "src,trg\n" + 'a,"open\n' * 3 + "b,c\n", [None, None, None, "b"]),
    (".csv", '\ufeffText\r\n"a, ""b"""\r\n\r\n"two\r\nlines"\r\nc\r\n', ['a, "b"', "two\r\nlines", "c"]),
    (".csv", f'src , trg\n "{LONG}, y" , b\n"c", "d"\n', [f"{LONG}, y", "c"]),
    (".csv", 'id,src\n1,"Hello, dear\nfriend"\n2,"x" y\n3,z\n', ["Hello, dear\nfriend", None, "z"]),
    (".jsonl", '\ufeff{"SRC": "a"}\r\n\r\n{"Source": "\\"b"}\r\nno\r\n{"TEXT": "c"}', ["a", '"b', None, "c"]),
    (".txt", '\ufeff"a\r\n\r\n   \r\nb" c\r\n' + LONG, ['"a', 'b" c', LONG]),
    (".csv", 'src;trg\n"a; b";x\n\n"Who is he?;Who?\nc, d;y\n', ["a; b", None, "c, d"]),
    (".csv", 'sep=;\r\ntext;note\r\na, b;"x\r\ny"\r\nc;\r\n', ["a, b", "c"]),
    (".csv", "source\ttarget\ra, b\tx\rc\ty", ["a, b", "c"]),
    (".txt", "a\n\u200b\nb\rc\r\n\ufeff\n\u3000\nd\x0ce\u2028f", ["a", None, "b", "c", None, "d\x0ce\u2028f"]),
]


@pytest.mark.parametrize(("kind", "content", "expected"), FILES, ids=range(len(FILES)))
def test_as_many_entries_as_rows(tmp_path, kind, content, expected):
    """Quotes, blank lines, CRLF, byte-order marks and long fields: an entry for every row, in order; training reads the
    same rows.
    """
    rows = list(stream_rows(io.BytesIO(content.encode()), kind))
    assert [None if row.problem else row.text for row in rows] == expected
    with open(tmp_path / "out.jsonl", "ab+") as target:
        transform(iter(rows), target, entries(".jsonl"), 3, lambda texts, rows: [["done"] for _ in texts])
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert [line["source"] if line["outputs"] else None for line in written] == expected
    if "trg" in content:
        (tmp_path / f"in{kind}").write_bytes(content.encode())
        report = read_file(tmp_path / f"in{kind}")
        assert [pair.source for pair in report.pairs] == [text for text in expected if text is not None]
        assert len(report.bad_rows) == expected.count(None)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(("kind", "content"), [(".csv", "src,trg\na,b\n"), (".tsv", "src\na\n"), (".txt", "a\nb\n")])
def test_utf_16_is_refused_as_what_it_is(encoding, kind, content):
    """Not by the letters that its bytes would be: a table by its header, a text with a byte-order mark at once, one
    without by every row.
    """
    data = content.encode(encoding)
    if kind == ".txt" and encoding != "utf-16":
        assert all("zero byte" in row.problem for row in stream_rows(io.BytesIO(data), kind))
    else:
        assert "UTF-16" in refusal(lambda: list(stream_rows(io.BytesIO(data), kind)))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.text(), st.lists(st.text(min_size=1), max_size=2)), max_size=6),
    st.sampled_from([".jsonl", ".csv", ".txt"]),
)
def test_every_entry_is_one_line(answers, kind):
    """Whatever characters a text holds, an entry is one line, and a file of whole lines is left as it is."""
    lines = [entries(kind).line(Row(text), outputs) for text, outputs in answers]
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") and b"\r" not in line for line in lines)
    file = io.BytesIO(b"".join(lines) + b"half")
    assert whole_lines(file) == len(answers) and file.getvalue() == b"".join(lines)


def test_memory_does_not_grow(tmp_path):
    """Four times the rows take no more memory: rows are read, answered and written in chunks."""

    lines = entries(".jsonl")

    def peak(count: int) -> int:
        rows = (Row(f"text number {number} " * 20) for number in range(count))
        tracemalloc.start()
        with open(tmp_path / f"{count}.jsonl", "ab+") as target:
            assert (
                transform(rows, target, lines, 500, lambda texts, rows: [[row.text] for row in texts]).entries == count
            )
        value = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return value

    assert peak(20_000) < 1.2 * peak(5_000)


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command(trained, texts, tmp_path):
    """From flags to file; the bad rows are told, the summary counts them; .txt holds one answer each."""
    flags = ("--checkpoint", trained / "best_model.pt", "--num_steps", 2, "--best_of", 1, "--device", "cpu")
    result = run("interactive_generation", *flags, "--input_file", texts, "--output_file", tmp_path / "out.txt")
    assert result.code == 0 and result.out == "", result.err
    assert (
        "entry 2: the text is empty" in result.err
        and "entry 4: a sentence of" in result.err
        and "7 entries, 2 without an answer" in result.err
    )
    lines = (tmp_path / "out.txt").read_text().split("\n")
    assert len(lines) == 8 and [bool(line) for line in lines] == [True, False, True, False, True, True, True, False]


def test_pipes(trained):
    """- is stdin and stdout, of a real process: nothing but entries on stdout."""
    flags = ("--checkpoint", trained / "best_model.pt", "--num_steps", 2, "--best_of", 1, "--device", "cpu")
    process = start(
        "interactive_generation", *flags, "--input_file", "-", "--output_file", "-", "--command", "complete"
    )
    out, err = process.communicate("How can\nI\n", timeout=120)
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["source"] for record in records] == ["How can", "I"] and all(
        len(record["outputs"]) == 3 for record in records
    ), err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--input_file", "{in}"), "without --output_file"),
        (("--output_file", "x.txt"), "without --input_file"),
        (("--command", "para"), "without --input_file"),
        (("--input_file", "{in}", "--output_file", "{in}"), "is the input itself"),
        (("--input_file", "{in}", "--output_file", "{folder}/../{name}/in.txt"), "is the input itself"),
        (("--input_file", "{folder}/no.txt", "--output_file", "x.txt"), "no such file"),
        (("--input_file", "{folder}/in.pdf", "--output_file", "x.txt"), "unknown ending '.pdf'"),
        (("--input_file", "{in}", "--output_file", "x.docx"), "unknown ending '.docx'"),
        (("--input_file", "{in}", "--output_file", "{folder}/none/x.txt"), "no folder"),
        (
            ("--input_file", "{in}", "--output_file", "x.jsonl", "--command", "translate"),
            "expected one of para, question, simplify, reply, fill",
        ),
        (("--input_file", "{in}", "--output_file", "x.txt", "--num_samples", "2"), "one answer each"),
    ],
)
def test_refusals(texts, flags, words):
    """One line that says what is wrong, before any model is looked for; exit code 2."""
    names = {"in": texts, "folder": texts.parent, "name": texts.parent.name}
    result = run("interactive_generation", *(flag.format(**names) for flag in flags))
    assert result.code == 2 and words in result.err and result.err.count("\n") == 1
