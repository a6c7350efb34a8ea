"""Which places are hidden and when: the weighted draws have the expectation of the sum over all times, exactly."""

import math
from itertools import combinations

import pytest
import torch

from diffusion_bert.diffusion.process import AbsorbingDiffusion
from diffusion_bert.diffusion.schedule import NoiseSchedule
from diffusion_bert.diffusion.times import (
    GROUP,
    balanced_draws,
    balanced_places,
    sample_times,
    standard_error,
    time_and_weight,
)
from tests.helpers.chain import (
    MASK,
    PLACES,
    SEQUENCES,
    STEPS,
    alpha_by_hand,
    random_log_mu,
    reverse_law,
    state_index,
    toy_schedule,
)

FINE = 2000  # numbers in [0, 1) that stand for all


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def subsets(length: int) -> list[torch.Tensor]:
    """Every set of hidden places that is not empty, [L] bool."""
    sets = [places for size in range(1, length + 1) for places in combinations(range(length), size)]
    return [torch.tensor([place in chosen for place in range(length)]) for chosen in sets]


def kl_of(schedule, x_0, masked, t: int, log_mu) -> float:
    """The KL of the step from t to t - 1 where ``masked`` is hidden; log_mu [T + 1, 25, places, V]."""
    state = int(state_index(torch.where(masked, MASK, x_0)))
    places = masked.nonzero().squeeze(-1)
    times = torch.full((len(places),), t / STEPS, dtype=torch.float64)
    kl = AbsorbingDiffusion(schedule, MASK).kl(log_mu[t, state, places], x_0[places], times - 1 / STEPS, times)
    return float(kl.reveal.sum() + kl.stay.sum())


@pytest.mark.parametrize("name", ("mutual", "cosine"))
@pytest.mark.parametrize("word_freq_lambda", (0.0, 0.2, 0.318))
def test_the_weighted_draws_have_the_expectation_of_the_chain(name, word_freq_lambda):
    """For all 16 sequences of the toy chain: E[weight KL] over every set of places and (a fine grid of) every time is
    the NELBO by exhaustive sum with probabilities written a second time, and no less than -log p of the reverse chain.
    """
    schedule = toy_schedule(name, word_freq_lambda)
    log_mu = random_log_mu((STEPS + 1, 25, PLACES), 3)
    law = reverse_law(name, word_freq_lambda, log_mu)
    sets = subsets(PLACES)
    uniform = (torch.arange(FINE, dtype=torch.float64) + 0.5) / FINE
    for x_0 in SEQUENCES:
        kl = {(n, t): kl_of(schedule, x_0, one, t, log_mu) for n, one in enumerate(sets) for t in range(1, STEPS + 1)}
        exact = weighted = 0.0
        for number, masked in enumerate(sets):
            for t in range(1, STEPS + 1):
                alpha = alpha_by_hand(name, word_freq_lambda, t)[x_0]
                exact += float(torch.where(masked, 1 - alpha, alpha).prod()) * kl[number, t]
            times, weight = time_and_weight(schedule, x_0, masked.expand(FINE, -1), STEPS, uniform)
            q = 1 / (PLACES * math.comb(PLACES, int(masked.sum())))
            weighted += q * sum(float(w) * kl[number, int(t)] for t, w in zip(times, weight)) / FINE
        assert weighted == pytest.approx(exact, rel=5e-3)
        assert exact >= -math.log(float(law[state_index(x_0)])) - 1e-9


def test_in_a_plain_schedule_the_product_does_not_depend_on_the_time():
    """weight x r_t is the same for all times that a set may be drawn with."""
    x_0, steps = torch.tensor([0, 1, 2]), 50
    for masked in subsets(3):
        t, weight = time_and_weight(
            NoiseSchedule("mutual"), x_0, masked.expand(40, -1), steps, torch.linspace(0, 0.999, 40).double()
        )
        assert len(set(t.tolist())) > 3 and float((weight / t).std() / (weight / t).mean()) < 1e-9


