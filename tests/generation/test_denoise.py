"""Between network and sampler: guidance, remembered answers, requested lengths, and what they refuse."""

import copy
import dataclasses

import pytest
import torch

from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.data.skills import NO_SOURCE, PAIR
from diffusion_bert.generation.canvas import blank_canvas, requested_length
from diffusion_bert.generation.decoding import decode
from diffusion_bert.generation.denoise import guided_denoiser
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.samplers import SamplerOptions, guide, sample_ancestral, sample_first_hitting
from tests.helpers.canvases import collator_of, ids, mixed_canvases
from tests.helpers.chain import keys_of
from tests.helpers.models import grammar_pairs, new_model, refusal, tiny_model

each_attention = pytest.mark.parametrize("attention", ["isolated", "full"])


def pair_canvases(model, count: int = 6):
    pairs = grammar_pairs()
    return [
        blank_canvas(PAIR, model.tokenizer.encode(pairs[n].source), 5 + n, model.tokenizer.mask_id)
        for n in range(count)
    ]


# ---- guidance ------------------------------------------------------------------------------------------------------


def test_guide_is_the_formula():
    """log mu <- l_u + (1 + w)(l - l_u), renormalised; w = 0 changes nothing; words without mass stay without, in either
    branch.
    """
    generator = torch.Generator().manual_seed(0)
    given, free = (
        torch.log_softmax(2 * torch.randn(20, 9, generator=generator, dtype=torch.float64), -1) for _ in range(2)
    )
    given[:, 3] = float("-inf")
    given = torch.log_softmax(given, -1)
    for w in (0.5, 2.0):
        expected = torch.log_softmax(free + (1 + w) * (given - free), -1)
        torch.testing.assert_close(guide(given, free, w), expected)
    torch.testing.assert_close(guide(given, free, 0.0), given)
    torch.testing.assert_close(guide(given, given, 3.0), given)
    free[:, 3] = free[:, 4] = float("-inf")
    both = guide(given, free, 2.0)
    assert bool(both[:, 3].isneginf().all()) and bool(both[:, 4].isfinite().all()) and not bool(both.isnan().any())


