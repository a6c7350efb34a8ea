"""A compiled encoder computes the same for batches of any size, and what cannot be compiled is left alone with a
reason.
"""

import torch

from diffusion_bert.model.diffusion_model import compile_encoder
from tests.helpers.chain import BERT_MASK, make_batch, make_denoiser


def test_same_numbers_and_names():
    """Traced and run without code generation (which takes minutes): the same log mu for two shapes by both ways,
    gradients, names of weights.
    """
    plain, compiled = make_denoiser(), make_denoiser()
    assert compile_encoder(compiled, backend="aot_eager") is None
    assert compiled.mlm.bert.encoder._compiled_call_impl is not None
    assert list(plain.state_dict()) == list(compiled.state_dict())
    for rows in ([([5, 10, 11], [20, 10, 21]), ([5, 13], [22, 23])], [([5, 10, 11, 12, 13, 14], [20, 10, 21, 24])] * 3):
        batch = make_batch(rows)
        x_t = torch.where(batch.target_mask, BERT_MASK, batch.input_ids)
        tau = torch.ones(len(rows), dtype=torch.float64)
        a, b = (denoiser(batch, x_t, tau)[0] for denoiser in (plain, compiled))
        allowed = a.isfinite()
        assert torch.allclose(a[allowed], b[allowed]) and torch.equal(allowed, b.isfinite())
        b[allowed].sum().backward()
        said = [denoiser.true_words(batch, x_t, tau).log_mu for denoiser in (plain, compiled)]
        assert torch.allclose(*said)
        said[1].sum().backward()
    assert not compiled.skips_unread
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in compiled.parameters())


def test_what_cannot_be_compiled(monkeypatch):
    """Without a compiler, or with hooks in the layers, the encoder stays as it is and the reason is told."""
    denoiser = make_denoiser(timestep="layerwise")
    assert "layerwise" in compile_encoder(denoiser) and denoiser.mlm.bert.encoder._compiled_call_impl is None
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    denoiser = make_denoiser()
    assert (
        "no compiler found (g++" in compile_encoder(denoiser) and denoiser.mlm.bert.encoder._compiled_call_impl is None
    )
