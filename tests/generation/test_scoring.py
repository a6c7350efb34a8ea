"""The score of a text: its terms against an exact sum, its error, its noise, and what is refused."""

import math
from itertools import product

import pytest
import torch

from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.data.skills import NO_SOURCE, PAIR
from diffusion_bert.diffusion.times import T_EVAL
from diffusion_bert.generation.canvas import blank_canvas
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.generation.leave_one_out import leave_one_out
from diffusion_bert.generation.scoring import TextScore
from diffusion_bert.training.yardstick import estimate_nelbo
from tests.helpers.models import grammar_pairs, new_model, refusal, tiny_model

SOURCE, TARGET = grammar_pairs()[0]


def generator(model=None, **options) -> DiffusionTextGenerator:
    return DiffusionTextGenerator(model or tiny_model(), SamplingConfig(device="cpu", **options))


@pytest.fixture(scope="module")
def exact_model():
    model = new_model()
    model.denoiser.double()
    return model


@torch.no_grad()
def exact_nelbo(g: DiffusionTextGenerator, skill: int, source: list[int], target: list[int]) -> tuple[float, float]:
    """reveal + stay by the sum over all 1000 times and all sets of hidden places, and -log p(length | source)."""
    model, total = g.model, 0.0
    batch = g.collator.batch([(skill, source, target)])
    x_0, start = torch.tensor(target), int(batch.source_length[0])
    steps = torch.arange(1, T_EVAL + 1, dtype=torch.float64)
    m = model.schedule.mask_probability((steps / T_EVAL)[:, None].expand(-1, len(target)), x_0.expand(T_EVAL, -1))
    for hidden in product((False, True), repeat=len(target)):
        masked = torch.tensor(hidden)
        if not masked.any():
            continue
        x_t = batch.input_ids.clone()
        x_t[0, start : start + len(target)][masked] = model.tokenizer.mask_id
        log_mu, lengths = model.denoiser(batch, x_t, torch.zeros(1, dtype=torch.float64))
        chance = torch.where(masked, m, 1 - m).prod(-1)  # [T]
        tau = (steps / T_EVAL).repeat_interleave(len(log_mu))  # [T x hidden places]
        corrected = model.diffusion.correct_for_time(log_mu.repeat(T_EVAL, 1), tau)
        kl = model.diffusion.kl(corrected, x_0[masked].repeat(T_EVAL), tau - 1 / T_EVAL, tau)
        total += float((chance.repeat_interleave(len(log_mu)) * (kl.reveal + kl.stay)).sum())
    return total, -float(lengths.log_softmax(-1)[0, len(target) - 1])


def test_against_the_exact_sum(exact_model):
    """In float64 a text of two pieces, alone and beside a source: within 4 standard errors of the exhaustive sum; the
    length term exactly; and shares of the pieces add up.
    """
    g = generator(exact_model, score_draws=500)
    encode = g.tokenizer.encode
    target = g.tokenizer.text(encode(TARGET)[:2])
    assert len(encode(target)) == 2
    for arguments, skill, source in (((target,), NO_SOURCE, []), ((SOURCE, target), PAIR, encode(SOURCE))):
        words, length = exact_nelbo(g, skill, source, encode(target))
        score = g.score(*arguments)
        assert abs(score.reveal + score.stay - words) < 4 * score.standard_error + 1e-9
        assert 0 < score.standard_error < 0.2 * words
        assert score.length == pytest.approx(length, rel=1e-5)
        assert sum(piece.nelbo for piece in score.pieces) == pytest.approx(score.reveal + score.stay, rel=1e-9)
        assert score.nelbo == pytest.approx(score.reveal + score.stay + score.length)


