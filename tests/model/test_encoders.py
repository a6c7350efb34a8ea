"""RoBERTa, DistilBERT and ModernBERT under the same denoiser: their weights arrive, the source stays isolated, training
and sampling work.
"""

import copy
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.data.batching import Collator
from diffusion_bert.data.skills import CONTINUE, NO_SOURCE, PAIR
from diffusion_bert.data.tokenizer import TextTokenizer
from diffusion_bert.generation.canvas import blank_canvas, length_log_probs
from diffusion_bert.generation.decoding import decode
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.model.checkpoint import load_checkpoint, save_checkpoint
from diffusion_bert.model.diffusion_model import build_model, compile_encoder, fit_schedule
from diffusion_bert.model.export import export
from diffusion_bert.model.functions import tied_embedding
from diffusion_bert.training.flops import forward_flops
from diffusion_bert.training.objective import LossOptions, nelbo_terms, training_loss
from diffusion_bert.training.yardstick import estimate_nelbo
from tests.helpers.models import grammar_pairs, grammar_texts, refusal, tiny_config, tiny_tokenizer
from tests.helpers.scripts import only_run, run, small_flags

ROBERTA, BERT = ("<s>", "<pad>", "</s>", "<unk>", "<mask>"), ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
FAMILIES = ("roberta", "distilbert", "modernbert")
SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "initializer_range": 0.1,
}


