"""diffusion_bert.train: a few lines from pairs to paraphrases, and nothing of the caller's is changed."""

import json
import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
import yaml

import diffusion_bert
from diffusion_bert.commands.progress import Progress
from tests.helpers.models import refusal, save_bert
from tests.helpers.scripts import ROOT, SMALL, run

VERBS = "cook rice,bake bread,play chess,learn to swim,fix a bike,paint a wall,grow roses,write a poem".split(",")
PAIRS = [(f"How can I {verb}?", f"What is the best way to {verb}?") for verb in VERBS]
QUICK = {"vocab_size": 300, "max_length": 48, "max_target_length": 20, "batch_size": 16, "device": "cpu", "seed": 3}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Runs go into the test's own folder."""
    monkeypatch.chdir(tmp_path)


def surroundings() -> list:
    """What a training might change and must not."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    state = [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]
    return [*state, *map(signal.getsignal, numbers), torch.get_num_threads(), sys.stdout, sys.stderr]


def test_a_few_pairs(capsys, tmp_path):
    """Pairs become a generator that has learned them, with its run beside it; the story is told as by the script;
    random numbers, signals and threads are the caller's own.
    """
    torch.manual_seed(11)
    before = surroundings()
    g = diffusion_bert.train(PAIRS * 8, epochs=8, lr=3e-3, demonstration_steps=1000, **QUICK)
    assert surroundings() == before
    out = capsys.readouterr().out
    assert out.startswith("Reading the data ...\n") and "Run directory: runs/" in out and "best so far" in out
    assert "best way to" in g.paraphrase_text("How can I bake bread?", num_samples=1, temperature=0.0)[0]
    run_directory = tmp_path / g.run_directory
    assert {"best_model.pt", "config.yaml", "training_results.json"} <= {path.name for path in run_directory.iterdir()}
    settings = yaml.safe_load((run_directory / "config.yaml").read_text())
    rows = [json.loads(line) for line in (tmp_path / settings["train_file"]).read_text().splitlines()]
    assert rows == [{"src": source, "trg": target} for source, target in PAIRS * 8]
    # the run is one like any other: it can be trained on, from Python and from the shell, with the same pairs again
    child = diffusion_bert.train(PAIRS, base=g.run_directory, max_steps=1, num_threads=2, quiet=True, device="cpu")
    assert surroundings() == before
    assert capsys.readouterr().out == "" and child.model.parent == str(g.run_directory / "best_model.pt")
    g.save_pretrained("shared")
    assert diffusion_bert.train(PAIRS, base="shared", max_steps=1, quiet=True, device="cpu").model.parent == "shared"
    done = run("evaluate_trained_model", "--checkpoint", g.run_directory, "--parts", "nelbo", "--device", "cpu")
    assert done.code in (None, 0), done.err


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        ([{"src": "a b", "trg": "b a"}] * 3, {"src": "a b", "trg": "b a"}),
        ([{"Source": "a", "target": "b", "tone": "Formal"}] * 3, {"src": "a", "trg": "b", "style": "Formal"}),
        ([["", "b"]] * 3, {"src": "", "trg": "b"}),
        (["a text", "a text"], {"text": "a text"}),
        (({"text": text} for text in ["a", "a"]), {"text": "a"}),
    ],
)
def test_forms_of_data(tmp_path, data, rows):
    """Dictionaries with the names that files take, lists, plain texts, and whatever gives them one by one."""
    g = diffusion_bert.train(data, epochs=1, quiet=True, output_dir=str(tmp_path / "out"), **QUICK)
    (file,) = (tmp_path / "out").glob("pairs_*.jsonl")
    assert json.loads(file.read_text().splitlines()[0]) == rows
    assert g.model.knows_pairs == ("src" in rows) and g.run_directory.parent == tmp_path / "out"


def test_files_folders_and_a_bert(data_dir, tmp_path):
    """A file and a folder are taken where they lie, as by the script; the base may be a BERT's folder."""
    save_bert(tmp_path / "bert")
    small = {name: value for name, value in SMALL.items() if name not in ("task_name", "model_name_or_path")}
    small |= {"epochs": 1, "max_steps": 1, "quiet": True, "max_length": 64, "max_target_length": 40}
    for data, name in ((data_dir, "data_dir"), (data_dir / "train.jsonl", "train_file")):
        g = diffusion_bert.train(data, base=tmp_path / "bert", **small)
        assert getattr(g.model.config.data, name) == str(data) and g.model.denoiser.bert_config.hidden_size == 32
    assert not list((tmp_path / "runs").glob("*.jsonl"))