@pytest.mark.parametrize("extra", [{}, {"attention": "full"}, {"timestep": "layerwise"}, {"self_conditioning": True}])
def test_it_converges_to_the_yardstick(extra):
    """Evaluation's estimate over many rows of the same pair, and the score: equal within 4 of both errors; whatever
    the network.
    """
    g = generator(new_model(**extra), score_draws=400)
    example = (PAIR, g.tokenizer.encode(SOURCE), g.tokenizer.encode(TARGET))
    batch = g.collator.batch([example] * 32)
    terms = [estimate_nelbo(g.model.denoiser, g.model.diffusion, [batch], seed=seed) for seed in range(12)]
    totals = torch.stack([term.total for term in terms]) / 32
    score = g.score(SOURCE, TARGET)
    error = math.hypot(float(totals.std()) / len(totals) ** 0.5, score.standard_error)
    assert abs(float(totals.mean()) - score.nelbo) < 4 * error and error < 0.05 * score.nelbo
    assert float(terms[0].length) / 32 == pytest.approx(score.length, rel=1e-5)


def test_the_standard_error_is_that_of_the_estimate():
    """Over 80 seeds the estimates spread as their errors say, or a little less."""
    g = generator(score_draws=16)
    scores = [g.score(SOURCE, TARGET, seed=seed) for seed in range(80)]
    spread = float(torch.tensor([score.nelbo for score in scores], dtype=torch.float64).std())
    said = (sum(score.standard_error**2 for score in scores) / len(scores)) ** 0.5
    assert 0.8 < said / spread < 2.0


def test_the_noise_is_that_of_the_text(exact_model):
    """A text has the same score alone, in a list, in whatever batches; another seed gives another estimate, never
    another length term.
    """
    g = generator(exact_model, score_draws=8)
    pairs = grammar_pairs()[:5]
    sources, targets = [pair.source for pair in pairs], [pair.target for pair in pairs]
    together = g.score(sources, targets)
    for size in (1, 7):
        for one, other in zip(together, g.score(sources[::-1], targets[::-1], batch_size=size)[::-1]):
            assert one.nelbo == pytest.approx(other.nelbo, rel=1e-9)
    alone = g.score(sources[3], targets[3])
    assert isinstance(alone, TextScore) and alone.nelbo == pytest.approx(together[3].nelbo, rel=1e-9)
    other = g.score(sources[3], targets[3], seed=1)
    assert other.reveal != alone.reveal and other.length == alone.length
    assert g.score([]) == [] and g.score([], []) == []


def test_leave_one_out_and_pieces():
    """The leave-one-out score is that of leave_one_out, with a value for every word piece; means are by piece."""
    g = generator(score_draws=4)
    ids = g.tokenizer.encode(TARGET)
    score = g.score(SOURCE, TARGET)
    canvas = blank_canvas(PAIR, g.tokenizer.encode(SOURCE), len(ids), g.tokenizer.mask_id)
    (expected,) = leave_one_out(g.model, [canvas], [ids], g.collator)
    assert [piece.leave_one_out for piece in score.pieces] == pytest.approx(expected.tolist(), abs=1e-5)
    assert [piece.piece for piece in score.pieces] == [g.tokenizer.surface(index) for index in ids]
    assert score.leave_one_out_per_piece == pytest.approx(float(expected.mean()), abs=1e-5)
    assert score.nelbo_per_piece == pytest.approx(score.nelbo / len(ids))


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("",), {}, "empty"),
        ((["How are you?", " "],), {}, "item 1 of the list"),
        (("How are you?", ""), {}, "empty"),
        (("museum " * 60,), {}, "scores at most 24; shorten it"),
        (("museum " * 60, "How are you?"), {}, "beside this target the model takes"),
        ((["a", "b"], ["a"]), {}, "2 sources and 1 targets: expected two strings, or two lists of the same length"),
        (("How?", ["How?"]), {}, "expected two strings"),
        ((["How?"], ["museum " * 60]), {}, "item 0 of the list: the text has"),
        ((5,), {}, "expected a string"),
        (("How?",), {"draws": 3}, "unknown option 'draws'"),
        (("How?",), {"score_draws": 1}, "at least 2"),
        (("How?", "How?"), {"task": "CC"}, "this checkpoint knows"),
    ],
)
def test_refusals(arguments, options, words):
    """One line each; nothing is cut."""
    assert words in refusal(generator().score, *arguments, **options)
