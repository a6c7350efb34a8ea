"""Checkpoints: one plain file that comes back bit for bit, is never half written, and runs nobody's code; numbered run
directories.
"""

import json
import math
import os
import pickle
import random
import shutil
import threading
import time
from collections import OrderedDict, defaultdict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_bert.config.paths import latest_checkpoint
from diffusion_bert.errors import UserError
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.machine.storage import to_plain, versions, weights_digest, write_atomically
from diffusion_bert.model.checkpoint import load_checkpoint, save_checkpoint
from diffusion_bert.model.payload import FORMAT, FORMAT_VERSION, read_payload
from diffusion_bert.training.run_directory import RunDirectory
from tests.helpers.models import Trap, new_model, refusal, save_bert, tiny_config, tiny_model

PLAIN = (bool, int, float, str, bytes, type(None), list, tuple, dict)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved checkpoint; tests work on copies of it."""
    path = tmp_path_factory.mktemp("saved") / "best_model.pt"
    save_checkpoint(path, tiny_model())
    return path


def kinds(value) -> set[type]:
    """All types that occur in a nested value."""
    inner = (
        (*value.keys(), *value.values())
        if isinstance(value, dict)
        else value
        if isinstance(value, (list, tuple))
        else ()
    )
    return {type(value)}.union(*map(kinds, inner))


def weights_of(model) -> dict:
    return model.denoiser.state_dict()


def same_weights(one, two) -> bool:
    return weights_of(one).keys() == weights_of(two).keys() and all(
        torch.equal(weights_of(one)[name], weights_of(two)[name]) for name in weights_of(one)
    )


# ---- what a checkpoint holds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attention": "full", "copy_head": False, "timestep": "layerwise", "schedule": "cosine"},
        {"timestep": "prefix", "word_freq_lambda": 0.0, "task_name": "custom"},
    ],
)
def test_round_trip(tmp_path, settings):
    """Weights, table, counts, settings, vocabulary, metrics and parent come back exactly; the model is in evaluation
    mode.
    """
    model = new_model(**settings)
    model.metrics, model.parent = (
        {"step": np.int64(5), "nelbo": np.float32(1.5), "where": Path("a")},
        "runs/x/best_model.pt",
    )
    save_checkpoint(tmp_path / "a.pt", model)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert (
        same_weights(model, loaded) and loaded.config == model.config and loaded.tokenizer.json == model.tokenizer.json
    )
    assert torch.equal(loaded.token_counts, model.token_counts) and torch.equal(
        loaded.schedule.informativeness, model.schedule.informativeness
    )
    assert loaded.schedule.informativeness.dtype == torch.float64 and repr(loaded.schedule) == repr(model.schedule)
    assert torch.equal(loaded.lexicon, model.lexicon) and len(model.lexicon) > 10
    assert loaded.metrics == {"step": 5, "nelbo": 1.5, "where": "a"} and loaded.parent == model.parent
    assert (
        not loaded.denoiser.training and loaded.denoiser.bert_config.to_dict() == model.denoiser.bert_config.to_dict()
    )
    mlm = loaded.denoiser.mlm
    assert mlm.cls.predictions.decoder.weight.data_ptr() == mlm.bert.embeddings.word_embeddings.weight.data_ptr()


def test_words_of_older_and_of_damaged_files(saved, tmp_path):
    """A file without the words of its training targets loads without any; words that are none are refused."""
    payload = torch.load(saved, weights_only=True)
    for words, message in ((None, ""), (torch.tensor([-1], dtype=torch.int32), "words"), ([5, 6], "words")):
        changed = {name: value for name, value in payload.items() if name != "lexicon" or words is not None}
        changed |= {} if words is None else {"lexicon": words}
        torch.save(changed, tmp_path / "a.pt")
        if message:
            assert message in refusal(load_checkpoint, tmp_path / "a.pt")
        else:
            assert len(load_checkpoint(tmp_path / "a.pt").lexicon) == 0


def test_a_model_without_a_table(tmp_path):
    """A model whose schedule was never fitted is saved and loaded, too."""
    model = new_model()
    model.schedule.informativeness = None
    save_checkpoint(tmp_path / "a.pt", model)
    assert load_checkpoint(tmp_path / "a.pt").schedule.is_plain


def test_saving_twice_changes_nothing_but_the_time(tmp_path, saved):
    """Load and save again: all contents but the date are the same."""
    save_checkpoint(tmp_path / "b.pt", load_checkpoint(saved))
    one, two = read_payload(saved), read_payload(tmp_path / "b.pt")
    assert one.keys() == two.keys() and one["weights_sha256"] == two["weights_sha256"]
    for key in set(one) - {"saved", "weights", "informativeness", "token_counts", "lexicon"}:
        assert one[key] == two[key], key


def test_a_fine_tuned_bert_travels_alone(tmp_path):
    """A checkpoint of a BERT from a directory loads after that directory is gone."""
    from diffusion_bert.model.diffusion_model import build_model

    save_bert(tmp_path / "bert")
    model = build_model(tiny_config(model_name_or_path=str(tmp_path / "bert")), [], 0)
    save_checkpoint(tmp_path / "a.pt", model)
    shutil.rmtree(tmp_path / "bert")
    assert same_weights(load_checkpoint(tmp_path / "a.pt"), model)


def test_a_copied_file_works_alone(tmp_path, saved, monkeypatch):
    """One .pt, copied to another folder and name, generates."""
    shutil.copy(saved, tmp_path / "copy.pt")
    monkeypatch.chdir(tmp_path)
    generator = DiffusionTextGenerator.from_checkpoint("copy.pt", device="cpu", num_samples=1, temperature=0.0)
    expected = DiffusionTextGenerator(tiny_model()).paraphrase_text(
        "How can I learn to cook?", num_samples=1, temperature=0.0
    )
    assert generator.paraphrase_text("How can I learn to cook?") == expected
    assert "did you mean 'temperature'" in refusal(DiffusionTextGenerator.from_checkpoint, "copy.pt", temprature=1.0)


def test_the_file_holds_tensors_and_plain_data_only(tmp_path):
    """Read with weights_only=True, no other type occurs, with the training part of a resume too."""
    optimizer = torch.optim.AdamW(new_model().denoiser.parameters())
    training = {
        "optimizer": optimizer.state_dict(),
        "rng": random.getstate(),
        "torch": torch.get_rng_state(),
        "numpy": np.random.default_rng(0).bit_generator.state,
    }
    save_checkpoint(
        tmp_path / "last.pt",
        tiny_model(),
        {**training, "best": np.float64(math.inf), "run": tmp_path, "window": defaultdict(float, loss=1.0)},
    )
    payload = torch.load(tmp_path / "last.pt", weights_only=True)
    assert kinds(payload) <= {*PLAIN, torch.Tensor, OrderedDict}
    assert (
        payload["training"]["best"] == math.inf
        and payload["training"]["window"] == {"loss": 1.0}
        and payload["training"]["run"] == str(tmp_path)
    )
    random.setstate(payload["training"]["rng"])
    optimizer.load_state_dict(payload["training"]["optimizer"])
    assert not set(torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "last.pt"))
    assert (
        payload["format"] == FORMAT
        and payload["format_version"] == FORMAT_VERSION
        and payload["versions"] == versions()
    )


@pytest.mark.parametrize(
    "value, plain",
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (Path("a") / "b", str(Path("a") / "b")),
        (torch.__version__, str(torch.__version__)),
        (defaultdict(list, {np.int64(1): (np.float64(2.0), [Path("x")])}), {1: (2.0, ["x"])}),
        (OrderedDict(a=1), {"a": 1}),
        (namedtuple("Point", "x y")(1, np.int8(2)), [1, 2]),
        (torch.Size([2, 3]), [2, 3]),
        ((1, (2, [3, {"a": None}])), (1, (2, [3, {"a": None}]))),
        (b"bytes", b"bytes"),
        (math.inf, math.inf),
    ],
)
def test_to_plain(value, plain):
    """What torch refuses to read back becomes plain data with the same meaning, all the way down."""
    result = to_plain(value)
    assert result == plain and type(result) is type(plain) and kinds(result) <= set(PLAIN)


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, lambda: 0, Trap("x"), np.zeros(3), {"a": [object()]}, random.Random(0), complex(1, 2), range(3)],
)
def test_to_plain_refuses_objects(value):
    """What has no plain form is the programmer's mistake, found when saving."""
    with pytest.raises(TypeError, match="cannot store"):
        to_plain(value)


