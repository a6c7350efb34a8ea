"""DiffusionBERT: a BERT that writes, by masked diffusion with word-frequency-weighted noise."""

from __future__ import annotations

from .errors import UserError
from .version import __version__

__all__ = ["DiffusionTextGenerator", "UserError", "__version__", "train"]


def __getattr__(name: str):
    # torch and transformers take seconds to import; --help must not wait for them
    if name == "DiffusionTextGenerator":
        from .generation.generator import DiffusionTextGenerator

        return DiffusionTextGenerator
    if name == "train":
        from .commands.python_training import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
