"""The parts of an evaluation as numbers and examples: reconstruction, conditional generation beside its floors, NELBO terms, score."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from . import metrics
from .config import SamplingConfig
from .data import NO_SOURCE, PAIR, encode_pairs, fixed_batches
from .decoding import Canvas, decode
from .generation import DiffusionTextGenerator
from .objective import T_EVAL, estimate_nelbo
from .reading import Pair
from .score import Score, benchmark_score
from .text import metric_text

CORRUPTIONS = (20, 50, 80)
SAMPLES = 3  # per source, for self-BLEU and div-4
Progress = Callable[[str, int, int], None]  # (what, done, total)


@dataclass
class Evaluation:
    """All results; ``to_dict`` is what evaluation.json holds."""

    task: str
    pairs: int
    reconstruction: dict[str, dict] = field(default_factory=dict)
    rows: dict[str, dict] = field(default_factory=dict)
    examples: list[dict] = field(default_factory=list)
    nelbo: dict[str, float] = field(default_factory=dict)
    score: Score | None = None
    notes: list[str] = field(default_factory=list)
    settings: dict = field(default_factory=dict)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


def evaluate(
    generator: DiffusionTextGenerator,
    pairs: Sequence[Pair],
    mbr: int = 1,
    sentences: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Everything about one checkpoint on some pairs (or plain texts: then only reconstruction and NELBO).

    Args:
        generator: the model with its sampling options.
        pairs: what to evaluate on.
        mbr: candidates per source for minimum-Bayes-risk choice; 1 = none.
        sentences: replaces the held-out targets in the reconstruction.
        progress: told how far each part is.
    """
    progress = progress or (lambda what, done, total: None)
    model = generator.model
    result = Evaluation(model.task.name, len(pairs), settings={**vars(generator.options), "mbr": mbr})
    texts = list(sentences) if sentences else [pair.target for pair in pairs]
    result.reconstruction = reconstruct(generator, texts[:200], progress)
    result.nelbo = nelbo_of(generator, pairs, result.notes, progress)
    with_source = [pair for pair in pairs if pair.source is not None]
    if not with_source:
        result.notes.append("plain texts: no conditional generation and no score")
        return result
    outputs = generate_outputs(generator, with_source, mbr, result.notes, progress)
    result.rows = metric_rows(generator, with_source, outputs, mbr)
    result.examples = [
        {"source": pair.source, "reference": pair.target, "output": greedy, "samples": samples[:SAMPLES]}
        for pair, greedy, samples in zip(with_source, outputs.greedy, outputs.samples)
    ]
    result.score = score_of(result, with_source, outputs)
    return result


# ---- 1. reconstruction ------------------------------------------------------------------------------------------------------------------


def reconstruct(generator: DiffusionTextGenerator, texts: Sequence[str], progress: Progress) -> dict[str, dict]:
    """Accuracy (percent) on the corrupted places only, without a source, beside the floor of always saying the commonest word piece."""
    model, tokenizer = generator.model, generator.tokenizer
    limit = min(model.denoiser.max_target_length, model.config.data.max_length - 3)
    encoded = [ids for ids in tokenizer.encode_many(list(texts)) if 0 < len(ids) <= limit]
    if not encoded:
        return {}
    commonest = int(model.token_counts.argmax())
    rng = np.random.default_rng(generator.options.seed)
    results = {}
    for percent in CORRUPTIONS:
        canvases, places = [], []
        for ids in encoded:
            chosen = sorted(rng.choice(len(ids), size=max(1, round(len(ids) * percent / 100)), replace=False).tolist())
            words = [tokenizer.mask_id if place in chosen else token for place, token in enumerate(ids)]
            tau = float(model.schedule.tau(torch.tensor(len(chosen) / len(ids))))
            canvases.append(Canvas(NO_SOURCE, [], words, tau))
            places.append(chosen)
        options = dataclasses.replace(generator.options, temperature=0.0, sampler="confidence")
        outputs = decode(model, canvases, options, generator.collator, generator.options.seed, time_correction=False)
        progress(f"reconstruction at {percent} %", len(canvases), len(canvases))
        right = sum(output.ids[place] == ids[place] for output, ids, chosen in zip(outputs, encoded, places) for place in chosen)
        common = sum(ids[place] == commonest for ids, chosen in zip(encoded, places) for place in chosen)
        total = sum(map(len, places))
        results[str(percent)] = {
            "accuracy": 100 * right / total,
            "floor": 100 * common / total,
            "places": total,
            "examples": [
                {"original": generator.sentence(ids), "corrupted": _show(tokenizer, canvas.words), "restored": generator.sentence(output.ids)}
                for ids, canvas, output in list(zip(encoded, canvases, outputs))[:3]
            ],
        }
    return results


