"""Position tables for readers that count from 0 without a break, as transformers does.

The denoiser counts source and target from 0 each, and without a source the sequence is ``[CLS] [SEP] text [SEP]``:
positions 0, 1 | 0, 1, 2 ... With its first two rows repeated in front, a table serves running positions: row 0, 1 are
[CLS] and [SEP], row 2 + j is place j of the text.
"""

from __future__ import annotations

import torch
from torch import Tensor

OFFSET = 2  # places of an empty source, [CLS] and [SEP]
CONFIG_KEY = "diffusion_bert_position_offset"  # in the config.json of such a model
POSITIONS = "bert.embeddings.position_embeddings.weight"


def running(table: Tensor) -> Tensor:
    """[P, D] -> [P + 2, D]: for positions that run on."""
    return torch.cat([table[:OFFSET], table])


def restarting(table: Tensor) -> Tensor:
    """[P + 2, D] -> [P, D]: undoes ``running``."""
    return table[OFFSET:].clone()
