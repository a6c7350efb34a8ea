"""First hitting, entropy bound, remasking, margin and draws: each against the property that defines it."""

import math

import pytest
import torch

from diffusion_bert.config.schema import SCHEDULES
from diffusion_bert.diffusion.process import AbsorbingDiffusion
from diffusion_bert.samplers import (
    SamplerOptions,
    sample_ancestral,
    sample_confidence,
    sample_entropy,
    sample_first_hitting,
    sample_remask,
)
from diffusion_bert.samplers.entropy import entropy_of
from diffusion_bert.samplers.words import NUMBERS, WordOptions, draw_words, word_distribution
from tests.helpers.chain import (
    MASK,
    PLACES,
    SEQUENCES,
    STATES,
    STEPS,
    VOCAB,
    WORDS,
    alpha_by_hand,
    keys_of,
    random_log_mu,
    reverse_law,
    state_index,
    toy_schedule,
    within_sigmas,
)

each_schedule = pytest.mark.parametrize("name", SCHEDULES)
each_lambda = pytest.mark.parametrize("lam", (0.0, 0.3))
FINE = 2000


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def three(places: int, seed: int) -> torch.Tensor:
    """The uniform numbers with which words are drawn at so many places, from torch's own generator."""
    return torch.rand(places, NUMBERS, generator=seeded(seed), dtype=torch.float64)


def place_denoiser(log_mu: torch.Tensor):
    """A denoiser that knows one distribution per place of the canvas, [B, T, V], whatever x_t and tau are."""
    return lambda x_t, tau, rows: log_mu[rows][x_t == MASK]


def run(sampler, denoise, x_t, name="mutual", lam=0.3, tau=None, seed=0, callback=None, **options):
    tau = torch.ones(len(x_t)) if tau is None else tau
    return sampler(
        denoise, x_t, toy_schedule(name, lam), MASK, tau, SamplerOptions(**options), keys_of(len(x_t), seed), callback
    )


def fine_law(name: str, lam: float, log_mu_at) -> torch.Tensor:
    """p(x_0) over STATES, [25], by 2,000 explicit reverse matrices; log_mu_at(tau) gives log mu [25, places, V]. r by
    hand.
    """
    law = torch.zeros(len(STATES), dtype=torch.float64)
    law[state_index(torch.full((PLACES,), MASK))] = 1.0
    clean = torch.nn.functional.one_hot(STATES, VOCAB).double()
    for t in range(FINE, 0, -1):
        alpha_s, alpha_t = alpha_by_hand(name, lam, t - 1, FINE), alpha_by_hand(name, lam, t, FINE)
        table = log_mu_at(t / FINE).exp() * (alpha_s - alpha_t) / (1 - alpha_t)
        table[..., MASK] = 1 - table.sum(-1)
        table = torch.where((STATES == MASK)[..., None], table, clean)
        law = law @ (table[:, 0, STATES[:, 0]] * table[:, 1, STATES[:, 1]])
    return law


# ---- first hitting -------------------------------------------------------------------------------------------------


