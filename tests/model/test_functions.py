"""One pass over the logits instead of many: values, gradients, and the terms of the bound, against the plain
formulas.
"""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_bert.data.batch import Batch
from diffusion_bert.model import functions as module
from diffusion_bert.model.functions import true_word_statistics
from diffusion_bert.training.objective import LossOptions, nelbo_terms
from tests.helpers.chain import make_batch, make_denoiser, make_diffusion, mixed_rows

VOCAB = 11


def case(count: int = 9, dtype=torch.float64):
    torch.manual_seed(0)
    logits = (3 * torch.randn(count, VOCAB)).to(dtype).requires_grad_()
    bias = torch.zeros(VOCAB, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    bias[[0, 4]] = float("-inf")
    index = torch.tensor([1, 2, 3, 5, 6, 7, 8, 9, 10])[:count]
    return logits, bias, index, torch.rand(VOCAB, dtype=bias.dtype)


@pytest.mark.parametrize("piece", (1, 2 * VOCAB, 2**18))
@pytest.mark.parametrize("with_table", (True, False))
def test_value_and_gradient(monkeypatch, piece, with_table):
    """log p and the mean of the table are those of log_softmax, whatever the size of the pieces; so are the gradients
    (and gradcheck agrees).
    """
    monkeypatch.setattr(module, "PIECE", piece)
    logits, bias, index, table = case()
    log_p, mean = true_word_statistics(logits, bias, index, table if with_table else None)
    plain = torch.log_softmax(logits + bias, -1)
    expected = plain.gather(-1, index[:, None]).squeeze(-1), plain.exp() @ table * with_table
    torch.testing.assert_close((log_p, mean), expected, rtol=0, atol=1e-12)
    weights = torch.randn(2, len(index), dtype=torch.float64)
    fast, slow = (
        torch.autograd.grad((weights[0] * a + with_table * weights[1] * b).sum(), logits)[0]
        for a, b in ((log_p, mean), expected)
    )
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    assert not bool(fast[:, [0, 4]].any())
    assert torch.autograd.gradcheck(
        lambda x: true_word_statistics(x, bias, index, table if with_table else None)[: 1 + with_table], logits
    )


@pytest.mark.parametrize("asked", (0, 1))
def test_gradient_of_one_alone(asked):
    """A loss that uses log p alone, or the mean alone, has the gradient of the plain formula."""
    logits, bias, index, table = case()
    plain = torch.log_softmax(logits + bias, -1)
    expected = plain.gather(-1, index[:, None]).squeeze(-1), plain.exp() @ table
    fast = true_word_statistics(logits, bias, index, table)
    weights = torch.randn(len(index), dtype=torch.float64)
    fast, slow = (torch.autograd.grad((weights * values[asked]).sum(), logits)[0] for values in (fast, expected))
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)


