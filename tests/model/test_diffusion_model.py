"""Building models: the same seed gives the same weights, a BERT's weights arrive unchanged, what does not fit is
refused.
"""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
import safetensors.torch
import torch
import transformers
from tokenizers import Tokenizer, models

from diffusion_bert.config.schema import BUILT_IN_SIZES
from diffusion_bert.data.batch import Batch
from diffusion_bert.machine.device import pick_device
from diffusion_bert.model.diffusion_model import build_model, fit_schedule
from diffusion_bert.model.pretrained import load_pretrained
from tests.helpers.models import (
    Trap,
    grammar_pairs,
    grammar_texts,
    new_model,
    refusal,
    save_bert,
    tiny_config,
    tiny_model,
)
from tests.helpers.scripts import ROOT


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A BERT directory and the model saved in it."""
    folder = tmp_path_factory.mktemp("models") / "my bert"
    return folder, save_bert(folder)


def same_weights(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# ---- built-in sizes ------------------------------------------------------------------------------------------------


def test_the_seed_fixes_the_weights():
    """The same seed and texts give the same vocabulary and weights, whatever was drawn before; another seed gives
    others.
    """
    torch.rand(7)
    one, two, other = (build_model(tiny_config(), grammar_texts(), seed) for seed in (3, 3, 4))
    assert one.tokenizer.json == two.tokenizer.json
    assert same_weights(one.denoiser.state_dict(), two.denoiser.state_dict())
    assert not same_weights(one.denoiser.state_dict(), other.denoiser.state_dict())


def test_built_in_size_follows_the_settings():
    """Layers, width, vocabulary, limits, heads and dropout are those of the settings."""
    model = build_model(
        tiny_config(dropout=0.3, copy_head=False, timestep="prefix", attention="full"), grammar_texts(), 0
    )
    config = model.denoiser.bert_config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == BUILT_IN_SIZES["tiny"]
    assert config.vocab_size == model.tokenizer.vocab_size <= 600 and config.max_position_embeddings >= 64
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.3
    assert (
        model.denoiser.copy_head is None
        and model.denoiser.time_embedding is not None
        and model.denoiser.attention == "full"
    )
    assert model.denoiser.length_head.out_features == model.denoiser.max_target_length == 24
    assert model.parameter_count == sum(parameter.numel() for parameter in model.denoiser.parameters())
    assert model.task.name == "sample" and model.device == torch.device("cpu")


def test_prompts_are_single_words_of_a_learned_vocabulary():
    """The skills' prompts never fall apart into letters, though no text holds them."""
    tokenizer = tiny_model().tokenizer
    assert len(tokenizer.encode("paraphrase:")) == len(tokenizer.encode("continue:")) == 2


def test_long_sequences_get_positions():
    """A built-in size has as many positions as max_length asks for."""
    assert build_model(tiny_config(max_length=700), ["a text"], 0).denoiser.bert_config.max_position_embeddings == 700


def test_fit_schedule_counts_the_targets():
    """The schedule's table follows the counts of the training targets: common negative, rare positive, specials
    zero.
    """
    model = new_model()
    targets = model.tokenizer.encode_many([pair.target for pair in grammar_pairs()])
    assert (
        int(model.token_counts.sum()) == sum(map(len, targets))
        and len(model.token_counts) == model.tokenizer.vocab_size
    )
    h = model.schedule.informativeness
    assert h[model.token_counts.argmax()] == h.min() < 0 < h.max() == 1 and not h[model.tokenizer.special_ids].any()
    assert model.schedule.word_freq_lambda == 0.2 and model.diffusion.schedule is model.schedule
    fit_schedule(model, [])
    assert model.schedule.is_plain


# ---- a BERT from a directory ---------------------------------------------------------------------------------------


def test_pretrained_weights_arrive_unchanged(bert):
    """Every weight of the masked-LM BERT is in the denoiser, bit for bit, and its vocabulary is used."""
    folder, original = bert
    model = build_model(tiny_config(model_name_or_path=str(folder)), [], 0)
    assert same_weights(model.denoiser.mlm.state_dict(), original.state_dict())
    assert model.tokenizer.vocab_size == original.config.vocab_size
    decoder, words = (
        model.denoiser.mlm.cls.predictions.decoder.weight,
        model.denoiser.mlm.bert.embeddings.word_embeddings.weight,
    )
    assert decoder.data_ptr() == words.data_ptr(), "input and output embeddings must stay tied"


