"""The layout of one batch of sequences ``[CLS] prompt source [SEP] target [SEP]``: what is source, what may be noised,
what may be copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

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
    draws: how many times the target with its [SEP] stands in a row, one after the other (``repeated``); each has its
    own noise.
    """

    input_ids: Tensor
    source_length: Tensor
    prompt_length: Tensor
    target_length: Tensor
    pad_id: int
    mask_id: int
    source_width: int = 0
    draws: int = 1

    def __post_init__(self):
        if (
            not self.source_width
        ):  # read once, where the batch is made: later it may be on a GPU, which would have to be waited for
            self.source_width = int(self.source_length.max()) if len(self.source_length) else 0

    def __len__(self) -> int:
        return len(self.input_ids)

    def to(self, device) -> Batch:
        """The same batch on another device."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; the data loader calls this before a copy to a GPU."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tensors = ("input_ids", "source_length", "prompt_length", "target_length")
        return replace(self, **{name: change(getattr(self, name)) for name in tensors})

    def repeated(self, draws: int) -> Batch:
        """Rows ``[CLS] prompt source [SEP] target [SEP] target [SEP] ...`` with ``draws`` targets, which see the source
        but not each other: for training with isolated attention, where one pass over the source then serves several
        noised targets.
        """
        if draws == 1:
            return self
        segment = (self.target_length + 1)[:, None]
        length = self.source_length[:, None] + draws * segment
        columns = torch.arange(int(length.max()) if len(length) else 0, device=length.device)
        offset = columns - self.source_length[:, None]
        ids = self.input_ids.gather(1, torch.where(offset < 0, columns, self.source_length[:, None] + offset % segment))
        return replace(self, input_ids=torch.where(columns < length, ids, self.pad_id), draws=draws)

    @property
    def without_source(self) -> Tensor:
        """[B] rows that consist of a target alone, beside [CLS] and [SEP]."""
        return self.source_length == 2

    @property
    def columns(self) -> Tensor:
        return torch.arange(self.input_ids.shape[1], device=self.input_ids.device)  # [L]

    @property
    def valid(self) -> Tensor:
        """[B, L] everything but padding."""
        return self.columns < (self.source_length + self.draws * (self.target_length + 1))[:, None]

    @property
    def is_target_segment(self) -> Tensor:
        """[B, L] all that follows the source's [SEP]."""
        return self.columns >= self.source_length[:, None]

    @property
    def draw(self) -> Tensor:
        """[B, L] which of the row's targets a place belongs to, from 0; -1 in the source."""
        number = torch.div(
            self.columns - self.source_length[:, None], (self.target_length + 1)[:, None], rounding_mode="floor"
        )
        return number.clamp(-1, self.draws - 1)

    @property
    def positions(self) -> Tensor:
        """[B, L] position ids: the source counts from 0, and so does every target."""
        return torch.where(
            self.is_target_segment,
            (self.columns - self.source_length[:, None]) % (self.target_length + 1)[:, None],
            self.columns,
        )

    @property
    def target_mask(self) -> Tensor:
        """[B, L] the words of the targets: the only places that may be noised."""
        return self.is_target_segment & self.valid & (self.positions < self.target_length[:, None])

    def examples_of(self, places: tuple[Tensor, Tensor]) -> Tensor:
        """The number row x draws + draw of the noised target in which each of N places stands, [N]."""
        rows, columns = places
        return rows if self.draws == 1 else rows * self.draws + self.draw[rows, columns]

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
