"""Noise schedules: ends, ranges, monotony, inverse, limits and refusals."""

import math

import pytest
import torch

from diffusion_bert.config.schema import SCHEDULES
from diffusion_bert.diffusion.schedule import NoiseSchedule
from diffusion_bert.errors import UserError
from tests.helpers.chain import alpha_by_hand

TABLE = torch.tensor([-1.0, -0.5, 0.0, 0.25, 1.0], dtype=torch.float64)
MAX_LAMBDA = 1 / math.pi
LAMBDAS = (0.0, 0.15, 0.3, MAX_LAMBDA)
each = pytest.mark.parametrize("name", SCHEDULES)
each_lambda = pytest.mark.parametrize("lam", LAMBDAS)


def grid(steps: int) -> torch.Tensor:
    return torch.arange(steps + 1, dtype=torch.float64) / steps


@each
@each_lambda
def test_formula(name, lam):
    """m_t(v) is 1 - alpha_t(v) of the formula, for the whole table and for single ids alike."""
    m = NoiseSchedule(name, lam, TABLE).mask_probability(grid(12))
    for t in range(13):
        torch.testing.assert_close(m[t], 1 - alpha_by_hand(name, lam, t, 12, TABLE), rtol=0, atol=1e-14)
    ids = torch.tensor([4, 0, 2])
    single = NoiseSchedule(name, lam, TABLE).mask_probability(grid(12)[:, None], ids)
    torch.testing.assert_close(single, m[:, ids], rtol=0, atol=0)


def test_mutual_beta():
    """The mutual schedule masks with beta_t = 1 / (T - t + 1)."""
    alpha = 1 - NoiseSchedule("mutual", 0.0, TABLE).mask_probability(grid(7))[:, 0]
    beta = 1 - alpha[1:] / alpha[:-1]
    torch.testing.assert_close(beta, 1 / (7 - torch.arange(1, 8, dtype=torch.float64) + 1))


@each
@each_lambda
def test_both_ends_are_exact(name, lam):
    """m_0 = 0 and m_T = 1 to the last bit, for every word; r = 1 to the last bit at s = 0."""
    table = 2 * torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    schedule = NoiseSchedule(name, lam, torch.cat([TABLE, table]))
    m = schedule.mask_probability(torch.tensor([0.0, 1.0]))
    assert bool((m[0] == 0).all()) and bool((m[1] == 1).all())
    tau_t = grid(1000)[1:]
    assert bool((schedule.reveal_probability(torch.zeros_like(tau_t), tau_t) == 1).all())
    assert bool((schedule.stay_probability(torch.zeros_like(tau_t), tau_t) == 0).all())


@each
@each_lambda
def test_monotone_and_within_the_unit_interval(name, lam):
    """On a grid of 20,000 steps m never falls and never leaves [0, 1]; r and 1 - r are probabilities, up to
    rounding.
    """
    schedule, tau = NoiseSchedule(name, lam, TABLE), grid(20_000)
    m = schedule.mask_probability(tau)
    assert bool((m.diff(dim=0) >= -1e-15).all()) and bool(((m >= 0) & (m <= 1)).all())
    r = schedule.reveal_probability(tau[:-1], tau[1:])
    assert bool(((r >= -1e-14) & (r <= 1)).all())


@each
@pytest.mark.parametrize("lam", (0.32, 0.5))
def test_a_larger_lambda_would_not_be_monotone(name, lam):
    """The limit 1/pi is no caution: just beyond it the formula lets a masked word come back."""
    alpha = torch.stack([alpha_by_hand(name, lam, t, 2000, TABLE) for t in range(2001)])
    assert bool((alpha.diff(dim=0) > 1e-9).any())


@each
@pytest.mark.parametrize("exponent", range(1, 15))
def test_no_nan_next_to_the_ends(name, exponent):
    """Down to tau = 1e-14 and up to 1 - 1e-14, at lambda = 1/pi, nothing is NaN or infinite and m stays positive."""
    schedule = NoiseSchedule(name, MAX_LAMBDA, TABLE)
    near_0 = torch.tensor([10.0**-exponent], dtype=torch.float64)
    for tau in (near_0, 1 - near_0):
        assert bool((schedule.mask_probability(tau) > 0).all())
        for value in (
            schedule.reveal_probability(tau * 0.5, tau),
            schedule.stay_probability(tau * 0.5, tau),
            schedule.reveal_rate(schedule.u(tau)),
        ):
            assert bool(value.isfinite().all()) and bool((value >= 0).all())
    late = schedule.reveal_probability(1 - near_0, torch.ones(1))
    assert bool(late.isfinite().all())