def test_pretrained_states_equal_the_original(bert):
    """With full attention the denoiser's states are those of the original BERT on the same sequence: the decoder flag
    makes nothing causal.
    """
    folder, original = bert
    model = build_model(tiny_config(model_name_or_path=str(folder), attention="full", dropout=0.0), [], 0)
    tokenizer = model.tokenizer
    first, second = (
        [tokenizer.cls_id, *tokenizer.encode("how is the cook ?"), tokenizer.sep_id],
        tokenizer.encode("what is [MASK] learning ?"),
    )
    ids = torch.tensor([[*first, *second, tokenizer.sep_id]])
    batch = Batch(
        ids,
        torch.tensor([len(first)]),
        torch.tensor([0]),
        torch.tensor([len(second)]),
        tokenizer.pad_id,
        tokenizer.mask_id,
    )
    types = torch.tensor([[0] * len(first) + [1] * (len(second) + 1)])
    with torch.no_grad():
        states = model.denoiser.eval().hidden_states(batch, ids, torch.tensor([0.5]))
        expected = (
            original.eval().bert(input_ids=ids, token_type_ids=types, position_ids=batch.positions).last_hidden_state
        )
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-5)


def test_a_bert_without_a_masked_lm_head(tmp_path):
    """Its encoder arrives unchanged; the head is fresh, tied to the word embeddings, and the same for the same seed."""
    original = save_bert(tmp_path, "BertModel").state_dict()
    one, two = (build_model(tiny_config(model_name_or_path=str(tmp_path)), [], 0).denoiser.mlm for _ in range(2))
    loaded = one.bert.state_dict()
    assert all(torch.equal(loaded[name], original[name]) for name in loaded)
    assert torch.equal(one.cls.predictions.decoder.weight, original["embeddings.word_embeddings.weight"])
    assert same_weights(one.state_dict(), two.state_dict())


def test_from_scratch_takes_the_architecture_only(bert):
    """With from_scratch the shape and vocabulary are the BERT's, the weights are not, and they depend on the seed."""
    folder, original = bert
    config = tiny_config(model_name_or_path=str(folder), from_scratch=True)
    one, two = (
        build_model(config, [], 0).denoiser.mlm.state_dict(),
        build_model(config, [], 1).denoiser.mlm.state_dict(),
    )
    assert {name: weight.shape for name, weight in one.items()} == {
        name: weight.shape for name, weight in original.state_dict().items()
    }
    name = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(one[name], original.state_dict()[name]) and not torch.equal(one[name], two[name])


def test_no_weights_are_needed_from_scratch(tmp_path):
    """A directory with architecture and vocabulary alone is enough for from_scratch, and refused without it."""
    save_bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    build_model(tiny_config(model_name_or_path=str(tmp_path), from_scratch=True), [], 0)
    assert str(tmp_path) in refusal(build_model, tiny_config(model_name_or_path=str(tmp_path)), [], 0)


def test_a_padded_vocabulary_has_no_mass(tmp_path):
    """A BERT whose embedding table is larger than its vocabulary never gives the entries without a text any mass."""
    save_bert(tmp_path, vocab_size=64)
    model = build_model(tiny_config(model_name_or_path=str(tmp_path)), [], 0)
    extra = model.denoiser.forbidden_bias[model.tokenizer.vocab_size :]
    assert (
        len(extra) > 0
        and bool(extra.isneginf().all())
        and bool(model.denoiser.forbidden_bias[model.tokenizer.unk_id] == 0)
    )
    fit_schedule(model, [[8, 9, 9]])
    assert len(model.schedule.informativeness) == 64


def test_a_model_in_the_cache_of_the_hub_needs_no_network(tmp_path):
    """A hub id whose files the library's cache holds loads without asking the hub for the model."""
    save_bert(tmp_path / "hub" / "models--someone--tiny" / "snapshots" / "0123")
    (tmp_path / "hub" / "models--someone--tiny" / "refs").mkdir()
    (tmp_path / "hub" / "models--someone--tiny" / "refs" / "main").write_text("0123")
    asked = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802 (the name that the library calls)
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    code = (
        "from diffusion_bert.model.pretrained import load_pretrained as load; print(len(load('someone/tiny')[2]) > 10)"
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        variables = {name: value for name, value in os.environ.items() if not name.endswith("OFFLINE")}
        variables |= {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120
        )
        server.shutdown()
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert [path for path in asked if "tiny" in path] == []  # the library may ask for other things


def test_nothing_is_printed(bert, capfd):
    """Loading and building leave the terminal alone: no bars, no warnings."""
    load_pretrained(str(bert[0]))
    new_model(attention="full", timestep="layerwise")
    assert capfd.readouterr() == ("", "")


# ---- refusals ------------------------------------------------------------------------------------------------------


def test_too_long_for_the_positions(bert):
    """max_length over the BERT's positions is refused with both numbers; the number itself is fine."""
    build_model(tiny_config(model_name_or_path=str(bert[0]), max_length=80), [], 0)
    message = refusal(build_model, tiny_config(model_name_or_path=str(bert[0]), max_length=81), [], 0)
    assert "81" in message and "80 positions" in message and "--max_length" in message


def test_a_model_without_its_vocabulary(tmp_path):
    """A folder with config and weights alone: the library would make up a vocabulary of five special words; refused
    instead.
    """
    save_bert(tmp_path)
    for path in tmp_path.glob("*"):
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    assert "no vocabulary" in refusal(load_pretrained, str(tmp_path))


@pytest.mark.parametrize("name", ["{}/absent", "{}", "./absent", "a/b/c"])
def test_directories_that_are_no_bert(tmp_path, name):
    """A path without a model is refused as a path; the hub is not asked."""
    name = name.format(tmp_path)
    message = refusal(build_model, tiny_config(model_name_or_path=name), [], 0)
    assert name in message and "config.json is missing" in message and "tiny, mini" in message


def test_other_models_are_refused(tmp_path):
    """A model of another type is refused by its type."""
    transformers.AlbertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    ).save_pretrained(tmp_path)
    assert "albert" in refusal(build_model, tiny_config(model_name_or_path=str(tmp_path)), [], 0)