def _show(tokenizer, words: list[int]) -> str:
    return " ".join("____" if word == tokenizer.mask_id else tokenizer.tokens[word] for word in words).replace(" ##", "")


# ---- 2. conditional generation ----------------------------------------------------------------------------------------------------------


@dataclass
class Outputs:
    """Texts per source: ``greedy`` at temperature 0, ``samples`` at the chosen temperature, ``chosen`` by MBR; with calls and seconds."""

    greedy: list[str]
    samples: list[list[str]]
    chosen: list[str] | None
    greedy_nfe: float
    sample_nfe: float
    greedy_seconds: float
    sample_seconds: float


def generate_outputs(generator: DiffusionTextGenerator, pairs: Sequence[Pair], mbr: int, notes: list[str], progress: Progress) -> Outputs:
    """One greedy output and max(3, mbr) samples for every source, in order. A source the model cannot take gets an empty output, and a note."""
    tokenizer = generator.tokenizer
    encoded = tokenizer.encode_many([pair.source for pair in pairs])
    room = generator.model.config.data.max_length - 3 - len(generator.collator.prompts[PAIR]) - 8
    fitting = [index for index, ids in enumerate(encoded) if len(ids) <= room]
    if len(fitting) < len(pairs):
        notes.append(f"{len(pairs) - len(fitting)} sources are longer than {room} word pieces: scored as empty output")
    examples = [(PAIR, encoded[index]) for index in fitting]

    def run(options: SamplingConfig, count: int, what: str) -> tuple[list[list[str]], float, float]:
        done, total = 0, count * len(examples)

        def advance(number: int) -> None:
            nonlocal done
            done += number
            progress(what, done, total)

        start = time.monotonic()
        decoded = generator.generate_ids(examples, options, [count] * len(examples), options.seed, advance) if examples else []
        seconds = time.monotonic() - start
        texts: list[list[str]] = [[""] * count for _ in pairs]
        for index, outputs in zip(fitting, decoded):
            texts[index] = [generator.sentence(output.ids, pairs[index].source) for output in outputs]
        calls = [output.nfe for outputs in decoded for output in outputs]
        return texts, float(np.mean(calls)) if calls else 0.0, seconds / max(1, len(calls))

    greedy, greedy_nfe, greedy_seconds = run(dataclasses.replace(generator.options, temperature=0.0), 1, "generation, temperature 0")
    samples, sample_nfe, sample_seconds = run(generator.options, max(SAMPLES, mbr), "generation, samples")
    chosen = None
    if mbr > 1:
        chosen = [texts[metrics.mbr_select([metric_text(text) for text in texts[:mbr]])] for texts in samples]
    return Outputs([texts[0] for texts in greedy], samples, chosen, greedy_nfe, sample_nfe, greedy_seconds, sample_seconds)


