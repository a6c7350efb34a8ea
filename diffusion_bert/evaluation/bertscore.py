"""BERTScore (Zhang et al. 2020, arXiv 1904.09675): how well the words of two texts match as contextual vectors.

    R = mean_i max_j <x_i, y_j>      P = mean_j max_i <x_i, y_j>      F = 2PR / (P + R)

x and y are the unit vectors of reference and hypothesis in one layer of a pretrained encoder; no idf weights, no
rescaling. [CLS] and [SEP] may be matched but are not averaged over, as in the authors' package.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..text.metrics import metric_text
from .judges import PretrainedJudge, batches_of
from .measures import with_interval

# the layer that the authors found best; DiffuSeq's protocol uses deberta-xlarge-mnli
LAYERS = {"deberta-xlarge-mnli": 40, "roberta-large": 17, "bert-base-uncased": 9, "bert-large-uncased": 18}


class BertScorer(PretrainedJudge):
    """Scores pairs of texts with a pretrained encoder; other models than the named use their last layer."""

    column, needs_references = "bertscore", True
    flag, what = "bertscore", "BERTScore model"

    def __init__(self, name: str, device: torch.device | str = "cpu"):
        super().__init__(name, device)
        self.layer = min(
            LAYERS.get(name.rstrip("/").split("/")[-1], self.model.config.num_hidden_layers),
            self.model.config.num_hidden_layers,
        )
        self.name = f"{name}, layer {self.layer}"
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}  # references come again for every system

    def measured(self, sources: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]) -> dict:
        """``bertscore`` of the texts in the form of the other metrics."""
        return with_interval(
            "bertscore",
            self.score([metric_text(text) for text in references], [metric_text(text) for text in hypotheses]),
        )

    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> list[float]:
        """F of each pair, in percent (100 = identical); 0 where a text is empty."""
        self._kept |= self._embed({text for text in references if text not in self._kept})
        written = self._embed({text for text in hypotheses if text not in self._kept}) | self._kept
        return [
            100.0 * f_measure(*self._kept[reference], *written[hypothesis])
            for reference, hypothesis in zip(references, hypotheses)
        ]

    @torch.no_grad()
    def _embed(self, texts: set[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """Unit vectors [L, D] of every text, and which of them count [L]."""
        found = {}
        for group in batches_of(texts):
            encoded = self.encoded(group, return_special_tokens_mask=True)
            counts = encoded.pop("special_tokens_mask") == 0
            states = self.model(**encoded.to(self.device), output_hidden_states=True).hidden_states[self.layer]
            vectors = torch.nn.functional.normalize(states.float(), dim=-1).cpu()
            for row, text in enumerate(group):
                real = encoded["attention_mask"][row].bool().cpu()
                found[text] = (vectors[row, real], counts[row][real])
        return found


def f_measure(x: Tensor, x_counts: Tensor, y: Tensor, y_counts: Tensor) -> float:
    """F from unit vectors of the reference x [L, D] and the hypothesis y [M, D]; ``counts`` say which words are
    averaged over.
    """
    if not bool(x_counts.any()) or not bool(y_counts.any()):
        return 0.0
    similar = x @ y.T  # [L, M]
    recall, precision = similar.max(1).values[x_counts].mean(), similar.max(0).values[y_counts].mean()
    total = float(precision + recall)
    return 2 * float(precision) * float(recall) / total if total > 0 else 0.0