@lru_cache
def byte_level(specials) -> Tokenizer:
    """A small byte-level BPE of the grammar's texts, as RoBERTa's is made."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(
        sorted(set(grammar_texts())),
        trainers.BpeTrainer(
            vocab_size=700, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
        ),
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel()
    return backend


def save_encoder(family: str, folder):
    """A random model of a family and its tokenizer, as a directory; the model."""
    backend = (
        Tokenizer.from_str(tiny_tokenizer().json)
        if family == "distilbert"
        else byte_level(ROBERTA if family == "roberta" else BERT)
    )
    names = ("cls", "pad", "sep", "unk", "mask") if family == "roberta" else ("unk", "cls", "sep", "pad", "mask")
    specials = dict(zip((f"{name}_token" for name in names), ROBERTA if family == "roberta" else BERT))
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **specials).save_pretrained(folder)
    pad = backend.token_to_id(specials["pad_token"])
    torch.manual_seed(4)
    common = {"vocab_size": backend.get_vocab_size(), "pad_token_id": pad}
    if family == "roberta":
        config = transformers.RobertaConfig(**common, **SIZE, type_vocab_size=1, max_position_embeddings=66 + pad)
    elif family == "distilbert":
        config = transformers.DistilBertConfig(
            **common, dim=32, n_layers=2, n_heads=2, hidden_dim=48, max_position_embeddings=70, initializer_range=0.1
        )
    else:
        config = transformers.ModernBertConfig(
            **common,
            **SIZE,
            local_attention=8,
            bos_token_id=None,
            eos_token_id=None,
            cls_token_id=None,
            sep_token_id=None,
        )
    model = transformers.AutoModelForMaskedLM.from_config(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    return request.param, folder, save_encoder(request.param, folder)


@pytest.fixture(scope="module")
def built(saved):
    """The model of a directory, with weights on every path: do not change it."""
    model = build_model(tiny_config(model_name_or_path=str(saved[1]), dropout=0.0), [], 0)
    fit_schedule(model, model.tokenizer.encode_many([pair.target for pair in grammar_pairs()]))
    torch.manual_seed(6)
    with torch.no_grad():
        model.denoiser.target_embedding.normal_(std=0.3)
    model.denoiser.eval()
    return model


def batch_of(model, rows=((PAIR, 0), (NO_SOURCE, 1), (CONTINUE, 2), (PAIR, 3))):
    encode = model.tokenizer.encode
    examples = [
        (
            skill,
            [] if skill == NO_SOURCE else encode(grammar_pairs()[n].source)[: 9 + n],
            encode(grammar_pairs()[n].target)[:20],
        )
        for skill, n in rows
    ]
    return Collator(model.tokenizer, model.task.prompt).batch(examples)


def noised(model, batch):
    tau = torch.linspace(0.4, 1.0, len(batch), dtype=torch.float64)
    return model.diffusion.q_sample(batch.input_ids, tau, batch.target_mask, torch.Generator().manual_seed(0)), tau


# ---- the pieces of byte-level BPE ----------------------------------------------------------------------------------


@pytest.mark.parametrize("specials", [ROBERTA, BERT])
@pytest.mark.parametrize(
    "text",
    ["How can I learn to swim?", "It's 3.5 %, don't (really) ...", "naïve café – 日本 🙂", "A [MASK] <mask> </s> here"],
)
def test_byte_level_text_comes_back(specials, text):
    """Encoded and written again, a text is the same; literal special tokens are ordinary text."""
    tokenizer = TextTokenizer(byte_level(specials).to_str())
    ids = tokenizer.encode(text)
    assert (
        tokenizer.text(ids) == text
        and tokenizer.encode(f"  {text}\n ".replace(" ", "\t ")) == ids
        and not set(ids) & set(tokenizer.special_ids)
    )
    assert tokenizer.encode_many([text, "x"])[0] == ids and tokenizer.words(ids) == text.split()
    again = type(tokenizer)(tokenizer.json)
    assert again.json == tokenizer.json and again.encode(text) == ids
    assert not tokenizer.is_uncased


def test_specials_and_words(built, saved):
    """[CLS], [SEP] and the others are those of the family; pieces behind a space begin words; half a character is never
    written.
    """
    tokenizer, family = built.tokenizer, saved[0]
    names = (
        ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
        if family == "roberta"
        else ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    )
    assert tuple(tokenizer.tokens[index] for index in tokenizer.special_ids) == names
    if family == "distilbert":
        return
    flags = dict(zip(tokenizer.tokens, tokenizer.continuation.tolist()))
    assert not flags["Ġa"] and flags["a"] and not flags["."] and not flags["Ġ"]
    unwritable = {tokenizer.tokens[index] for index in tokenizer.unwritable_ids}
    assert {"Ġ", "Ċ", "ð", *names} <= unwritable and not {"Ġa", "a", "."} & unwritable
    ids, spans = tokenizer.encode_with_offsets("I  swim, too")
    assert "".join("I  swim, too"[a:b] for a, b in spans) == "Iswim,too" and ids == tokenizer.encode("I swim, too")
    assert tokenizer.text(tokenizer.encode_with_offsets("s, too", goes_on=True)[0]) == "s, too"
    assert not tokenizer.tokens[tokenizer.encode_with_offsets("s, too", goes_on=True)[0][0]].startswith("Ġ")


# ---- the network ---------------------------------------------------------------------------------------------------


def test_weights_and_states_are_the_original(saved):
    """All weights arrive; with full attention and the original's own positions, states and word logits are the
    original's: nothing is causal.
    """
    family, folder, original = saved
    model = build_model(tiny_config(model_name_or_path=str(folder), attention="full", dropout=0.0), [], 0)
    own, theirs = model.denoiser.mlm.state_dict(), original.state_dict()
    assert own.keys() == theirs.keys() and all(torch.equal(own[name], theirs[name]) for name in own)
    assert not model.denoiser.target_embedding.any()
    denoiser, tokenizer = model.denoiser.eval(), model.tokenizer
    ids = torch.tensor(
        [[tokenizer.cls_id, *tokenizer.encode("How can I learn to swim in two weeks?"), tokenizer.sep_id]]
    )
    everywhere = torch.ones(1, ids.shape[1], ids.shape[1], dtype=torch.bool)
    with torch.no_grad():
        states = denoiser._run(
            denoiser._embed(ids), torch.zeros_like(ids), torch.arange(ids.shape[1])[None], everywhere
        )
        logits = denoiser.family.logits(denoiser.mlm, states)
        torch.testing.assert_close(
            logits, original(input_ids=ids, attention_mask=torch.ones_like(ids)).logits, rtol=1e-4, atol=1e-4
        )


def test_the_target_changes_no_source_state(built):
    """Isolated attention: other target words, and another length, leave source states and the length's logits as they
    are.
    """
    batch = batch_of(built)
    x_t, tau = noised(built, batch)
    other = torch.where(batch.target_mask, built.tokenizer.encode("swim")[0], x_t)
    with torch.no_grad():
        one, two = (built.denoiser.hidden_states(batch, x, tau) for x in (x_t, other))
        alone = built.denoiser.encode_source(batch).states
    for row, width in enumerate(batch.source_length.tolist()):
        torch.testing.assert_close(one[row, :width], two[row, :width], rtol=0, atol=0)
        torch.testing.assert_close(one[row, :width], alone[row, :width], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(one[row, width:], two[row, width:], atol=1e-3)
    assert one.isfinite().all()


def test_padding_changes_nothing(built):
    """A row in a wide batch has the states it has alone."""
    batch, alone = batch_of(built), batch_of(built, ((NO_SOURCE, 1),))
    with torch.no_grad():
        wide = built.denoiser.hidden_states(batch, batch.input_ids, torch.full((4,), 0.5))[
            1, : alone.input_ids.shape[1]
        ]
        torch.testing.assert_close(
            wide, built.denoiser.hidden_states(alone, alone.input_ids, torch.full((1,), 0.5))[0], rtol=1e-4, atol=1e-5
        )


def test_the_target_vector_tells_the_segments_apart(built):
    """Without token types it is the added vector that makes a target place differ from a source place: in the target
    only.
    """
    plain = copy.deepcopy(built.denoiser)
    torch.nn.init.zeros_(plain.target_embedding)
    batch = batch_of(built)
    x_t, tau = noised(built, batch)
    with torch.no_grad():
        one, two = (denoiser.hidden_states(batch, x_t, tau) for denoiser in (built.denoiser, plain))
    changed = (one - two).abs().amax(-1) > 1e-4
    assert torch.equal(changed & batch.valid, batch.is_target_segment & batch.valid)


def test_one_table_has_the_whole_gradient(built, monkeypatch):
    """The head of every family takes the table from ``tied_embedding``, its last layer leaves out what is not
    read where it can, and every gradient is that of the plain way.
    """
    batch, denoiser = batch_of(built), copy.deepcopy(built.denoiser)
    x_t, tau = noised(built, batch)
    gradients = []
    for way in (tied_embedding, lambda words, ids: (words(ids), None)):
        monkeypatch.setattr("diffusion_bert.model.denoiser.tied_embedding", way)
        denoiser.skips_unread = way is tied_embedding
        denoiser.zero_grad(set_to_none=True)
        denoiser.true_words(batch, x_t, tau).log_mu.sum().backward()
        gradients.append(
            {name: parameter.grad for name, parameter in denoiser.named_parameters() if parameter.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys() and denoiser._words.weight.grad.any()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-4)


def test_cached_equals_whole(built):
    """RoBERTa's target states on the cached source are those of the whole sequence; the others keep nothing, and say
    so.
    """
    batch = batch_of(built)
    x_t, tau = noised(built, batch)
    denoiser = built.denoiser
    source = denoiser.encode_source(batch)
    assert bool(source.keys_values) == denoiser.keeps_source == (denoiser.bert_config.model_type == "roberta")
    if not denoiser.keeps_source:
        return
    width = int(batch.target_length.max()) + 1
    target = torch.full((len(batch), width), built.tokenizer.pad_id)
    for row, (start, length) in enumerate(zip(batch.source_length.tolist(), (batch.target_length + 1).tolist())):
        target[row, :length] = x_t[row, start : start + length]
    with torch.no_grad():
        whole, cached = (
            denoiser.hidden_states(batch, x_t, tau),
            denoiser.target_states(source, target, batch.target_length, tau),
        )
    for row, (start, length) in enumerate(zip(batch.source_length.tolist(), (batch.target_length + 1).tolist())):
        torch.testing.assert_close(cached[row, :length], whole[row, start : start + length], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_several_targets_beside_a_source(built):
    """Twice the same noised target in a row is charged twice what it is charged alone, window or none."""
    batch = batch_of(built)
    x_t, tau = noised(built, batch)
    t = (tau * 16).ceil().long()
    twice = replace(batch, input_ids=x_t).repeated(2).input_ids
    one = nelbo_terms(built.denoiser, built.diffusion, batch, x_t, t, 16)
    two = nelbo_terms(built.denoiser, built.diffusion, batch.repeated(2), twice, t[:, None].expand(-1, 2), 16)
    torch.testing.assert_close(two.stacked(), 2 * one.stacked(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{"timestep": "prefix"}, {"timestep": "layerwise"}, {"self_conditioning": True}, {"attention": "full"}]
)
def test_other_options(saved, options):
    """Time conditioning, self-conditioning and full attention: a step of training is finite, and a text can be
    written.
    """
    model = build_model(tiny_config(model_name_or_path=str(saved[1]), **options), [], 0)
    batch = batch_of(model)
    x_t, tau = noised(model, batch)
    t = (tau * 16).ceil().long()
    terms = nelbo_terms(
        model.denoiser, model.diffusion, batch, x_t, t, 16, two_pass=model.denoiser.self_conditioning is not None
    )
    training_loss(terms, "ce", 0.0, terms.masked, terms.tokens).backward()
    assert terms.total.isfinite() and all(
        p.grad.isfinite().all() for p in model.denoiser.parameters() if p.grad is not None
    )
    canvas = blank_canvas(PAIR, model.tokenizer.encode("How now?"), 5, model.tokenizer.mask_id)
    written = decode(
        model.__class__(**{**vars(model), "denoiser": model.denoiser.eval()}),
        [canvas],
        SamplingConfig(num_steps=3),
        Collator(model.tokenizer, "a:"),
    )
    assert len(written[0].ids) == 5 and not set(written[0].ids) & set(model.tokenizer.unwritable_ids)


# ---- from training to text -----------------------------------------------------------------------------------------


def test_train_save_load_write(saved, tmp_path):
    """Some steps lower the NELBO on held-out pairs; the checkpoint gives the same model back, which fills, continues
    and rewrites.
    """
    model = build_model(tiny_config(model_name_or_path=str(saved[1]), dropout=0.0), [], 0)
    encode = model.tokenizer.encode_many
    pairs = [pair for pair in grammar_pairs("train", 900) if all(len(ids) <= 24 for ids in encode(list(pair)))]
    fit_schedule(model, encode([pair.target for pair in pairs]))
    collator = Collator(model.tokenizer, model.task.prompt)
    rows = [(PAIR, *encode(list(pair))) for pair in pairs]
    held_out, rows = [collator.batch(rows[:8])], rows[8:]
    before = estimate_nelbo(model.denoiser, model.diffusion, held_out).per_token()["nelbo"]
    optimizer = torch.optim.AdamW(model.denoiser.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    model.denoiser.train()
    for step in range(50):
        batch = collator.batch([rows[(16 * step + n) % len(rows)] for n in range(16)])
        t = torch.randint(1, 17, (16,), generator=generator)
        x_t = model.diffusion.q_sample(batch.input_ids, t.double() / 16, batch.target_mask, generator)
        terms = nelbo_terms(model.denoiser, model.diffusion, batch, x_t, t, 16, options=LossOptions(kl_gradient=False))
        training_loss(terms, "ce", 0.0, terms.masked, terms.tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = estimate_nelbo(model.denoiser, model.diffusion, held_out).per_token()["nelbo"]
    assert after < 0.9 * before and bool(model.denoiser.target_embedding.any())

    save_checkpoint(tmp_path / "model.pt", model)
    again = load_checkpoint(tmp_path / "model.pt")
    assert torch.equal(
        length_log_probs(model, [(PAIR, rows[0][1])], collator), length_log_probs(again, [(PAIR, rows[0][1])], collator)
    )
    assert estimate_nelbo(again.denoiser, again.diffusion, held_out).per_token()["nelbo"] == after
    generator = DiffusionTextGenerator(again, SamplingConfig(num_samples=2, best_of=1, num_steps=4))
    assert len(generator.paraphrase_text(pairs[0].source)) == 2 and all(generator.paraphrase_text(pairs[0].source))
    typed = "I  need the [MASK] by [MASK]s, (the [MASK])."
    for text in generator.fill_masks(typed):
        assert (
            text.startswith("I  need the ")
            and " by " in text
            and text.endswith(").")
            and "[MASK]" not in text
            and "�" not in text
        )
        assert "s, (the " in text and "  " not in text[3:]
    assert all(text.startswith("We plan to") for text in generator.complete_text("We plan to"))
    assert again.parameter_count == model.parameter_count and forward_flops(again.denoiser, 2, 10, 5, 4) > 0
    assert "only BERT" in compile_encoder(again.denoiser) and "only a BERT" in refusal(export, again, tmp_path / "out")


def test_positions_are_counted(saved):
    """RoBERTa's table begins with padding: what is left of it is what max_length may use. ModernBERT has its
    thousands.
    """
    family, folder, _ = saved
    limit = {"roberta": 65, "distilbert": 70, "modernbert": 8192}[family]
    assert build_model(tiny_config(model_name_or_path=str(folder), max_length=limit), [], 0)
    assert f"only {limit} positions" in refusal(
        build_model, tiny_config(model_name_or_path=str(folder), max_length=limit + 1), [], 0
    )


def test_the_scripts(saved, tmp_path, data_dir):
    """A directory of the family is trained from, continued, evaluated and used as a teacher by the usual commands."""
    flags = small_flags(
        data_dir,
        model_name_or_path=saved[1],
        vocab_size=None,
        max_length=64,
        max_target_length=28,
        output_dir=tmp_path / "runs",
        max_steps=3,
        epochs=1,
    )
    assert run("run_conditional_training", *flags).code == 0
    best = only_run(tmp_path / "runs") / "best_model.pt"
    evaluated = run(
        "evaluate_trained_model", "--checkpoint", best, "--max_samples", 3, "--num_steps", 2, "--device", "cpu"
    )
    assert evaluated.code == 0 and "Report" in evaluated.out, evaluated.err
    child = run(
        "continue_training",
        "--checkpoint",
        best,
        "--max_steps",
        2,
        "--epochs",
        1,
        "--teacher",
        best,
        "--output_dir",
        tmp_path / "child",
    )
    assert child.code == 0 and "Teacher" in child.out, child.err
