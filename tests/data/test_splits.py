"""Where the data of a run comes from: bundled sample, folder, own files, hub; always the same rows for the same
seed.
"""

import dataclasses
import json
import socket
import threading
import time

import datasets
import pytest

from diffusion_bert.config.schema import DataConfig
from diffusion_bert.config.tasks import CONTINUE_PROMPT, PROMPTS, TASKS
from diffusion_bert.config.tasks import TASKS as TASK_NAMES
from diffusion_bert.data.grammar import Grammar
from diffusion_bert.data.pairs import Pair
from diffusion_bert.data.splits import load_pairs, take_sample
from diffusion_bert.machine.hub import require_hub
from diffusion_bert.model.diffusion_model import build_model
from tests.helpers.models import refusal, tiny_config

ROWS = [Pair(f"source {number}", f"target {number}") for number in range(60)]


@pytest.fixture(autouse=True)
def direct_connections(monkeypatch):
    """No proxy stands between a test and this machine's own ports, and nothing is declared offline."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def write_rows(path, rows):
    path.write_text("".join(json.dumps({"src": row.source, "trg": row.target}) + "\n" for row in rows))
    return str(path)


def test_the_table_of_tasks():
    """Settings and table know the same tasks; each prompt occurs once, `continue:` among them."""
    assert set(TASK_NAMES) == set(TASKS) and all(name == task.name for name, task in TASKS.items())
    assert len(set(PROMPTS)) == len(PROMPTS) and CONTINUE_PROMPT in PROMPTS
    assert {task.prompt for task in TASKS.values() if task.prompt} < set(PROMPTS)


def test_sample():
    """The bundled task has the documented sizes, the same pairs every time, and no sentence pair in two splits."""
    first, second = load_pairs(DataConfig()), load_pairs(DataConfig(), seed=5)
    assert [len(first.train), len(first.valid), len(first.test)] == [24_000, 1_000, 1_000] and not first.notes
    assert (first.train, first.valid, first.test) == (second.train, second.valid, second.test)
    assert not set(first.train) & {*first.valid, *first.test} and not set(first.valid) & set(first.test)
    grammar = Grammar.load()
    assert all(grammar.is_paraphrase(*pair) for pair in first.test[:50])


def test_folder_with_and_without_test_data(tmp_path):
    """A folder's three files are its splits; without test.jsonl the validation data stands in, and a note says so."""
    for name, rows in (("train", ROWS[:40]), ("valid", ROWS[40:50]), ("test", ROWS[50:])):
        write_rows(tmp_path / f"{name}.jsonl", rows)
    splits = load_pairs(DataConfig(task_name="QT", data_dir=str(tmp_path)))
    assert (splits.train, splits.valid, splits.test, splits.notes) == (ROWS[:40], ROWS[40:50], ROWS[50:], [])
    (tmp_path / "test.jsonl").unlink()
    splits = load_pairs(DataConfig(task_name="QT", data_dir=str(tmp_path)))
    assert splits.test == splits.valid == ROWS[40:50] and "stands in" in splits.notes[0]
    elsewhere = write_rows(tmp_path / "elsewhere.jsonl", ROWS[:3])
    assert load_pairs(DataConfig(task_name="QT", data_dir=str(tmp_path), test_file=elsewhere)).test == ROWS[:3]
    assert load_pairs(DataConfig(task_name="QT", data_dir=str(tmp_path), valid_file=elsewhere)).valid == ROWS[:3]


def test_incomplete_folders(tmp_path):
    """A folder that is not there, and one without validation data, are refused by path."""
    assert "--data_dir" in refusal(load_pairs, DataConfig(data_dir=str(tmp_path / "absent")))
    write_rows(tmp_path / "train.jsonl", ROWS)
    assert str(tmp_path / "valid.jsonl") in refusal(load_pairs, DataConfig(data_dir=str(tmp_path)))
    assert str(tmp_path / "no.jsonl") in refusal(
        load_pairs,
        DataConfig(
            data_dir=str(tmp_path), valid_file=str(tmp_path / "train.jsonl"), test_file=str(tmp_path / "no.jsonl")
        ),
    )


