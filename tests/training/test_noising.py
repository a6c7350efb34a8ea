"""Examples with little noise: their times and weights."""

import pytest
import torch

from diffusion_bert.diffusion.schedule import NoiseSchedule
from diffusion_bert.training.noising import low_noise_steps, low_noise_times
from diffusion_bert.training.objective import nelbo_terms
from tests.helpers.chain import BERT_MASK, make_batch, make_denoiser, make_diffusion


@pytest.mark.parametrize(("name", "num_steps"), [("mutual", 64), ("mutual", 7), ("cosine", 100), ("mutual", 1)])
def test_low_noise_steps(name, num_steps):
    """The steps are those whose masked share is 5 to 50 %, or the nearest one where there is none."""
    schedule = NoiseSchedule(name)
    first, last = low_noise_steps(schedule, num_steps)
    u = schedule.u(torch.arange(1, num_steps + 1) / num_steps)
    inside = [step for step, share in enumerate(u.tolist(), 1) if 0.05 <= share <= 0.5]
    assert (first, last) == ((inside[0], inside[-1]) if inside else (1, 1))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_low_noise_times(share):
    """An example without source has time t as often as q(t) says, within four sigma; the others keep their times; and
    weights times frequencies are uniform again.
    """
    num_steps, steps, count = 16, (2, 8), 160_000
    generator = torch.Generator().manual_seed(3)
    t = 1 + torch.randint(num_steps, (count, 1), generator=generator)
    chosen = torch.rand(count, generator=generator) < share
    eligible = torch.arange(count) % 2 == 0
    low, weight = low_noise_times(t, chosen, eligible, share, steps, num_steps)
    assert torch.equal(low[~eligible], t[~eligible]) and bool((weight[~eligible] == 1).all())
    assert torch.equal(low[~chosen], t[~chosen])
    ours = low[eligible].flatten()
    frequency = torch.bincount(ours, minlength=num_steps + 1)[1:].double() / len(ours)
    q = torch.full((num_steps,), (1 - share) / num_steps, dtype=torch.float64)
    for step in range(num_steps):
        q[1 + step * 7 // num_steps] += share / num_steps
    assert bool(((frequency - q).abs() < 4 * (q * (1 - q) / len(ours)).sqrt() + 1e-9).all())
    by_time = torch.zeros(num_steps + 1, dtype=torch.float64).index_put((ours,), weight[eligible].flatten())[1:]
    torch.testing.assert_close(by_time * q, torch.full((num_steps,), 1 / num_steps, dtype=torch.float64))


def test_the_bound_is_estimated_as_before():
    """With weights the mean of the KL over low-noise times is the KL summed over all times, exactly as without."""
    denoiser, diffusion = make_denoiser(), make_diffusion(lam=0.2)
    batch, num_steps, share, steps = make_batch([([], [20, 10, 11])]), 6, 0.5, (1, 3)
    masked = torch.tensor([[False, False, True, False, True, False]])
    x_t = torch.where(masked, BERT_MASK, batch.input_ids)

    def kl(step, weight=None):
        terms = nelbo_terms(denoiser, diffusion, batch, x_t, torch.tensor([step]), num_steps, time_weight=weight)
        return float(terms.reveal + terms.stay), float(terms.cross_entropy)

    with torch.no_grad():
        plain = sum(kl(step)[0] for step in range(1, num_steps + 1)) / num_steps
        t = torch.arange(1, num_steps + 1)[:, None]
        every = torch.ones(num_steps, dtype=torch.bool)
        _, weight = low_noise_times(t, ~every, every, share, steps, num_steps)
        q = [(1 - share + share * (2 if step <= 3 else 0)) / num_steps for step in range(1, num_steps + 1)]
        weighted = sum(p * kl(step, weight[step - 1 : step])[0] for step, p in enumerate(q, 1))
        assert weighted == pytest.approx(plain, rel=1e-9)
        assert kl(2, weight[1:2])[1] == kl(2)[1]  # plain cross-entropy is not weighted
