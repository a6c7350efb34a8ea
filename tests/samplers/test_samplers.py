"""Samplers: exact laws on enumerable chains, the order of confidence, counting, draws and determinism."""

import math
from fractions import Fraction

import pytest
import torch

from diffusion_bert.config.schema import SCHEDULES
from diffusion_bert.diffusion.process import AbsorbingDiffusion
from diffusion_bert.diffusion.schedule import NoiseSchedule
from diffusion_bert.diffusion.word_frequency import informativeness
from diffusion_bert.samplers import SAMPLERS, SamplerOptions, sample_ancestral, sample_confidence, sample_first_hitting
from diffusion_bert.samplers.places import rank_within_rows
from diffusion_bert.samplers.words import draw, word_distribution
from tests.helpers.chain import (
    MASK,
    PLACES,
    SEQUENCES,
    STATES,
    STEPS,
    VOCAB,
    WORDS,
    keys_of,
    random_log_mu,
    reverse_law,
    state_index,
    toy_schedule,
    within_sigmas,
)

each_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
STAYING = {name: sampler for name, sampler in SAMPLERS.items() if name != "remask"}
each_staying_sampler = pytest.mark.parametrize("sampler", STAYING.values(), ids=STAYING.keys())
each_schedule = pytest.mark.parametrize("name", SCHEDULES)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def place_denoiser(log_mu: torch.Tensor):
    """A denoiser that knows one distribution per place of the canvas, [B, T, V], whatever x_t and tau are."""
    return lambda x_t, tau, rows: log_mu[rows][x_t == MASK]