@each_attention
def test_denoise_with_guidance(attention):
    """The guided log mu is that of two plain passes put together, the second without source; two passes are counted,
    rows without source one.
    """
    model = tiny_model(attention)
    pairs = pair_canvases(model)
    group = [*pairs[:3], blank_canvas(NO_SOURCE, [], 4, model.tokenizer.mask_id), *pairs[3:]]
    tau = torch.full((len(group),), 0.6, dtype=torch.float64)
    sourceless = [dataclasses.replace(canvas, skill=NO_SOURCE, source=[]) for canvas in group]
    with torch.no_grad():
        x_t, guided = guided_denoiser(model, group, collator_of(model), False, guidance_scale=1.5)
        actual = guided(x_t, tau, torch.arange(len(group)))
        given, free = (
            guided_denoiser(model, part, collator_of(model), False)[1](x_t, tau, torch.arange(len(group)))
            for part in (group, sourceless)
        )
    expected = guide(given, free, 1.5)
    other = given.isfinite() & actual.isfinite()
    kinds_only = [torch.log_softmax(table.masked_fill(~other, float("-inf")), -1) for table in (actual, expected)]
    torch.testing.assert_close(*kinds_only, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(actual[other], given[other], atol=1e-2)
    assert guided.nfe.tolist() == [2, 2, 2, 1, 2, 2, 2]


def test_guidance_in_decode():
    """It changes what is written for a pair and counts twice; fill is not touched by it; a model that never saw an
    empty source refuses it.
    """
    model = new_model()
    canvases = pair_canvases(model)
    bare = SamplingConfig(num_steps=3, temperature=0.0, known_words=False, rank_by="revealed")
    plain, guided = (
        decode(model, canvases, dataclasses.replace(bare, guidance_scale=w), collator_of(model)) for w in (0.0, 3.0)
    )
    assert ids(plain) != ids(guided) and [2 * one.nfe for one in plain] == [two.nfe for two in guided]
    fill = [canvas for canvas in mixed_canvases(model) if canvas.skill == NO_SOURCE]
    assert decode(model, fill, SamplingConfig(num_steps=3), collator_of(model)) == decode(
        model, fill, SamplingConfig(num_steps=3, guidance_scale=3.0), collator_of(model)
    )
    model.config.data.source_dropout = 0.0
    assert "source_dropout" in refusal(decode, model, canvases, SamplingConfig(guidance_scale=1.0), collator_of(model))
    assert decode(model, fill, SamplingConfig(guidance_scale=1.0, num_steps=2), collator_of(model))


# ---- remembered answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", (sample_ancestral, sample_first_hitting))
@pytest.mark.parametrize("scale", (0.0, 1.0))
def test_remembering_changes_nothing_but_the_calls(sampler, scale):
    """In float64: the same words from the same seed, with one call per word or fewer instead of one per candidate."""
    model = copy.deepcopy(new_model(word_freq_lambda=0.3))
    model.denoiser.double()
    canvases, mask_id = pair_canvases(model), model.tokenizer.mask_id
    outputs, calls = [], []
    for remember in (False, True):
        x_t, denoise = guided_denoiser(model, canvases, collator_of(model), guidance_scale=scale, remember=remember)
        options, keys = SamplerOptions(steps=300), keys_of(len(x_t), 5)
        outputs.append(sampler(denoise, x_t, model.schedule, mask_id, torch.ones(len(x_t)), options, keys))
        calls.append(denoise.nfe)
    assert torch.equal(outputs[0].x_0, outputs[1].x_0)
    torch.testing.assert_close(outputs[0].log_prob, outputs[1].log_prob, rtol=1e-12, atol=1e-12)
    per_call = 2 if scale else 1
    assert int(calls[1].sum()) < int(calls[0].sum())
    assert bool((calls[1] <= per_call * torch.tensor([len(canvas.words) for canvas in canvases])).all())


def test_an_unchanged_row_is_not_sent_again():
    """Asked at another time with the same canvas: no pass, only the time correction is new; a changed row alone is
    sent.
    """
    model = copy.deepcopy(new_model(word_freq_lambda=0.3))
    model.denoiser.double()
    canvases = pair_canvases(model, 3)
    rows = torch.arange(3)
    x_t, denoise = guided_denoiser(model, canvases, collator_of(model), remember=True)
    _, fresh = guided_denoiser(model, canvases, collator_of(model))
    with torch.no_grad():
        for time, expected in ((0.9, [1, 1, 1]), (0.5, [1, 1, 1]), (0.2, [1, 2, 1])):
            if time == 0.2:
                x_t = x_t.clone()
                x_t[1, 2] = 80
            tau = torch.full((3,), time, dtype=torch.float64)
            torch.testing.assert_close(denoise(x_t, tau, rows), fresh(x_t, tau, rows), rtol=1e-12, atol=1e-12)
            assert denoise.nfe.tolist() == expected


def test_a_network_that_knows_the_time_is_always_asked():
    """With time conditioning nothing is remembered."""
    model = new_model(timestep="prefix")
    x_t, denoise = guided_denoiser(model, pair_canvases(model, 2), collator_of(model), remember=True)
    with torch.no_grad():
        one, two = (denoise(x_t, torch.full((2,), tau, dtype=torch.float64), torch.arange(2)) for tau in (0.9, 0.3))
    assert denoise.nfe.tolist() == [2, 2] and not torch.allclose(one, two)


# ---- repetition and length in texts --------------------------------------------------------------------------------


def test_no_repeat_reaches_the_words():
    """With a random model: no piece beside itself unless its source has it or it is a sign; off, there are such
    pieces.
    """
    model = tiny_model()
    canvases = [
        blank_canvas(PAIR, model.tokenizer.encode(pair.source), 14, model.tokenizer.mask_id)
        for pair in grammar_pairs()[:30]
    ]

    def repeats(mode: str) -> int:
        outputs = decode(
            model, canvases, SamplingConfig(num_steps=2, temperature=0.0, no_repeat=mode), collator_of(model)
        )
        free = model.tokenizer.repeatable
        return sum(
            a == b and not free[a] and (a, a) not in zip(canvas.source, canvas.source[1:])
            for canvas, output in zip(canvases, outputs)
            for a, b in zip(output.ids, output.ids[1:])
        )

    assert repeats("off") > 10 and repeats("adjacent") == repeats("content") == 0


def test_repeatable_pieces():
    """Quotes, brackets and ##digits may stand beside themselves; words, stops and ##letters may not."""
    tokenizer = tiny_model().tokenizer
    flags = dict(zip(tokenizer.tokens, tokenizer.repeatable.tolist()))
    assert flags['"'] and flags["("] and flags["$"] and flags["##0"]
    assert not any(flags[token] for token in ("the", "?", ".", ",", "7", "##s"))


def test_requested_length():
    """A number is taken as it is, a word relative to the source; what does not fit is refused with the limit."""
    assert [requested_length(length, 12, 24) for length in ("7", "short", "same", "long")] == [7, 8, 12, 16]
    assert requested_length("short", 0, 24) == 1
    assert "at most 24" in refusal(requested_length, "25", 12, 24)
    assert "here 27 word pieces" in refusal(requested_length, "long", 20, 24)


def test_length_in_generation():
    """Every candidate has the length that was asked for, in paraphrases and continuations; too much is refused; none
    gives the model the choice.
    """
    g = DiffusionTextGenerator(tiny_model(), SamplingConfig(num_steps=2))
    source = g.tokenizer.encode("How can I learn to cook?")
    for length, pieces in (("3", 3), ("same", len(source)), ("long", round(len(source) * 4 / 3))):
        options = dataclasses.replace(g.options, length=length)
        (outputs,) = g.generate_ids([(PAIR, source)], options, [5], 0)
        assert [len(output.ids) for output in outputs] == [pieces] * 5
    free = g.generate_ids([(PAIR, source)], g.options, [5], 0)[0]
    assert len({len(output.ids) for output in free}) == 5
    for work in (g.paraphrase_text, g.complete_text):
        assert len(work("How can I learn to cook?", length=4, num_samples=2)) == 2
        assert "at most 24" in refusal(work, "How can I learn to cook?", length=25)
        assert "short, same, long or a whole number" in refusal(work, "How can I learn to cook?", length="tall")