def test_to_plain_keeps_tensors():
    """Tensors pass as they are, also inside containers."""
    tensor = torch.zeros(2)
    assert to_plain({"a": [tensor]})["a"][0] is tensor


def test_the_digest_sees_everything():
    """Names, types, shapes and every bit count; the order of the names does not."""
    weights = {"a": torch.arange(6.0), "b": torch.zeros(2, dtype=torch.bfloat16)}
    digest = weights_digest(weights)
    assert digest == weights_digest(dict(reversed(list(weights.items()))))
    changed = weights["a"].clone()
    changed[3] = math.nextafter(3.0, 4.0) + 1e-6
    others = [
        {**weights, "a": changed},
        {**weights, "a": weights["a"].reshape(2, 3)},
        {**weights, "b": weights["b"].half()},
        {"c": weights["a"], "b": weights["b"]},
    ]
    assert len({digest, *map(weights_digest, others)}) == 5


# ---- files that are refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_code_in_a_file_is_not_run(tmp_path, raw, wrapped):
    """A pickle that would run code is refused, whether saved by torch or raw, and its code does not run."""
    value = (
        {"format": FORMAT, "format_version": 1, "config": Trap(tmp_path / "sprung")}
        if wrapped
        else Trap(tmp_path / "sprung")
    )
    if raw:
        (tmp_path / "a.pt").write_bytes(pickle.dumps(value))
    else:
        torch.save(value, tmp_path / "a.pt")
    assert str(tmp_path / "a.pt") in refusal(load_checkpoint, tmp_path / "a.pt")
    assert not (tmp_path / "sprung").exists()


