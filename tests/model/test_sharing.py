"""Checkpoints to pass on: half the size, the same answers, nothing of the machine they come from."""

import pytest
import torch

from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.model.checkpoint import load_checkpoint, save_checkpoint
from diffusion_bert.model.diffusion_model import build_model
from diffusion_bert.model.payload import read_payload
from diffusion_bert.model.sharing import PATHS, shared
from diffusion_bert.share import main
from tests.helpers.models import grammar_pairs, new_model, refusal, save_bert, tiny_config
from tests.helpers.scripts import run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(the folder, a checkpoint with paths in its settings, the shared one)."""
    folder = tmp_path_factory.mktemp("share")
    save_bert(folder / "bert", vocab_size=None)
    paths = {
        "data_dir": str(folder),
        "output_dir": str(folder / "runs"),
        "cache_dir": str(folder),
        "model_name_or_path": str(folder / "bert"),
    }
    model = build_model(tiny_config(task_name="qqp,text", **paths), (), seed=0)
    model.parent = str(folder / "parent.pt")
    save_checkpoint(folder / "best_model.pt", model)
    done = run(
        "diffusion_bert.share",
        folder,
        folder / "out.pt",
        "--started_from",
        "a/bert",
        "--license_note",
        "for tests only",
    )
    assert done.code == 0 and "half precision" in done.out, done.err
    return folder, folder / "best_model.pt", folder / "out.pt"


def test_half_the_size_and_no_paths(files):
    """Every weight takes two bytes; neither settings nor anything else name a folder of this machine."""
    folder, whole, half = files
    before, after = read_payload(whole), read_payload(half)
    assert sum(t.nbytes for t in after["weights"].values()) * 2 == sum(t.nbytes for t in before["weights"].values())
    assert (
        str(folder) in str(before["config"])
        and str(folder).encode() not in half.read_bytes()
        and after["parent"] is None
    )
    assert after["config"]["model_name_or_path"] == "a/bert" and after["config"]["license_note"] == "for tests only"
    changed = {name for name in before["config"] if before["config"][name] != after["config"][name]}
    assert changed <= {*PATHS, "model_name_or_path", "license_note"}


def test_the_same_answers(files):
    """Read again, every weight is the rounded one in float32, and the model says what it said before."""
    before, after = (load_checkpoint(path) for path in files[1:])
    for name, weight in before.denoiser.state_dict().items():
        assert (
            torch.equal(after.denoiser.state_dict()[name], weight.half().float())
            and after.denoiser.state_dict()[name].dtype == torch.float32
        )
    texts = [pair.source for pair in grammar_pairs()[:5]]
    answers = [
        DiffusionTextGenerator(model).paraphrase_text(texts, temperature=0.0, num_steps=4, num_samples=1)
        for model in (before, after)
    ]
    assert sum(a == b for a, b in zip(*answers)) >= 4  # rounding may decide a tie


def test_a_data_set_of_the_hub_is_kept(tmp_path):
    """A hub id is no path; a local folder is one."""
    columns = {"source_column": "a", "target_column": "b"}
    assert shared(new_model(dataset_name="someone/pairs", **columns)).config.data.dataset_name == "someone/pairs"
    assert shared(new_model(dataset_name=str(tmp_path), **columns)).config.data.source_column is None


def test_own_data_is_not_the_bundled_sample(tmp_path):
    """The name sample stands for the grammar: a model under that name whose data was another becomes custom, with the
    same prompts.
    """
    for settings, task in (({"train_file": "mails.jsonl"}, "custom"), ({}, "sample")):
        model = new_model(task_name="sample", **settings)
        after = shared(model)
        assert (
            after.config.data.task_name == task == after.skills.first and after.skills.prompts == model.skills.prompts
        )
        save_checkpoint(tmp_path / f"{task}.pt", after)
        assert load_checkpoint(tmp_path / f"{task}.pt").skills == after.skills


def test_an_empty_note_is_none(files, tmp_path):
    """--license_note "" takes the note away, and the file can be read."""
    done = run("diffusion_bert.share", files[2], tmp_path / "out.pt", "--license_note", " ", "--started_from", " ")
    assert done.code == 0 and load_checkpoint(tmp_path / "out.pt").config.data.license_note is None


def test_refusals(files, tmp_path):
    """An existing file, another ending, a missing folder, a weight that half precision cannot hold: refused, and
    nothing is written.
    """
    assert "exists" in refusal(main, [str(files[0]), str(files[2])])
    assert "ends in .pt" in refusal(main, [str(files[1]), str(tmp_path / "out.bin")])
    assert "no such folder" in refusal(main, [str(files[1]), str(tmp_path / "no" / "out.pt")])
    assert "no such checkpoint" in refusal(main, [str(tmp_path / "none.pt"), str(tmp_path / "out.pt")])
    for value in (1e6, float("nan")):
        model = new_model()
        with torch.no_grad():
            model.denoiser.length_head.bias[0] = value
        save_checkpoint(tmp_path / "large.pt", model)
        assert "length_head.bias" in refusal(main, [str(tmp_path / "large.pt"), str(tmp_path / "out.pt")])
    assert not (tmp_path / "out.pt").exists()