def canvas(rows: int, columns: int, seed: int = 0, share: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    """A clean x_0 and an x_t of it with masked places, both [rows, columns]."""
    x_0 = torch.randint(WORDS, (rows, columns), generator=seeded(seed))
    return x_0, torch.where(torch.rand(rows, columns, generator=seeded(seed + 1)) < share, MASK, x_0)


def run(sampler, denoise, x_t, name="mutual", lam=0.3, tau=None, seed=0, callback=None, **options):
    tau = torch.ones(len(x_t)) if tau is None else tau
    return sampler(
        denoise, x_t, toy_schedule(name, lam), MASK, tau, SamplerOptions(**options), keys_of(len(x_t), seed), callback
    )


# ---- all samplers --------------------------------------------------------------------------------------------------


@each_sampler
@each_schedule
@pytest.mark.parametrize("steps", (1, 3, 20))
@pytest.mark.parametrize("temperature", (0.0, 0.7, 1.0))
def test_oracle_gives_x_0(sampler, name, steps, temperature):
    """A denoiser with all mass on x_0 makes every sampler return x_0; the caller's canvas is not changed."""
    x_0, x_t = canvas(12, 9)
    before = x_t.clone()
    oracle = torch.nn.functional.one_hot(x_0, VOCAB).double().log()
    output = run(
        sampler,
        place_denoiser(oracle),
        x_t,
        name,
        steps=steps,
        temperature=temperature,
        tau=torch.rand(12, generator=seeded(2)) + 1e-3,
    )
    assert torch.equal(output.x_0, x_0) and torch.equal(x_t, before)


@each_staying_sampler
def test_unmasked_places_are_copied_at_every_step(sampler):
    """What is not masked stays, a place once revealed stays too, and at the end nothing is masked."""
    _, x_t = canvas(20, 9)
    history = [x_t]
    output = run(
        sampler,
        place_denoiser(random_log_mu((20, 9), 3)),
        x_t,
        steps=6,
        callback=lambda step, x: history.append(x.clone()),
    )
    for earlier, later in zip(history, history[1:]):
        assert torch.equal(later[earlier != MASK], earlier[earlier != MASK])
    assert torch.equal(history[-1], output.x_0) and not bool((output.x_0 == MASK).any())


@each_sampler
def test_calls_are_counted_per_row(sampler):
    """nfe counts the calls each row took part in: at most steps, none for a finished row; only unfinished rows are
    sent, and at times in (0, tau].
    """
    _, x_t = canvas(30, 5, share=0.4)
    x_t[3] = 0  # nothing to do here
    tau, calls, last = torch.rand(30, generator=seeded(4)).clamp(min=0.1), torch.zeros(30, dtype=torch.long), {}

    def denoise(x, times, rows):
        calls[rows] += 1
        assert bool((x == MASK).any(-1).all()) and bool(((times > 0) & (times <= tau[rows] + 1e-12)).all())
        for row, time in zip(rows.tolist(), times.tolist()):
            # remask may have masked something again: then the time goes back
            assert time < last.get(row, 2.0) or sampler is SAMPLERS["remask"]
            last[row] = time
        return random_log_mu((len(x), 5), 5)[x == MASK]

    output = run(sampler, denoise, x_t, tau=tau, steps=7)
    assert (
        torch.equal(output.nfe, calls)
        and (int(output.nfe.max()) <= 7 or sampler is sample_first_hitting)
        and int(output.nfe[3]) == 0
    )
    assert bool((output.nfe[(x_t == MASK).any(-1)] > 0).all())


@each_sampler
def test_nothing_masked(sampler):
    """A finished canvas comes back without a single call."""

    def never(*_):
        raise AssertionError("called")

    output = run(sampler, never, torch.zeros(3, 4, dtype=torch.long))
    assert not bool(output.nfe.any()) and not bool(output.x_0.any())


@each_sampler
def test_same_seed_same_text(sampler):
    """The keys alone decide: the same seed gives the same output whatever the global random state, another seed
    another.
    """
    x_t = torch.full((40, 6), MASK)
    denoise = place_denoiser(random_log_mu((40, 6), 6))
    torch.manual_seed(0)
    first = run(sampler, denoise, x_t, seed=1, steps=5)
    torch.manual_seed(1)
    again = run(sampler, denoise, x_t, seed=1, steps=5)
    assert torch.equal(first.x_0, again.x_0) and torch.equal(first.nfe, again.nfe)
    assert not torch.equal(first.x_0, run(sampler, denoise, x_t, seed=2, steps=5).x_0)


@each_sampler
def test_temperature_0_is_argmax(sampler):
    """Temperature 0 takes the likeliest word at every place, whatever the seed."""
    log_mu = random_log_mu((15, 6), 7)
    for seed in (1, 2):
        output = run(sampler, place_denoiser(log_mu), torch.full((15, 6), MASK), seed=seed, steps=4, temperature=0.0)
        assert torch.equal(output.x_0, log_mu.argmax(-1))


@each_sampler
def test_truncation_reaches_the_text(sampler):
    """With top_k = 2 only the two likeliest words of each place ever appear, and both do."""
    log_mu = random_log_mu((1, 6), 8).expand(400, -1, -1)
    output = run(sampler, place_denoiser(log_mu), torch.full((400, 6), MASK), steps=4, top_k=2, temperature=3.0)
    best = log_mu.topk(2).indices
    assert bool((output.x_0[..., None] == best).any(-1).all())
    assert bool((output.x_0 != best[..., 0]).any()) and bool((output.x_0 == best[..., 0]).any())


# ---- ancestral: exact laws -----------------------------------------------------------------------------------------


@each_schedule
@pytest.mark.parametrize("lam", (0.0, 0.3))
def test_ancestral_follows_the_reverse_chain(name, lam):
    """V = 4, L = 2, T = 4, a denoiser that depends on t and x_t: the 16 outputs have the law of the explicit reverse
    matrices, within 4 sigma.
    """
    log_mu = random_log_mu((STEPS + 1, len(STATES), PLACES), seed=9)

    def denoise(x_t, tau, rows):
        return log_mu[(tau * STEPS).round().long(), state_index(x_t)][x_t == MASK]

    output = run(sample_ancestral, denoise, torch.full((60_000, PLACES), MASK), name, lam, steps=STEPS)
    counts = torch.bincount(state_index(output.x_0), minlength=len(STATES))
    assert within_sigmas(counts, reverse_law(name, lam, log_mu))
    assert int(counts[state_index(SEQUENCES)].sum()) == 60_000
    if lam:  # the test can tell one law from another: lambda = 0 has a visibly different one
        assert not within_sigmas(counts, reverse_law(name, 0.0, log_mu))


ZIPF_WORDS = 20
ZIPF = torch.cat([1 / torch.arange(1, ZIPF_WORDS + 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
ZIPF = ZIPF / ZIPF.sum()


@each_schedule
def test_zipf_toy_needs_the_time_correction(name):
    """One word from Zipf's law, lambda = 0.3, 16 steps, the best time-free denoiser: uncorrected, the sampler
    over-produces the most common word by over 40 % and nearly halves the rarest; corrected, the law comes back within 4
    sigma.
    """
    rows, steps, mask_id = 100_000, 16, ZIPF_WORDS
    schedule = NoiseSchedule(name, 0.3, informativeness((ZIPF * 1e6).round().long(), [mask_id]))
    diffusion = AbsorbingDiffusion(schedule, mask_id)

    def sample(corrected: bool) -> torch.Tensor:
        def denoise(x_t, tau, _):
            log_mu = diffusion.correct_for_time(ZIPF.log()[None], tau[:1]) if corrected else ZIPF.log()[None]
            return log_mu.expand(len(x_t), -1)

        start = torch.full((rows, 1), mask_id)
        output = sample_ancestral(
            denoise, start, schedule, mask_id, torch.ones(rows), SamplerOptions(steps=steps), keys_of(rows, 10)
        )
        return torch.bincount(output.x_0.flatten(), minlength=ZIPF_WORDS + 1)

    # the biased law, by hand: still masked with probability `masked`, then v with mu_v r(v)
    biased, masked, sin = torch.zeros_like(ZIPF), 1.0, lambda u: math.sin(math.pi * u)
    u = [j / steps if name == "mutual" else math.sin(math.pi * j / (2 * steps)) ** 2 for j in range(steps + 1)]
    for j in range(steps, 0, -1):
        m_t, m_s = (
            u[i] + 0.3 * sin(u[i]) * schedule.informativeness if 0 < i < steps else torch.full_like(ZIPF, i / steps)
            for i in (j, j - 1)
        )
        revealed = ZIPF * (m_t - m_s) / m_t
        biased, masked = biased + masked * revealed, masked * (1 - float(revealed.sum()))

    without = sample(False)
    ratio = without / (rows * ZIPF)
    assert float(ratio[0]) > 1.4 and float(ratio[ZIPF_WORDS - 1]) < 0.6
    assert 0.5 * float((without / rows - ZIPF).abs().sum()) > 0.12
    assert within_sigmas(without, biased) and not within_sigmas(without, ZIPF)
    assert within_sigmas(sample(True), ZIPF)


@pytest.mark.parametrize("start", (0.3, 0.8))
def test_ancestral_from_the_middle(start):
    """Started at tau < 1 from the forward process' own x_t, with the exact denoiser, the words of the masked places
    follow p(v | masked at tau).
    """
    law = torch.tensor([0.55, 0.25, 0.15, 0.05, 0.0], dtype=torch.float64)
    schedule = toy_schedule("mutual", 0.3)
    diffusion, rows, start = AbsorbingDiffusion(schedule, MASK), 50_000, torch.tensor([start], dtype=torch.float64)

    def denoise(x_t, tau, _):
        return diffusion.correct_for_time(law.log()[None], tau[:1]).expand(len(x_t), -1)

    output = run(sample_ancestral, denoise, torch.full((rows, 1), MASK), tau=start.expand(rows), steps=6)
    expected = law * schedule.mask_probability(start)[0]
    assert within_sigmas(torch.bincount(output.x_0.flatten(), minlength=VOCAB), expected / expected.sum())


# ---- confidence: order and number ----------------------------------------------------------------------------------


def peaked(confidence: torch.Tensor) -> torch.Tensor:
    """log mu [B, T, V] with mass ``confidence`` on word 0 and the rest spread evenly."""
    mu = ((1 - confidence) / (WORDS - 1))[..., None].repeat(1, 1, VOCAB)
    mu[..., 0], mu[..., MASK] = confidence, 0.0
    return mu.log()


def numbers_left(n: int, steps: int, name: str) -> list[int]:
    """Places still masked after each call: floor(n u_s / u_1), one less than before at most, exactly rational where u
    is.
    """
    halves = {Fraction(1, 2): Fraction(1, 2), Fraction(1, 3): Fraction(1, 4), Fraction(2, 3): Fraction(3, 4)}
    left = [n]
    for step in range(steps - 1, -1, -1):
        tau = Fraction(step, steps)
        share = tau if name == "mutual" else halves.get(tau, Fraction(math.sin(math.pi * step / (2 * steps)) ** 2))
        if left[-1]:
            left.append(min(math.floor(n * share), left[-1] - 1))
    return left


@each_schedule
@pytest.mark.parametrize("n, steps", [(7, 5), (3, 10), (10, 10), (12, 2), (12, 3), (100, 100), (9, 1), (1, 4)])
def test_confidence_reveals_the_right_number(name, n, steps):
    """After each call exactly floor(n u_s / u) places are left, at least one fewer than before, also where that is
    whole; rows do not mix.
    """
    short = max(1, n // 2)
    x_t = torch.full((2, n), MASK)
    x_t[1, short:] = 0
    left = [[n], [short]]

    def count(_step, x):
        for row in range(2):
            if left[row][-1]:
                left[row].append(int((x[row] == MASK).sum()))

    output = run(sample_confidence, place_denoiser(random_log_mu((2, n), 11)), x_t, name, steps=steps, callback=count)
    assert left == [numbers_left(n, steps, name), numbers_left(short, steps, name)]
    assert output.nfe.tolist() == [len(row) - 1 for row in left]


def test_confidence_reveals_the_most_confident_first():
    """At every step the places revealed are the most confident of those still masked, row by row."""
    confidence = torch.rand(6, 10, generator=seeded(12), dtype=torch.float64) * 0.6 + 0.3
    history = [torch.full((6, 10), MASK)]
    run(
        sample_confidence,
        place_denoiser(peaked(confidence)),
        history[0],
        steps=5,
        temperature=0.0,
        callback=lambda _, x: history.append(x.clone()),
    )
    for earlier, later in zip(history, history[1:]):
        for row in range(6):
            now, kept = (earlier[row] == MASK) & (later[row] != MASK), later[row] == MASK
            assert bool(now.any())
            assert not bool(kept.any()) or float(confidence[row][now].min()) >= float(confidence[row][kept].max())


def test_confidence_is_the_models_own():
    """Confidence is log mu of the drawn word before temperature: tempered it would order these two places
    differently.
    """
    rows, temperature = 10_000, 5.0
    mu = torch.tensor([[0.46, 0.18, 0.18, 0.18, 0.0], [0.45, 0.45, 0.05, 0.05, 0.0]], dtype=torch.float64)
    hot = mu.pow(1 / temperature) / mu.pow(1 / temperature).sum(-1, keepdim=True)
    left_wins = mu[0][:, None] > mu[1]  # by the words drawn at the two places
    assert not torch.equal(left_wins[:WORDS, :WORDS], (hot[0][:, None] > hot[1])[:WORDS, :WORDS])
    first = []
    run(
        sample_confidence,
        place_denoiser(mu.log().expand(rows, -1, -1)),
        torch.full((rows, 2), MASK),
        steps=2,
        temperature=temperature,
        callback=lambda step, x: first.append(x.clone()) if step == 0 else None,
    )
    assert bool(((first[0] == MASK).sum(-1) == 1).all())
    # [place, word]
    expected = torch.stack(
        [(hot[0][:, None] * hot[1] * left_wins).sum(1), (hot[0][:, None] * hot[1] * ~left_wins).sum(0)]
    )
    counts = torch.stack([torch.bincount(column, minlength=VOCAB) for column in first[0].T])[:, :WORDS]
    assert within_sigmas(counts, expected[:, :WORDS])


def test_confidence_rows_are_independent():
    """At temperature 0 a row's result does not depend on the other rows of the batch."""
    log_mu, x_t = random_log_mu((5, 8), 13), canvas(5, 8, seed=14)[1]
    together = run(sample_confidence, place_denoiser(log_mu), x_t, steps=3, temperature=0.0)
    for row in range(5):
        alone = run(
            sample_confidence, place_denoiser(log_mu[row : row + 1]), x_t[row : row + 1], steps=3, temperature=0.0
        )
        assert torch.equal(alone.x_0[0], together.x_0[row]) and int(alone.nfe) == int(together.nfe[row])


# ---- words ---------------------------------------------------------------------------------------------------------


def wide_log_mu(rows: int = 50, words: int = 30) -> torch.Tensor:
    """Random distributions over 30 words of which the last five are forbidden, [rows, 30] float32."""
    logits = 2 * torch.randn(rows, words, generator=seeded(15))
    logits[:, -5:] = float("-inf")
    return torch.log_softmax(logits, dim=-1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 0.3},
        {"temperature": 2.5},
        {"top_k": 4},
        {"top_k": 29},
        {"top_k": 99},
        {"top_p": 0.7},
        {"top_p": 0.0},
        {"top_k": 6, "top_p": 0.5, "temperature": 1.5},
    ],
)
def test_word_distribution_is_a_distribution(options):
    """Whatever is cut off, the rest is renormalised in float64, NaN-free, and forbidden words stay forbidden."""
    log_mu = wide_log_mu()
    mu = word_distribution(log_mu, SamplerOptions(**options)).exp()
    assert mu.dtype == torch.float64 and not bool(mu[log_mu.isinf()].any())
    torch.testing.assert_close(mu.sum(-1), torch.ones(50, dtype=torch.float64))


def test_word_distribution_formulas():
    """Nothing set: mu itself. Temperature: mu^(1/T). top_k: the k likeliest. top_p: the fewest words with mass >= p,
    the likeliest always.
    """
    log_mu = wide_log_mu()
    mu = log_mu.double().exp()
    mu = mu / mu.sum(-1, keepdim=True)
    torch.testing.assert_close(word_distribution(log_mu, SamplerOptions()).exp(), mu)
    hot = mu.pow(1 / 1.7)
    torch.testing.assert_close(
        word_distribution(log_mu, SamplerOptions(temperature=1.7)).exp(), hot / hot.sum(-1, keepdim=True)
    )
    cold = word_distribution(log_mu, SamplerOptions(temperature=0.0)).exp()
    assert torch.equal(cold, torch.nn.functional.one_hot(log_mu.argmax(-1), 30).double())
    for options, keep in (
        (SamplerOptions(top_k=3), lambda row: 3),
        (SamplerOptions(top_k=1), lambda row: 1),
        (SamplerOptions(top_p=0.8), lambda row: 1 + int((row.sort(descending=True).values.cumsum(-1) < 0.8).sum())),
        (SamplerOptions(top_p=0.0), lambda row: 1),
    ):
        actual = word_distribution(log_mu, options).exp()
        for row in range(50):
            best = mu[row].topk(keep(mu[row])).indices
            expected = torch.zeros(30, dtype=torch.float64)
            expected[best] = mu[row][best] / mu[row][best].sum()
            torch.testing.assert_close(actual[row], expected)


def test_draw_has_the_right_law():
    """Draws follow mu within 4 sigma and words without mass are never drawn."""
    mu = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.15, 0.0, 0.0499, 0.0001, 0.0, 0.0], dtype=torch.float64)
    words = draw(mu.log().expand(200_000, -1), torch.rand(200_000, generator=seeded(16), dtype=torch.float64))
    assert within_sigmas(torch.bincount(words, minlength=10), mu)


@pytest.mark.parametrize("uniform", (0.0, 1 - 2**-53, 1.0))
def test_draw_at_the_ends_of_the_uniform(uniform):
    """Uniform numbers of exactly 0, or rounded up to 1, still give a word that has mass; mu need not be normalised to
    the last bit.
    """
    mu = torch.tensor([[0.0, 0.25, 0.75, 0.0], [0.1, 0.2, 0.7 + 1e-7, 0.0], [0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    words = draw(mu.log(), torch.full((4,), uniform, dtype=torch.float64))
    assert bool((mu.gather(1, words[:, None]) > 0).all())


def test_rank_within_rows():
    """Rank 0 is the highest score of its own row; ties keep their order; agrees with sorting row by row."""
    assert rank_within_rows(torch.tensor([0.2, 0.9, 0.5, 0.5, 0.1]), torch.tensor([0, 0, 1, 1, 1])).tolist() == [
        1,
        0,
        0,
        1,
        2,
    ]
    rows = torch.randint(7, (60,), generator=seeded(17)).sort().values
    score = torch.randint(10, (60,), generator=seeded(18)).double()
    expected = [
        sum(1 for j in range(60) if rows[j] == rows[i] and (score[j] > score[i] or (score[j] == score[i] and j < i)))
        for i in range(60)
    ]
    assert rank_within_rows(score, rows).tolist() == expected
    assert rank_within_rows(torch.zeros(0), torch.zeros(0, dtype=torch.long)).tolist() == []
