"""Conditional generation, measured: one row of metrics per system, the model's beside its floors."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..data.pairs import Pair
from ..generation.generator import DiffusionTextGenerator
from ..text import metrics
from ..text.metrics import metric_text
from .grammar_rows import add_grammar_rows
from .judges import Judge
from .measures import measured, with_interval
from .outputs import SAMPLES, Outputs, Written


def metric_rows(
    generator: DiffusionTextGenerator,
    pairs: Sequence[Pair],
    outputs: Outputs,
    mbr: int,
    by_grammar: bool,
    judges: Sequence[Judge] = (),
) -> dict[str, dict]:
    """One row of metrics per system: the model's, and the floors on the same rows; ``by_grammar`` adds what the bundled
    grammar says.
    """
    sources, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
    greedy, samples, beam = outputs.greedy, outputs.samples, generator.options.length_beam

    def row(hypotheses: Sequence[str], written: Written | None = None, count: int = 1, **more: Sequence[float]) -> dict:
        values = measured(sources, references, hypotheses, judges)
        for name, numbers in more.items():
            values |= with_interval(name, numbers)
        return values if written is None else values | {"nfe": count * written.nfe, "seconds": count * written.seconds}

    triples = [[metric_text(text) for text in texts[:SAMPLES]] for texts in samples.texts]
    diversity = {
        "self_bleu": [metrics.self_bleu(texts) for texts in triples],
        "div4": [metrics.diverse_4(texts) for texts in triples],
    }
    rows = {
        "model": row(outputs.best, greedy, beam),
        "likeliest length": row([texts[0] for texts in greedy.texts], greedy.first()),
        "one sample": row([texts[0] for texts in samples.texts], samples, **diversity),
    }
    if outputs.chosen is not None:
        rows[f"MBR {mbr}"] = row(outputs.chosen, samples, mbr)
    rows["copy"] = row(sources)
    rows["unigram"] = row(unigram_texts(generator, sources))
    for judge in judges:
        if not judge.needs_references:  # then what people wrote can be judged too
            rows.setdefault("reference", {}).update(judge.measured(sources, references, references))
    if by_grammar:
        add_grammar_rows(rows, pairs, outputs, judges)
    return rows


def unigram_texts(generator: DiffusionTextGenerator, sources: Sequence[str]) -> list[str]:
    """The floor that knows only lengths and word frequencies: as many word pieces as the source has, drawn by their
    training counts.
    """
    counts = generator.model.token_counts.double().clone()
    counts[generator.tokenizer.unwritable_ids] = 0
    if not float(counts.sum()):
        return ["" for _ in sources]
    weights = counts / counts.sum()
    draw = torch.Generator().manual_seed(generator.options.seed)
    lengths = [max(1, len(ids)) for ids in generator.tokenizer.encode_many(list(sources))]
    return [
        generator.sentence(torch.multinomial(weights, length, replacement=True, generator=draw).tolist())
        for length in lengths
    ]
