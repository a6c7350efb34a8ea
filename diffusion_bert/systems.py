"""Conditional generation, measured: what the model writes for every source, and one row of metrics per system beside its floors."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from . import metrics
from .config import SamplingConfig
from .data import PAIR
from .generation import DiffusionTextGenerator
from .reading import Pair
from .text import metric_text

SAMPLES = 3  # per source, for self-BLEU and div-4
Progress = Callable[[str, int, int], None]  # (what, done, total)


@dataclass
class Written:
    """What one way of sampling wrote: ``texts[i]`` for source i, ``scores`` of the model's own for each, mean calls and seconds per text."""

    texts: list[list[str]]
    scores: list[list[float]]
    nfe: float
    seconds: float

    def best(self) -> list[str]:
        """The text the model finds likeliest, per source."""
        return [texts[int(np.argmax(scores))] for texts, scores in zip(self.texts, self.scores)]


@dataclass
class Outputs:
    """``greedy``: temperature 0, one text per length of the beam. ``samples``: at the chosen temperature. ``chosen``: by MBR, or None."""

    greedy: Written
    samples: Written
    chosen: list[str] | None

    @property
    def best(self) -> list[str]:
        return self.greedy.best()


def generate_outputs(generator: DiffusionTextGenerator, pairs: Sequence[Pair], mbr: int, notes: list[str], progress: Progress) -> Outputs:
    """Greedy texts of the likeliest lengths and max(3, mbr) samples for every source, in order.

    A source the model cannot take gets an empty output, and a note.
    """
    tokenizer, options = generator.tokenizer, generator.options
    encoded = tokenizer.encode_many([pair.source for pair in pairs])
    # the hard limit, with a few places left for a target: the protocol scores whole sources, it does not split them into sentences
    room = generator.model.config.data.max_length - 3 - len(generator.collator.prompts[PAIR]) - 8
    fitting = [index for index, ids in enumerate(encoded) if len(ids) <= room]
    if len(fitting) < len(pairs):
        notes.append(f"{len(pairs) - len(fitting)} sources are longer than {room} word pieces: scored as empty output")
    examples = [(PAIR, encoded[index]) for index in fitting]

    def write(options: SamplingConfig, count: int, what: str) -> Written:
        done, total = 0, count * len(examples)

        def advance(number: int) -> None:
            nonlocal done
            done += number
            progress(what, done, total)

        start = time.monotonic()
        decoded = generator.generate_ids(examples, options, [count] * len(examples), options.seed, advance) if examples else []
        seconds = time.monotonic() - start
        texts: list[list[str]] = [[""] * count for _ in pairs]
        scores = [[0.0] * count for _ in pairs]
        for index, outputs in zip(fitting, decoded):
            texts[index] = [generator.sentence(output.ids, pairs[index].source) for output in outputs]
            scores[index] = [output.score for output in outputs]
        calls = [output.nfe for outputs in decoded for output in outputs]
        return Written(texts, scores, float(np.mean(calls)) if calls else 0.0, seconds / max(1, len(calls)))

    greedy = write(dataclasses.replace(options, temperature=0.0), options.length_beam, "generation, temperature 0")
    samples = write(options, max(SAMPLES, mbr), "generation, samples")
    chosen = None
    if mbr > 1:
        chosen = [texts[metrics.mbr_select([metric_text(text) for text in texts[:mbr]])] for texts in samples.texts]
    return Outputs(greedy, samples, chosen)


def metric_rows(generator: DiffusionTextGenerator, pairs: Sequence[Pair], outputs: Outputs, mbr: int, by_grammar: bool) -> dict[str, dict]:
    """One row of metrics per system: the model's, and the floors on the same rows; ``by_grammar`` adds what the bundled grammar says."""
    sources, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
    greedy, samples, beam = outputs.greedy, outputs.samples, generator.options.length_beam
    triples = [[metric_text(text) for text in texts[:SAMPLES]] for texts in samples.texts]
    rows = {"model": measure(sources, references, outputs.best)}
    rows["model"] |= {
        "self_bleu": metrics.mean([metrics.self_bleu(texts) for texts in triples]),
        "div4": metrics.mean([metrics.diverse_4(texts) for texts in triples]),
        "nfe": beam * greedy.nfe,
        "seconds": beam * greedy.seconds,
    }
    rows["likeliest length"] = measure(sources, references, [texts[0] for texts in greedy.texts])
    rows["likeliest length"] |= {"nfe": greedy.nfe, "seconds": greedy.seconds}
    rows["one sample"] = measure(sources, references, [texts[0] for texts in samples.texts])
    rows["one sample"] |= {"nfe": samples.nfe, "seconds": samples.seconds}
    if outputs.chosen is not None:
        rows[f"MBR {mbr}"] = measure(sources, references, outputs.chosen)
        rows[f"MBR {mbr}"] |= {"nfe": mbr * samples.nfe, "seconds": mbr * samples.seconds}
    rows["copy"] = measure(sources, references, sources)
    rows["unigram"] = measure(sources, references, unigram_texts(generator, sources))
    if by_grammar:
        add_grammar_rows(rows, pairs, outputs)
    return rows