def metric_rows(generator: DiffusionTextGenerator, pairs: Sequence[Pair], outputs: Outputs, mbr: int) -> dict[str, dict]:
    """One row of metrics per system: the model's, and the floors on the same rows."""
    sources, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
    rows = {"model": measure(sources, references, outputs.greedy)}
    rows["model"] |= {"nfe": outputs.greedy_nfe, "seconds": outputs.greedy_seconds}
    triples = [[metric_text(text) for text in texts[:SAMPLES]] for texts in outputs.samples]
    rows["model"] |= {
        "self_bleu": metrics.mean([metrics.self_bleu(texts) for texts in triples]),
        "div4": metrics.mean([metrics.diverse_4(texts) for texts in triples]),
    }
    rows["one sample"] = measure(sources, references, [texts[0] for texts in outputs.samples])
    rows["one sample"] |= {"nfe": outputs.sample_nfe, "seconds": outputs.sample_seconds}
    if outputs.chosen is not None:
        rows[f"MBR {mbr}"] = measure(sources, references, outputs.chosen)
        rows[f"MBR {mbr}"] |= {"nfe": outputs.sample_nfe * mbr, "seconds": outputs.sample_seconds * mbr}
    rows["copy"] = measure(sources, references, sources)
    rows["unigram"] = measure(sources, references, unigram_texts(generator, sources))
    if generator.model.task.name == "sample":
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
    frames = [{parsed.frame for text in texts[:SAMPLES] if (parsed := grammar.parse(text))} for texts in outputs.samples]
    rows["model"] |= {"valid": share(outputs.greedy), "two_frames": 100 * float(np.mean([len(seen) >= 2 for seen in frames]))}
    rows["one sample"]["valid"] = share([texts[0] for texts in outputs.samples])
    for name in rows:
        if name.startswith("MBR"):
            rows[name]["valid"] = share(outputs.chosen)
    rows["copy"]["valid"] = share(sources)
    rows["nearest training pair"]["valid"] = share(looked_up)


# ---- 3. NELBO and 4. score --------------------------------------------------------------------------------------------------------------


def nelbo_of(generator: DiffusionTextGenerator, pairs: Sequence[Pair], notes: list[str], progress: Progress) -> dict[str, float]:
    """The terms of the bound, per word piece and per word (text.split()), on the fixed yardstick (T = 1000)."""
    model = generator.model
    data = encode_pairs(pairs, generator.tokenizer, model.config.data, model.task.prompt)
    notes += [f"NELBO: {note}" for note in data.notes]
    if not len(data):
        return {}
    batches = fixed_batches(data, generator.collator)
    terms = estimate_nelbo(model.denoiser, model.diffusion, batches, model.config.diffusion.time_correction, device=model.device)
    progress("NELBO", len(data), len(data))
    words = sum(len(pairs[index].target.split()) for index in data.kept)
    values = {f"{name}_per_token": value for name, value in terms.per_token().items() if name != "cross_entropy"}
    values |= {f"{name}_per_word": float(getattr(terms, name)) / words for name in ("reveal", "stay", "length")}
    values |= {"nelbo_per_word": float(terms.total) / words, "tokens": float(terms.tokens), "words": words, "T": T_EVAL}
    values |= {
        "perplexity_bound_per_token": float(np.exp(values["nelbo_per_token"])),
        "perplexity_bound_per_word": float(np.exp(values["nelbo_per_word"])),
    }
    return values


def score_of(result: Evaluation, pairs: Sequence[Pair], outputs: Outputs) -> Score | None:
    """The benchmark score, or None (with a note) when the sentences for reconstruction were all too long."""
    if not result.reconstruction:
        result.notes.append("no score: no sentence fits the model for the reconstruction part")
        return None
    by_length = sorted(range(len(pairs)), key=lambda index: len(pairs[index].source.split()))
    longest = by_length[-max(1, len(pairs) // 4) :]
    rouge = metrics.mean([metrics.rouge_l(metric_text(pairs[index].target), metric_text(outputs.greedy[index])) for index in longest])
    words = metrics.mean([float(len(pairs[index].source.split())) for index in longest])
    return benchmark_score(result.task, result.rows, result.reconstruction, rouge, words)


__all__ = ["Evaluation", "evaluate", "measure"]