def test_bad_rows_are_told(tmp_path):
    """Malformed rows of a split are left out with a note that names the first."""
    write_rows(tmp_path / "valid.jsonl", ROWS[40:])
    write_rows(tmp_path / "train.jsonl", ROWS[:40])
    with open(tmp_path / "train.jsonl", "a") as file:
        file.write("{\n")
    notes = load_pairs(DataConfig(data_dir=str(tmp_path))).notes
    assert any("1 malformed" in note and "line 41" in note for note in notes)


def test_hold_out_is_disjoint_and_always_the_same(tmp_path):
    """From a lone train_file 5 % is held out, whatever the seed: a child with another one is not validated on what its
    parent has learned. Rows that occur twice stay on one side.
    """
    rows = ROWS + ROWS[:30]
    config = DataConfig(task_name="custom", train_file=write_rows(tmp_path / "t.jsonl", rows))
    splits, again, other = load_pairs(config, seed=1), load_pairs(config, seed=1), load_pairs(config, seed=2)
    assert len(splits.valid) == 3 and splits.test == splits.valid
    assert not set(splits.train) & set(splits.valid) and set(splits.train) | set(splits.valid) == set(rows)
    assert splits.train == [row for row in rows if row not in splits.valid]
    assert (again.train, again.valid) == (splits.train, splits.valid) == (other.train, other.valid)
    assert "held out" in splits.notes[0]


@pytest.mark.parametrize("rows, sizes", [(ROWS[:1], (1, 1)), (ROWS[:1] * 5, (5, 1)), (ROWS[:2], (1, 1))])
def test_hold_out_of_very_little(tmp_path, rows, sizes):
    """A single distinct row serves for training and validation; two are divided."""
    splits = load_pairs(DataConfig(task_name="custom", train_file=write_rows(tmp_path / "t.jsonl", rows)))
    assert (len(splits.train), len(splits.valid)) == sizes


def test_own_validation_and_texts(tmp_path):
    """With valid_file nothing is held out; a .txt gives texts without a source."""
    (tmp_path / "t.txt").write_text("one text\nanother text\n")
    valid = write_rows(tmp_path / "v.jsonl", ROWS[:4])
    splits = load_pairs(DataConfig(task_name="custom", train_file=str(tmp_path / "t.txt"), valid_file=valid))
    assert splits.train == [Pair(None, "one text"), Pair(None, "another text")] and splits.valid == ROWS[:4]


def test_max_samples_is_a_seeded_sample(tmp_path):
    """max_samples draws rows without repetition, in file order, and says so; a limit above the size changes nothing."""
    path = write_rows(tmp_path / "t.jsonl", ROWS)
    config = DataConfig(task_name="custom", train_file=path, valid_file=path, max_samples=10)
    splits = load_pairs(config, seed=1)
    assert len(set(splits.train)) == 10 and sorted(splits.train, key=ROWS.index) == splits.train
    assert splits.train == load_pairs(config, seed=1).train != load_pairs(config, seed=2).train
    assert any("10 of 60" in note for note in splits.notes) and len(splits.valid) == 60
    assert take_sample(ROWS, 100, 0) == take_sample(ROWS, None, 0) == ROWS


def test_symmetric_turns_every_pair(tmp_path):
    """symmetric adds each training pair with a source the other way round, says so, and leaves validation alone;
    one-way tasks refuse it.
    """
    rows = [Pair("a b", "c d"), Pair("", "no source"), Pair("e", "f")]
    path = write_rows(tmp_path / "t.jsonl", rows)
    config = DataConfig(task_name="custom", train_file=path, valid_file=path, symmetric=True)
    splits = load_pairs(config)
    assert splits.train == [*rows, Pair("c d", "a b"), Pair("f", "e")] and splits.valid == rows
    assert any("2 pairs are trained in the other direction" in note for note in splits.notes)
    for name in ("QT", "wiki_alignment", "CC"):
        assert "one way only" in refusal(load_pairs, dataclasses.replace(config, task_name=name))


