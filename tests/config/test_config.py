"""Settings: every field is described and checked, presets are read, mistakes give one helpful line."""

import dataclasses
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from diffusion_bert.config.fields import build
from diffusion_bert.config.presets import CONFIG_DIR, load_preset
from diffusion_bert.config.run_config import TRAINING_SECTIONS, RunConfig
from diffusion_bert.config.schema import SamplingConfig
from tests.helpers.models import refusal

SECTIONS = (*TRAINING_SECTIONS, SamplingConfig)
FIELDS = [
    pytest.param(section, f, id=f"{section.__name__}.{f.name}")
    for section in SECTIONS
    for f in dataclasses.fields(section)
]


@pytest.mark.parametrize("section, f", FIELDS)
def test_every_field_has_help_and_a_default_that_passes_its_own_check(section, f):
    """Every field of every section is described, and its default is legal."""
    assert len(f.metadata["help"].split()) >= 2
    assert getattr(build(section, {f.name: f.default}), f.name) == f.default


def test_field_names_are_unique_over_the_training_sections():
    """One flat dictionary holds all sections: no name occurs twice."""
    names = [f.name for section in TRAINING_SECTIONS for f in dataclasses.fields(section)]
    assert len(names) == len(set(names))


def test_flat_round_trip_through_yaml():
    """from_flat and to_flat are inverse, also by way of a YAML file's text."""
    config = RunConfig.from_flat(
        {"task_name": "qqp", "lr": 1e-5, "max_steps": 7, "copy_head": False, "max_minutes": 2, "data_dir": "None"}
    )
    again = RunConfig.from_flat(yaml.safe_load(yaml.safe_dump(config.to_flat())))
    assert again == config
    assert again.training.max_minutes == 2.0 and again.data.data_dir == "None" and again.model.copy_head is False
    assert set(config.to_flat()) == {f.name for section in TRAINING_SECTIONS for f in dataclasses.fields(section)}


@pytest.mark.parametrize(
    "typed, meant",
    [("batchsize", "batch_size"), ("learning_rate", None), ("word_frequency_lambda", "word_freq_lambda"), (5, None)],
)
def test_unknown_key_names_the_nearest(typed, meant):
    """A mistyped key is refused with the origin, the key and the nearest known one."""
    message = refusal(RunConfig.from_flat, {typed: 1}, "my.yaml")
    assert message.startswith("my.yaml") and f"'{typed}'" in message
    if meant:
        assert f"did you mean '{meant}'" in message


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("copy_head", "yes", "true or false"),
        ("copy_head", 1, "true or false"),
        ("epochs", 3.5, "a whole number"),
        ("epochs", 3.0, "a whole number"),
        ("epochs", True, "a whole number"),
        ("epochs", "3", "a whole number"),
        ("epochs", None, "a whole number"),
        ("lr", "fast", "a number"),
        ("lr", True, "a number"),
        ("lr", [1e-4], "a number"),
        ("task_name", 3, "text"),
        ("data_dir", 3, "text"),
        ("lr", float("nan"), "finite"),
        ("lr", "inf", "finite"),
        ("lr", 10**400, "finite"),
        ("max_minutes", float("inf"), "finite"),
        ("output_dir", "  ", "empty"),
        ("epochs", 0, "at least 1"),
        ("seed", -1, "at least 0"),
        ("seed", 2**32, "at most"),
        ("dropout", 0.95, "at most 0.9"),
        ("num_steps", 10**9, "at most"),
        ("max_samples", 0, "at least 1"),
        ("schedule", "cosin", "did you mean 'cosine'"),
        ("task_name", "QQP", "sample, qqp, QT"),
        ("precision", "fp16", "auto, fp32, bf16"),
        ("word_freq_lambda", 0.5, "0.318"),
        ("word_freq_lambda", -0.1, "at least 0"),
        ("word_freq_lambda", float("nan"), "finite"),
    ],
)
def test_wrong_values_are_refused(key, value, expected):
    """Wrong type, out of bounds, no such choice: the line names the setting and what is expected."""
    message = refusal(RunConfig.from_flat, {key: value})
    assert key in message and expected in message


