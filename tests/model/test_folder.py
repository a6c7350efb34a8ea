"""A model as a folder: back to the last bit, nothing of the machine it comes from, nothing that runs, and every damage
is one line.
"""

import json
import pickle
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from diffusion_bert.data.skills import Skills
from diffusion_bert.model.checkpoint import load_checkpoint, payload_of, save_checkpoint
from diffusion_bert.model.diffusion_model import build_model
from diffusion_bert.model.payload import read_payload
from diffusion_bert.model.publishing import save_folder
from tests.helpers.models import Trap, new_model, refusal, save_bert, tiny_config
from tests.helpers.scripts import run

FILES = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def differences(one: dict, two: dict) -> list[str]:
    """In which parts two payloads differ, the date aside; tensors are compared bit by bit."""

    def same(a, b) -> bool:
        if isinstance(a, torch.Tensor):
            return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
        if isinstance(a, dict):
            return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        return a == b

    return [name for name in {*one, *two} - {"saved"} if not same(one.get(name), two.get(name))]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a model with a licence note: tests work on copies of it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_folder(new_model(license_note="for tests only"), folder)
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attention": "full", "copy_head": False, "timestep": "layerwise", "schedule": "cosine"},
        {"task_name": "qqp,CC,text", "word_freq_lambda": 0.0, "self_conditioning": True},
    ],
)
def test_back_to_the_last_bit(tmp_path, settings):
    """From the folder comes what comes from the file: weights, tied ones too, tables, words, skills with their styles,
    tokenizer, settings, metrics.
    """
    model = new_model(**settings)
    model.skills = Skills.of(model.config.data.task_name, {model.skills.first: ["formal", "short"]})
    model.metrics = {"step": 7, "valid_nelbo": 0.1 + 0.2, "valid_stay": 1e-300}
    save_checkpoint(tmp_path / "a.pt", model)
    save_folder(model, tmp_path / "a")
    assert {path.name for path in (tmp_path / "a").iterdir()} == FILES
    assert differences(read_payload(tmp_path / "a.pt"), read_payload(tmp_path / "a")) == []
    again = load_checkpoint(tmp_path / "a")
    assert differences(payload_of(model), payload_of(again)) == []
    assert again.skills.styles(model.skills.first) == ["formal", "short"] and len(again.lexicon) > 10


def test_a_plain_schedule(tmp_path):
    """A model without a word-frequency table has none afterwards."""
    model = new_model()
    model.schedule.informativeness = None
    save_folder(model, tmp_path / "a")
    assert load_checkpoint(tmp_path / "a").schedule.is_plain


def test_no_path_of_this_machine(tmp_path):
    """Neither settings nor card nor architecture name a folder of this machine, and the model itself stays as it
    was.
    """
    save_bert(tmp_path / "bert")
    paths = {name: str(tmp_path / name) for name in ("data_dir", "output_dir", "cache_dir")}
    model = build_model(tiny_config(task_name="qqp", model_name_or_path=str(tmp_path / "bert"), **paths), (), seed=0)
    model.parent = str(tmp_path / "parent.pt")
    before = payload_of(model)
    save_folder(model, tmp_path / "out")
    assert differences(before, payload_of(model)) == [] and str(tmp_path) in json.dumps(before["config"])
    for path in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| data | data_dir |" in card and "| start | bert |" in card


def test_the_card(saved):
    """It opens with what the hub reads, and says how to load the model, under which licence it is, and how it was
    trained.
    """
    from huggingface_hub import ModelCard

    card = ModelCard.load(saved / "README.md")
    assert (card.data.library_name, card.data.license) == ("diffusion-bert", "other")
    assert all(part in card.text for part in ("for tests only", "from_pretrained", "| word_freq_lambda | 0.2 |"))
    assert max(map(len, card.text.splitlines())) <= 120


def test_the_tokenizer_opens_elsewhere(saved):
    """AutoTokenizer reads it, with the same ids and the same special tokens."""
    tokenizer, model = transformers.AutoTokenizer.from_pretrained(saved), load_checkpoint(saved)
    text = "How can I learn to cook?"
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == model.tokenizer.encode(text)
    assert tokenizer.mask_token_id == model.tokenizer.mask_id and tokenizer.pad_token_id == model.tokenizer.pad_id