@pytest.mark.parametrize("name", ["QT", "wiki_alignment", "CC", "custom"])
def test_tasks_without_a_download_name_the_option(name):
    """A task that cannot be had from the hub says which option to give."""
    assert "--data_dir" in refusal(load_pairs, DataConfig(task_name=name))


# ---- the hub -------------------------------------------------------------------------------------------------------


def test_without_a_network(monkeypatch):
    """Data and model of the hub are refused within five seconds, in one line that says what to do."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    message = refusal(load_pairs, DataConfig(task_name="qqp"))
    assert "http://127.0.0.1:9" in message and "--data_dir" in message and "--task_name sample" in message
    message = refusal(build_model, tiny_config(model_name_or_path="no-such-owner/no-such-bert"), ["text"], 0)
    assert "no-such-owner/no-such-bert" in message and "tiny, mini, small" in message
    assert time.monotonic() - start < 5


@pytest.fixture
def server():
    """A server on this machine that gives one fixed answer (or none) to everyone: server(answer) -> address."""
    sockets = []

    def start(answer: bytes | None) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                sockets.append(connection)
                if answer is not None:
                    connection.recv(4096)
                    connection.sendall(answer)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for item in sockets:
        item.close()


@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found", b"500 Oops"])
def test_any_answer_is_an_answer(monkeypatch, server, status):
    """A server that answers at all can be reached, whatever it says."""
    monkeypatch.setenv(
        "HF_ENDPOINT", server(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    )
    require_hub("the data", "do something else")


@pytest.mark.parametrize("answer", [None, b"", b"this is no HTTP\r\n\r\n"])
def test_a_server_that_hangs_or_babbles(monkeypatch, server, answer):
    """No answer within the time, a closed line and no HTTP are all refused in time."""
    monkeypatch.setenv("HF_ENDPOINT", server(answer))
    start = time.monotonic()
    message = refusal(require_hub, "the data", "do something else", timeout=1.0)
    assert "the data" in message and "do something else" in message
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("endpoint", ["nonsense", "http://", "http://127.0.0.1:port"])
def test_a_nonsensical_endpoint(monkeypatch, endpoint):
    """A mistyped HF_ENDPOINT is refused by name."""
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert f"cannot reach {endpoint} " in refusal(require_hub, "the data", "do something else", timeout=1.0)


def test_rows_of_the_hub(monkeypatch):
    """QQP: only the positive pairs, stripped; the validation split is halved into valid and test, with a note."""

    def table(size: int):
        return datasets.Dataset.from_dict(
            {
                "question1": [f" q{number} " for number in range(size)],
                "question2": ["  " if number == 4 else f"p{number}\n" for number in range(size)],
                "label": [int(number % 2 == 0) for number in range(size)],
            }
        )

    loaded = datasets.DatasetDict({"train": table(12), "validation": table(10)})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, configuration: {("nyu-mll/glue", "qqp"): loaded}[name, configuration]
    )
    splits = load_pairs(DataConfig(task_name="qqp"))
    assert splits.train == [Pair(f"q{number}", f"p{number}") for number in (0, 2, 6, 8, 10)]
    assert splits.valid == [Pair("q0", "p0"), Pair("q6", "p6")] and splits.test == [Pair("q2", "p2"), Pair("q8", "p8")]
    assert "halved" in splits.notes[0]


def test_errors_of_the_hub_library_are_one_line(monkeypatch):
    """Whatever the library raises comes out as one line with advice."""

    def fail(*_):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets, "load_dataset", fail)
    assert "--data_dir" in refusal(load_pairs, DataConfig(task_name="qqp"))
