"""The mathematics, by enumeration: explicit matrices in float64 against the closed forms."""

import math
from itertools import product

import pytest
import torch

from diffusion_bert.config.schema import SCHEDULES
from diffusion_bert.diffusion.process import AbsorbingDiffusion
from diffusion_bert.diffusion.schedule import NoiseSchedule
from tests.helpers.chain import (
    MASK,
    PLACES,
    SEQUENCES,
    STATES,
    STEPS,
    VOCAB,
    WORDS,
    H,
    alpha_by_hand,
    bayes_posterior,
    forward_matrix,
    random_log_mu,
    reverse_law,
    state_index,
    toy_schedule,
)

LAMBDAS = (0.0, 0.15, 0.3)
each = pytest.mark.parametrize("name", SCHEDULES)
each_lambda = pytest.mark.parametrize("lam", LAMBDAS)
PAIRS = [(s, t) for t in range(1, STEPS + 1) for s in range(t)]


def toy(name: str, lam: float) -> AbsorbingDiffusion:
    return AbsorbingDiffusion(toy_schedule(name, lam), MASK)


def time(step) -> torch.Tensor:
    return torch.as_tensor(step, dtype=torch.float64) / STEPS


def close(actual, expected, atol=1e-13):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


# ---- the forward chain and its posterior ---------------------------------------------------------------------------


@each
@each_lambda
def test_marginals(name, lam):
    """The product of one-step transition matrices has the schedule's marginals q(x_t | x_0)."""
    schedule = toy_schedule(name, lam)
    for t in range(STEPS + 1):
        m = schedule.mask_probability(time(t))
        matrix = forward_matrix(name, lam, 0, t)
        close(matrix[:WORDS, MASK], m[:WORDS])
        close(matrix[:WORDS, :WORDS], torch.diag(1 - m[:WORDS]))


@each
@each_lambda
@pytest.mark.parametrize("s, t", PAIRS)
def test_composition(name, lam, s, t):
    """q(x_s) o q(x_t | x_s) = q(x_t), with q(x_t | x_s) = the schedule's m, and back: q(x_t) o posterior = q(x_s)."""
    schedule, diffusion = toy_schedule(name, lam), toy(name, lam)
    m_s, m_t = schedule.mask_probability(time(s)), schedule.mask_probability(time(t))
    close(
        m_s + (1 - m_s) * forward_matrix(name, lam, s, t)[:, MASK], torch.where(torch.arange(VOCAB) == MASK, 1.0, m_t)
    )
    for x_0 in range(WORDS):
        back = torch.zeros(VOCAB, dtype=torch.float64)
        for x_t, weight in ((x_0, 1 - m_t[x_0]), (MASK, m_t[x_0])):
            back += weight * diffusion.posterior(torch.tensor(x_0), torch.tensor(x_t), time(s), time(t), VOCAB)
        close(back, forward_matrix(name, lam, 0, s)[x_0])


@each
@each_lambda
@pytest.mark.parametrize("s, t", PAIRS)
def test_posterior_is_bayes_rule(name, lam, s, t):
    """diffusion.posterior = q(x_s | x_0) q(x_t | x_s) / q(x_t | x_0), word by word: one reveal rate for all words would
    fail here.
    """
    for x_0, x_t in product(range(WORDS), range(VOCAB)):
        expected = bayes_posterior(name, lam, s, t, x_0, x_t)
        if expected is not None:
            close(
                toy(name, lam).posterior(torch.tensor([x_0]), torch.tensor([x_t]), time([s]), time([t]), VOCAB)[0],
                expected,
            )


@each
@each_lambda
@pytest.mark.parametrize("s, t", PAIRS)
def test_reverse_step_is_the_mixture_of_posteriors(name, lam, s, t):
    """p(x_s | x_t) = sum_v mu_v q(x_s | x_t, x_0 = v) at masked places, x_t itself elsewhere; the oracle mu gives the
    posterior.
    """
    diffusion, mu = toy(name, lam), random_log_mu((VOCAB,), seed=1).exp()
    actual = diffusion.reverse_probs(mu, torch.arange(VOCAB), time(s), time(t))
    close(actual[:WORDS], torch.eye(VOCAB, dtype=torch.float64)[:WORDS])
    close(actual[MASK], sum(mu[MASK, v] * bayes_posterior(name, lam, s, t, v, MASK) for v in range(WORDS)))
    oracle = torch.eye(VOCAB, dtype=torch.float64)[:WORDS]
    close(
        diffusion.reverse_probs(oracle, torch.full((WORDS,), MASK), time(s), time(t)),
        torch.stack([bayes_posterior(name, lam, s, t, v, MASK) for v in range(WORDS)]),
    )