def test_the_trap_works(tmp_path):
    """The trap of the test above would spring where pickles are trusted."""
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung"))).close()
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.001, 0.1, 0.5, 0.9, 0.999, 0.99999])
def test_truncated_files(tmp_path, saved, share):
    """A file cut off anywhere is refused."""
    content = saved.read_bytes()
    (tmp_path / "a.pt").write_bytes(content[: int(len(content) * share)])
    assert str(tmp_path / "a.pt") in refusal(load_checkpoint, tmp_path / "a.pt")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"hello\n",
        b"\x89PNG\r\n",
        b"{}",
        b"PK\x03\x04",
        b"\x80\x04",
        random.Random(1).randbytes(5000),
        pickle.dumps({"a": 1}),
        pickle.dumps([1] * 9)[:-3],
    ],
    ids=range(10),
)
def test_foreign_bytes(tmp_path, content):
    """Empty, text, images, archives, noise and pickles are refused by path."""
    (tmp_path / "a.pt").write_bytes(content)
    assert str(tmp_path / "a.pt") in refusal(load_checkpoint, tmp_path / "a.pt")


@pytest.mark.parametrize(
    "value", [{"model": torch.zeros(3)}, [1, 2], torch.zeros(2), {"format": "other", "format_version": 1}, None]
)
def test_foreign_checkpoints(tmp_path, value):
    """Another program's torch file is no checkpoint of ours."""
    torch.save(value, tmp_path / "a.pt")
    assert "no DiffusionBERT checkpoint" in refusal(load_checkpoint, tmp_path / "a.pt")


def test_missing_and_folders(tmp_path):
    """No file, a folder: the line says what to do."""
    assert "run_conditional_training.py" in refusal(load_checkpoint, tmp_path / "a.pt")
    assert "best_model.pt" in refusal(load_checkpoint, tmp_path)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, "1", None])
def test_other_formats(tmp_path, saved, version):
    """A newer format is refused with both numbers."""
    torch.save({**read_payload(saved), "format_version": version}, tmp_path / "a.pt")
    message = refusal(load_checkpoint, tmp_path / "a.pt")
    assert f"format {version}" in message and f"reads {FORMAT_VERSION}" in message


@pytest.mark.parametrize(
    "key", ["architecture", "tokenizer", "informativeness", "token_counts", "config", "weights", "weights_sha256"]
)
def test_missing_parts_are_named(tmp_path, saved, key):
    """A checkpoint without one of its parts is refused by that part's name."""
    torch.save({name: value for name, value in read_payload(saved).items() if name != key}, tmp_path / "a.pt")
    assert f"{key} missing" in refusal(load_checkpoint, tmp_path / "a.pt")


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"config": {"lr": 1, "unheard_of": 2}}, "unheard_of"),
        ({"config": {"epochs": -1}}, "epochs"),
        ({"config": 5}, ""),
        ({"tokenizer": "nonsense"}, "not a tokenizer"),
        ({"tokenizer": None}, ""),
        ({"architecture": 3}, ""),
        ({"weights": 5}, ""),
        ({"weights": {"a": 5}}, ""),
        ({"informativeness": 7}, ""),
        ({"token_counts": None}, ""),
    ],
)
def test_nonsensical_parts(tmp_path, saved, change, expected):
    """Parts of the wrong kind, as no version of the program writes them, are refused in one line."""
    torch.save({**read_payload(saved), **change}, tmp_path / "a.pt")
    message = refusal(load_checkpoint, tmp_path / "a.pt")
    assert str(tmp_path / "a.pt") in message and expected in message