@pytest.mark.parametrize("word_freq_lambda", (0.0, 0.2))
def test_balanced_draws_have_less_error(word_freq_lambda):
    """Where every hidden word costs r_t times a number of its own, 16 balanced draws spread by less than 0.4 of
    what 16 draws at uniform times do; both have the mean, the sum of the numbers.
    """
    schedule = NoiseSchedule("mutual", word_freq_lambda, torch.linspace(-1, 1, 10, dtype=torch.float64))
    x_0, cost = torch.arange(10), torch.arange(1, 11).double()
    estimates = {"balanced": [], "uniform": []}
    for seed in range(300):
        draw = balanced_draws(schedule, x_0, 16, 1000, seeded(seed))
        t = sample_times(16, 1000, seeded(seed))
        m = schedule.mask_probability((t / 1000)[:, None].expand(-1, 10), x_0.expand(16, -1))
        chance = torch.rand(16, 10, generator=seeded(seed), dtype=torch.float64) < m
        for name, masked, times, weight in (("balanced", *draw[:3]), ("uniform", chance, t, 1000.0)):
            r = schedule.reveal_probability(
                ((times - 1) / 1000)[:, None].expand(-1, 10), (times / 1000)[:, None].expand(-1, 10), x_0.expand(16, -1)
            )
            estimates[name].append(float((weight * (masked * r * cost).sum(-1)).mean()))
    spread = {name: torch.tensor(values).std() for name, values in estimates.items()}
    for name, values in estimates.items():
        assert abs(sum(values) / 300 - 55) < 4 * float(spread[name]) / 300**0.5
    assert float(spread["balanced"]) < 0.4 * float(spread["uniform"])


def test_sets_are_uniform_given_their_size():
    """The n-th set dealt out, alone, is each of its size equally often (4 sigma), also across a shuffle."""
    sizes, runs, generator = [2, 2, 3, 1, 2], 3000, seeded(0)
    counts = [dict() for _ in sizes]
    for _ in range(runs):
        for row, one in zip(counts, balanced_places(sizes, 4, generator)):
            row[tuple(one.tolist())] = row.get(tuple(one.tolist()), 0) + 1
    for size, row in zip(sizes, counts):
        share = 1 / math.comb(4, size)
        assert len(row) == math.comb(4, size) and all(sum(one) == size for one in row)
        assert all(abs(count - runs * share) < 4 * (runs * share * (1 - share)) ** 0.5 for count in row.values())


@pytest.mark.parametrize("length, draws", [(1, 2), (2, 3), (7, 32), (40, 32), (5, 33)])
def test_draws_are_spread(length, draws):
    """Sizes cover 1..L evenly; within a group all places are hidden about equally often; seeds repeat."""
    schedule = NoiseSchedule("mutual", 0.2, torch.linspace(-1, 1, 9, dtype=torch.float64))
    x_0 = torch.arange(length) % 9
    for seed in range(5):
        draw, again = (balanced_draws(schedule, x_0, draws, 100, seeded(seed)) for _ in range(2))
        assert all(torch.equal(one, other) for one, other in zip(draw, again))
        sizes = draw.masked.sum(-1)
        assert int(sizes.min()) >= 1 and bool((draw.weight > 0).all()) and bool(draw.weight.isfinite().all())
        assert int(draw.t.min()) >= 1 and int(draw.t.max()) <= 100
        assert torch.equal(sizes.sort().values, sample_times(draws, length, seeded(seed)).sort().values)
        assert torch.bincount(draw.group).tolist().count(0) == 0 and len(set(draw.group.tolist())) == max(
            2, draws // GROUP
        )
        for number in set(draw.group.tolist()):
            often = draw.masked[draw.group == number].sum(0)
            assert int(often.max() - often.min()) <= 1


def test_standard_error_of_groups():
    """By hand for two groups; of equal numbers it is 0."""
    values, group = torch.tensor([1.0, 3.0, 2.0, 6.0]), torch.tensor([0, 1, 0, 1])
    # group means 1.5 and 4.5 about 3: SE = |4.5 - 1.5| / 2
    assert standard_error(values, group) == pytest.approx(1.5)
    assert standard_error(torch.full((4,), 2.5), group) == 0.0
