"""The metrics of one output per source, each mean with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..text import metrics
from ..text.metrics import metric_text

if TYPE_CHECKING:
    from .judges import Judge


def measured(
    sources: Sequence[str], references: Sequence[str], hypotheses: Sequence[str], judges: Sequence[Judge] = ()
) -> dict:
    """The DiffuSeq metrics of one output per source, in percent (``length_ratio``: a plain ratio), and the columns of
    the judges, each mean with its 95 % bootstrap interval as ``<name>_interval``.
    """
    judged = [judge.measured(sources, references, hypotheses) for judge in judges]
    sources, references, hypotheses = (
        [metric_text(text) for text in texts] for texts in (sources, references, hypotheses)
    )
    bleu = [metrics.sentence_bleu(reference, output) for reference, output in zip(references, hypotheses)]
    overlap = [metrics.overlap(source, output) for source, output in zip(sources, hypotheses)]
    alpha = metrics.IBLEU_ALPHA
    numbers = {
        "bleu": bleu,
        "rouge_l": [metrics.rouge_l(reference, output) for reference, output in zip(references, hypotheses)],
        "dist1": [metrics.distinct_n(output) for output in hypotheses],
        "overlap": overlap,
        "ibleu": [alpha * one - (1 - alpha) * other for one, other in zip(bleu, overlap)],
        "repetition": [metrics.repetition_rate(output) for output in hypotheses],
        "length_ratio": [metrics.length_ratio(reference, output) for reference, output in zip(references, hypotheses)],
    }
    values: dict = {}
    for name, each in numbers.items():
        values |= with_interval(name, each)
    for columns in judged:
        values |= columns
    return values


def with_interval(name: str, numbers: Sequence[float]) -> dict:
    """{name: mean, name_interval: [low, high]}."""
    return {name: metrics.mean(numbers), f"{name}_interval": list(metrics.bootstrap_interval(numbers))}
