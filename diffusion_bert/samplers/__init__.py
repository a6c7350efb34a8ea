"""Sampling algorithms: one free function per algorithm, all with one signature; the denoiser comes in as a callable.

sampler(denoise, x_t, schedule, mask_id, tau, options, generator, callback) -> SampleOutput
"""

from .ancestral import sample_ancestral
from .common import Denoise, SampleOutput, SamplerOptions
from .confidence import sample_confidence

SAMPLERS = {"ancestral": sample_ancestral, "confidence": sample_confidence}

__all__ = ["SAMPLERS", "Denoise", "SampleOutput", "SamplerOptions", "sample_ancestral", "sample_confidence"]
