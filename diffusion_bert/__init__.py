"""DiffusionBERT: a BERT that writes, by masked diffusion with word-frequency-weighted noise."""

from __future__ import annotations

from .version import __version__

__all__ = ["DiffusionTextGenerator", "__version__"]


def __getattr__(name: str):
    # torch and transformers take seconds to import; --help must not wait for them
    if name == "DiffusionTextGenerator":
        from .generation.generator import DiffusionTextGenerator

        return DiffusionTextGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
