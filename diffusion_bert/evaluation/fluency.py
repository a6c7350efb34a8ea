"""Fluency: how well a causal language model, which knows nothing of source and reference, can guess a text.

    nats per token = -1/n sum_i log p(x_i | x_<i)        perplexity = exp(mean over the texts)

Low is fluent, but a text can be too easy: the same phrase over and over has a low perplexity as well. So it stands
beside those of the sources and of the references, and beside the repeats (Holtzman et al. 2020, arXiv 1904.09751).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..errors import UserError
from .judges import PretrainedJudge, batches_of, longest_of
from .measures import with_interval


class FluencyJudge(PretrainedJudge):
    """Nats per token of texts under any causal language model.

    Raises:
        UserError: the model cannot be had, or sees the words that it is to guess.
    """

    column, needs_references = "fluency", False
    auto_class, flag, what, spare = "AutoModelForCausalLM", "fluency_model", "fluency model", ()

    def __init__(self, name: str, device: torch.device | str = "cpu"):
        super().__init__(name, device)
        self.start = next(
            (
                token
                for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.cls_token_id)
                if token is not None
            ),
            0,
        )
        self._kept: dict[str, float] = {}  # sources and references come again for every system
        self._refuse_seeing_ahead()

    def measured(self, sources: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]) -> dict:
        """``fluency`` in nats per token and ``perplexity`` of the hypotheses."""
        values = with_interval("fluency", self.nats(hypotheses))
        return values | {
            "perplexity": math.exp(values["fluency"]),
            "perplexity_interval": [math.exp(end) for end in values["fluency_interval"]],
        }

    def nats(self, texts: Sequence[str]) -> list[float]:
        """Nats per token of each text; an empty one counts as a guess among all tokens, ln V."""
        for group in batches_of(text for text in texts if text not in self._kept):
            self._kept |= dict(zip(group, self._nats_of(group), strict=True))
        return [self._kept[text] for text in texts]

    @torch.no_grad()
    def _nats_of(self, texts: list[str]) -> list[float]:
        rows = [self.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        rows = [[self.start, *row[: longest_of(self.model) - 1]] for row in rows]
        width = max(map(len, rows))
        ids = torch.tensor([row + [self.start] * (width - len(row)) for row in rows], device=self.device)
        seen = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.device)
        logits = self.model(ids, attention_mask=seen).logits[:, :-1].float()
        log_p = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1) * seen[:, 1:]
        guess = math.log(logits.shape[-1])
        return [guess if len(row) == 1 else -float(values) / (len(row) - 1) for row, values in zip(rows, log_p.sum(-1))]

    @torch.no_grad()
    def _refuse_seeing_ahead(self) -> None:
        """A model that is not causal, such as a BERT, sees the word that it guesses: another last token would change
        what it says of the first.
        """
        ids = torch.full((2, 3), self.start, device=self.device)
        ids[1, 2] = (self.start + 1) % self.model.config.vocab_size
        first = self.model(ids).logits[:, 0].float()
        if not torch.allclose(first[0], first[1], atol=1e-4):
            raise UserError(
                f"the fluency model '{self.name}' sees the words that it is to guess: expected a causal language model,"
                " such as gpt2"
            )
