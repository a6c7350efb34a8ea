"""Work on a file in parts: shards and processes write what one call does, to the byte, also after a kill."""

import json
import signal
import time

import pytest

from diffusion_bert.commands import file_work
from diffusion_bert.commands.file_work import chunk_size, work_on_file
from diffusion_bert.commands.shards import Shard, shard_of
from tests.commands.test_file_work import TEXTS, generator
from tests.helpers.models import refusal
from tests.helpers.scripts import run
from tests.training.test_distributed import finished, launch

LINES = [*TEXTS, *TEXTS[::-1], "How can I learn to cook?", "Where is it?"]  # 16 rows, chunks of 3
FLAGS = ("--num_steps", 2, "--num_samples", 2, "--best_of", 1, "--batch_size", 3, "--device", "cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(input, what one call makes of it by ending)."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "in.txt").write_text("\n".join(LINES) + "\n")
    made = {}
    for kind in (".jsonl", ".csv", ".txt"):
        work_on_file(generator(), "para", str(folder / "in.txt"), str(folder / f"out{kind}"), {})
        made[kind] = (folder / f"out{kind}").read_bytes()
    assert chunk_size(generator().options) == 3 and made[".jsonl"].count(b"\n") == 16
    return folder / "in.txt", made


@pytest.mark.parametrize(("total", "chunk"), [(16, 3), (1, 5), (0, 4), (40, 1), (12, 4)])
@pytest.mark.parametrize("count", (1, 2, 3, 7))
def test_rows_of_shards(total, chunk, count):
    """One after the other they are all rows, each of whole chunks, none more than a chunk larger than another."""
    parts = [Shard(number, count).rows(total, chunk) for number in range(1, count + 1)]
    assert [row for part in parts for row in part] == list(range(total))
    assert all(part.start % chunk == 0 or not part for part in parts)
    chunks = [-(-len(part) // chunk) for part in parts]
    assert max(chunks) - min(chunks) <= 1


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".txt"])
@pytest.mark.parametrize("count", (2, 7))
def test_the_parts_are_the_whole(whole, tmp_path, kind, count):
    """Written in any order, some empty, and joined in order; bad rows are told by their number in the file."""
    source, made = whole
    problems, entries = [], 0
    for number in range(count, 0, -1):
        out = tmp_path / f"{number}{kind}"
        summary = work_on_file(generator(), "para", str(source), str(out), {}, shard=Shard(number, count))
        problems, entries = summary.problems + problems, entries + summary.entries
    assert b"".join((tmp_path / f"{n}{kind}").read_bytes() for n in range(1, count + 1)) == made[kind]
    assert entries == 16 and [number for number, _ in problems] == [2, 4, 11, 13]


def test_batch_size_does_not_change_the_answers(whole, tmp_path):
    """Chunks of 1 and of 32 rows: the same answers as chunks of 3."""
    source, made = whole
    for size in (1, 32):
        work_on_file(generator(batch_size=size), "para", str(source), str(tmp_path / f"{size}.jsonl"), {})
        assert (tmp_path / f"{size}.jsonl").read_bytes() == made[".jsonl"]


@pytest.mark.parametrize("kind", [".jsonl", ".csv"])
@pytest.mark.parametrize("number", (1, 3))
def test_a_killed_shard_goes_on(whole, tmp_path, monkeypatch, kind, number):
    """After a kill between chunks and inside a line only the rest is written, and the part is as if nothing happened;
    as another shard it is not continued.
    """
    source, _ = whole
    shard, out, calls, real = Shard(number, 3), tmp_path / f"out{kind}", [], file_work.worker

    def spying(*args):
        work = real(*args)
        return lambda texts, rows: calls.append(rows[0]) or work(texts, rows)

    monkeypatch.setattr(file_work, "worker", spying)
    work_on_file(generator(), "para", str(source), str(out), {}, shard=shard)
    content, first = out.read_bytes(), list(calls)
    header = kind == ".csv" and number == 1
    lines = content.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[: 3 + header]) + lines[3 + header][:9])
    calls.clear()
    summary = work_on_file(generator(), "para", str(source), str(out), {}, shard=shard)
    assert out.read_bytes() == content and summary.found == 3 and calls == first[1:] and len(first) == 2
    other = Shard(2, 3)
    words = f"another shard (then {number}/3, now 2/3)"
    assert words in refusal(work_on_file, generator(), "para", str(source), str(out), {}, shard=other)