def test_scripts_take_it(trained, tmp_path, monkeypatch, data_dir):
    """The door writes it from a run, in half precision or whole; talking, evaluation, further training and export take
    it as --checkpoint, and nothing is written into it.
    """
    monkeypatch.chdir(tmp_path)
    done = run("diffusion_bert.share", trained, "whole", "--full_precision", "--license_note", "mine")
    assert done.code == 0 and "full precision" in done.out, done.err
    assert run("diffusion_bert.share", trained, "half").code == 0
    whole, half, pt = (read_payload(path) for path in (tmp_path / "whole", tmp_path / "half", trained))
    assert differences(whole["weights"], pt["weights"]) == [] and whole["config"]["license_note"] == "mine"
    assert all(torch.equal(half["weights"][name], tensor.half()) for name, tensor in pt["weights"].items())
    flags = ("--device", "cpu", "--num_steps", 2)
    answers = [
        run("interactive_generation", "--checkpoint", path, *flags, stdin="para How can I cook?\nquit\n").out
        for path in ("whole", trained)
    ]
    assert answers[0].startswith("whole (") and answers[0].splitlines()[1:] == answers[1].splitlines()[1:]
    small = ("--data_dir", data_dir, "--max_samples", 2, "--parts", "nelbo")
    done = run("evaluate_trained_model", "--checkpoint", "whole", *small, *flags)
    assert done.code in (None, 0) and (tmp_path / "runs/evaluation_whole/evaluation.json").is_file(), done.err
    done = run(
        "continue_training", "--checkpoint", "whole", "--data_dir", data_dir, "--max_steps", 1, "--device", "cpu"
    )
    assert done.code == 0 and "Training on from whole" in done.out, done.err
    assert run("diffusion_bert.export", "whole", "exported").code == 0
    assert {path.name for path in (tmp_path / "whole").iterdir()} == FILES
    assert "another kind of model" in refusal(load_checkpoint, tmp_path / "exported")


# ---- folders that are refused --------------------------------------------------------------------------------------