def test_weights_of_another_architecture(tmp_path, saved):
    """Weights that do not fit the architecture are refused, even with a checksum of their own."""
    payload = read_payload(saved)
    weights = {name: value for name, value in payload["weights"].items() if "length_head" not in name}
    torch.save({**payload, "weights": weights, "weights_sha256": weights_digest(weights)}, tmp_path / "a.pt")
    assert "do not fit the architecture" in refusal(load_checkpoint, tmp_path / "a.pt")


def test_a_changed_weight_is_damage(tmp_path, saved):
    """One weight changed in its last bit: the checksum tells."""
    payload = read_payload(saved)
    weights = dict(payload["weights"])
    name = next(name for name in weights if name.endswith("query.weight"))
    weights[name] = weights[name].clone()
    weights[name].view(torch.int32)[0, 0] ^= 1
    torch.save({**payload, "weights": weights}, tmp_path / "a.pt")
    assert "damaged" in refusal(load_checkpoint, tmp_path / "a.pt")


def test_a_flipped_byte_anywhere(tmp_path, saved):
    """A damaged byte anywhere is refused in one line, or sits in the archive's padding and does no harm: no part is
    ever another.
    """
    content, rng, refused = saved.read_bytes(), random.Random(3), 0
    plain = repr({**read_payload(saved), "weights": 0, "informativeness": 0, "token_counts": 0})
    # most of the file is weights; the plain data at its beginning and the tables at its end get as many tries
    places = (
        [rng.randrange(len(content)) for _ in range(15)]
        + [rng.randrange(40_000) for _ in range(30)]
        + [len(content) - 1 - rng.randrange(20_000) for _ in range(30)]
    )
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        (tmp_path / "a.pt").write_bytes(damaged)
        try:
            model = load_checkpoint(tmp_path / "a.pt")
        except UserError as error:
            refused += 1
            assert str(tmp_path / "a.pt") in str(error) and "\n" not in str(error)
        else:
            assert same_weights(model, tiny_model()) and torch.equal(model.token_counts, tiny_model().token_counts)
            assert torch.equal(model.schedule.informativeness, tiny_model().schedule.informativeness)
            assert (
                repr({**read_payload(tmp_path / "a.pt"), "weights": 0, "informativeness": 0, "token_counts": 0})
                == plain
            )
    assert refused > 50


# ---- writing -------------------------------------------------------------------------------------------------------


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]


def test_a_failed_rename_leaves_the_old_file(tmp_path, monkeypatch):
    """When the last step fails the previous file is intact and nothing is left behind."""
    save_checkpoint(tmp_path / "a.pt", tiny_model())
    before = (tmp_path / "a.pt").read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    assert "No space left" in refusal(save_checkpoint, tmp_path / "a.pt", tiny_model(), {"more": 1})
    assert (tmp_path / "a.pt").read_bytes() == before and not leftovers(tmp_path)


