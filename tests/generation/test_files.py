"""Generators from folders and from the hub, and back there: a hub on this machine takes them and gives them."""

import time

import pytest

from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.machine.hub import is_repo, local_copy
from tests.helpers.hub_server import running_hub
from tests.helpers.models import refusal, tiny_model
from tests.helpers.scripts import run

TEXT, OPTIONS = "How can I learn to cook?", {"num_samples": 2, "temperature": 0.0, "device": "cpu"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that is reached, with a token for it, and an empty cache."""
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", "hf_of_the_tests")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        yield server


def test_to_the_hub_and_back(hub, tmp_path, monkeypatch):
    """One commit takes it there; it is downloaded once, by every script's --checkpoint too, and works from the cache
    when the hub is gone.
    """
    generator = DiffusionTextGenerator(tiny_model())
    expected = generator.paraphrase_text(TEXT, **OPTIONS)
    assert generator.push_to_hub("me/my-model", message="first") == f"{hub.address}/me/my-model"
    assert [commit["summary"] for commit in hub.commits] == ["first"]
    files = hub.repos["me/my-model"]
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(files)
    assert b'from_pretrained("me/my-model")' in files["README.md"] and b"# my-model\n" in files["README.md"]
    again = DiffusionTextGenerator.from_pretrained("me/my-model", **OPTIONS)
    assert again.paraphrase_text(TEXT) == expected
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    hub.asked.clear()
    first = run("interactive_generation", "--checkpoint", "me/my-model", "--device", "cpu", stdin="quit\n").out
    assert first.startswith("me/my-model (sample, ") and hub.asked == []
    generator.save_pretrained(tmp_path / "me" / "my-model")  # a folder of that name is nearer than the hub
    assert local_copy("me/my-model") == "me/my-model" and not is_repo("me/other")


def test_refusals_of_the_hub(hub, monkeypatch):
    """No such model, no right to write, no name of the hub, a repository of another kind: one line each."""
    generator = DiffusionTextGenerator(tiny_model())
    assert "the hub does not give it" in refusal(DiffusionTextGenerator.from_pretrained, "me/none")
    hub.repos["me/bert"] = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"", "tokenizer.json": b"{}"}
    assert "another kind of model" in refusal(DiffusionTextGenerator.from_pretrained, "me/bert")
    hub.repos["me/part"] = {"config.json": b"{}"}
    assert "lacks model.safetensors" in refusal(DiffusionTextGenerator.from_pretrained, "me/part")
    hub.refuses = True
    assert "token that may write" in refusal(generator.push_to_hub, "me/my-model")
    for name in ("my-model", "me/my/model", "me/", "../model", "", None, 3):
        assert "expected owner/name" in refusal(generator.push_to_hub, name)
    assert "expected a folder or a repository" in refusal(DiffusionTextGenerator.from_pretrained, None)


@pytest.mark.parametrize("offline", [False, True])
def test_no_network(tmp_path, monkeypatch, offline):
    """Without one, or when it is switched off, both ways are one line, within five seconds."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    if offline:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    generator = DiffusionTextGenerator(tiny_model())
    start = time.process_time()
    assert "me/my-model" in refusal(DiffusionTextGenerator.from_pretrained, "me/my-model")
    assert "me/my-model" in refusal(generator.push_to_hub, "me/my-model")
    assert time.process_time() - start < 5
    done = run("evaluate_trained_model", "--checkpoint", "me/my-model")
    assert done.code == 2 or "me/my-model" in done.err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("me/my-model", True),
        ("me/model-v1.5", True),
        ("my-model", False),
        ("me/my/model", False),
        ("/me/model", False),
        ("./model", False),
        ("../model", False),
        ("~/model", False),
        ("me/model.pt", False),
        ("runs/none", False),
        ("", False),
        (None, False),
    ],
)
def test_names_of_the_hub(tmp_path, monkeypatch, name, expected):
    """owner/name, unless it lies below a folder that is here; all others are paths, and stay what they are."""
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert is_repo(name) == expected
    assert expected or local_copy(name) == name
