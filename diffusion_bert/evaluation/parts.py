"""The parts of an evaluation as numbers and examples: reconstruction, conditional generation beside its floors, NELBO
terms, score.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..config.schema import EVALUATION_PARTS
from ..data.batching import fixed_batches
from ..data.encoding import encode_tasks
from ..data.pairs import Pair
from ..data.skills import NO_SOURCE
from ..diffusion.times import T_EVAL
from ..generation.canvas import Canvas
from ..generation.decoding import decode
from ..generation.generator import DiffusionTextGenerator
from ..machine.processes import Processes
from ..text import metrics
from ..text.metrics import metric_text
from ..training.yardstick import estimate_nelbo
from .journal import Journal
from .judges import Judge
from .outputs import SAMPLES, Outputs
from .score import Score, benchmark_score
from .systems import metric_rows
from .writing import Progress, write_outputs

CORRUPTIONS = (20, 50, 80)
MOST_SENTENCES = 200  # for the reconstruction part
MOST_EXAMPLES = 100  # in the report; generations.jsonl holds them all


@dataclass
class Evaluation:
    """All results; ``to_dict`` is what evaluation.json holds: all but ``generations``."""

    task: str
    pairs: int
    reconstruction: dict[str, dict] = field(default_factory=dict)
    rows: dict[str, dict] = field(default_factory=dict)
    examples: list[dict] = field(default_factory=list)
    nelbo: dict[str, float] = field(default_factory=dict)
    score: Score | None = None
    notes: list[str] = field(default_factory=list)
    settings: dict = field(default_factory=dict)
    split: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    generations: list[dict] = field(default_factory=list)  # one per source, for a file of their own

    def to_dict(self) -> dict:
        values = dataclasses.asdict(dataclasses.replace(self, generations=[]))
        del values["generations"]
        return values


Listener = Callable[[str, "Evaluation"], None]


def evaluate(
    generator: DiffusionTextGenerator,
    pairs: Sequence[Pair],
    mbr: int = 1,
    sentences: Sequence[str] | None = None,
    progress: Progress | None = None,
    task: str | None = None,
    parts: Sequence[str] = EVALUATION_PARTS,
    judges: Sequence[Judge] = (),
    journal: Journal | None = None,
    processes: Processes | None = None,
    listener: Listener = lambda part, result: None,
) -> Evaluation:
    """Everything about one checkpoint on some pairs (or plain texts: then only reconstruction and NELBO).

    Args:
        generator: the model with its sampling options.
        pairs: what to evaluate on.
        mbr: candidates per source for minimum-Bayes-risk choice; 1 = none.
        sentences: replaces the held-out targets in the reconstruction.
        progress: called with the name of a part, and how far it is.
        task: which task's anchor the score takes (default: the model's); ``custom`` for data of one's own.
        parts: which of EVALUATION_PARTS to do; the score needs reconstruction and generation.
        judges: add columns to the metrics.
        journal: where the texts are written as they come, and those of a stopped evaluation are found.
        processes: those that share the generation; the first one does all the rest.
        listener: called with the name of a part and the results so far, once it is done; the short parts come first.
    """
    progress = progress or (lambda what, done, total: None)
    result = Evaluation(task or generator.task, len(pairs), settings={**vars(generator.options), "mbr": mbr})
    result.settings |= {judge.column: judge.name for judge in judges}
    is_main = processes is None or processes.is_main
    if "reconstruction" in parts and is_main:
        texts = list(sentences) if sentences else [pair.target for pair in pairs]
        if len(texts) > MOST_SENTENCES:
            result.notes.append(f"reconstruction: the first {MOST_SENTENCES} of {len(texts):,} sentences")
        result.reconstruction = reconstruct(generator, texts[:MOST_SENTENCES], progress)
        listener("reconstruction", result)
    if "nelbo" in parts and is_main:
        result.nelbo = nelbo_of(generator, pairs, result.notes, progress)
        listener("nelbo", result)
    if "generation" in parts:
        with_source = [pair for pair in pairs if pair.source is not None]
        if not with_source:
            result.notes.append("plain texts: no conditional generation and no score")
            return result
        outputs = write_outputs(generator, with_source, mbr, result.notes, progress, journal, processes)
        if is_main:
            _measure(result, generator, with_source, outputs, mbr, judges, "reconstruction" in parts)
    return result


def _measure(
    result: Evaluation,
    generator: DiffusionTextGenerator,
    pairs: list[Pair],
    outputs: Outputs,
    mbr: int,
    judges: Sequence[Judge],
    with_score: bool,
) -> None:
    """Rows, records, examples and score of what was written."""
    result.rows = metric_rows(generator, pairs, outputs, mbr, by_grammar=result.task == "sample", judges=judges)
    result.generations = outputs.records(pairs)
    result.examples = [
        {"source": pair.source, "reference": pair.target, "output": best, "samples": samples[:SAMPLES]}
        for pair, best, samples in zip(pairs[:MOST_EXAMPLES], outputs.best, outputs.samples.texts)
    ]
    if with_score:
        result.score = score_of(result, pairs, outputs)


# ---- 1. reconstruction ---------------------------------------------------------------------------------------------


def reconstruct(generator: DiffusionTextGenerator, texts: Sequence[str], progress: Progress) -> dict[str, dict]:
    """Accuracy (percent) on the corrupted places only, without a source, beside the floor of always saying the
    most common word piece.
    """
    model, tokenizer = generator.model, generator.tokenizer
    encoded = [ids for ids in tokenizer.encode_many(list(texts)) if 0 < len(ids) <= generator.target_limit()]
    if not encoded:
        return {}
    most_common = int(model.token_counts.argmax())
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
        options = dataclasses.replace(
            generator.options, temperature=0.0, sampler="confidence", known_words=False, rank_by="revealed"
        )
        outputs = decode(model, canvases, options, generator.collator, generator.options.seed, time_correction=False)
        progress(f"reconstruction at {percent} %", len(canvases), len(canvases))
        right = sum(
            output.ids[place] == ids[place] for output, ids, chosen in zip(outputs, encoded, places) for place in chosen
        )
        common = sum(ids[place] == most_common for ids, chosen in zip(encoded, places) for place in chosen)
        total = sum(map(len, places))
        results[str(percent)] = {
            "accuracy": 100 * right / total,
            "floor": 100 * common / total,
            "places": total,
            "examples": [
                {
                    "original": generator.sentence(ids),
                    "corrupted": tokenizer.with_blanks(canvas.words),
                    "restored": generator.sentence(output.ids),
                }
                for ids, canvas, output in list(zip(encoded, canvases, outputs))[:3]
            ],
        }
    return results


# ---- 3. NELBO and 4. score -----------------------------------------------------------------------------------------


def nelbo_of(
    generator: DiffusionTextGenerator, pairs: Sequence[Pair], notes: list[str], progress: Progress
) -> dict[str, float]:
    """The terms of the bound, per word piece and per word (text.split()), on the fixed yardstick (T = 1000)."""
    model = generator.model
    data = encode_tasks(pairs, generator.tokenizer, model.config.data, model.skills, generator.task)
    notes += [f"NELBO: {note}" for note in data.notes]
    if not len(data):
        return {}
    batches = fixed_batches(data, generator.collator)
    terms = estimate_nelbo(
        model.denoiser, model.diffusion, batches, model.config.diffusion.time_correction, device=model.device
    )
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
    best = outputs.best
    longest = by_length[-max(1, len(pairs) // 4) :]
    rouge = metrics.mean(
        [metrics.rouge_l(metric_text(pairs[index].target), metric_text(best[index])) for index in longest]
    )
    words = metrics.mean([float(len(pairs[index].source.split())) for index in longest])
    return benchmark_score(result.task, result.rows, result.reconstruction, rouge, words)
