"""Canvases to targets: order, batching, constraints and lengths, with a random model; no strings here."""

import copy
import random

import pytest
import torch

from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.data.skills import NO_SOURCE, PAIR
from diffusion_bert.generation.canvas import (
    CONTINUATION,
    FREE,
    NEW_WORD,
    Canvas,
    blank_canvas,
    drawn_lengths,
    length_log_probs,
    spread_lengths,
)
from diffusion_bert.generation.decoding import decode
from diffusion_bert.generation.denoise import guided_denoiser
from diffusion_bert.model.diffusion_model import build_model, fit_schedule
from diffusion_bert.samplers import SAMPLERS
from tests.helpers.canvases import collator_of, ids, mixed_canvases
from tests.helpers.models import new_model, save_bert, tiny_config, tiny_model

each_attention = pytest.mark.parametrize("attention", ["isolated", "full"])
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


@each_attention
def test_batch_size_changes_neither_words_nor_order(attention):
    """At temperature 0 every canvas gets the same words alone, in small batches and in one large one, in the order
    given.
    """
    model = tiny_model(attention)
    canvases = mixed_canvases(model)
    one, some, all_at_once = (
        ids(decode(model, canvases, SamplingConfig(temperature=0.0, num_steps=5, batch_size=size), collator_of(model)))
        for size in (1, 3, 64)
    )
    assert one == some == all_at_once
    assert [len(words) for words in one] == [len(canvas.words) for canvas in canvases]
    backwards = ids(decode(model, canvases[::-1], SamplingConfig(temperature=0.0, num_steps=5), collator_of(model)))
    assert backwards == one[::-1]


def test_freed_memory_is_given_back_between_batches(monkeypatch):
    """Batches of many widths would leave gaps (test_memory.py): once between any two, not for a single one."""
    given: list[bool] = []
    monkeypatch.setattr("diffusion_bert.generation.decoding.give_back_freed_memory", lambda: given.append(True))
    model = tiny_model()
    decode(model, mixed_canvases(model), SamplingConfig(num_steps=2, batch_size=64), collator_of(model))
    assert given == []
    decode(model, mixed_canvases(model), SamplingConfig(num_steps=2, batch_size=5), collator_of(model))
    assert len(given) == 2


@each_attention
@each_sampler
def test_given_words_stay_and_masks_go(attention, sampler):
    """Words on the canvas come back, every [MASK] is replaced, and no call is counted for nothing."""
    model = tiny_model(attention)
    canvases = mixed_canvases(model)
    options = SamplingConfig(sampler=sampler, num_steps=6, temperature=1.0, known_words=False, rank_by="revealed")
    outputs = decode(model, canvases, options, collator_of(model), seed=3)
    for canvas, output in zip(canvases, outputs):
        assert model.tokenizer.mask_id not in output.ids
        assert all(given in (model.tokenizer.mask_id, word) for given, word in zip(canvas.words, output.ids))
        most = sum(word == model.tokenizer.mask_id for word in canvas.words) if sampler == "first_hitting" else 6
        assert 1 <= output.nfe <= most


@each_attention
@each_sampler
@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_constraints_hold(attention, sampler, temperature):
    """NEW_WORD never gets a ##piece, CONTINUATION never anything else, at any temperature."""
    model = tiny_model(attention)
    canvases = mixed_canvases(model)
    continuation = model.tokenizer.continuation
    seen = {FREE: 0, NEW_WORD: 0, CONTINUATION: 0}
    for canvas, output in zip(
        canvases,
        decode(
            model, canvases, SamplingConfig(sampler=sampler, num_steps=4, temperature=temperature), collator_of(model)
        ),
    ):
        for given, kind, word in zip(canvas.words, canvas.constraints, output.ids):
            if given == model.tokenizer.mask_id and kind != FREE:
                assert bool(continuation[word]) == (kind == CONTINUATION)
                seen[kind] += 1
    assert seen[NEW_WORD] > 5 and seen[CONTINUATION] > 5


