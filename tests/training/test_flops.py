"""The count of operations agrees with PyTorch's own counter, and GPUs are known by their names."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffusion_bert.diffusion.process import AbsorbingDiffusion
from diffusion_bert.diffusion.schedule import NoiseSchedule
from diffusion_bert.training.flops import forward_flops, peak_flops, training_flops
from diffusion_bert.training.objective import nelbo_terms, training_loss
from tests.helpers.chain import BERT_MASK, make_batch, make_denoiser


@pytest.mark.parametrize(
    "options",
    [{}, {"copy_head": False}, {"attention": "full"}, {"timestep": "prefix"}, {"timestep": "layerwise"}],
    ids=lambda options: str(options),
)
def test_count_is_that_of_the_counter(options):
    """Forward alone, and forward with backward: within 3 % of torch.utils.flop_counter on a training step's own
    code.
    """
    denoiser = make_denoiser(**options)
    denoiser.skips_unread = False  # as on a GPU
    batch = make_batch([([5, 10, 11, 12, 13], [20, 10, 21, 22, 23]), ([5, 13, 14], [22, 23, 24, 25, 13])] * 8)
    x_t = torch.where(batch.target_mask, BERT_MASK, batch.input_ids)
    t = torch.full((len(batch),), 4)
    shape = (*batch.input_ids.shape, int(batch.source_length.max()), int((x_t == BERT_MASK).sum()))
    # the counter has no formula for the CPU's fused attention: the plain one does the same products
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            terms = nelbo_terms(denoiser, AbsorbingDiffusion(NoiseSchedule(), BERT_MASK), batch, x_t, t, 8)
        with FlopCounterMode(display=False) as backward:
            training_loss(terms, "ce", 0.0, 1, 1).backward()
    assert forward_flops(denoiser, *shape) == pytest.approx(forward.get_total_flops(), rel=0.03)
    assert training_flops(denoiser, *shape) == pytest.approx(
        forward.get_total_flops() + backward.get_total_flops(), rel=0.03
    )


def test_peaks():
    """Names as CUDA gives them; unknown GPUs, and those without bf16, have no peak."""
    assert peak_flops("NVIDIA H100 80GB HBM3") == peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12 and peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("NVIDIA GeForce RTX 4090") == 165e12 and peak_flops("NVIDIA A10") == 125e12
    assert peak_flops("Tesla T4") is None and peak_flops("NVIDIA L40") is None and peak_flops("") is None