WRONG = [
    ({"pairs_or_file": []}, "the list of pairs is empty"),
    ({"pairs_or_file": None}, "of type NoneType"),
    ({"pairs_or_file": {"src": "a", "trg": "b"}}, "of type dict"),
    ({"pairs_or_file": [("a",)]}, "item 0 of the list is a tuple of 1"),
    ({"pairs_or_file": [("a", "b"), 3]}, "item 1 of the list is a int"),
    ({"pairs_or_file": [("a", None)]}, "trg is missing"),
    ({"pairs_or_file": [("a", 2.5)]}, "trg is of type float"),
    ({"pairs_or_file": [("a", " ")]}, "trg is empty"),
    ({"pairs_or_file": [{"question": "a"}]}, "text is missing"),
    ({"pairs_or_file": [("a", "b"), "c"]}, "item 1 of the list is a plain text"),
    ({"pairs_or_file": "none.jsonl"}, "none.jsonl: no such file"),
    ({"pairs_or_file": "a.xlsx"}, "unknown file type"),
    ({"epocs": 3}, "did you mean 'epochs'"),
    ({"epochs": "3"}, "expected a whole number"),
    ({"lr": -1.0}, "lr is -1.0"),
    ({"device": "gpu"}, "device is 'gpu'"),
    ({"base": "none.pt"}, "none.pt: no such checkpoint"),
    ({"base": 3}, "base is of type int"),
    ({"base": "me/none"}, "cannot reach"),
    ({"base": "tinny"}, "tinny"),
    ({"train_file": "a.jsonl"}, "train_file is given"),
    ({"model_name_or_path": "mini"}, "say base="),
    ({"dry_run": True}, "dry_run"),
    ({"preset": "none"}, "no preset 'none'"),
]


@pytest.mark.parametrize(("arguments", "expected"), WRONG, ids=[expected for _, expected in WRONG])
def test_refusals(arguments, expected, tmp_path):
    """What came, what was expected: one line, before any run directory is made, with all as it was."""
    before = surroundings()
    assert expected in refusal(diffusion_bert.train, **{"pairs_or_file": PAIRS, "quiet": True, **arguments})
    assert surroundings() == before and not list(tmp_path.glob("runs/*/"))


def test_what_belongs_to_the_weights(trained):
    """A checkpoint keeps its architecture."""
    message = refusal(diffusion_bert.train, PAIRS, base=trained, vocab_size=300, quiet=True)
    assert message.startswith("vocab_size belongs to the weights")


def test_outside_the_main_thread():
    """Where signals are not its to take, it trains all the same."""
    found = []
    thread = threading.Thread(
        target=lambda: found.append(diffusion_bert.train(PAIRS, max_steps=1, quiet=True, **QUICK))
    )
    thread.start()
    thread.join()
    assert found and found[0].run_directory.is_dir()


def test_an_interruption_reaches_the_caller(monkeypatch, tmp_path):
    """Ctrl-C saves what a resume needs and then is the KeyboardInterrupt that it would have been."""
    from diffusion_bert.training.trainer import Trainer

    step = Trainer.step

    def interrupted(self, share):
        step(self, share)
        if self.state.step == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "step", interrupted)
    handler = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # where tests run in the background it is ignored
    try:
        before = surroundings()
        with pytest.raises(KeyboardInterrupt):
            diffusion_bert.train(PAIRS * 8, epochs=3, quiet=True, **QUICK)
        assert surroundings() == before
    finally:
        signal.signal(signal.SIGINT, handler)
    (run_directory,) = (tmp_path / "runs").glob("*/")
    monkeypatch.setattr(Trainer, "step", step)
    assert json.loads((run_directory / "state.json").read_text())["interrupted"]
    again = run("continue_training", "--resume", "--model_dir", run_directory, "--device", "cpu")
    assert again.code == 0, again.err


def test_light_to_import():
    """import diffusion_bert loads no torch; its names are there."""
    code = "import sys, diffusion_bert; assert 'torch' not in sys.modules; print(diffusion_bert.__all__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "'train'" in done.stdout and done.returncode == 0, done.stderr


def test_a_bar_in_a_notebook(monkeypatch, capsys):
    """A notebook is no terminal, but shows a bar."""
    import types

    for shell, bar in ((None, False), (types.SimpleNamespace(kernel=1), True)):
        module = types.SimpleNamespace(get_ipython=lambda shell=shell: shell)
        monkeypatch.setitem(sys.modules, "IPython", module)
        progress = Progress("training")
        progress.update(0.5, "step 1")
        progress.close()
        assert (progress.bar is not None) == bar
    assert "training" in capsys.readouterr().err