@pytest.mark.parametrize("text", ("0/2", "3/2", "a/b", "1", "1/0", "-1/2", "1/2/3", ""))
def test_shards_that_are_none(whole, text):
    """Refused at once, in one line that shows what is expected."""
    result = run("interactive_generation", "--input_file", whole[0], "--output_file", "x.jsonl", f"--shard={text}")
    assert result.code == 2 and f"--shard is '{text}': expected k/n" in result.err and result.err.count("\n") == 1
    assert str(shard_of(" 2/12 ")) == "2/12"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--shard", "1/2"), "--shard without --input_file"),
        (("--shard", "1/2", "--input_file", "-", "--output_file", "x.txt"), "whose length nobody knows"),
    ],
)
def test_refusals(flags, words):
    """A shard of nothing, and of what has no known length."""
    result = run("interactive_generation", *flags)
    assert result.code == 2 and words in result.err and result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "cannot share one command loop"),
        (("--input_file", "{in}", "--output_file", "-"), "cannot share stdin or stdout"),
        (("--input_file", "{in}", "--output_file", "x.txt", "--shard", "1/2"), "leave one of them out"),
    ],
)
def test_refusals_under_torchrun(whole, monkeypatch, flags, words):
    """What several processes cannot do together."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("os._exit", lambda code: None)
    result = run("interactive_generation", *(flag.format(**{"in": whole[0]}) for flag in flags))
    assert result.code == 2 and words in result.err


def test_the_command_with_a_shard(trained, whole, tmp_path):
    """From flags to part; the last line says which."""
    flags = ("--checkpoint", trained / "best_model.pt", *FLAGS, "--input_file", whole[0])
    outputs = [tmp_path / f"{name}.jsonl" for name in ("whole", "1", "2")]
    for out, shard in zip(outputs, (None, "1/2", "2/2")):
        result = run("interactive_generation", *flags, "--output_file", out, *(("--shard", shard) if shard else ()))
        assert result.code == 0, result.err
    assert "2.jsonl: 7 entries of shard 2/2, 2 without an answer, the first: entry 11" in result.err
    whole_file, one, two = (out.read_bytes() for out in outputs)
    assert one + two == whole_file


def test_two_processes_write_the_same(trained, whole, tmp_path):
    """Killed once and started again: one output, equal to that of one process, one voice, no parts left; the same again
    finds it, and what one process has begun is not touched.
    """
    checkpoint = ("--checkpoint", trained / "best_model.pt")
    alone, folder = tmp_path / "alone.jsonl", tmp_path / "together"
    folder.mkdir()
    out = folder / "out.jsonl"
    argv = (*checkpoint, *FLAGS, "--input_file", whole[0], "--output_file")
    assert run("interactive_generation", *argv, alone).code == 0

    def parts() -> int:
        return sum(path.read_bytes().count(b"\n") for path in folder.glob("out.?.jsonl"))

    processes = launch(tmp_path, 2, "interactive_generation", *argv, out)
    while parts() < 3 and processes[0].alive():
        time.sleep(0.005)
    for process in processes:
        process.kill(signal.SIGKILL)
    finished(processes)
    assert not out.exists() and parts()
    (code, _, err), (other_code, other_out, other_err) = finished(
        launch(tmp_path, 2, "interactive_generation", *argv, out), 120
    )
    assert code == other_code == 0 and "out.jsonl: 16 entries, " in err and "without an answer" in err, err
    assert other_out == "" and "out.jsonl" not in other_err
    assert out.read_bytes() == alone.read_bytes() and [path.name for path in folder.iterdir()] == ["out.jsonl"]
    again = finished(launch(tmp_path, 2, "interactive_generation", *argv, out), 120)
    assert again[0][0] == 0 and "16 entries, 16 of them were there" in again[0][2]
    out.write_bytes(b"".join(alone.read_bytes().splitlines(keepends=True)[:5]))
    begun = finished(launch(tmp_path, 2, "interactive_generation", *argv, out), 120)
    assert begun[0][0] == 2 and "begun by one process and holds 5 of 16" in begun[0][2] + begun[1][2]
    assert json.loads(out.read_text().splitlines()[0])["source"] == LINES[0]
