"""Exported directories: transformers opens them, the answers are the checkpoint's own, and training can start from
them.
"""

import json

import pytest
import torch
import transformers

from benchmarks.quality import export_agreement
from diffusion_bert.commands.cli import guarded
from diffusion_bert.data.batching import Collator
from diffusion_bert.data.skills import NO_SOURCE
from diffusion_bert.export import main
from diffusion_bert.model import export as module
from diffusion_bert.model.diffusion_model import build_model
from diffusion_bert.model.export import NO_MASS, export
from tests.helpers.models import grammar_pairs, new_model, refusal, save_bert, tiny_config
from tests.helpers.scripts import run, small_flags


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model whose every weight matters, and the folder it was exported to."""
    model = new_model()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("export") / "model"
    export(model, folder)
    return model, folder


@pytest.fixture(scope="module")
def opened(exported):
    folder = exported[1]
    return transformers.AutoModelForMaskedLM.from_pretrained(folder).eval(), transformers.AutoTokenizer.from_pretrained(
        folder
    )


def own_log_mu(model, ids):
    batch = Collator(model.tokenizer, model.task.prompt).batch([(NO_SOURCE, [], ids)])
    with torch.no_grad():
        return model.denoiser(batch, batch.input_ids, torch.tensor([0.5], dtype=torch.float64))[0]


def test_the_tokenizer_writes_our_layout(exported, opened):
    """A text is [CLS] [SEP] text [SEP], a pair [CLS] source [SEP] target [SEP], with the token types of training;
    [MASK] is the mask.
    """
    model, tokenizer = exported[0], opened[1]
    text, own = "How can I learn to swim?", model.tokenizer
    one, two = tokenizer(text), tokenizer("What now?", text)
    ids, source = own.encode(text), own.encode("What now?")
    assert one["input_ids"] == [own.cls_id, own.sep_id, *ids, own.sep_id] and one["token_type_ids"] == [
        0,
        0,
        *[1] * (len(ids) + 1),
    ]
    assert two["input_ids"] == [own.cls_id, *source, own.sep_id, *ids, own.sep_id]
    assert two["token_type_ids"] == [0] * (len(source) + 2) + [1] * (len(ids) + 1)
    assert tokenizer.mask_token_id == own.mask_id and tokenizer.mask_token_id in tokenizer("a [MASK] ?")["input_ids"]
    assert tokenizer.decode(one["input_ids"], skip_special_tokens=True) == "how can i learn to swim?"
    assert tokenizer.model_max_length == model.denoiser.max_target_length + 3


def test_isolated_it_is_the_checkpoint(exported, opened):
    """Given the isolation mask, which a plain reader leaves out, its distribution at masked places is the checkpoint's
    own mu.
    """
    model, (mlm, tokenizer) = exported[0], opened
    ids = model.tokenizer.encode(grammar_pairs()[0].target)
    ids[1] = ids[3] = model.tokenizer.mask_id
    inputs = tokenizer(grammar_pairs()[0].target, return_tensors="pt")
    inputs["input_ids"] = torch.tensor([[model.tokenizer.cls_id, model.tokenizer.sep_id, *ids, model.tokenizer.sep_id]])
    types = inputs["token_type_ids"]
    inputs["attention_mask"] = (types[:, :, None] >= types[:, None, :])[:, None]
    with torch.no_grad():
        log_p = torch.log_softmax(mlm(**inputs).logits[0, [3, 5]], dim=-1)
    allowed = model.denoiser.forbidden_bias.isfinite()
    torch.testing.assert_close(log_p[:, allowed], own_log_mu(model, ids)[:, allowed], rtol=1e-4, atol=1e-4)


def test_it_is_bidirectional_and_writes_no_specials(exported, opened):
    """The last word changes what is expected at the first, and [PAD], [CLS], [SEP], [MASK] have no mass."""
    model, (mlm, tokenizer) = exported[0], opened
    assert mlm.config.is_decoder is False and type(mlm) is transformers.BertForMaskedLM
    with torch.no_grad():
        one, two = (
            mlm(**tokenizer(f"[MASK] can i learn to {word}", return_tensors="pt")).logits[0, 2]
            for word in ("swim", "cook")
        )
    assert not torch.allclose(one, two, atol=1e-3)
    assert float(torch.softmax(one, -1)[model.tokenizer.forbidden_ids].sum()) == 0.0
    assert bool((mlm.cls.predictions.bias[model.tokenizer.forbidden_ids] == NO_MASS).all())


def test_the_pipeline_fills(exported):
    """transformers.pipeline answers with the words of the model, whose scores fall."""
    fill = transformers.pipeline("fill-mask", str(exported[1]), device="cpu")
    answers = fill("How can I learn to [MASK]?")
    assert len(answers) == 5 and all("[MASK]" not in answer["sequence"] and answer["token_str"] for answer in answers)
    assert sorted((answer["score"] for answer in answers), reverse=True) == [answer["score"] for answer in answers]


def test_training_can_start_from_it(exported):
    """As --model_name_or_path it gives back the encoder and tokenizer of the checkpoint, position table included."""
    model, folder = exported
    again = build_model(tiny_config(model_name_or_path=str(folder)), [], 0)
    before, after = model.denoiser.mlm.state_dict(), again.denoiser.mlm.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if not name.endswith("bias"))
    assert again.tokenizer.tokens == model.tokenizer.tokens and again.tokenizer.encode(
        "How now?"
    ) == model.tokenizer.encode("How now?")
    ids = [*model.tokenizer.encode("how can i"), model.tokenizer.mask_id]
    torch.testing.assert_close(own_log_mu(again, ids), own_log_mu(model, ids), rtol=1e-5, atol=1e-5)
    scratch = build_model(tiny_config(model_name_or_path=str(folder), from_scratch=True), [], 0)
    assert scratch.denoiser.bert_config.max_position_embeddings == model.denoiser.bert_config.max_position_embeddings


def test_a_pretrained_bert_with_padded_vocabulary(tmp_path):
    """An embedding table larger than the vocabulary survives; its spare entries have no mass."""
    save_bert(tmp_path / "bert", vocab_size=64)
    model = build_model(tiny_config(model_name_or_path=str(tmp_path / "bert")), [], 0)
    export(model, tmp_path / "out")
    mlm = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    assert mlm.config.vocab_size == 64 and bool(
        (mlm.cls.predictions.bias[model.tokenizer.vocab_size :] == NO_MASS).all()
    )


def test_the_command(trained, tmp_path, capsys, data_dir):
    """A run directory becomes a folder with a card, which the training script takes; a second export refuses to
    overwrite.
    """
    out = tmp_path / "new" / "model"
    assert guarded(main, [str(trained), str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    card = (out / "README.md").read_text()
    assert (
        card.startswith("---\nlibrary_name:")
        and "length head, copy head" in card
        and str(data_dir) not in card
        and data_dir.name in card
    )
    assert json.loads((out / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert [path.name for path in out.parent.iterdir()] == ["model"]
    result = run(
        "run_conditional_training",
        *small_flags(
            data_dir, model_name_or_path=out, vocab_size=None, output_dir=tmp_path / "runs", max_steps=2, epochs=1
        ),
    )
    assert result.code == 0, result.err
    capsys.readouterr()
    assert guarded(main, [str(trained), str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_refusals(exported, tmp_path, monkeypatch, capsys):
    """A file or full folder in the way, a network that is told the time, a full disk: one line, and nothing is left
    behind.
    """
    model = exported[0]
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refusal(export, model, tmp_path / "file") and (tmp_path / "file").read_text() == "mine"
    assert "not empty" in refusal(export, model, tmp_path)
    assert "timestep prefix" in refusal(export, new_model(timestep="prefix"), tmp_path / "out")
    for arguments in ([], ["nowhere.pt", str(tmp_path / "out")], [str(tmp_path), str(tmp_path / "out")]):
        assert guarded(main, arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1

    def no_space(_model):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "export_card", no_space)
    assert "No space left" in refusal(export, model, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_agreement_with_fill(exported, tmp_path):
    """The benchmark's table: shares of places, of which there are as many as were masked; one word masked leaves little
    to differ in.
    """
    model = exported[0]
    texts = [pair.target for pair in grammar_pairs()[:6]]
    rows = export_agreement.compare(model, texts, tmp_path / "out")
    fitting = [len(model.tokenizer.encode(text)) for text in texts if len(model.tokenizer.encode(text)) <= 24]
    assert [row["places"] for row in rows] == [
        len(fitting),
        *(sum(max(1, round(share * n)) for n in fitting) for share in (0.2, 0.5)),
    ]
    assert all(0 <= row[name] <= 100 for row in rows for name in ("export", "plain", "own_right"))
