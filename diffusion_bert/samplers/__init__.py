"""Sampling algorithms: one free function per algorithm, all with one signature; the denoiser comes in as a callable.

It never knows a tokenizer, a source or a model: a sampler sees ids, a schedule and what the callable says.

sampler(denoise, x_t, schedule, mask_id, tau, options, keys, callback) -> SampleOutput
"""

from .ancestral import sample_ancestral
from .confidence import sample_confidence
from .entropy import sample_entropy
from .first_hitting import sample_first_hitting
from .remask import sample_remask
from .repetition import Repeats
from .spelling import Spelling
from .state import Denoise, SampleOutput, SamplerOptions
from .words import guide

SAMPLERS = {
    "ancestral": sample_ancestral,
    "first_hitting": sample_first_hitting,
    "confidence": sample_confidence,
    "entropy": sample_entropy,
    "remask": sample_remask,
}

__all__ = [
    "SAMPLERS",
    "Denoise",
    "Repeats",
    "SampleOutput",
    "SamplerOptions",
    "Spelling",
    "guide",
    "sample_ancestral",
    "sample_confidence",
    "sample_entropy",
    "sample_first_hitting",
    "sample_remask",
]
