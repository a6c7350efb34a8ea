"""Meaning: how near an output is to its source as a sentence vector (Reimers & Gurevych 2019, arXiv 1908.10084).

    v(x) = mean over the word pieces of x of the last layer        meaning = cos(v(source), v(output))

1 is the same direction. A copy has 1 as well, so it stands beside the overlap with the source.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .judges import PretrainedJudge, batches_of
from .measures import with_interval


class MeaningJudge(PretrainedJudge):
    """Cosine of mean-pooled sentence vectors by a pretrained encoder."""

    column, needs_references = "meaning", False
    flag, what = "meaning_model", "meaning model"

    def __init__(self, name: str, device: torch.device | str = "cpu"):
        super().__init__(name, device)
        self._kept: dict[str, Tensor] = {}

    def measured(self, sources: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]) -> dict:
        """``meaning``: the mean cosine of source and hypothesis."""
        return with_interval("meaning", self.cosines(sources, hypotheses))

    def cosines(self, sources: Sequence[str], texts: Sequence[str]) -> list[float]:
        """Cosine of each pair, in -1..1; 0 where a text is empty."""
        self._embed({text for text in (*sources, *texts) if text not in self._kept})
        return [float(self._kept[source] @ self._kept[text]) for source, text in zip(sources, texts, strict=True)]

    @torch.no_grad()
    def _embed(self, texts: set[str]) -> None:
        """Keep the unit vector [D] of every text; zeros for an empty one."""
        for group in batches_of(texts):
            encoded = self.encoded(group).to(self.device)
            states = self.model(**encoded).last_hidden_state.float()
            real = encoded["attention_mask"][..., None].float()
            vectors = torch.nn.functional.normalize((states * real).sum(1) / real.sum(1).clamp(min=1), dim=-1).cpu()
            self._kept |= {text: vector if text.strip() else 0 * vector for text, vector in zip(group, vectors)}