# ---- KL and bound --------------------------------------------------------------------------------------------------


@each
@each_lambda
@pytest.mark.parametrize("s, t", PAIRS)
def test_kl_is_the_kl_of_the_explicit_distributions(name, lam, s, t):
    """reveal + stay = KL(Bayes posterior || reverse step), each a table of five numbers; both are what their names
    say.
    """
    diffusion, log_mu = toy(name, lam), random_log_mu((WORDS,), seed=2)
    terms = diffusion.kl(log_mu, torch.arange(WORDS), time([s] * WORDS), time([t] * WORDS))
    for x in range(WORDS):
        q = bayes_posterior(name, lam, s, t, x, MASK)
        p = sum(log_mu[x, v].exp() * bayes_posterior(name, lam, s, t, v, MASK) for v in range(WORDS))
        each_term = torch.where(q > 0, q * (q.clamp(min=1e-300) / p.clamp(min=1e-300)).log(), 0.0)
        close(terms.reveal[x] + terms.stay[x], each_term.sum(), atol=1e-12)
        close(terms.reveal[x], each_term[x], atol=1e-12)
        close(terms.stay[x], each_term[MASK], atol=1e-12)


@each
def test_kl_at_s_0_is_cross_entropy(name):
    """At s = 0 all is revealed: KL = -log mu_x, and the gradient of the second term is 0, not NaN."""
    log_mu = random_log_mu((WORDS,), seed=3).requires_grad_()
    terms = toy(name, 0.3).kl(log_mu, torch.arange(WORDS), time([0] * WORDS), time([1, 2, 3, 4]))
    close(terms.reveal, -log_mu.diagonal())
    assert not bool(terms.stay.any())
    (terms.reveal + terms.stay).sum().backward()
    assert torch.equal(log_mu.grad, -torch.eye(WORDS, VOCAB, dtype=torch.float64))


@each
def test_kl_gradient(name):
    """The gradient of the KL with respect to the logits is that of finite differences."""
    logits = torch.randn(WORDS, VOCAB, generator=torch.Generator().manual_seed(4), dtype=torch.float64).requires_grad_()

    def total(values):
        terms = toy(name, 0.3).kl(
            torch.log_softmax(values, -1), torch.arange(WORDS), time([0, 1, 2, 3]), time([1, 2, 4, 4])
        )
        return terms.reveal + terms.stay

    assert torch.autograd.gradcheck(total, (logits,))