def changed(folder, **values) -> None:
    """Change config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def with_settings(folder, **values) -> None:
    """Change settings in config.json."""
    changed(folder, config={**json.loads((folder / "config.json").read_text())["config"], **values})


def with_architecture(folder, **values) -> None:
    """Change the architecture in config.json."""
    changed(folder, architecture={**json.loads((folder / "config.json").read_text())["architecture"], **values})


def with_tensors(folder, change) -> None:
    """Change what model.safetensors holds."""
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def cut(folder, name: str, share: float) -> None:
    """Cut a file off."""
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * share)])


WRONG = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "lacks model.safetensors"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "lacks tokenizer.json"),
    "two missing": (lambda f: [(f / n).unlink() for n in ("config.json", "tokenizer.json")], "config.json and tok"),
    "empty weights": (lambda f: cut(f, "model.safetensors", 0), "damaged or incomplete"),
    "half of the weights": (lambda f: cut(f, "model.safetensors", 0.5), "damaged or incomplete"),
    "nearly all weights": (lambda f: cut(f, "model.safetensors", 0.9999), "damaged or incomplete"),
    "half of the settings": (lambda f: cut(f, "config.json", 0.5), "not JSON"),
    "half of the tokenizer": (lambda f: cut(f, "tokenizer.json", 0.5), "not a tokenizer"),
    "settings of noise": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "not UTF-8"),
    "settings too deep": (lambda f: (f / "config.json").write_text("[" * 100_000), "config.json"),
    "a list of settings": (lambda f: (f / "config.json").write_text("[1]"), "another kind of model"),
    "a BERT": (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "another kind of model"),
    "another format": (lambda f: changed(f, format="other"), "no DiffusionBERT checkpoint"),
    "a newer format": (lambda f: changed(f, format_version=2), "format 2"),
    "an architecture of text": (lambda f: changed(f, architecture="bert"), "architecture of the wrong type"),
    "metrics of text": (lambda f: changed(f, metrics="good"), "metrics of the wrong type"),
    "skills of text": (lambda f: changed(f, skills="all"), "skills of the wrong type"),
    "skills of numbers": (lambda f: changed(f, skills=[[1, 2, 3]]), "table of prompts"),
    "knowledge of text": (lambda f: changed(f, knows_pairs="yes"), "knows_pairs of the wrong type"),
    "no digest": (lambda f: changed(f, weights_sha256=None), "weights_sha256 of the wrong type"),
    "ties of text": (lambda f: changed(f, tied_weights="none"), "tied_weights"),
    "ties to nothing": (lambda f: changed(f, tied_weights={"a": "b"}), "tied_weights"),
    "ties to a list": (lambda f: changed(f, tied_weights={"a": ["b"]}), "tied_weights"),
    "a setting of text": (lambda f: with_settings(f, epochs="many"), "epochs"),
    "an unknown setting": (lambda f: with_settings(f, epocs=3), "did you mean 'epochs'"),
    "a width of text": (lambda f: with_architecture(f, hidden_size="wide"), "cannot be built"),
    "a width beyond memory": (lambda f: with_architecture(f, hidden_size=2**40), "cannot be built"),
    "too many layers": (lambda f: with_architecture(f, num_hidden_layers=10**9), "more than it has weights"),
    "another width": (lambda f: with_architecture(f, hidden_size=64), "do not fit the architecture"),
    "another family": (lambda f: with_architecture(f, model_type="gpt2"), "cannot be built"),
    "a place to write to": (lambda f: with_settings(f, output_dir="/tmp/elsewhere"), "names a path"),
    "a file to read": (lambda f: with_settings(f, train_file="../secret.jsonl"), "names a path"),
    "a teacher": (lambda f: with_settings(f, teacher="/tmp/teacher.pt"), "names a path"),
    "a folder of data": (lambda f: with_settings(f, dataset_name="/tmp/data"), "names a path"),
    "a base outside": (lambda f: with_settings(f, model_name_or_path="../bert"), "names a path"),
    "a lost weight": (lambda f: with_tensors(f, lambda t: t.pop("denoiser.length_head.bias")), "checksum"),
    "a changed weight": (lambda f: with_tensors(f, lambda t: t["denoiser.length_head.bias"].add_(1)), "checksum"),
    "counts of halves": (lambda f: with_tensors(f, lambda t: t.update(token_counts=torch.ones(3) / 2)), "word counts"),
    "no counts": (lambda f: with_tensors(f, lambda t: t.pop("token_counts")), "token_counts missing"),
    "a short table": (lambda f: with_tensors(f, lambda t: t.update(informativeness=torch.zeros(3))), "informativeness"),
    "words of noise": (
        lambda f: with_tensors(f, lambda t: t.update(lexicon=torch.tensor([-1], dtype=torch.int32))),
        "its words",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_refusals(saved, tmp_path, name):
    """Missing, damaged, of wrong types, too large, with paths: one line that names the folder."""
    change, expected = WRONG[name]
    folder = shutil.copytree(saved, tmp_path / "model")
    change(folder)
    message = refusal(load_checkpoint, folder)
    assert expected in message and str(folder) in message


def test_code_in_a_folder_is_not_run(saved, tmp_path):
    """A pickle in the place of the weights is damage; code beside them, and settings that name it, are left alone."""
    folder = shutil.copytree(saved, tmp_path / "model")
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    changed(folder, auto_map={"AutoModel": "modeling.Model"})
    assert load_checkpoint(folder).parameter_count > 0
    for content in (pickle.dumps(Trap(tmp_path / "sprung")), b"PK\x03\x04"):
        (folder / "model.safetensors").write_bytes(content)
        assert "damaged" in refusal(load_checkpoint, folder)
    assert not (tmp_path / "sprung").exists()


def test_nothing_is_overwritten_or_left_by_halves(tmp_path, monkeypatch):
    """A folder that holds anything, a file in its place, a full disk: one line, and all is as it was."""
    model = new_model()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    assert "not empty" in refusal(save_folder, model, tmp_path / "full")
    assert "is a file" in refusal(save_folder, model, tmp_path / "file")

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diffusion_bert.model.publishing.write_folder", no_space)
    assert "No space left" in refusal(save_folder, model, tmp_path / "new")
    assert {path.name for path in tmp_path.rglob("*")} == {"full", "mine", "file"}
