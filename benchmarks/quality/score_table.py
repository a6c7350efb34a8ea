"""The benchmark score of several checkpoints on one task, beside copying the source, drawing words at random, and an
untrained model.

    python -m benchmarks.quality.score_table briefly=a/best_model.pt half=b/best_model.pt fully=c/best_model.pt \\
        --max_samples 300
    python -m benchmarks.quality.score_table fully=c/best_model.pt --data_dir path/to/qqp --split valid

All rows are measured on the same examples with the same sampling settings. untrained is the architecture of the first
checkpoint with fresh weights. copy and unigram are scored as if they were the model's output, with a reconstruction at
its floor. Intervals: the score with the lower (upper) ends of the 95 % bootstrap interval of iBLEU and of the binomial
interval of the accuracy put in both at once, so rather too wide than too narrow.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
from pathlib import Path

from diffusion_bert.commands.cli import Parser, guarded
from diffusion_bert.commands.evaluation_flags import SAMPLER_ALONE
from diffusion_bert.config.fields import build
from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.errors import UserError


def main(argv=None) -> int:
    """Evaluate every checkpoint and print one Markdown table."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument(
        "checkpoints", nargs="+", metavar="NAME=FILE", help="checkpoints with the names of their rows, in order"
    )
    what = parser.add_argument_group("what to evaluate on")
    what.add_argument(
        "--split", choices=("valid", "test"), help="which split of the first checkpoint's data (default: test)"
    )
    what.add_argument("--data_dir", metavar="DIR", help="where that data lies now")
    what.add_argument("--test_file", metavar="FILE", help="evaluate on this file instead")
    what.add_argument("--max_samples", type=int, metavar="N", help="a random sample of this many rows (default: all)")
    what.add_argument("--output", metavar="FILE", help="also write the table to this file")
    parser.add_settings(SamplingConfig, leave_out=("num_samples", "best_of"), defaults=SAMPLER_ALONE)
    given = parser.parse(sys.argv[1:] if argv is None else argv)
    named = []
    for item in given.pop("checkpoints"):
        name, equals, path = item.partition("=")
        if not equals or not name or not path:
            raise UserError(f"'{item}' is no NAME=FILE: write for example fully=runs/NAME/best_model.pt")
        named.append((name, path))
    names = ("split", "data_dir", "test_file", "max_samples", "output")
    split, data_dir, test_file, max_samples, output = (given.pop(name, None) for name in names)
    options = build(SamplingConfig, {**SAMPLER_ALONE, **given}, "--")
    text = score_table(named, options, split or "test", data_dir, test_file, max_samples)
    print(text)
    if output:
        Path(output).write_text(text + "\n", encoding="utf-8")
    return 0


def score_table(named, options: SamplingConfig, split: str, data_dir, test_file, max_samples) -> str:
    """The table as Markdown, under a line that says how it was made."""
    from benchmarks.common import machine
    from diffusion_bert.commands.evaluation_data import chosen_pairs, from_grammar
    from diffusion_bert.commands.evaluation_progress import progress_bars
    from diffusion_bert.evaluation.parts import evaluate
    from diffusion_bert.generation.generator import DiffusionTextGenerator
    from diffusion_bert.machine.device import pick_device
    from diffusion_bert.model.checkpoint import load_checkpoint

    models = [(name, load_checkpoint(path)) for name, path in named]
    first = models[0][1]
    notes: list[str] = []
    pairs = [
        pair
        for pair in chosen_pairs(first.config, split, data_dir, test_file, max_samples, options.seed, notes)
        if pair.source
    ]
    if not pairs:
        raise UserError("no pairs to evaluate on: the score needs sources and references")
    task = (
        "custom"
        if first.config.data.train_file or (first.task.name == "sample" and not from_grammar(pairs))
        else first.task.name
    )
    rows: list[tuple[str, object, dict, dict]] = []  # name, score, model row, reconstruction at 50 %
    floors: dict = {}
    for name, model in [("untrained", untrained(first)), *models]:
        generator = DiffusionTextGenerator(model.to(pick_device(options.device)), options)
        result = evaluate(generator, pairs, 1, None, progress_bars(), task, ("reconstruction", "generation"))
        if result.score is None:
            raise UserError(f"{name} has no score: {'; '.join(result.notes)}")
        rows.append((name, result.score, result.rows["model"], result.reconstruction["50"]))
        floors = floors or posing(result)
    lines = [
        (
            "| system | score (95 %) | verdict | level | generation | reconstruction | iBLEU (95 %) | BLEU | ROUGE-L |"
            " overlap | accuracy at 50 % |"
        ),
        "|---" * 11 + "|",
    ]
    lines += [line(name, *row) for name, row in floors.items()] + [line(*row) for row in rows]
    settings = {
        name: value for name, value in vars(options).items() if name not in ("num_samples", "best_of", "device")
    }
    head = f"{machine()}. Task {task}, {len(pairs):,} pairs ({test_file or split}), {settings}."
    return "\n".join([head, *(f"- {note}" for note in notes), "", *lines])


def untrained(model):
    """The same model with fresh weights."""
    import torch

    from diffusion_bert.model.diffusion_model import assemble

    torch.manual_seed(0)
    config = copy.deepcopy(model.denoiser.bert_config)
    return dataclasses.replace(model, denoiser=assemble(model.config, config, model.tokenizer).eval())


def posing(result) -> dict[str, tuple]:
    """copy and unigram as if they were the model."""
    from diffusion_bert.evaluation.score import benchmark_score

    at_floor = {key: {**row, "accuracy": row["floor"]} for key, row in result.reconstruction.items()}
    found = {}
    for name in ("copy", "unigram"):
        row = result.rows[name]
        found[name] = (
            benchmark_score(
                result.task, {**result.rows, "model": row, "one sample": {"div4": 0.0}}, at_floor, row["rouge_l"], 0.0
            ),
            row,
            at_floor["50"],
        )
    return found


def line(name: str, score, row: dict, middle: dict) -> str:
    """One row of the table."""
    low, high = interval(score, row, middle)
    worst, best = row["ibleu_interval"]
    return (
        f"| {name} | {score.points:.1f} ({low:.1f}-{high:.1f}) | {score.verdict} | {score.level} |"
        f" {score.generation:.1f} | {score.reconstruction:.1f} | {row['ibleu']:.1f} ({worst:.1f} to {best:.1f}) |"
        f" {row['bleu']:.2f} | {row['rouge_l']:.2f} | {row['overlap']:.1f} | {middle['accuracy']:.1f} |"
    )


def interval(score, row: dict, middle: dict) -> tuple[float, float]:
    """Ends of the score from the ends of its two numbers."""
    from diffusion_bert.evaluation.score import STRONG_ACCURACY, anchored

    share = middle["accuracy"] / 100
    half = 196 * math.sqrt(share * (1 - share) / middle["places"])
    ends = []
    for ibleu, accuracy in zip(row["ibleu_interval"], (middle["accuracy"] - half, middle["accuracy"] + half)):
        restored = anchored(accuracy, middle["floor"], max(STRONG_ACCURACY, middle["floor"] + 1))
        ends.append(0.7 * anchored(ibleu, score.floor, score.strong) + 0.3 * restored)
    return ends[0], ends[1]


if __name__ == "__main__":
    sys.exit(guarded(main))