@pytest.mark.parametrize(
    "error, raised",
    [
        (RuntimeError("PytorchStreamWriter failed\nmore"), UserError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (ValueError("x"), ValueError),
    ],
)
def test_a_failed_write_leaves_the_old_file(tmp_path, error, raised):
    """torch's own errors, Ctrl-C and bugs in the middle of writing: the previous file stays, the half one goes."""
    (tmp_path / "a").write_text("old")

    def write(file):
        file.write(b"half")
        raise error

    with pytest.raises(raised):
        write_atomically(tmp_path / "a", write)
    assert (tmp_path / "a").read_text() == "old" and not leftovers(tmp_path)


def test_impossible_places(tmp_path):
    """Below a regular file, in a folder that is not there, onto a folder: one line with the path."""
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.pt", tmp_path / "absent" / "a.pt", tmp_path / "folder"):
        assert str(path) in refusal(save_checkpoint, path, tiny_model())
    assert (tmp_path / "file").read_text() == "old" and not leftovers(tmp_path)


# ---- run directories -----------------------------------------------------------------------------------------------


def test_names_and_numbers(tmp_path):
    """The name tells the run; the number rises, and a gap is filled without touching what is there."""
    config = tiny_config(output_dir=str(tmp_path / "runs"), lr=2e-4, seed=7, num_steps=32, word_freq_lambda=0.15)
    first, second = RunDirectory.create(config), RunDirectory.create(config)
    assert first.path.name == "tiny_sample_lr0.0002_seed7_T32_lambda0.15_001"
    assert second.path.name.endswith("_002") and first.path.is_dir() and second.path.is_dir()
    assert (first.best.name, first.last.name, first.metrics.name) == ("best_model.pt", "last.pt", "metrics.jsonl")


def test_runs_started_together_never_share_a_directory(tmp_path):
    """Twenty runs from four threads get twenty directories."""
    config, paths = tiny_config(output_dir=str(tmp_path / "a" / "b")), []
    threads = [
        threading.Thread(target=lambda: paths.extend(RunDirectory.create(config).path for _ in range(5)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == len(set(paths)) == 20 and sorted(path.name[-3:] for path in paths) == [
        f"{number:03d}" for number in range(1, 21)
    ]


@pytest.mark.parametrize(
    "name, shown",
    [
        ("google/bert_uncased_L-2", "google-bert-uncas"),
        ("../../etc/x y", "..-..-etc-x-y"),
        ("a\\b:c*?\u00e9", "a-b-c-"),
    ],
)
def test_unsafe_characters_in_names(tmp_path, name, shown):
    """Slashes, blanks and other signs of a model's name never reach the file system."""
    run = RunDirectory.create(tiny_config(model_name_or_path=name, output_dir=str(tmp_path)))
    assert run.path.parent == tmp_path and run.path.name.startswith(f"{shown}_sample_lr")


def test_a_local_model_gives_its_folders_name(tmp_path, monkeypatch):
    """Of a local path only the folder's own name is used, however it is written."""
    (tmp_path / "my model").mkdir()
    monkeypatch.chdir(tmp_path / "my model")
    for name in (str(tmp_path / "my model"), "../my model/", "."):
        run = RunDirectory.create(tiny_config(model_name_or_path=name, output_dir=str(tmp_path / "runs")))
        assert run.path.name.startswith("my-model_sample_")


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_impossible_output_directories(tmp_path, place):
    """An output_dir that cannot be made is refused by the option's name."""
    (tmp_path / "file").write_text("")
    assert "--output_dir" in refusal(RunDirectory.create, tiny_config(output_dir=str(tmp_path / place)))


def test_metrics_lines(tmp_path):
    """Lines come back as written; a last line cut off by a crash is dropped; cutting keeps the first ones."""
    run = RunDirectory(tmp_path)
    assert run.read_metrics() == []
    for step in range(4):
        run.append_metrics({"step": np.int64(step), "loss": step / 3, "text": "\u00e9\n"})
    records = run.read_metrics()
    assert [record["step"] for record in records] == [0, 1, 2, 3] and records[2] == {
        "step": 2,
        "loss": 2 / 3,
        "text": "\u00e9\n",
    }
    content = run.metrics.read_text()
    run.metrics.write_text(content[:-12])
    assert run.read_metrics() == records[:3]
    run.cut_metrics(3)
    run.append_metrics({"step": 9})
    assert run.read_metrics() == [*records[:3], {"step": 9}]
    run.cut_metrics(1)
    assert run.metrics.read_text() == json.dumps(records[0]) + "\n" and not leftovers(tmp_path)
    run.cut_metrics(0)
    assert run.read_metrics() == []


def test_metrics_hold_infinite_numbers(tmp_path):
    """Infinite and missing values survive."""
    RunDirectory(tmp_path).append_metrics({"a": math.inf, "b": None})
    assert RunDirectory(tmp_path).read_metrics() == [{"a": math.inf, "b": None}]


def test_results_and_settings_beside_the_run(tmp_path):
    """write_json takes numpy values; config.yaml is a preset that gives the same run."""
    from diffusion_bert.config.presets import load_preset
    from diffusion_bert.config.run_config import RunConfig

    run, config = RunDirectory(tmp_path), tiny_config(train_file="my file.csv", task_name="custom")
    run.write_json("r.json", {"a": np.float32(0.5), "b": [Path("x")]})
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": 0.5, "b": ["x"]}
    run.write_config(config)
    assert RunConfig.from_flat(load_preset(str(tmp_path / "config.yaml"))) == config


def test_latest_checkpoint_is_the_newest_by_time(tmp_path):
    """The newest file wins, whatever the directories are called and numbered; other names do not count."""
    now = time.time()
    for name, age in (("run_001", 50), ("run_010", 100), ("other_002", 200)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best_model.pt").write_text("")
        os.utime(tmp_path / name / "best_model.pt", (now - age, now - age))
    (tmp_path / "run_010" / "last.pt").write_text("")
    assert latest_checkpoint(tmp_path) == tmp_path / "run_001" / "best_model.pt"
    assert latest_checkpoint(tmp_path, "last.pt") == tmp_path / "run_010" / "last.pt"


def test_no_checkpoint_at_all(tmp_path):
    """Without a run the line says how to get one."""
    for folder in (tmp_path, tmp_path / "absent"):
        assert "run_conditional_training.py" in refusal(latest_checkpoint, folder)