@each_attention
def test_unwritable_tokens_never_appear(attention):
    """Even where the network likes them best and the source holds them, specials, [UNK] and unused entries are never
    written.
    """
    model = new_model(attention=attention)
    model.tokenizer = copy.copy(model.tokenizer)
    model.tokenizer.tokens = [
        f"[unused{index}]" if 50 <= index < 60 else token for index, token in enumerate(model.tokenizer.tokens)
    ]
    unwritable = model.tokenizer.unwritable_ids
    assert set(unwritable) == {0, 1, 2, 3, 4, *range(50, 60)}
    with torch.no_grad():
        model.denoiser.mlm.cls.predictions.bias[unwritable] = 30.0
    canvases = [blank_canvas(PAIR, [model.tokenizer.unk_id, 55, 70] * 4, 6, model.tokenizer.mask_id) for _ in range(8)]
    canvases += [blank_canvas(NO_SOURCE, [], 6, model.tokenizer.mask_id) for _ in range(8)]
    for temperature in (0.0, 1.0, 50.0):
        words = sum(
            ids(
                decode(
                    model, canvases, SamplingConfig(temperature=temperature, num_steps=3, top_p=1.0), collator_of(model)
                )
            ),
            [],
        )
        assert not set(words) & set(unwritable)


def test_a_padded_vocabulary_is_never_written(tmp_path):
    """Entries of the embedding table without a text are out of reach, however much the network likes them."""
    save_bert(tmp_path, vocab_size=64)
    model = build_model(tiny_config(model_name_or_path=str(tmp_path)), [], 0)
    fit_schedule(model, [[8, 9, 9, 10]])
    model.denoiser.eval()
    with torch.no_grad():
        model.denoiser.mlm.cls.predictions.bias[model.tokenizer.vocab_size :] = 30.0
    canvases = [blank_canvas(PAIR, [8, 9], 8, model.tokenizer.mask_id) for _ in range(4)]
    words = sum(
        ids(decode(model, canvases, SamplingConfig(temperature=20.0, num_steps=3, top_p=1.0), collator_of(model))), []
    )
    assert max(words) < model.tokenizer.vocab_size


@each_sampler
def test_seeds(sampler):
    """The same seed gives the same words, another seed others."""
    model = tiny_model()
    options = SamplingConfig(sampler=sampler, num_steps=4, temperature=1.0)
    one, two, other = (
        ids(decode(model, mixed_canvases(model), options, collator_of(model), seed)) for seed in (1, 1, 2)
    )
    assert one == two != other


def test_progress_counts_every_canvas():
    """progress hears of every finished batch; the counts add up."""
    model, heard = tiny_model(), []
    decode(
        model,
        mixed_canvases(model),
        SamplingConfig(num_steps=2, batch_size=4),
        collator_of(model),
        progress=heard.append,
    )
    assert heard == [4, 4, 4, 2]


def test_nothing_to_do():
    """No canvases give no results; a canvas without [MASK] comes back as it is, with no call."""
    model = tiny_model()
    assert decode(model, [], SamplingConfig(), collator_of(model)) == []
    (output,) = decode(model, [Canvas(NO_SOURCE, [], [70, 71], 0.5)], SamplingConfig(), collator_of(model))
    assert (output.ids, output.nfe) == ([70, 71], 0)


def test_one_call_is_enough():
    """num_steps 1 writes everything in one call; more steps than places call at most once per place (confidence)."""
    model = tiny_model()
    canvases = [blank_canvas(PAIR, [70, 71], 7, model.tokenizer.mask_id)]
    assert decode(model, canvases, SamplingConfig(num_steps=1, rank_by="revealed"), collator_of(model))[0].nfe == 1
    assert decode(model, canvases, SamplingConfig(num_steps=100, rank_by="revealed"), collator_of(model))[0].nfe <= 7


