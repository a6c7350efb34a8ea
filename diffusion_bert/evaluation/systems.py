"""Conditional generation, measured: what the model writes for every source, and one row of metrics per system beside
its floors.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import torch

from ..config.schema import SamplingConfig
from ..data.pairs import Pair
from ..data.skills import PAIR
from ..generation.generator import DiffusionTextGenerator
from ..text import metrics
from ..text.metrics import metric_text
from .bertscore import BertScorer
from .grammar_rows import add_grammar_rows
from .measures import measured, with_interval
from .outputs import SAMPLES, Outputs, Written

Progress = Callable[[str, int, int], None]  # (what, done, total)


def generate_outputs(
    generator: DiffusionTextGenerator, pairs: Sequence[Pair], mbr: int, notes: list[str], progress: Progress
) -> Outputs:
    """Greedy texts of the likeliest lengths and max(3, mbr) samples for every source, in order.

    A source the model cannot take gets an empty output, and a note.
    """
    tokenizer, options = generator.tokenizer, generator.options
    encoded = tokenizer.encode_many([pair.source for pair in pairs])
    skills = [generator.skill_of(pair, options.style) for pair in pairs]
    # the hard limit, with a few places left for a target: the protocol scores whole sources, it does not split them
    # into sentences
    room = (
        generator.model.config.data.max_length
        - 3
        - max(len(generator.collator.prompts[skill]) for skill in {*skills, PAIR})
        - 8
    )
    fitting = [index for index, ids in enumerate(encoded) if len(ids) <= room]
    if len(fitting) < len(pairs):
        notes.append(f"{len(pairs) - len(fitting)} sources are longer than {room} word pieces: scored as empty output")
    examples = [(skills[index], encoded[index]) for index in fitting]

    def write(options: SamplingConfig, count: int, what: str, independent: bool = False) -> Written:
        done, total = 0, count * len(examples)

        def advance(number: int) -> None:
            nonlocal done
            done += number
            progress(what, done, total)

        start = time.monotonic()
        counts = [count] * len(examples)
        decoded = (
            generator.generate_ids(examples, options, counts, options.seed, advance, independent=independent)
            if examples
            else []
        )
        seconds = time.monotonic() - start
        texts: list[list[str]] = [[""] * count for _ in pairs]
        scores, calls = [[0.0] * count for _ in pairs], [[0] * count for _ in pairs]
        for index, outputs in zip(fitting, decoded):
            texts[index] = [generator.sentence(output.ids, pairs[index].source) for output in outputs]
            scores[index], calls[index] = [output.score for output in outputs], [output.nfe for output in outputs]
        return Written(texts, scores, calls, seconds / max(1, total))

    greedy = write(dataclasses.replace(options, temperature=0.0), options.length_beam, "generation, temperature 0")
    samples = write(options, max(SAMPLES, mbr), "generation, samples", independent=True)
    choices = (
        None
        if mbr < 2
        else [metrics.mbr_select([metric_text(text) for text in texts[:mbr]]) for texts in samples.texts]
    )
    return Outputs(greedy, samples, choices)


def metric_rows(
    generator: DiffusionTextGenerator,
    pairs: Sequence[Pair],
    outputs: Outputs,
    mbr: int,
    by_grammar: bool,
    bertscore: BertScorer | None = None,
) -> dict[str, dict]:
    """One row of metrics per system: the model's, and the floors on the same rows; ``by_grammar`` adds what the bundled
    grammar says.
    """
    sources, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
    greedy, samples, beam = outputs.greedy, outputs.samples, generator.options.length_beam

    def row(hypotheses: Sequence[str], written: Written | None = None, count: int = 1, **more: Sequence[float]) -> dict:
        values = measured(sources, references, hypotheses, bertscore)
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
    if by_grammar:
        add_grammar_rows(rows, pairs, outputs, bertscore)
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