def measure(sources: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]) -> dict:
    """The DiffuSeq metrics of one output per source, in percent; BLEU and ROUGE-L with 95 % bootstrap intervals."""
    sources, references, hypotheses = ([metric_text(text) for text in texts] for texts in (sources, references, hypotheses))
    bleu = [metrics.sentence_bleu(reference, output) for reference, output in zip(references, hypotheses)]
    rouge = [metrics.rouge_l(reference, output) for reference, output in zip(references, hypotheses)]
    overlap = [metrics.overlap(source, output) for source, output in zip(sources, hypotheses)]
    return {
        "bleu": metrics.mean(bleu),
        "bleu_interval": list(metrics.bootstrap_interval(bleu)),
        "rouge_l": metrics.mean(rouge),
        "rouge_l_interval": list(metrics.bootstrap_interval(rouge)),
        "dist1": metrics.mean([metrics.distinct_n(output) for output in hypotheses]),
        "overlap": metrics.mean(overlap),
        "ibleu": 0.8 * metrics.mean(bleu) - 0.2 * metrics.mean(overlap),
        "repetition": metrics.mean([metrics.repetition_rate(output) for output in hypotheses]),
        "length_ratio": metrics.mean([metrics.length_ratio(reference, output) for reference, output in zip(references, hypotheses)]),
    }


def unigram_texts(generator: DiffusionTextGenerator, sources: Sequence[str]) -> list[str]:
    """The floor that knows only lengths and word frequencies: as many word pieces as the source has, drawn by their training counts."""
    counts = generator.model.token_counts.double().clone()
    counts[generator.tokenizer.unwritable_ids] = 0
    if not float(counts.sum()):
        return ["" for _ in sources]
    weights = counts / counts.sum()
    draw = torch.Generator().manual_seed(generator.options.seed)
    lengths = [max(1, len(ids)) for ids in generator.tokenizer.encode_many(list(sources))]
    return [generator.sentence(torch.multinomial(weights, length, replacement=True, generator=draw).tolist()) for length in lengths]


def add_grammar_rows(rows: dict[str, dict], pairs: Sequence[Pair], outputs: Outputs) -> None:
    """For the bundled task the grammar itself says what is a valid paraphrase: same meaning, every filler kept, another frame."""
    from .grammar import Grammar, NearestPair

    grammar = Grammar.load()
    sources = [pair.source for pair in pairs]

    def share(texts: Sequence[str]) -> float:
        return 100 * float(np.mean([grammar.is_paraphrase(source, text) for source, text in zip(sources, texts)]))

    nearest = NearestPair(grammar.pairs("train"))
    looked_up = [nearest.paraphrase(source) for source in sources]
    rows["nearest training pair"] = measure(sources, [pair.target for pair in pairs], looked_up)
    frames = [{parsed.frame for text in texts[:SAMPLES] if (parsed := grammar.parse(text))} for texts in outputs.samples.texts]
    rows["model"] |= {"valid": share(outputs.best), "two_frames": 100 * float(np.mean([len(seen) >= 2 for seen in frames]))}
    rows["likeliest length"]["valid"] = share([texts[0] for texts in outputs.greedy.texts])
    rows["one sample"]["valid"] = share([texts[0] for texts in outputs.samples.texts])
    for name in rows:
        if name.startswith("MBR"):
            rows[name]["valid"] = share(outputs.chosen)
    rows["copy"]["valid"] = share(sources)
    rows["nearest training pair"]["valid"] = share(looked_up)
