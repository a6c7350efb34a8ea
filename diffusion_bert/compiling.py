"""torch.compile for the encoder, where it can work."""

from __future__ import annotations

import os
import shutil

COMPILERS = ("g++", "clang++", "gcc", "clang")


def compile_encoder(denoiser, backend: str = "inductor") -> str | None:
    """Compile the encoder of a ``BertDenoiser`` in place, for batches of any width; weights keep their names. None, or
    why it was left as it is.

    Compilation itself happens at the first step. Heads stay as they are: they work on a number of places that differs
    from batch to batch.
    """
    if denoiser.timestep == "layerwise":
        return "timestep layerwise hooks into the layers at every call"
    if denoiser.family.encoder != "bert":
        return f"only BERT's encoder is compiled, not that of {denoiser.bert_config.model_type}"
    if backend == "inductor" and not any(shutil.which(name) for name in (os.environ.get("CXX"), *COMPILERS) if name):
        return f"no compiler found ({', '.join(COMPILERS)})"
    denoiser.leaves_out = False
    denoiser.mlm.bert.encoder.compile(dynamic=True, backend=backend)
    return None
