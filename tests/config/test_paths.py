"""Which checkpoint is taken when none is named, in what form its weights may be, and what it says of its data."""

import json
import os
from pathlib import Path

import pytest
import torch

from diffusion_bert.commands.child_settings import child_config
from diffusion_bert.commands.cli import settings_of
from diffusion_bert.config import paths as finding
from diffusion_bert.config.paths import checkpoint_file
from diffusion_bert.machine.storage import weights_digest
from diffusion_bert.model.checkpoint import load_checkpoint, save_checkpoint
from diffusion_bert.model.payload import read_payload
from tests.helpers.models import new_model, refusal
from tests.helpers.scripts import run


def test_order(tmp_path, monkeypatch):
    """The newest run; without one the last bundled checkpoint by name; without that a refusal that says how to
    train.
    """
    bundled, runs = tmp_path / "checkpoints", tmp_path / "runs"
    monkeypatch.setattr(finding, "BUNDLED", bundled)
    assert "run_conditional_training.py" in refusal(checkpoint_file, None, runs)
    bundled.mkdir()
    for name in ("a.pt", "b.pt", "c.txt"):
        (bundled / name).touch()
    assert checkpoint_file(None, runs) == bundled / "b.pt"
    for number, name in enumerate(("new", "old")):
        (runs / name).mkdir(parents=True)
        (runs / name / "best_model.pt").touch()
        os.utime(runs / name / "best_model.pt", (1000 - number, 1000 - number))
    assert checkpoint_file(None, runs) == runs / "new" / "best_model.pt"
    assert checkpoint_file(bundled / "a.pt", runs) == bundled / "a.pt"


@pytest.mark.parametrize("named", [True, False])
def test_first_line(trained, tmp_path, monkeypatch, named):
    """It says which checkpoint speaks, and by what right it was chosen where none was named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finding, "BUNDLED", tmp_path / "none")
    os.symlink(trained.parent, tmp_path / "runs")
    flags = ("--checkpoint", trained / "best_model.pt") if named else ()
    first = run("interactive_generation", *flags, "--device", "cpu").out.splitlines()[0]
    assert first.startswith(str(trained) if named else f"The newest run, runs/{trained.name}/best_model.pt (sample, ")
    monkeypatch.setattr(finding, "BUNDLED", trained)
    (tmp_path / "runs").unlink()
    if not named:
        monkeypatch.setattr("diffusion_bert.config.paths.bundled_checkpoint", lambda: trained / "best_model.pt")
        first = run("interactive_generation", "--device", "cpu").out.splitlines()[0]
        assert first.startswith(f"The bundled checkpoint {trained}")


def test_licence_note(tmp_path):
    """It travels in the checkpoint, stands in the first line and in the report, and stays when training goes on; by
    default there is none.
    """
    model = new_model(license_note="research use only (Quora Question Pairs)")
    path = tmp_path / "best_model.pt"
    save_checkpoint(path, model)
    result = run("interactive_generation", "--checkpoint", path, "--device", "cpu")
    assert "M parameters; research use only (Quora Question Pairs)). Type help" in result.out.splitlines()[0]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"src": "How are you?", "trg": "How do you do?"}) + "\n")
    result = run(
        "evaluate_trained_model", "--checkpoint", path, "--test_file", pairs, "--num_steps", 2, "--device", "cpu"
    )
    assert result.code == 0 and "licence of the training data: research use only" in result.out, result.err
    assert (
        "licence of the training data" in (tmp_path / "evaluation_pairs.md").read_text()
        and (tmp_path / "confidence_map_pairs.png").is_file()
    )
    assert child_config(path, {"epochs": 1}).data.license_note.startswith("research use only")
    assert new_model().config.data.license_note is None


def test_licence_note_of_a_preset_is_about_its_own_data():
    """The presets on Quora say so; with a file of one's own the remark falls away, unless it is given."""
    assert "research use only" in settings_of({"preset": "fast_training", "data_dir": "qqp"})["license_note"]
    assert "license_note" not in settings_of({"preset": "fast_training", "train_file": "mine.jsonl"})
    assert (
        settings_of({"preset": "fast_training", "train_file": "mine.jsonl", "license_note": "mine"})["license_note"]
        == "mine"
    )


def test_weights_of_half_precision(trained, tmp_path):
    """They load as float32, the nearest numbers to the stored ones, and write the same text as if they had been
    rounded.
    """
    payload = read_payload(trained / "best_model.pt")
    payload["weights"] = {
        name: value.half() if value.is_floating_point() else value for name, value in payload["weights"].items()
    }
    payload["weights_sha256"] = weights_digest(payload["weights"])
    torch.save(payload, tmp_path / "half.pt")
    half, full = load_checkpoint(tmp_path / "half.pt"), load_checkpoint(trained / "best_model.pt")
    for (name, value), other in zip(half.denoiser.named_parameters(), full.denoiser.parameters()):
        assert value.dtype == torch.float32 and torch.equal(value, other.half().float()), name


def test_the_bundled_checkpoint_by_any_name(tmp_path, monkeypatch):
    """However it is named, its reports do not go into the program's own folder; those of another checkpoint go beside
    it.
    """
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "b.pt").touch()
    monkeypatch.setattr(finding, "BUNDLED", tmp_path / "checkpoints")
    monkeypatch.chdir(tmp_path)
    for name in ("checkpoints/b.pt", "checkpoints/../checkpoints/b.pt", str(tmp_path / "checkpoints" / "b.pt")):
        assert finding.report_folder(Path(name)) == Path("runs/evaluation_b")
    assert finding.report_folder(Path("elsewhere/b.pt")) == Path("elsewhere")


def test_evaluation_of_the_bundled_checkpoint(tmp_path, monkeypatch, data_dir):
    """It is announced, says that its data is not there, takes the task's own folder or one with a folder per task, and
    leaves its report in runs.
    """
    monkeypatch.chdir(tmp_path)
    bundled = tmp_path / "checkpoints"
    bundled.mkdir()
    monkeypatch.setattr(finding, "BUNDLED", bundled)
    model = new_model(task_name="CC,text")
    save_checkpoint(bundled / "a.pt", model)
    refused = run("evaluate_trained_model", "--device", "cpu")
    assert refused.code == 2 and "does not say where its data lies" in refused.err and "--test_file" in refused.err
    (tmp_path / "data").mkdir()
    os.symlink(data_dir, tmp_path / "data" / "CC")
    small = ("--max_samples", "2", "--num_steps", "2", "--parts", "nelbo", "--device", "cpu")
    for folder in (data_dir, tmp_path / "data"):
        done = run("evaluate_trained_model", "--data_dir", folder, *small)
        assert done.code in (None, 0) and done.out.startswith("The bundled checkpoint checkpoints/a.pt\n"), done.err
    assert (tmp_path / "runs" / "evaluation_a" / "evaluation.json").is_file() and [
        path.name for path in bundled.iterdir()
    ] == ["a.pt"]
