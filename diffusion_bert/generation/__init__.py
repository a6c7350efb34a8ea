"""Text in, text out: lengths, canvases, the guided denoiser, decoding, filling, ranking, traces, scores, corrections,
and the generator.

It never prints and never reads files of texts: it gives answers to whoever asks.
"""

from .canvas import Canvas, Decoded, blank_canvas
from .correcting import Change, Correction
from .decoding import decode
from .denoise import GuidedDenoiser
from .generator import DiffusionTextGenerator
from .leave_one_out import leave_one_out
from .ranking import Answer
from .scoring import PieceScore, TextScore
from .tracing import Trace, Tracer

__all__ = [
    "Answer",
    "Canvas",
    "Change",
    "Correction",
    "Decoded",
    "DiffusionTextGenerator",
    "GuidedDenoiser",
    "PieceScore",
    "TextScore",
    "Trace",
    "Tracer",
    "blank_canvas",
    "decode",
    "leave_one_out",
]