@each_schedule
@each_lambda
@pytest.mark.parametrize("moving", (False, True), ids=("mu fixed", "mu corrected for time"))
def test_first_hitting_is_the_fine_grid(name, lam, moving):
    """The 16 outputs have the law of a chain of 2,000 steps, within 4 sigma, for mu that depends on x_t and for mu that
    depends on time as well; the law of four steps, or of lambda = 0, is another.
    """
    log_mu = random_log_mu((len(STATES), PLACES), seed=21)
    diffusion, rows = AbsorbingDiffusion(toy_schedule(name, lam), MASK), 20_000

    def at(tau: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return diffusion.correct_for_time(table, tau) if moving else table

    def denoise(x_t, tau, rows):
        masked = x_t == MASK
        return at(tau[masked.nonzero()[:, 0]], log_mu[state_index(x_t)][masked])

    output = run(sample_first_hitting, denoise, torch.full((rows, PLACES), MASK), name, lam)
    counts = torch.bincount(state_index(output.x_0), minlength=len(STATES))

    def log_mu_at(tau):
        flat = log_mu.flatten(0, 1)
        return at(torch.full((len(flat),), tau, dtype=torch.float64), flat).unflatten(0, (len(STATES), PLACES))

    assert within_sigmas(counts, fine_law(name, lam, log_mu_at))
    assert int(counts[state_index(SEQUENCES)].sum()) == rows
    if lam:
        assert not within_sigmas(counts, fine_law(name, 0.0, lambda _: log_mu))
    else:
        coarse = reverse_law(name, lam, log_mu.expand(STEPS + 1, -1, -1, -1))
        assert not within_sigmas(counts, coarse)
        assert output.nfe.tolist() == [PLACES] * rows  # never a call for nothing


@pytest.mark.parametrize("start", (0.3, 0.8))
def test_first_hitting_from_the_middle(start):
    """Started at tau < 1 with the exact denoiser, the word of a masked place follows p(v | masked at tau)."""
    law = torch.tensor([0.55, 0.25, 0.15, 0.05, 0.0], dtype=torch.float64)
    schedule, rows = toy_schedule("cosine", 0.3), 20_000
    tau = torch.full((rows,), start, dtype=torch.float64)

    def denoise(x_t, tau, _):
        return AbsorbingDiffusion(schedule, MASK).correct_for_time(law.log().expand(len(x_t), -1), tau)

    output = run(sample_first_hitting, denoise, torch.full((rows, 1), MASK), "cosine", tau=tau)
    expected = law * schedule.mask_probability(tau[:1])[0]
    assert within_sigmas(torch.bincount(output.x_0.flatten(), minlength=VOCAB), expected / expected.sum())


@each_schedule
@pytest.mark.parametrize("lam", (0.0, 0.1, 1 / math.pi - 1e-9))
def test_the_most_common_word_has_the_largest_rate(name, lam):
    """At all times, and over every step: the bound that the thinning of ancestral and first_hitting rests on."""
    schedule = toy_schedule(name, lam)
    u = torch.linspace(0.001, 1.0, 500, dtype=torch.float64)
    assert bool(
        (schedule.reveal_rate(u, schedule.most_common_word(u))[:, None] >= schedule.reveal_rate(u) - 1e-9).all()
    )
    tau_t = torch.linspace(0.01, 1.0, 50, dtype=torch.float64)
    for share in (0.0, 0.3, 0.99):
        largest = schedule.largest_reveal_probability(tau_t * share, tau_t)
        torch.testing.assert_close(largest, schedule.reveal_probability(tau_t * share, tau_t).amax(-1))


def test_ancestral_calls_only_where_something_may_happen():
    """On a grid of 1,500 steps a row with six places costs at most six calls; with lambda > 0 a few more, for
    candidates that were turned down.
    """
    x_t = torch.full((60, 6), MASK)
    denoise = place_denoiser(random_log_mu((60, 6), 22))
    assert int(run(sample_ancestral, denoise, x_t, lam=0.0, steps=1500).nfe.max()) <= 6
    assert 6 < run(sample_ancestral, denoise, x_t, lam=0.3, steps=1500).nfe.float().mean() < 18


# ---- entropy -------------------------------------------------------------------------------------------------------


def entropy_by_hand(log_mu: torch.Tensor) -> torch.Tensor:
    mu = log_mu[..., :WORDS].exp()
    return -(mu * mu.log()).sum(-1)


@pytest.mark.parametrize("gamma", (0.0, 0.3, 1.0, 3.0))
def test_entropy_bound_holds_and_is_used_up(gamma):
    """In each call every row reveals its k places of least entropy, sum - max <= gamma, and one more would break the
    bound; k >= 1.
    """
    log_mu = random_log_mu((20, 9), 23)
    entropy = entropy_by_hand(log_mu)
    history = [torch.full((20, 9), MASK)]
    output = run(
        sample_entropy,
        place_denoiser(log_mu),
        history[0],
        gamma=gamma,
        steps=50,
        callback=lambda _, x: history.append(x.clone()),
    )
    for earlier, later in zip(history, history[1:]):
        for row in (earlier == MASK).any(-1).nonzero().flatten().tolist():
            waiting = entropy[row][earlier[row] == MASK].sort().values
            k = int(((earlier[row] == MASK) & (later[row] != MASK)).sum())
            shown = entropy[row][(earlier[row] == MASK) & (later[row] != MASK)].sort().values
            assert k >= 1 and torch.equal(shown, waiting[:k])
            assert float(shown.sum() - shown.max()) <= gamma + 1e-9
            assert k == len(waiting) or float(waiting[:k].sum()) > gamma - 1e-9
    assert gamma > 0 or output.nfe.tolist() == [9] * 20


def test_entropy_limits():
    """A huge gamma takes everything in one call, certain places go together even at gamma 0, and the last call reveals
    what is left.
    """
    x_t, log_mu = torch.full((8, 7), MASK), random_log_mu((8, 7), 24)
    assert run(sample_entropy, place_denoiser(log_mu), x_t, gamma=1e9, steps=50).nfe.tolist() == [1] * 8
    assert run(sample_entropy, place_denoiser(log_mu), x_t, gamma=0.0, steps=3).nfe.tolist() == [3] * 8
    certain = torch.nn.functional.one_hot(torch.zeros(8, 7, dtype=torch.long), VOCAB).double().log()
    assert run(sample_entropy, place_denoiser(certain), x_t, gamma=0.0, steps=50).nfe.tolist() == [1] * 8


def test_entropy_of():
    """In nats, of the renormalised distribution, with impossible words counting nothing."""
    log_mu = random_log_mu((300,), 25)
    torch.testing.assert_close(entropy_of(log_mu), entropy_by_hand(log_mu))
    torch.testing.assert_close(entropy_of(log_mu - 2.0), entropy_by_hand(log_mu))
    torch.testing.assert_close(entropy_of(log_mu.float()), entropy_by_hand(log_mu), rtol=1e-5, atol=1e-5)
    assert float(entropy_of(torch.tensor([[0.0, float("-inf")]]))) == 0.0


# ---- remask --------------------------------------------------------------------------------------------------------


@each_schedule
@each_lambda
def test_remask_without_remasking_is_its_base(name, lam):
    """Cap 0: on ancestral the law of the explicit reverse chain, on confidence (temperature 0) the very same words and
    calls.
    """
    log_mu = random_log_mu((STEPS + 1, len(STATES), PLACES), seed=26)

    def denoise(x_t, tau, rows):
        return log_mu[(tau * STEPS).round().long(), state_index(x_t)][x_t == MASK]

    start = torch.full((40_000, PLACES), MASK)
    output = run(sample_remask, denoise, start, name, lam, steps=STEPS, remask_cap=0.0, remask_order="ancestral")
    assert within_sigmas(torch.bincount(state_index(output.x_0), minlength=len(STATES)), reverse_law(name, lam, log_mu))

    fixed, x_t = random_log_mu((30, 9), 27), torch.full((30, 9), MASK)

    def asked(x_t, tau, rows):  # other words at other times
        return (fixed[rows] * (1 + 5 * tau[:, None, None]))[x_t == MASK].log_softmax(-1)

    for steps in (5, 20):  # fewer and more than there are places
        runs = [
            run(sampler, asked, x_t, name, lam, steps=steps, temperature=0.0, remask_cap=0.0)
            for sampler in (sample_confidence, sample_remask)
        ]
        assert torch.equal(runs[0].x_0, runs[1].x_0) and torch.equal(runs[0].nfe, runs[1].nfe)
        torch.testing.assert_close(runs[0].log_prob, runs[1].log_prob)


@each_schedule
@pytest.mark.parametrize("cap", (0.0, 0.04, 1.0))
@pytest.mark.parametrize("order", ("ancestral", "confidence"))
def test_remask_in_a_single_step(name, order, cap):
    """One step from all masked reveals every place, with words of the denoiser."""
    log_mu = random_log_mu((4000, 3), 29)
    output = run(
        sample_remask,
        place_denoiser(log_mu),
        torch.full((4000, 3), MASK),
        name,
        0.3,
        steps=1,
        remask_cap=cap,
        remask_order=order,
    )
    assert not bool((output.x_0 == MASK).any()) and output.nfe.tolist() == [1] * 4000
    assert within_sigmas(torch.bincount(output.x_0[:, 0], minlength=VOCAB), log_mu[:, 0].exp().mean(0))


@each_schedule
@pytest.mark.parametrize("cap", (0.05, 1.0))
def test_remask_rates(name, cap):
    """With the oracle, word v is masked after each step with probability 1 - alpha_s(v), as in the forward process; a
    word written goes back to [MASK] with probability min(cap, (1 - alpha_s) / alpha_t); at the end nothing is masked
    and all is right.
    """
    rows, lam, steps = 40_000, 0.3, 6
    x_0 = torch.arange(WORDS).expand(rows, -1)
    oracle = torch.nn.functional.one_hot(x_0, VOCAB).double().log()
    history = [torch.full((rows, WORDS), MASK)]
    output = run(
        sample_remask,
        place_denoiser(oracle),
        history[0],
        name,
        lam,
        steps=steps,
        remask_cap=cap,
        remask_order="ancestral",
        callback=lambda _, x: history.append(x.clone()),
    )
    assert torch.equal(output.x_0, x_0) and len(history) == steps + 1
    for t, before, after in zip(range(steps, 0, -1), history, history[1:]):
        alpha_s, alpha_t = alpha_by_hand(name, lam, t - 1, steps), alpha_by_hand(name, lam, t, steps)
        for v in range(WORDS):
            share = 1 - float(alpha_s[v])
            masked = int((after[:, v] == MASK).sum())
            assert abs(masked - rows * share) <= 4 * math.sqrt(rows * share * (1 - share)) + 1e-6
            if t < steps:
                written = before[:, v] != MASK
                sigma, n = min(cap, (1 - float(alpha_s[v])) / float(alpha_t[v])), int(written.sum())
                again = int((after[:, v] == MASK)[written].sum())
                assert abs(again - n * sigma) <= 4 * math.sqrt(n * sigma * (1 - sigma)) + 1e-6


@pytest.mark.parametrize("order", ("ancestral", "confidence"))
def test_remask_changes_its_own_words_only(order):
    """Words written in this run may change; what was given never does; no step leaves more masked than the schedule
    allows (confidence).
    """
    log_mu = random_log_mu((200, 10), 28)
    x_t = torch.where(torch.arange(10) < 3, 1, torch.full((200, 10), MASK))
    history = []
    output = run(
        sample_remask,
        place_denoiser(log_mu),
        x_t,
        steps=10,
        remask_cap=0.3,
        remask_order=order,
        callback=lambda _, x: history.append(x.clone()),
    )
    changed = [bool(((a != b) & (a != MASK)).any()) for a, b in zip(history, history[1:])]
    assert any(changed) and all(bool((x[:, :3] == 1).all()) for x in history) and not bool((output.x_0 == MASK).any())
    expected = log_mu.gather(-1, output.x_0[..., None]).squeeze(-1)[:, 3:].sum(-1)
    torch.testing.assert_close(output.log_prob, expected)  # a word that was taken back does not count
    if order == "confidence":
        assert all(int((x == MASK).sum(-1).max()) <= 7 * step // 10 for x, step in zip(history, range(9, -1, -1)))


# ---- margin --------------------------------------------------------------------------------------------------------


def test_margin_goes_by_the_lead():
    """Place 0 has the likelier word (0.5 against 0.45), place 1 the larger lead (0.45 - 0.2 against 0.5 - 0.49): margin
    takes place 1 first.
    """
    mu = torch.tensor([[[0.5, 0.49, 0.005, 0.005, 0.0], [0.45, 0.2, 0.2, 0.15, 0.0]]], dtype=torch.float64)
    for margin, first in ((False, 0), (True, 1)):
        seen: list[torch.Tensor] = []
        run(
            sample_confidence,
            place_denoiser(mu.log()),
            torch.full((1, 2), MASK),
            steps=2,
            temperature=0.0,
            margin=margin,
            callback=lambda _, x, seen=seen: seen.append(x.clone()),
        )
        assert int((seen[0][0] != MASK).nonzero()) == first


# ---- draws ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", (7, 64, 300))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_p": 0.6},
        {"top_p": 0.95, "temperature": 0.7},
        {"top_k": 5, "top_p": 0.8},
    ],
)
def test_draws_have_the_law_of_the_definition(words, dtype, options):
    """draw_words, which sorts and sums as little as it can, draws from word_distribution, within 4 sigma; below the cut
    never.
    """
    logits = 2 * torch.randn(words, generator=seeded(words), dtype=dtype)
    logits[::6] = float("-inf")
    log_mu = torch.log_softmax(logits, -1) - 0.7  # need not be normalised
    drawn = draw_words(log_mu.expand(60_000, -1), WordOptions(**options), three(60_000, 31))
    counts, law = (
        torch.bincount(drawn, minlength=words),
        word_distribution(log_mu[None], WordOptions(**options))[0].exp(),
    )
    assert not bool(counts[law == 0].any())
    rare = law * len(drawn) < 20  # too few for sigmas: together they are enough
    together = [torch.cat([values[~rare], values[rare].sum()[None]]) for values in (counts, law)]
    assert within_sigmas(*together)


def test_draws_at_extreme_temperatures():
    """Nearly 0 is the likeliest word, 100 is nearly uniform over what has mass; neither gives a word without."""
    log_mu = random_log_mu((4000,), 32).float()
    for temperature in (0.0, 1e-300, 1e-30, 1e-9):
        assert torch.equal(draw_words(log_mu, WordOptions(temperature=temperature), three(4000, 33)), log_mu.argmax(-1))
    hot = torch.bincount(draw_words(log_mu, WordOptions(temperature=100.0), three(4000, 34)), minlength=VOCAB)
    assert int(hot[MASK]) == 0 and int(hot[:WORDS].min()) > 800