def test_half_precision_logits_give_float32():
    """bf16 logits are read as they are and summed in float32; under autocast too. The gradient has the type of the
    logits.
    """
    logits, bias, index, table = case(dtype=torch.bfloat16)
    exact = torch.log_softmax(logits.detach().float() + bias, -1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_p, mean = true_word_statistics(logits, bias, index, table)
    assert log_p.dtype == mean.dtype == torch.float32
    torch.testing.assert_close(log_p, exact.gather(-1, index[:, None]).squeeze(-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(mean, exact.exp() @ table, rtol=0, atol=1e-5)
    log_p.sum().backward()
    assert logits.grad.dtype == torch.bfloat16


def test_large_logits_and_no_place():
    """Logits of several hundred overflow nothing; no place at all gives empty results with a gradient."""
    logits, bias, index, table = case()
    log_p, mean = true_word_statistics(logits.detach() * 300, bias, index, table)
    assert bool(log_p.isfinite().all()) and bool((mean >= 0).all()) and bool((mean <= 1).all())
    empty = torch.zeros(0, VOCAB, requires_grad=True)
    log_p, mean = true_word_statistics(empty, bias.float(), index[:0], table.float())
    (log_p.sum() + mean.sum()).backward()
    assert log_p.shape == mean.shape == (0,) and empty.grad.shape == (0, VOCAB)


@pytest.mark.parametrize("copy_head", (True, False))
@pytest.mark.parametrize("lam", (0.0, 0.15, 1 / torch.pi))
def test_fast_terms_equal_the_terms_over_all_words(copy_head, lam):
    """The terms computed from (log mu of the true word, mean excess) are those of the full distribution, and so are the
    gradients of both losses.
    """
    denoiser, diffusion, batch = make_denoiser(copy_head=copy_head), make_diffusion(lam=lam), make_batch(mixed_rows())
    parameters = list(denoiser.parameters())
    t = torch.tensor([1, 4, 9, 10])
    x_t = torch.where(batch.target_mask, batch.mask_id, batch.input_ids)

    def slow(batch: Batch):
        log_mu, _ = denoiser(batch, x_t, t.double() / 10)
        rows, columns = batch.masked_places(x_t)
        log_mu = diffusion.correct_for_time(log_mu, t.double()[rows] / 10)
        x_0 = batch.input_ids[rows, columns]
        kl = diffusion.kl(log_mu, x_0, (t.double()[rows] - 1) / 10, t.double()[rows] / 10)
        return 10 * kl.reveal.sum(), 10 * kl.stay.sum(), -log_mu.gather(-1, x_0[:, None]).sum()

    terms = nelbo_terms(denoiser, diffusion, batch, x_t, t, 10)
    for fast, exact in zip((terms.reveal, terms.stay, terms.cross_entropy), slow(batch)):
        torch.testing.assert_close(fast, exact.double(), rtol=1e-9, atol=1e-9)
    for fast, exact in ((terms.reveal + terms.stay, sum(slow(batch)[:2])), (terms.cross_entropy, slow(batch)[2])):
        pairs = zip(
            *(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in (fast, exact))
        )
        for a, b in pairs:
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_mean_mask_probability_keeps_its_digits():
    """E[m] from the mean excess is the mean of m, also at lambda = 1/pi near u = 0, where the most common word's m is
    of third order in u.
    """
    schedule = make_diffusion(lam=1 / torch.pi).schedule
    mu = torch.zeros(len(schedule.excess), dtype=torch.float64)
    most_common = int(schedule.informativeness.argmin())
    for share in (1.0, 1 - 1e-9, 0.5):
        mu[most_common], mu[5] = share, 1 - share
        for tau in (1e-3, 0.05, 0.3, 0.999):
            tau = torch.tensor(tau, dtype=torch.float64)
            mean = (mu * schedule.mask_probability(tau)).sum()
            torch.testing.assert_close(
                schedule.mean_mask_probability(tau, mu @ schedule.excess), mean, rtol=1e-9, atol=0
            )
    for tau, end in ((0.0, 0.0), (1.0, 1.0)):
        assert float(schedule.mean_mask_probability(torch.tensor(tau), torch.tensor(1.7))) == end


@pytest.mark.parametrize("draws", (1, 3))
def test_a_step_never_asks_the_device(draws):
    """With places known from the host neither the loss nor its gradient reads a number back or looks for places, for
    which a GPU would be waited.
    """
    denoiser, diffusion, batch = make_denoiser(), make_diffusion(), make_batch(mixed_rows()).repeated(draws)
    denoiser.skips_unread = False  # as on a GPU
    t = torch.tensor([1, 4, 9, 10])[:, None].expand(-1, draws)
    x_t = torch.where(batch.target_mask, batch.mask_id, batch.input_ids)
    places = batch.masked_places(x_t)
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Watch():
        nelbo_terms(denoiser, diffusion, batch, x_t, t, 10, places=places).total.backward()
    assert len(seen) > 100
    assert not [name for name in seen if "nonzero" in name or "_local_scalar_dense" in name or "is_nonzero" in name]


@pytest.mark.parametrize("loss_weighting", ("none", "linear"))
@pytest.mark.parametrize(
    "options",
    ({}, {"copy_head": False}, {"attention": "full"}, {"timestep": "prefix"}, {"self_conditioning": True}),
    ids=str,
)
def test_a_step_leaves_nothing_on_the_cpu(monkeypatch, options, loss_weighting):
    """On a device that only knows shapes ("meta") loss and gradient work as well: whatever was made on the CPU, or
    asked for a number, would fail.
    """
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # which this device does not have
    denoiser, diffusion, batch = make_denoiser(**options), make_diffusion(lam=0.15), make_batch(mixed_rows())
    x_t = torch.where(batch.target_mask, batch.mask_id, batch.input_ids)
    tensors = (x_t, torch.tensor([1, 4, 9, 10]), *batch.masked_places(x_t))
    x_t, t, *places = (tensor.to("meta") for tensor in tensors)
    denoiser.to("meta").train()
    diffusion.schedule.to("meta")
    two_pass = "self_conditioning" in options
    terms = nelbo_terms(
        denoiser,
        diffusion,
        batch.to("meta"),
        x_t,
        t,
        10,
        options=LossOptions(loss_weighting=loss_weighting),
        two_pass=two_pass,
        places=tuple(places),
    )
    (terms.total if loss_weighting == "none" else terms.surrogate).backward()
    assert {parameter.grad.device.type for parameter in denoiser.parameters() if parameter.grad is not None} == {"meta"}
    assert bool(terms.stacked().is_meta)