@each_attention
def test_the_words_are_those_of_the_whole_network(attention):
    """The predictor with the encoded source agrees with one pass over whole sequences."""
    model, collator = tiny_model(attention), collator_of(tiny_model(attention))
    canvases = mixed_canvases(model)
    for canvas in canvases:
        canvas.constraints = None
    x_t, denoise = guided_denoiser(model, canvases, collator, time_correction=False)
    tau = torch.full((len(canvases),), 0.7, dtype=torch.float64)
    log_mu = denoise(x_t, tau, torch.arange(len(canvases)))
    batch = collator.batch([(canvas.skill, canvas.source, canvas.words) for canvas in canvases])
    with torch.no_grad():
        expected = model.denoiser(batch, batch.input_ids, tau)[0]
    writable = torch.ones(log_mu.shape[1], dtype=torch.bool)
    writable[model.tokenizer.unwritable_ids] = False
    torch.testing.assert_close(log_mu[:, writable], expected[:, writable], rtol=1e-4, atol=1e-4)
    assert bool(log_mu[:, ~writable].isneginf().all())


def test_time_correction_is_an_option():
    """The correction changes mu at an inner time, unless the settings or the call leave it out."""
    model, off = new_model(), new_model(time_correction=False)
    canvases = [blank_canvas(PAIR, [70, 71], 5, model.tokenizer.mask_id)]
    tau = torch.tensor([0.5], dtype=torch.float64)

    def log_mu(model, wanted: bool):
        x_t, denoise = guided_denoiser(model, canvases, collator_of(model), wanted)
        with torch.no_grad():
            return denoise(x_t, tau, torch.arange(1))

    assert torch.equal(log_mu(model, False), log_mu(off, True))
    assert not torch.allclose(log_mu(model, True), log_mu(model, False))


# ---- lengths -------------------------------------------------------------------------------------------------------


@each_attention
def test_length_distribution(attention):
    """p(length | source) is a distribution over 1..max_target_length, the same in any batch; what would not fit has
    none.
    """
    model, collator = tiny_model(attention), collator_of(tiny_model(attention))
    sources = [(PAIR, [70] * 5), (NO_SOURCE, []), (PAIR, [70] * 40), (PAIR, [70] * (64 - 3 - 2 - 1))]
    log_probs = length_log_probs(model, sources, collator)
    assert log_probs.shape == (4, 24)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(4))
    torch.testing.assert_close(
        log_probs, length_log_probs(model, sources, collator, batch_size=1), rtol=1e-4, atol=1e-5
    )
    # [CLS] paraphrase : source [SEP] target [SEP]
    assert log_probs.isfinite().sum(-1).tolist() == [24, 24, 64 - 3 - 2 - 40, 1]


def test_spread_lengths():
    """The likeliest lengths in turn, best first, never one without probability."""
    log_probs = torch.tensor([0.1, 0.5, 0.0, 0.4]).log()
    assert spread_lengths(log_probs, 5, 3) == [2, 4, 1, 2, 4]
    assert spread_lengths(log_probs, 2, 1) == [2, 2]
    assert spread_lengths(log_probs, 4, 99) == [2, 4, 1, 2]
    assert spread_lengths(log_probs, 0, 3) == []


def test_drawn_lengths():
    """Draws follow p(length)^(1/temperature) among the likeliest; at temperature 0 it is the likeliest; one without
    probability never comes.
    """
    probs, rng = torch.tensor([0.1, 0.5, 0.0, 0.4]), random.Random(0)
    for temperature in (1.0, 0.5):
        drawn = torch.tensor(drawn_lengths(probs.log(), 20_000, 2, temperature, rng))
        share = float((drawn == 2).double().mean())
        expected = 0.5 ** (1 / temperature) / (0.5 ** (1 / temperature) + 0.4 ** (1 / temperature))
        assert set(drawn.tolist()) == {2, 4} and abs(share - expected) < 4 * (0.25 / 20_000) ** 0.5
    assert drawn_lengths(probs.log(), 3, 2, 0.0, rng) == [2, 2, 2]
    assert set(drawn_lengths(probs.log(), 5_000, 99, 1.0, rng)) == {1, 2, 4}


def test_blank_canvas():
    """Nothing but [MASK]; the first piece begins a word."""
    canvas = blank_canvas(PAIR, [7], 3, 4)
    assert canvas == Canvas(PAIR, [7], [4, 4, 4], 1.0, [NEW_WORD, FREE, FREE])
