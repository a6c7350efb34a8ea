"""The leave-one-out score: its values against one call per place in float64, what is hidden together, and ranking."""

import math

import pytest
import torch

from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.data.skills import CONTINUE, NO_SOURCE, PAIR
from diffusion_bert.generation.canvas import Canvas, Decoded, blank_canvas
from diffusion_bert.generation.decoding import decode
from diffusion_bert.generation.leave_one_out import leave_one_out, text_score
from tests.helpers.canvases import collator_of
from tests.helpers.models import grammar_pairs, new_model, tiny_model


def examples(model) -> tuple[list[Canvas], list[list[int]]]:
    """Canvases of all skills with finished texts; one of them partly given, two beside the same source."""
    encode, mask = model.tokenizer.encode, model.tokenizer.mask_id
    pairs = grammar_pairs()[:3]
    texts = [encode(pair.target) for pair in pairs]
    canvases = [blank_canvas(PAIR, encode(pair.source), len(text), mask) for pair, text in zip(pairs, texts)]
    texts += [texts[0][::-1], encode("how can i go how can i learn ?")]
    canvases += [blank_canvas(PAIR, canvases[0].source, len(texts[0]), mask)]
    canvases += [blank_canvas(CONTINUE, encode("what is the museum"), len(texts[-1]), mask)]
    given = list(texts[1])
    given[1] = given[3] = mask
    return [*canvases, Canvas(NO_SOURCE, [], given, 0.2)], [*texts, texts[1]]


def one_by_one(model, canvas: Canvas, text: list[int], place: int, together: bool) -> float:
    """log p of one word from one pass over one whole sequence."""
    batch = collator_of(model).batch([(canvas.skill, canvas.source, text)])
    repeatable = bool(model.tokenizer.repeatable[text[place]])
    columns = batch.target_mask[0].nonzero().squeeze(-1).tolist()[: len(text)]
    hidden = [n for n, word in enumerate(text) if n == place or (together and not repeatable and word == text[place])]
    x_t = batch.input_ids.clone()
    x_t[0, [columns[n] for n in hidden]] = model.tokenizer.mask_id
    tau = model.schedule.tau(torch.tensor([len(hidden) / len(text)], dtype=torch.float64))
    log_mu, _ = model.denoiser(batch, x_t, tau)
    return float(log_mu[hidden.index(place), text[place]])


@pytest.mark.parametrize("attention", ["isolated", "full"])
@pytest.mark.parametrize("extra", [{}, {"timestep": "layerwise"}, {"timestep": "prefix"}, {"self_conditioning": True}])
@torch.no_grad()
def test_values_are_those_of_one_call_per_place(attention, extra):
    """Batched over places and candidates, with the cached source, in float64: equal to 1e-10; NaN where a word was
    given; whatever the size of a batch.
    """
    model = new_model(attention=attention, **extra)
    model.denoiser.double()
    together = len(extra) == (attention == "isolated")
    canvases, texts = examples(model)
    canvases, texts = canvases[2:], texts[2:]
    few = leave_one_out(model, canvases, texts, collator_of(model), 7, together)
    found = leave_one_out(model, canvases, texts, collator_of(model), 500, together)
    assert all(torch.allclose(one, other, atol=1e-10, equal_nan=True) for one, other in zip(few, found))
    for canvas, text, scores in zip(canvases, texts, found):
        if canvas.source != canvases[1].source:
            assert scores.dtype == torch.float64 and scores.shape == (len(text),)
            for place, word in enumerate(canvas.words):
                if word != model.tokenizer.mask_id:
                    assert math.isnan(scores[place])
                else:
                    assert abs(float(scores[place]) - one_by_one(model, canvas, text, place, together)) < 1e-10


def test_equal_pieces_are_hidden_together():
    """A repeated word does not vouch for itself: its score does not depend on the other one's being there."""
    model = tiny_model()
    a, b, c = model.tokenizer.encode("can learn morning")
    canvases = [blank_canvas(PAIR, [a, b, c], 4, model.tokenizer.mask_id)] * 2
    alone, together = (
        leave_one_out(model, canvases[:1], [[a, b, a, c]], collator_of(model), together=flag)[0]
        for flag in (False, True)
    )
    assert alone[1] == together[1] and alone[0] != together[0] and alone[2] != together[2]


def test_text_score():
    """The mean of the open places and of the length, as in the score of a candidate as it was revealed."""
    scores = torch.tensor([-1.0, float("nan"), -2.0], dtype=torch.float64)
    assert text_score(scores, -3.0) == -2.0


@pytest.mark.parametrize("attention", ["isolated", "full"])
def test_ranking_changes_the_score_alone(attention):
    """rank_by leave_one_out leaves every word as it was, and counts its passes of the network."""
    model = tiny_model(attention)
    canvases, _ = examples(model)
    plain = decode(model, canvases, SamplingConfig(num_steps=4, rank_by="revealed"), collator_of(model))
    ranked = decode(model, canvases, SamplingConfig(num_steps=4, rank_by="leave_one_out"), collator_of(model))
    assert [output.ids for output in plain] == [output.ids for output in ranked]
    scores = leave_one_out(model, canvases, [output.ids for output in plain], collator_of(model))
    for canvas, before, after, score in zip(canvases, plain, ranked, scores):
        assert isinstance(after, Decoded) and after.score == text_score(score, canvas.log_length)
        assert after.nfe == before.nfe + canvas.words.count(model.tokenizer.mask_id)


def test_nothing_to_score():
    """No canvases, or one without an open place."""
    model = tiny_model()
    assert leave_one_out(model, [], [], collator_of(model)) == []
    (scores,) = leave_one_out(model, [Canvas(NO_SOURCE, [], [70, 71], 0.5)], [[70, 71]], collator_of(model))
    assert bool(scores.isnan().all()) and text_score(scores, 0.0) == 0.0
