"""The layout of one batch of sequences ``[CLS] prompt source [SEP] target [SEP]``: what is source, what may be noised, what may be copied."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Batch:
    """Clean sequences and their lengths; every mask follows from these.

    input_ids [B, L]: the sequence, padded at the end.
    source_length [B]: places of the source segment, [CLS] and [SEP] included.
    prompt_length [B]: word pieces of the prompt after [CLS].
    target_length [B]: words of the target, its closing [SEP] not counted.
    source_width: the longest source segment, S.
    """

    input_ids: Tensor
    source_length: Tensor
    prompt_length: Tensor
    target_length: Tensor
    pad_id: int
    mask_id: int
    source_width: int = 0

    def __post_init__(self):
        if not self.source_width:  # read once, where the batch is made: later it may be on a GPU, which would have to be waited for
            self.source_width = int(self.source_length.max()) if len(self.source_length) else 0

    def __len__(self) -> int:
        return len(self.input_ids)

    def to(self, device) -> Batch:
        """The same batch on another device."""
        tensors = (self.input_ids, self.source_length, self.prompt_length, self.target_length)
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors), self.pad_id, self.mask_id, self.source_width)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; the data loader calls this before a copy to a GPU."""
        tensors = (self.input_ids, self.source_length, self.prompt_length, self.target_length)
        return Batch(*(tensor.pin_memory() for tensor in tensors), self.pad_id, self.mask_id, self.source_width)

    @property
    def columns(self) -> Tensor:
        return torch.arange(self.input_ids.shape[1], device=self.input_ids.device)  # [L]

    @property
    def valid(self) -> Tensor:
        """[B, L] everything but padding."""
        return self.columns < (self.source_length + self.target_length + 1)[:, None]

    @property
    def is_target_segment(self) -> Tensor:
        """[B, L] all that follows the source's [SEP]."""
        return self.columns >= self.source_length[:, None]

    @property
    def positions(self) -> Tensor:
        """[B, L] position ids: the source counts from 0, and so does the target."""
        return torch.where(self.is_target_segment, self.columns - self.source_length[:, None], self.columns)

    @property
    def target_mask(self) -> Tensor:
        """[B, L] the target's words: the only places that may be noised."""
        return self.is_target_segment & (self.columns < (self.source_length + self.target_length)[:, None])

    def masked_places(self, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns [N] of the masked target words of x_t [B, L], in row-major order."""
        return ((x_t == self.mask_id) & self.target_mask).nonzero(as_tuple=True)

    @property
    def copyable(self) -> Tensor:
        """[B, L] words of the source, without [CLS], prompt and [SEP]."""
        return (self.columns >= 1 + self.prompt_length[:, None]) & (self.columns < self.source_length[:, None] - 1)

    def source_ids(self) -> Tensor:
        """[B, S] the source segments alone, padded."""
        return torch.where(self.is_target_segment, self.pad_id, self.input_ids)[:, : self.source_width]