@each
def test_most_common_word_near_zero_keeps_its_precision(name):
    """At lambda = 1/pi and h = -1, m falls like u^3 pi^2 / 6: no digit may drown in the cancellation of u - sin(pi u) /
    pi.
    """
    schedule, tau = NoiseSchedule(name, MAX_LAMBDA, TABLE), torch.logspace(-9, -4, 11, dtype=torch.float64)
    u = schedule.u(tau)
    torch.testing.assert_close(schedule.mask_probability(tau)[:, 0], u**3 * math.pi**2 / 6, rtol=1e-6, atol=0)
    torch.testing.assert_close(schedule.reveal_rate(u)[:, 0], 3 / u, rtol=1e-6, atol=0)


@each
def test_tau_inverts_u(name):
    """tau(u(tau)) = tau on the whole grid, and u(tau(u)) = u."""
    schedule, values = NoiseSchedule(name), grid(500)
    torch.testing.assert_close(schedule.tau(schedule.u(values)), values, rtol=0, atol=1e-9)
    torch.testing.assert_close(schedule.u(schedule.tau(values)), values, rtol=0, atol=1e-12)


@each
@each_lambda
def test_reveal_rate_is_the_limit(name, lam):
    """reveal_rate = lim r / (u_t - u_s), checked with a step of 1e-7 in u; whole table and single ids agree."""
    schedule = NoiseSchedule(name, lam, TABLE)
    u_t, step = torch.linspace(0.02, 0.98, 25, dtype=torch.float64), 1e-7
    r = schedule.reveal_probability(schedule.tau(u_t - step), schedule.tau(u_t + step)) / (2 * step)
    rate = schedule.reveal_rate(u_t)
    torch.testing.assert_close(rate, r, rtol=1e-4, atol=1e-6)
    ids = torch.arange(25) % 5
    assert torch.equal(schedule.reveal_rate(u_t, ids), rate[torch.arange(25), ids])


@each
def test_rare_words_are_masked_first(name):
    """For lambda > 0 a more informative word is more likely masked at every time between the ends, and lambda = 0
    treats all alike.
    """
    tau = grid(50)[1:-1]
    assert bool((NoiseSchedule(name, 0.3, TABLE).mask_probability(tau).diff(dim=-1) > 0).all())
    assert bool((NoiseSchedule(name, 0.0, TABLE).mask_probability(tau).diff(dim=-1) == 0).all())


@each
def test_float32_times_are_computed_in_float64(name):
    """Whatever dtype the times come in, results are float64."""
    schedule, tau = NoiseSchedule(name, 0.3, TABLE.float()), torch.tensor([0.25, 0.5])
    assert schedule.mask_probability(tau).dtype == schedule.u(tau).dtype == schedule.tau(tau).dtype == torch.float64


def test_without_a_table():
    """A schedule without a table is the plain one for any ids; asking it for all types is an error."""
    schedule = NoiseSchedule("cosine", 0.3)
    assert schedule.is_plain
    torch.testing.assert_close(
        schedule.mask_probability(torch.tensor([0.5]), torch.tensor([7])), torch.tensor([0.5], dtype=torch.float64)
    )
    with pytest.raises(ValueError):
        schedule.mask_probability(torch.tensor([0.5]))


@pytest.mark.parametrize(
    "lam, table, plain", [(0.0, TABLE, True), (0.3, None, True), (0.3, torch.zeros(5), True), (0.3, TABLE, False)]
)
def test_is_plain(lam, table, plain):
    """is_plain says whether all words share one schedule."""
    assert NoiseSchedule("mutual", lam, table).is_plain is plain


@pytest.mark.parametrize("lam", (0.5, -0.1, math.nan, math.inf, 0.3184))
def test_invalid_lambda_is_refused(lam):
    """A lambda outside [0, 1/pi], or NaN, is refused by a message that names the largest one, 0.318."""
    with pytest.raises(UserError, match=r"0\.318"):
        NoiseSchedule("mutual", lam, TABLE)


def test_unknown_schedule_names_the_nearest():
    """A mistyped schedule is refused with the nearest name."""
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        NoiseSchedule("cosin")
    with pytest.raises(UserError, match="mutual, cosine"):
        NoiseSchedule("zzz")


@pytest.mark.parametrize("value", (1.5, -2.0, math.nan))
def test_invalid_informativeness_is_refused(value):
    """h outside [-1, 1] (or NaN) would break the schedule and is refused."""
    with pytest.raises(ValueError):
        NoiseSchedule("mutual", 0.1, torch.tensor([0.0, value]))