@pytest.mark.parametrize(
    "file, content",
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", "{}"),
        ("model.safetensors", ""),
        ("model.safetensors", "\x00" * 50),
        ("tokenizer.json", "{"),
    ],
)
def test_damaged_directories(bert, tmp_path, file, content):
    """A broken file in the directory gives one line with the directory's name."""
    folder = tmp_path / "bert"
    shutil.copytree(bert[0], folder)
    (folder / file).write_text(content)
    assert str(folder) in refusal(build_model, tiny_config(model_name_or_path=str(folder)), [], 0)


def test_weights_of_something_else(bert, tmp_path):
    """Weights of other names or shapes are refused, never replaced by random numbers."""
    folder = tmp_path / "bert"
    shutil.copytree(bert[0], folder)
    weights = bert[1].state_dict()
    for change in (
        {f"other.{name}": weight for name, weight in weights.items()},
        {name: weight[..., :3].clone() for name, weight in weights.items()},
    ):
        safetensors.torch.save_file(
            {name: weight.clone() for name, weight in change.items()}, folder / "model.safetensors", {"format": "pt"}
        )
        assert str(folder) in refusal(build_model, tiny_config(model_name_or_path=str(folder)), [], 0)


def test_a_pickle_in_a_directory_is_not_run(bert, tmp_path):
    """A pytorch_model.bin that would run code is refused, and nothing of it runs."""
    folder = tmp_path / "bert"
    shutil.copytree(bert[0], folder)
    (folder / "model.safetensors").unlink()
    torch.save({"bert.embeddings.word_embeddings.weight": Trap(tmp_path / "sprung")}, folder / "pytorch_model.bin")
    assert str(folder) in refusal(build_model, tiny_config(model_name_or_path=str(folder)), [], 0)
    assert not (tmp_path / "sprung").exists()


def test_a_directory_with_another_kind_of_tokenizer(bert, tmp_path):
    """A BERT with a word-level tokenizer is refused."""
    folder = tmp_path / "bert"
    shutil.copytree(bert[0], folder)
    (folder / "vocab.txt").unlink()
    vocabulary = {token: index for index, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "how"))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] != "BertTokenizer"
    message = refusal(build_model, tiny_config(model_name_or_path=str(folder)), [], 0)
    assert str(folder) in message and "WordPiece" in message


def test_tokenizer_larger_than_the_model(tmp_path):
    """A tokenizer with more pieces than the model has embeddings does not belong to it."""
    save_bert(tmp_path)
    with open(tmp_path / "vocab.txt", "a") as file:
        file.write("".join(f"more{number}\n" for number in range(9)))
    (tmp_path / "tokenizer.json").unlink()
    assert "do not belong together" in refusal(build_model, tiny_config(model_name_or_path=str(tmp_path)), [], 0)


# ---- devices -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", "cpu:0", "cuda:-1", " cpu", "mps", "mps:0", ""])
def test_nonsensical_devices(name):
    """What is no device name is refused with the list of names."""
    message = refusal(pick_device, name)
    assert f"'{name}'" in message and "cuda:N" in message


@pytest.mark.parametrize("name", ["cuda:97"] + ([] if torch.cuda.is_available() else ["cuda", "cuda:0"]))
def test_devices_this_machine_lacks(name):
    """A device that is not there is refused, with a way out."""
    assert "--device cpu or auto" in refusal(pick_device, name)


def test_devices_that_exist():
    """cpu is always there, and auto finds something."""
    assert pick_device("cpu") == torch.device("cpu") and pick_device("auto").type in ("cpu", "cuda")
