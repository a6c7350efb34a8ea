"""The same command on the same machine gives the same model and the same texts; legal data, however odd, trains."""

import json
import shutil

import pytest

from diffusion_bert.model.payload import read_payload
from tests.helpers.scripts import compare_runs, run, small_flags, start, write_data

TEXTS = ("How can I learn to cook?", "The museum is open on Friday.")


def only(folder):
    """The one thing in a folder."""
    (inside,) = folder.iterdir()
    return inside


def test_two_processes_train_the_same_model_and_write_the_same(tmp_path):
    """Two real processes with one command: weights, optimizer and metrics equal to the bit; two sessions with each
    write the same candidates.
    """
    data = write_data(tmp_path / "data", train=32, valid=8, test=4)
    folders = [tmp_path / "one", tmp_path / "two"]
    training = [
        start("run_conditional_training", *small_flags(data, output_dir=folder, epochs=2)) for folder in folders
    ]
    assert [process.wait(timeout=300) for process in training] == [0, 0]
    assert compare_runs(only(folders[0]), only(folders[1])) == []
    lines = "".join(f"{command} {text}\n" for command in ("para", "fill", "complete") for text in TEXTS)
    outputs = []
    for folder in folders:
        result = run(
            "interactive_generation",
            "--checkpoint",
            only(folder) / "best_model.pt",
            "--num_steps",
            4,
            "--device",
            "cpu",
            stdin=lines,
        )
        assert result.code == 0 and result.out.count("  1. ") == 6
        outputs.append(result.out.splitlines()[1:])  # the first line names the folder
    assert outputs[0] == outputs[1]


def test_another_seed_is_another_model(tmp_path):
    """What the test above compares does depend on the seed."""
    data = write_data(tmp_path / "data", train=16, valid=4, test=2)
    for seed in (1, 2):
        assert (
            run(
                "run_conditional_training", *small_flags(data, output_dir=tmp_path / str(seed), max_steps=1, seed=seed)
            ).code
            == 0
        )
    assert compare_runs(only(tmp_path / "1"), only(tmp_path / "2"))


def test_workers_change_nothing(tmp_path):
    """Batches prepared by two processes are the same in the same order: the trained model is equal to the bit."""
    data = write_data(tmp_path / "data", train=32, valid=8, test=4)
    for workers in (0, 2):
        result = run(
            "run_conditional_training",
            *small_flags(data, output_dir=tmp_path / str(workers), epochs=2, num_workers=workers),
        )
        assert result.code == 0, result.err[-2000:]
    assert compare_runs(only(tmp_path / "0"), only(tmp_path / "2")) == []


# ---- legal, but odd ------------------------------------------------------------------------------------------------

PAIR = ("How are you?", "How do you do?")
ODD = {
    "one row": [PAIR],
    "identical rows": [PAIR] * 30,
    "empty sources": [("", f"This is sentence number {number}.") for number in range(8)],
    "source is target": [("Same here.", "Same here.")] * 4,
    "one length": [(f"word {number}", f"answer {number}") for number in range(20)],
    "one-word targets": [("What?", "That."), ("Who?", "They."), ("When?", "Now.")],
    "emoji and rare scripts": [
        ("Wie geht's? 🙂👩‍👩‍👧", "ደህና ነኝ 🚀"),
        ("ኣሎ ᚠᚢᚦ", "שלום 你好 ﷽"),
        ("a\u0301e\u0302", "Zażółć gęślą jaźń"),
        ("\u202eabc", "𝔘𝔫𝔦"),
    ],
    "some too long": [(f"How is {number}?", f"{number} is fine.") for number in range(30)] + [("a", "word " * 500)],
}


@pytest.mark.parametrize("name", ODD)
def test_odd_data_trains(tmp_path, name):
    """One step, test and results; what was left out is told; the checkpoint answers."""
    (tmp_path / "odd.jsonl").write_text(
        "".join(json.dumps({"src": source, "trg": target}) + "\n" for source, target in ODD[name])
    )
    flags = small_flags(
        None,
        train_file=tmp_path / "odd.jsonl",
        task_name="custom",
        output_dir=tmp_path / "runs",
        epochs=1,
        batch_size=64,
    )
    result = run("run_conditional_training", *flags)
    assert result.code == 0, result.err[-2000:]
    assert ("1 of 30 rows left out: targets longer" in result.out) == (name == "some too long")
    best = only(tmp_path / "runs") / "best_model.pt"
    talk = run(
        "interactive_generation",
        "--checkpoint",
        best,
        "--num_steps",
        2,
        "--device",
        "cpu",
        stdin=f"para {ODD[name][0][0] or 'Hello.'}\n",
    )
    assert talk.code == 0 and "  1. " in talk.out, talk


def test_windows_text_is_text(tmp_path):
    """A byte-order mark and CRLF, as a Windows editor writes them, give the same pairs as plain UTF-8: the same data
    fingerprint.
    """
    rows = "src,trg\n" + "".join(f"What is {number}?,It is {number}.\n" for number in range(20))
    prints = []
    for name, content in (("unix", rows.encode()), ("windows", b"\xef\xbb\xbf" + rows.replace("\n", "\r\n").encode())):
        (tmp_path / "mine.csv").write_bytes(content)
        flags = small_flags(
            None, train_file=tmp_path / "mine.csv", task_name="custom", output_dir=tmp_path / name, max_steps=1
        )
        assert run("run_conditional_training", *flags).code == 0
        prints.append(read_payload(only(tmp_path / name) / "last.pt")["training"]["data_fingerprint"])
        shutil.rmtree(tmp_path / name)
    assert prints[0] == prints[1]
