"""What was written for every source, by each way of sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.pairs import Pair

SAMPLES = 3  # per source, independent of each other, for self-BLEU and div-4


@dataclass
class Written:
    """What one way of sampling wrote: ``texts[i]`` for source i, with the model's own ``scores`` and the denoiser
    ``calls`` of each; mean ``seconds`` per text.
    """

    texts: list[list[str]]
    scores: list[list[float]]
    calls: list[list[int]]
    seconds: float

    @property
    def nfe(self) -> float:
        """Mean denoiser calls per text; sources that could not be taken do not count."""
        calls = [number for row in self.calls for number in row if number]
        return float(np.mean(calls)) if calls else 0.0

    def first(self) -> Written:
        """The first text of each source alone."""
        return Written(*([row[:1] for row in rows] for rows in (self.texts, self.scores, self.calls)), self.seconds)

    def best(self) -> list[str]:
        """The text the model finds likeliest, per source."""
        return [texts[int(np.argmax(scores))] for texts, scores in zip(self.texts, self.scores)]


@dataclass
class Outputs:
    """``greedy``: temperature 0, one text per length of the beam. ``samples``: length and words drawn at the chosen
    temperature, independently. ``choices``: by MBR, or None.
    """

    greedy: Written
    samples: Written
    choices: list[int] | None

    @property
    def best(self) -> list[str]:
        return self.greedy.best()

    @property
    def chosen(self) -> list[str] | None:
        """The texts that MBR chose."""
        return (
            None if self.choices is None else [texts[choice] for texts, choice in zip(self.samples.texts, self.choices)]
        )

    def records(self, pairs: Sequence[Pair]) -> list[dict]:
        """One plain record per source, in order: all that was written for it."""
        greedy, samples, chosen = self.greedy, self.samples, self.chosen
        return [
            {
                "source": pair.source,
                "reference": pair.target,
                "output": best,
                "by_length": greedy.texts[index],
                "by_length_scores": greedy.scores[index],
                "by_length_calls": greedy.calls[index],
                "candidates": samples.texts[index],
                "scores": samples.scores[index],
                "calls": samples.calls[index],
                "choice": None if chosen is None else self.choices[index],
                "chosen": None if chosen is None else chosen[index],
            }
            for index, (pair, best) in enumerate(zip(pairs, self.best))
        ]
