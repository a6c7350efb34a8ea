"""The denoiser p(x_0 | x_t, source): encoder families, heads, the model with all that belongs to it, its checkpoint.

It never samples and never trains: it says what the network expects at the masked places.
"""

from .bound import PlaceTerms, place_terms
from .checkpoint import load_checkpoint, restore, save_checkpoint
from .denoiser import BertDenoiser, TrueWords
from .diffusion_model import DiffusionModel, build_model, fit_schedule
from .heads import CopyHead, SelfConditioning, TimeEmbedding
from .passes import EncodedSource
from .payload import read_payload
from .publishing import push, save_folder

__all__ = [
    "BertDenoiser",
    "CopyHead",
    "DiffusionModel",
    "EncodedSource",
    "PlaceTerms",
    "SelfConditioning",
    "TimeEmbedding",
    "TrueWords",
    "build_model",
    "fit_schedule",
    "load_checkpoint",
    "place_terms",
    "push",
    "read_payload",
    "restore",
    "save_checkpoint",
    "save_folder",
]