@pytest.mark.parametrize(
    "key, value, stored",
    [("lr", "5e-4", 5e-4), ("lr", 1, 1.0), ("weight_decay", 0, 0.0), ("max_steps", None, None), ("data_dir", "5", "5")],
)
def test_lenient_values(key, value, stored):
    """YAML's 5e-4 (text) and whole numbers are good floats; None is good where the setting is optional."""
    found = RunConfig.from_flat({key: value}).to_flat()[key]
    assert found == stored and type(found) is type(stored)


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"max_length": 60, "max_target_length": 57}, "max_target_length"),
        ({"source_dropout": 0.6, "continue_share": 0.6}, "over 1"),
        ({"data_dir": "a", "train_file": "b.csv"}, "--train_file"),
        ({"valid_file": "b.csv"}, "--valid_file"),
        ({"test_file": "b.csv"}, "--test_file"),
        ({"loss": "ce", "hybrid_lambda": 0.1}, "hybrid_lambda"),
        ({"loss": "nelbo", "label_smoothing": 0.1}, "label_smoothing"),
        ({"loss": "nelbo", "loss_weighting": "linear"}, "loss_weighting"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"noise_draws": 2, "attention": "full"}, "--attention isolated"),
        ({"noise_draws": 2, "timestep": "prefix"}, "--timestep none"),
        ({"noise_draws": 2, "max_length": 60, "max_target_length": 20, "tokens_per_batch": 80}, "noise_draws"),
        ({"lr": 0}, "positive"),
    ],
)
def test_contradictions_are_refused(settings, expected):
    """Settings that are fine alone but not together."""
    assert expected in refusal(RunConfig.from_flat, settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_length": 60, "max_target_length": 56},
        {"source_dropout": 0.5, "continue_share": 0.5},
        {"word_freq_lambda": 0.318},
        {"noise_draws": 2, "max_length": 60, "max_target_length": 20, "tokens_per_batch": 81},
    ],
)
def test_limits_belong_to_the_legal_side(settings):
    """The largest legal values pass."""
    RunConfig.from_flat(settings)


# ---- presets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(CONFIG_DIR.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_loads(path):
    """Each file in configs/ is a legal run, by name and by path, and opens with a comment."""
    assert load_preset(path.stem) == load_preset(str(path))
    RunConfig.from_flat(load_preset(path.stem), path.name)
    assert path.read_text(encoding="utf-8").lstrip().startswith("#")


def test_unknown_preset_names_the_nearest(tmp_path, monkeypatch):
    """A mistyped preset name is answered with all names and the nearest."""
    for name in ("quick_demo", "qqp"):
        (tmp_path / f"{name}.yaml").write_text("lr: 1e-4\n")
    monkeypatch.setattr("diffusion_bert.config.presets.CONFIG_DIR", tmp_path)
    message = refusal(load_preset, "quickdemo")
    assert "qqp, quick_demo" in message and "did you mean 'quick_demo'" in message
    assert load_preset("qqp") == {"lr": "1e-4"}


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"a: 1\nb: 2\n\tc: 3\n", "line 3"),
        (b"lr: [1, 2\n", "line 2"),
        (b"", "nothing"),
        (b"# only a comment\n", "nothing"),
        (b"- a\n- b\n", "list"),
        (b"just words\n", "str"),
        (b"lr: \xff\xfe\n", "UTF-8"),
        ("lr: 1\n".encode("utf-16"), "UTF-8"),
        (b"lr: 2024-13-45\n", "not valid YAML"),
        (b"a: \x01\n", "not valid YAML"),
        (b"[" * 2000, "not valid YAML"),
        (b"a: !!python/object/apply:os.system [true]\n", "line 1"),
    ],
)
def test_broken_preset_files(tmp_path, content, expected):
    """Whatever is wrong with a file, one line names it and the reason."""
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    message = refusal(load_preset, str(path))
    assert str(path) in message and expected in message


@pytest.mark.parametrize("name", ["absent.yaml", "folder.yaml"])
def test_unreadable_preset(tmp_path, name):
    """A missing file and a directory are refused by path."""
    (tmp_path / "folder.yaml").mkdir()
    assert str(tmp_path / name) in refusal(load_preset, str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("num_steps", np.int64(7), 7),
        ("temperature", np.float32(0.5), 0.5),
        ("margin", np.bool_(True), True),
        ("sampler", np.str_("entropy"), "entropy"),
        ("device", torch.device("cpu"), "cpu"),
        ("style", Path("a/b"), "a/b"),
        ("top_k", np.array(3), 3),
        ("top_k", torch.tensor(3), 3),
        ("temperature", torch.tensor(0.5), 0.5),
        ("temperature", Decimal("0.5"), 0.5),
        ("top_p", Fraction(1, 2), 0.5),
        ("style", "~/a", str(Path.home() / "a")),
        ("style", Path("~/a"), str(Path.home() / "a")),
        ("style", "~ 5", "~ 5"),
    ],
)
def test_values_of_numpy_torch_and_paths(name, value, expected):
    """They are what they stand for, in Python's own types."""
    found = getattr(build(SamplingConfig, {name: value}), name)
    assert found == expected and type(found) is type(expected)