def nelbo_by_enumeration(name: str, lam: float, log_mu: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """sum_t E_q(x_t | x_0) KL of every x_0, as its two terms [16] each: an exhaustive sum of diffusion.kl. log_mu [T +
    1, 25, 2, V].
    """
    table, x_0s, tau_s, tau_t, weights, owners = [], [], [], [], [], []
    for (index, x_0), t in product(enumerate(SEQUENCES), range(1, STEPS + 1)):
        alpha = alpha_by_hand(name, lam, t)[x_0]
        for hidden in product((False, True), repeat=PLACES):
            hidden = torch.tensor(hidden)
            x_t = torch.where(hidden, MASK, x_0)
            weight = torch.where(hidden, 1 - alpha, alpha).prod()
            for place in hidden.nonzero().flatten():
                table.append(log_mu[t, state_index(x_t), place])
                x_0s.append(x_0[place])
                tau_s.append((t - 1) / STEPS)
                tau_t.append(t / STEPS)
                weights.append(weight)
                owners.append(index)
    times = torch.tensor(tau_s, dtype=torch.float64), torch.tensor(tau_t, dtype=torch.float64)
    terms = toy(name, lam).kl(torch.stack(table), torch.stack(x_0s), *times)
    sums = torch.zeros(2, len(SEQUENCES), dtype=torch.float64)
    sums.index_add_(1, torch.tensor(owners), torch.stack(terms) * torch.stack(weights))
    return sums[0], sums[1]


@each
@each_lambda
@pytest.mark.parametrize("seed", range(4))
def test_nelbo_bounds_every_sequence(name, lam, seed):
    """-log p(x_0) <= NELBO for all 16 sequences, p(x_0) by running the reverse chain as matrices, mu an arbitrary table
    of (t, x_t).
    """
    log_mu = random_log_mu((STEPS + 1, len(STATES), PLACES), seed)
    law = reverse_law(name, lam, log_mu)
    assert abs(float(law.sum()) - 1) < 1e-12 and float(law[(STATES == MASK).any(-1)].abs().max()) < 1e-15
    surprise = -law[state_index(SEQUENCES)].log()
    reveal, stay = nelbo_by_enumeration(name, lam, log_mu)
    assert bool((reveal + stay >= surprise - 1e-12).all())
    if lam == 0:
        assert not bool(stay.any())


@each
def test_weighted_cross_entropy_alone_is_no_bound(name):
    """At lambda = 0.3 the sum without the second KL term falls below -log p(x_0) for some sequences; with it, for
    none.
    """
    log_mu = random_log_mu((STEPS + 1, len(STATES), PLACES), seed=0)
    surprise = -reverse_law(name, 0.3, log_mu)[state_index(SEQUENCES)].log()
    reveal, stay = nelbo_by_enumeration(name, 0.3, log_mu)
    assert int((reveal < surprise - 1e-3).sum()) >= 1
    assert int((reveal + stay < surprise - 1e-12).sum()) == 0


# ---- one place: everything is tight --------------------------------------------------------------------------------

ONE_WORD = torch.tensor([0.55, 0.25, 0.15, 0.05, 0.0], dtype=torch.float64)  # common words have small h, as in H


@each
@each_lambda
@pytest.mark.parametrize("steps", (1, 4, 25))
def test_time_correction_makes_the_bound_tight_for_one_word(name, lam, steps):
    """One place: log p(v) corrected for time is the exact denoiser, so NELBO = -log p(v) for each v and T. Uncorrected
    it is larger on average.
    """
    diffusion = toy(name, lam)
    t = torch.arange(1, steps + 1).repeat_interleave(WORDS)
    x_0 = torch.arange(WORDS).repeat(steps)
    tau_s, tau_t = (t - 1).double() / steps, t.double() / steps
    weight = diffusion.schedule.mask_probability(tau_t, x_0)

    def bound(log_mu):
        terms = diffusion.kl(log_mu, x_0, tau_s, tau_t)
        return (weight * (terms.reveal + terms.stay)).view(steps, WORDS).sum(0)

    time_free = ONE_WORD.log().expand(len(t), -1)
    exact = bound(diffusion.correct_for_time(time_free, tau_t))
    close(exact, -ONE_WORD[:WORDS].log(), atol=1e-12)
    excess = float((ONE_WORD[:WORDS] * (bound(time_free) - exact)).sum())
    assert excess > 1e-3 if lam > 0 and steps > 1 else abs(excess) < 1e-12


@each
@each_lambda
def test_corrected_reverse_chain_has_the_forward_marginals(name, lam):
    """One place, exact denoiser: the reverse chain's law of x_t is the forward process', at every t."""
    diffusion, steps = toy(name, lam), 9
    law = torch.eye(VOCAB, dtype=torch.float64)[MASK]
    for t in range(steps, 0, -1):
        tau_t, tau_s = torch.tensor(t / steps).double(), torch.tensor((t - 1) / steps).double()
        mu = diffusion.correct_for_time(ONE_WORD.log()[None], tau_t[None]).exp()[0]
        law = law @ diffusion.reverse_probs(mu.expand(VOCAB, -1), torch.arange(VOCAB), tau_s, tau_t)
        clean = ONE_WORD * (1 - diffusion.schedule.mask_probability(tau_s))
        clean[MASK] = 1 - clean.sum()
        close(law, clean, atol=1e-12)


def test_correct_for_time():
    """The correction multiplies mu_v by m_t(v) and renormalises; forbidden words stay forbidden; a plain schedule
    changes nothing.
    """
    log_mu, tau = random_log_mu((6,), seed=5), torch.tensor([0.1, 0.1, 0.4, 0.7, 1.0, 0.4], dtype=torch.float64)
    expected = log_mu.exp() * toy_schedule("cosine", 0.3).mask_probability(tau)
    close(toy("cosine", 0.3).correct_for_time(log_mu, tau).exp(), expected / expected.sum(-1, keepdim=True))
    assert toy("cosine", 0.0).correct_for_time(log_mu, tau) is log_mu


def test_no_masked_place_at_all():
    """Zero places give empty results, not an error."""
    nothing, times, diffusion = torch.zeros(0, VOCAB), torch.zeros(0, dtype=torch.float64), toy("mutual", 0.3)
    assert diffusion.correct_for_time(nothing, times).shape == (0, VOCAB)
    assert diffusion.kl(nothing, torch.zeros(0, dtype=torch.long), times, times).stay.shape == (0,)


@each
@pytest.mark.parametrize("lam", (0.15, 0.3))
def test_kl_of_float32_input(name, lam):
    """A float32 network's log mu loses no more than float32 itself, also on a grid of 1000 steps."""
    log_mu = random_log_mu((WORDS,), seed=6)
    for t in (1, 2, 500, 999, 1000):
        times = (
            torch.full((WORDS,), (t - 1) / 1000, dtype=torch.float64),
            torch.full((WORDS,), t / 1000, dtype=torch.float64),
        )
        exact = toy(name, lam).kl(log_mu, torch.arange(WORDS), *times)
        single = toy(name, lam).kl(log_mu.float(), torch.arange(WORDS), *times)
        torch.testing.assert_close(single.reveal, exact.reveal, rtol=1e-6, atol=0)
        torch.testing.assert_close(single.stay, exact.stay, rtol=1e-4, atol=3e-7)


# ---- noise ---------------------------------------------------------------------------------------------------------


@each
@each_lambda
@pytest.mark.parametrize("tau", (0.1, 0.5, 0.85))
def test_empirical_mask_rates(name, lam, tau):
    """q_sample masks every word at the rate of the formula, within 4 sigma; at lambda > 0 rare words more often, by the
    formula's difference.
    """
    rows = 10_000
    x_0 = torch.arange(WORDS).repeat(rows, 2)  # [rows, 8]
    x_t = toy(name, lam).q_sample(
        x_0, torch.full((rows,), tau), torch.ones_like(x_0, dtype=torch.bool), torch.Generator().manual_seed(7)
    )
    masked, total = (x_t == MASK), 2 * rows
    rates = torch.stack([masked[x_0 == v].double().mean() for v in range(WORDS)])
    u = tau if name == "mutual" else math.sin(math.pi * tau / 2) ** 2
    m = u + lam * math.sin(math.pi * u) * H[:WORDS]
    sigma = (m * (1 - m) / total).sqrt()
    assert bool(((rates - m).abs() < 4 * sigma).all())
    rare_minus_common = rates[3] - rates[0]
    assert abs(float(rare_minus_common - lam * math.sin(math.pi * u) * (H[3] - H[0]))) < 4 * float(
        (sigma[0] ** 2 + sigma[3] ** 2).sqrt()
    )
    if lam:
        assert float(rare_minus_common) > 4 * float(sigma[0])


def test_only_maskable_places_are_masked():
    """Places outside ``maskable`` never change, all maskable ones do at tau = 1, none at tau = 0; each row has its own
    time.
    """
    x_0 = torch.randint(WORDS, (6, 10), generator=torch.Generator().manual_seed(8))
    maskable = torch.rand(6, 10, generator=torch.Generator().manual_seed(9)) < 0.5
    x_t = toy("mutual", 0.3).q_sample(
        x_0, torch.tensor([1.0, 0.0, 0.5, 1.0, 0.0, 0.5]), maskable, torch.Generator().manual_seed(10)
    )
    assert torch.equal(x_t[~maskable], x_0[~maskable])
    assert bool((x_t[[0, 3]][maskable[[0, 3]]] == MASK).all()) and torch.equal(x_t[[1, 4]], x_0[[1, 4]])
    assert bool(((x_t == MASK) | (x_t == x_0)).all())


def test_noise_is_set_by_the_generator():
    """The same seed gives the same noise, another seed another; the global random state plays no part."""
    x_0, tau, maskable = (
        torch.zeros(50, 10, dtype=torch.long),
        torch.full((50,), 0.5),
        torch.ones(50, 10, dtype=torch.bool),
    )
    torch.manual_seed(0)
    first = toy("mutual", 0.3).q_sample(x_0, tau, maskable, torch.Generator().manual_seed(11))
    torch.manual_seed(1)
    assert torch.equal(first, toy("mutual", 0.3).q_sample(x_0, tau, maskable, torch.Generator().manual_seed(11)))
    assert not torch.equal(first, toy("mutual", 0.3).q_sample(x_0, tau, maskable, torch.Generator().manual_seed(12)))


def test_noise_without_a_table():
    """A schedule without a table (before the corpus is counted) noises like the plain one."""
    x_0, tau, maskable = torch.randint(WORDS, (50, 10)), torch.rand(50), torch.ones(50, 10, dtype=torch.bool)
    bare = AbsorbingDiffusion(NoiseSchedule("cosine", 0.3), MASK).q_sample(
        x_0, tau, maskable, torch.Generator().manual_seed(13)
    )
    assert torch.equal(bare, toy("cosine", 0.0).q_sample(x_0, tau, maskable, torch.Generator().manual_seed(13)))
