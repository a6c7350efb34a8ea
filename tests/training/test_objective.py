"""The objective: times, terms, losses and the fixed estimator, on a tiny random BERT."""

import math
from itertools import product

import pytest
import torch

from diffusion_bert.config.schema import SCHEDULES
from diffusion_bert.diffusion.times import sample_times
from diffusion_bert.training.objective import (
    LossOptions,
    NelboTerms,
    loss_weight,
    nelbo_terms,
    smoothed_cross_entropy,
    training_loss,
)
from diffusion_bert.training.yardstick import estimate_nelbo
from tests.helpers.chain import (
    BERT_MASK,
    MASK,
    VOCAB,
    WORDS,
    make_batch,
    make_denoiser,
    make_diffusion,
    mixed_rows,
    random_log_mu,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- times ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size, num_steps", [(1, 1), (1, 10), (8, 8), (8, 1000), (32, 4), (7, 50)])
def test_times_lie_in_1_to_T_and_cover_it_evenly(batch_size, num_steps):
    """Times are integers in 1..T; each of T (or B) equal strata is hit as often as evenness allows, for any offset."""
    for seed in range(200):
        t = sample_times(batch_size, num_steps, seeded(seed))
        assert t.dtype == torch.int64 and int(t.min()) >= 1 and int(t.max()) <= num_steps
        counts = torch.bincount(t - 1, minlength=num_steps)
        assert int(counts.max() - counts.min()) <= 1 or batch_size < num_steps
        assert int(counts.max()) <= -(-batch_size // num_steps) + (batch_size % num_steps != 0)
        if num_steps % batch_size == 0:  # B strata of T / B steps: one time each
            assert torch.equal(
                torch.bincount((t - 1) // (num_steps // batch_size), minlength=batch_size),
                torch.ones(batch_size, dtype=torch.int64),
            )


@pytest.mark.parametrize("place", (0, 2))
def test_each_time_alone_is_uniform(place):
    """One example's time, over many batches, is uniform on 1..T within 4 sigma."""
    generator, draws, num_steps = seeded(1), 6000, 5
    t = torch.stack([sample_times(3, num_steps, generator)[place] for _ in range(draws)])
    counts = torch.bincount(t - 1, minlength=num_steps).double()
    assert bool(((counts - draws / num_steps).abs() < 4 * (draws * 0.2 * 0.8) ** 0.5).all())


def test_times_are_set_by_the_generator():
    """Same seed, same times."""
    assert torch.equal(sample_times(9, 1000, seeded(2)), sample_times(9, 1000, seeded(2)))


# ---- terms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time_correction", (False, True))
def test_terms_are_what_their_names_say(time_correction):
    """reveal and stay are T times diffusion.kl, cross_entropy is -log mu of the true words, length is -log p(length |
    source), counts are counts.
    """
    denoiser, diffusion, batch = make_denoiser(), make_diffusion(), make_batch(mixed_rows())
    t = torch.tensor([2, 7, 9, 10])
    x_t = diffusion.q_sample(batch.input_ids, t / 10, batch.target_mask, seeded(3))
    with torch.no_grad():
        terms = nelbo_terms(denoiser, diffusion, batch, x_t, t, 10, time_correction)
        log_mu, lengths = denoiser(batch, x_t, t.double() / 10)
        masked = x_t == BERT_MASK
        times, x_0 = t[masked.nonzero()[:, 0]].double(), batch.input_ids[masked]
        if time_correction:
            log_mu = diffusion.correct_for_time(log_mu, times / 10)
        kl = diffusion.kl(log_mu, x_0, (times - 1) / 10, times / 10)
    assert float(terms.reveal) == pytest.approx(10 * float(kl.reveal.sum()), rel=1e-9)
    assert float(terms.stay) == pytest.approx(10 * float(kl.stay.sum()), rel=1e-9)
    assert float(terms.cross_entropy) == pytest.approx(
        -sum(float(log_mu[i, v]) for i, v in enumerate(x_0.tolist())), rel=1e-6
    )
    assert float(terms.length) == pytest.approx(
        -sum(float(lengths.log_softmax(-1)[i, n - 1]) for i, n in enumerate([3, 5, 2, 1])), rel=1e-5
    )
    assert float(terms.masked) == int(masked.sum()) and float(terms.tokens) == 11
    per_token = terms.per_token()
    assert per_token["nelbo"] == pytest.approx(per_token["reveal"] + per_token["stay"] + per_token["length"])
    assert per_token["nelbo"] == pytest.approx(float(terms.total) / 11)
    assert per_token["cross_entropy"] == pytest.approx(float(terms.cross_entropy) / int(masked.sum()))


def test_terms_add_up():
    """Adding two batches' terms adds every field."""
    one, two = (NelboTerms(*(torch.tensor(float(base + i)) for i in range(6))) for base in (1, 10))
    # the surrogate is the cross-entropy
    assert [float(value) for value in vars(one + two).values()] == [11.0, 13.0, 15.0, 17.0, 19.0, 21.0, 17.0]


@pytest.mark.parametrize("lam", (0.0, 0.3))
@pytest.mark.parametrize("loss", ("ce", "nelbo"))
def test_a_batch_without_a_masked_place(lam, loss):
    """Nothing masked: all diffusion terms are finite zeros, the loss is the length term and its gradient has no NaN."""
    denoiser, batch = make_denoiser(), make_batch(mixed_rows())
    terms = nelbo_terms(denoiser, make_diffusion(lam=lam), batch, batch.input_ids, torch.ones(4, dtype=torch.long), 10)
    value = training_loss(terms, loss, 0.1, 0, 0)
    value.backward()
    for parameter in denoiser.parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all())
    values = {name: term.item() for name, term in vars(terms).items()}
    assert values["reveal"] == values["stay"] == values["cross_entropy"] == values["masked"] == 0.0
    assert value.item() == values["length"] > 0
    per_token = NelboTerms(*(term.detach() for term in vars(terms).values())).per_token()
    assert all(math.isfinite(number) for number in per_token.values())


@pytest.mark.parametrize("lam", (0.0, 0.3))
def test_kl_without_gradient_is_only_reported(lam):
    """kl_gradient=False changes no value and no gradient of cross-entropy and length; the KL terms then carry no
    gradient themselves.
    """
    denoiser, diffusion, batch, t = (
        make_denoiser(),
        make_diffusion(lam=lam),
        make_batch(mixed_rows()),
        torch.tensor([1, 6, 8, 10]),
    )
    x_t = diffusion.q_sample(batch.input_ids, t / 10, batch.target_mask, seeded(7))
    gradients, terms = [], []
    for kl_gradient in (True, False):
        denoiser.zero_grad(set_to_none=True)
        terms.append(nelbo_terms(denoiser, diffusion, batch, x_t, t, 10, options=LossOptions(kl_gradient=kl_gradient)))
        assert terms[-1].reveal.requires_grad is kl_gradient and terms[-1].stay.requires_grad is (
            kl_gradient and lam > 0
        )
        training_loss(terms[-1], "ce", 0.0, 5, 11).backward()
        gradients.append([parameter.grad for parameter in denoiser.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(vars(terms[0]).values(), vars(terms[1]).values()))
    assert all(torch.equal(one, other) for one, other in zip(*gradients))


@pytest.mark.parametrize("loss, hybrid_lambda", [("ce", 0.0), ("nelbo", 0.0), ("nelbo", 0.1)])
@pytest.mark.parametrize("lam", (0.0, 0.3))
def test_micro_batches_add_up_to_the_big_batch(loss, hybrid_lambda, lam):
    """Losses of micro-batches of other widths, one of them without a masked place, sum to the loss of the big batch; so
    do their gradients.
    """
    denoiser, diffusion, rows = make_denoiser(timestep="layerwise"), make_diffusion(lam=lam), mixed_rows()
    t, batch = torch.tensor([1, 6, 8, 10]), make_batch(rows)
    x_t = diffusion.q_sample(batch.input_ids, t / 10, batch.target_mask, seeded(4))
    x_t[0] = batch.input_ids[0]
    masked, tokens = int((x_t == BERT_MASK).sum()), int(batch.target_length.sum())

    def loss_and_gradients(groups):
        denoiser.zero_grad(set_to_none=True)
        total = 0.0
        for group in groups:
            part = make_batch([rows[i] for i in group])
            value = training_loss(
                nelbo_terms(denoiser, diffusion, part, x_t[group, : part.input_ids.shape[1]], t[group], 10),
                loss,
                hybrid_lambda,
                masked,
                tokens,
            )
            value.backward()
            total += float(value.detach())
        return total, [parameter.grad for parameter in denoiser.parameters()]

    big, big_gradients = loss_and_gradients([[0, 1, 2, 3]])
    small, small_gradients = loss_and_gradients([[0], [1, 3], [2]])
    assert small == pytest.approx(big, rel=1e-6)
    for one, other in zip(small_gradients, big_gradients):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_training_loss_formulas():
    """ce is per masked place, nelbo per target token plus hybrid_lambda times ce, both plus the length term per
    token.
    """
    terms = NelboTerms(*(torch.tensor(value) for value in (6.0, -2.0, 3.0, 10.0, 5.0, 8.0)))
    assert float(training_loss(terms, "ce", 0.5, 5, 8)) == pytest.approx(10 / 5 + 3 / 8)
    assert float(training_loss(terms, "nelbo", 0.0, 5, 8)) == pytest.approx(4 / 8 + 3 / 8)
    assert float(training_loss(terms, "nelbo", 0.5, 5, 8)) == pytest.approx(4 / 8 + 0.5 * 10 / 5 + 3 / 8)


# ---- label smoothing and weights -----------------------------------------------------------------------------------


def test_smoothing_is_cross_entropy_to_a_smoothed_target():
    """The smoothed loss is the cross-entropy to (1 - e) one-hot + e uniform over the allowed words; the forbidden ones
    get none of e.
    """
    log_mu = random_log_mu((6,), 1)
    x_0 = torch.tensor([0, 1, 2, 3, 0, 1])
    for e in (0.0, 0.1, 0.6):
        target = (1 - e) * torch.nn.functional.one_hot(x_0, VOCAB).double() + e / WORDS
        target[:, MASK] = 0.0
        expected = -(target * torch.where(target > 0, log_mu, 0.0)).sum(-1)
        torch.testing.assert_close(smoothed_cross_entropy(log_mu, x_0, e), expected, rtol=1e-12, atol=0)


def test_smoothing_moves_the_optimum():
    """Minimised over mu, the plain loss wants all mass on the word, the smoothed one exactly 1 - e + e / V of it, and a
    finite loss.
    """
    logits = torch.zeros(1, WORDS, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)
    forbidden = torch.full((1, 1), float("-inf"), dtype=torch.float64)

    def closure():
        optimizer.zero_grad()
        log_mu = torch.log_softmax(torch.cat([logits, forbidden], -1), -1)
        value = smoothed_cross_entropy(log_mu, torch.tensor([2]), 0.2).sum()
        value.backward()
        return value

    optimizer.step(closure)
    assert torch.softmax(logits, -1)[0].tolist() == pytest.approx([0.05, 0.05, 0.85, 0.05], abs=1e-6)


def test_weights_are_linear_and_never_zero():
    """linear: 1 at t = 1, falling evenly to 1/T at t = T, so that even wholly masked examples teach something; none:
    1.
    """
    t = torch.arange(1, 11)
    assert loss_weight(t, 10, "linear").tolist() == pytest.approx([1 - i / 10 for i in range(10)])
    assert loss_weight(t, 10, "none").tolist() == [1.0] * 10


@pytest.mark.parametrize("smoothing, weighting", [(0.2, "none"), (0.0, "linear"), (0.2, "linear")])
def test_what_is_reported_knows_no_smoothing(smoothing, weighting):
    """Smoothing and weights change the surrogate, and so the loss, but no other term, and no entry of per_token."""
    denoiser, diffusion, batch, t = (
        make_denoiser(),
        make_diffusion(),
        make_batch(mixed_rows()),
        torch.tensor([1, 6, 8, 10]),
    )
    x_t = diffusion.q_sample(batch.input_ids, t / 10, batch.target_mask, seeded(7))
    with torch.no_grad():
        plain = nelbo_terms(denoiser, diffusion, batch, x_t, t, 10)
        other = nelbo_terms(denoiser, diffusion, batch, x_t, t, 10, options=LossOptions(True, smoothing, weighting))
    assert plain.per_token() == pytest.approx(other.per_token(), rel=1e-12)
    assert plain.surrogate == plain.cross_entropy and float(other.surrogate) != pytest.approx(
        float(plain.surrogate), rel=1e-3
    )
    assert float(training_loss(other, "ce", 0.0, 5, 11)) == pytest.approx(
        float(other.surrogate) / 5 + float(other.length) / 11
    )
    assert float(training_loss(other, "nelbo", 0.5, 5, 11)) == pytest.approx(
        float(training_loss(plain, "nelbo", 0.5, 5, 11)), rel=1e-12
    )
    if weighting == "linear" and not smoothing:
        one_by_one = [
            nelbo_terms(
                denoiser,
                diffusion,
                make_batch([row]),
                x_t[i : i + 1, : len(row[0]) + len(row[1]) + 3],
                t[i : i + 1],
                10,
            )
            for i, row in enumerate(mixed_rows())
        ]
        weighted = sum(
            (1 - (int(t[i]) - 1) / 10) * float(terms.cross_entropy.detach()) for i, terms in enumerate(one_by_one)
        )
        assert float(other.surrogate) == pytest.approx(weighted, rel=1e-6)


# ---- the estimator -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", (False, True))
def test_estimate_is_fixed_and_leaves_the_mode(training):
    """The estimate is the same every time, in train and eval mode (dropout is off), whatever the global random state;
    the mode is restored.
    """
    denoiser, diffusion, batches = (
        make_denoiser(),
        make_diffusion(),
        [make_batch(mixed_rows()), make_batch(mixed_rows()[:2])],
    )
    expected = estimate_nelbo(denoiser.eval(), diffusion, batches)
    denoiser.train(training)
    torch.manual_seed(5)
    actual = estimate_nelbo(denoiser, diffusion, batches)
    assert denoiser.training is training
    assert vars(actual) == vars(expected) and float(actual.tokens) == 19
    assert vars(estimate_nelbo(denoiser, diffusion, batches, seed=1)) != vars(expected)
    assert not actual.total.requires_grad


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("time_correction", (False, True))
def test_monte_carlo_agrees_with_the_exhaustive_sum(name, time_correction):
    """Over random t and noise, the mean of nelbo_terms is the exhaustive sum over all t and all mask patterns, within 4
    sigma, term by term.
    """
    denoiser, diffusion, num_steps = make_denoiser(timestep="prefix"), make_diffusion(name), 3
    batch = make_batch([([5, 10, 11], [20, 10])])
    words, x_0 = slice(5, 7), batch.input_ids
    exact = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        for t, hidden in product(range(1, num_steps + 1), product((False, True), repeat=2)):
            hidden = torch.tensor(hidden)
            x_t = x_0.clone()
            x_t[0, words] = torch.where(hidden, BERT_MASK, x_0[0, words])
            m = diffusion.schedule.mask_probability(torch.tensor(t / num_steps), x_0[0, words])
            terms = nelbo_terms(denoiser, diffusion, batch, x_t, torch.tensor([t]), num_steps, time_correction)
            exact += torch.where(hidden, m, 1 - m).prod() * torch.stack([terms.reveal, terms.stay]) / num_steps
        generator, rows, means = seeded(6), 60, []
        many = make_batch([([5, 10, 11], [20, 10])] * rows)
        for _ in range(40):
            t = sample_times(rows, num_steps, generator)
            x_t = diffusion.q_sample(many.input_ids, t.double() / num_steps, many.target_mask, generator)
            terms = nelbo_terms(denoiser, diffusion, many, x_t, t, num_steps, time_correction)
            means.append(torch.stack([terms.reveal, terms.stay]) / rows)
    means = torch.stack(means)
    assert bool(((means.mean(0) - exact).abs() < 4 * means.std(0) / len(means) ** 0.5).all())
    assert float(exact.sum()) > 0
