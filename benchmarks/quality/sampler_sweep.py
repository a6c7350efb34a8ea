"""Every sampler at 1, 2, 4 ... calls: quality, diversity and repetition against the number of denoiser calls.

    python -m benchmarks.quality.sampler_sweep --checkpoint runs/NAME/best_model.pt --output_dir sweep
    python -m benchmarks.quality.sampler_sweep --checkpoint runs/NAME/best_model.pt --test_file valid.jsonl \\
        --sources 500 --samplers ancestral,confidence

Three samples of every source at the likeliest length and the temperature given. BLEU, ROUGE-L, overlap, dist-1 and
repetition are those of the first sample, self-BLEU and div-4 of all three (DiffuSeq's metrics). Each line of
sweep.jsonl is one setting; a second call goes on where the first was stopped. Writes sweep.md and sweep.png beside it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import time
from pathlib import Path

from diffusion_bert.commands.cli import Parser, guarded
from diffusion_bert.config.fields import build
from diffusion_bert.config.paths import checkpoint_file
from diffusion_bert.config.schema import SAMPLER_NAMES, SamplingConfig
from diffusion_bert.errors import UserError, nearest

STEPS = (1, 2, 4, 8, 16, 32)
MORE_STEPS = {"ancestral": (64,)}
CONTINUOUS = "first_hitting"  # has no steps: a call for every word piece, measured once
COLUMNS = (
    ("sampler", "sampler"),
    ("num_steps", "steps"),
    ("nfe", "calls"),
    ("seconds", "s/text"),
    ("bleu", "BLEU"),
    ("rouge_l", "ROUGE-L"),
    ("overlap", "overlap"),
    ("dist1", "dist-1"),
    ("self_bleu", "self-BLEU"),
    ("div4", "div-4"),
    ("repetition", "repeats"),
)
SWEPT = ("sampler", "num_steps", "num_samples", "best_of")
BARE = {"length_beam": 1, "known_words": False, "rank_by": "revealed"}  # the sampler alone


def main(argv=None) -> int:
    """Measure what is missing, then write the table and the picture."""
    parser = Parser(__doc__.splitlines()[0])
    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--checkpoint", metavar="FILE", help="checkpoint file (default: the newest best_model.pt below runs/)"
    )
    what.add_argument("--test_file", metavar="FILE", help="pairs (default: the checkpoint's test split)")
    what.add_argument("--sources", type=int, metavar="N", help="a random sample of this many sources (default: 300)")
    what.add_argument("--samplers", metavar="NAMES", help=f"with commas (default: {','.join(SAMPLER_NAMES)})")
    what.add_argument(
        "--steps", metavar="NUMBERS", help=f"with commas (default: {','.join(map(str, STEPS))}; ancestral also 64)"
    )
    what.add_argument("--output_dir", metavar="DIR", help="where sweep.jsonl, .md and .png go (default: sweep)")
    parser.add_settings(SamplingConfig, leave_out=SWEPT, defaults=BARE)
    given = parser.parse(sys.argv[1:] if argv is None else argv)
    names = ("checkpoint", "test_file", "sources", "samplers", "steps", "output_dir")
    checkpoint, test_file, sources, samplers, steps, output_dir = (given.pop(name, None) for name in names)
    options = build(SamplingConfig, {**BARE, **given}, "--")
    settings = chosen_settings(samplers, steps)
    checkpoint = checkpoint_file(checkpoint)
    folder = Path(output_dir or "sweep")
    folder.mkdir(parents=True, exist_ok=True)
    records = sweep(checkpoint, test_file, sources or 300, settings, options, folder / "sweep.jsonl")
    text = table(records)
    (folder / "sweep.md").write_text(text + "\n", encoding="utf-8")
    plot(records, folder / "sweep.png")
    print(f"{text}\n\nWritten: {folder}/sweep.jsonl, sweep.md, sweep.png")
    return 0


def chosen_settings(samplers: str | None, steps: str | None) -> list[tuple[str, int]]:
    """(sampler, steps) to measure."""
    names = [name.strip() for name in samplers.split(",")] if samplers else list(SAMPLER_NAMES)
    for name in names:
        if name not in SAMPLER_NAMES:
            raise UserError(
                f"samplers has '{name}': expected some of {', '.join(SAMPLER_NAMES)}{nearest(name, SAMPLER_NAMES)}"
            )
    try:
        numbers = [int(number) for number in steps.split(",")] if steps else None
    except ValueError:
        numbers = [0]
    if numbers and min(numbers) < 1:
        raise UserError(f"steps is '{steps}': expected whole numbers of at least 1, with commas")
    return [
        (name, number)
        for name in names
        for number in (numbers or (*STEPS, *MORE_STEPS.get(name, ())))[: 1 if name == CONTINUOUS else None]
    ]


def sweep(checkpoint, test_file, sources: int, settings, options: SamplingConfig, path: Path) -> list[dict]:
    """One record per setting, in order; those already in the file (same checkpoint, sources and options) are not
    measured again.
    """
    from benchmarks.common import machine
    from diffusion_bert.commands.evaluation_data import chosen_pairs
    from diffusion_bert.generation.generator import DiffusionTextGenerator
    from diffusion_bert.machine.device import pick_device
    from diffusion_bert.model.checkpoint import load_checkpoint

    model = load_checkpoint(checkpoint).to(pick_device(options.device))
    notes: list[str] = []
    pairs = [
        pair
        for pair in chosen_pairs(model.config, "test", None, test_file, sources, options.seed, notes)
        if pair.source
    ]
    generator = DiffusionTextGenerator(model, options)
    limit = generator.source_limit()
    pairs = [
        pair
        for pair, ids in zip(pairs, model.tokenizer.encode_many([pair.source for pair in pairs]))
        if len(ids) <= limit
    ]
    if not pairs:
        raise UserError("no source to write for: plain texts, or all too long")
    same = {name: value for name, value in vars(options).items() if name not in (*SWEPT, "device", "batch_size")}
    what = json.dumps(
        [hashlib.sha256(checkpoint.read_bytes()).hexdigest(), [list(pair) for pair in pairs], same], sort_keys=True
    )
    run = hashlib.sha256(what.encode()).hexdigest()[:12]
    print(f"{machine()}\n{checkpoint}, {len(pairs)} sources, {same}")
    done = {}
    if path.is_file():
        # a line cut off by a crash is measured again
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        done = {(record["run"], record["sampler"], record["num_steps"]): record for record in map(json.loads, lines)}
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    records = []
    for sampler, steps in settings:
        key = (run, sampler, steps)
        if key not in done:
            record = measure_one(generator, pairs, dataclasses.replace(options, sampler=sampler, num_steps=steps))
            done[key] = {
                "run": run,
                "checkpoint": str(checkpoint),
                "sources": len(pairs),
                "sampler": sampler,
                "num_steps": steps,
                **record,
            }
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(done[key]) + "\n")
            print(f"  {sampler} {steps}: ROUGE-L {record['rouge_l']:.2f}, {record['nfe']:.1f} calls", flush=True)
        records.append(done[key])
    return records


def measure_one(generator, pairs, options: SamplingConfig) -> dict:
    """The numbers of one sampler at one number of steps."""
    from diffusion_bert.data.skills import PAIR
    from diffusion_bert.evaluation.measures import measured, with_interval
    from diffusion_bert.evaluation.outputs import SAMPLES
    from diffusion_bert.text import metrics
    from diffusion_bert.text.metrics import metric_text

    examples = [(PAIR, ids) for ids in generator.tokenizer.encode_many([pair.source for pair in pairs])]
    start = time.perf_counter()
    outputs = generator.generate_ids(examples, options, [SAMPLES] * len(examples), options.seed)
    seconds = time.perf_counter() - start
    texts = [[generator.sentence(output.ids, pair.source) for output in each] for each, pair in zip(outputs, pairs)]
    plain = [[metric_text(text) for text in each] for each in texts]
    values = measured([pair.source for pair in pairs], [pair.target for pair in pairs], [each[0] for each in texts])
    values |= with_interval("self_bleu", [metrics.self_bleu(each) for each in plain])
    values |= with_interval("div4", [metrics.diverse_4(each) for each in plain])
    calls = [output.nfe for each in outputs for output in each]
    return {"nfe": sum(calls) / len(calls), "seconds": seconds / len(calls), **values}


def table(records: list[dict]) -> str:
    """Markdown, with 95 % intervals for BLEU and ROUGE-L."""
    lines = ["| " + " | ".join(title for _, title in COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for record in records:
        cells = []
        for key, _ in COLUMNS:
            value = record[key]
            text = (
                str(value)
                if key in ("sampler", "num_steps")
                else f"{value:.4f}"
                if key == "seconds"
                else f"{value:.2f}"
            )
            if key in ("bleu", "rouge_l"):
                text += " ({:.1f}-{:.1f})".format(*record[f"{key}_interval"])
            cells.append(text)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(records: list[dict], path: Path) -> None:
    """ROUGE-L, BLEU, div-4 and repetition against calls, one line per sampler."""
    from diffusion_bert.evaluation.figures import MAIN, QUIET, SECOND, new_figure, save_figure

    figure, axes = new_figure(2, 2, (10, 7))
    looks = ((MAIN, "o-"), (SECOND, "s--"), ("#4ba36b", "^-."), ("#8f6bb8", "D:"), ("#c0504d", "v-"), (QUIET, "P--"))
    names = list(dict.fromkeys(record["sampler"] for record in records))
    shown = (
        ("rouge_l", "ROUGE-L"),
        ("bleu", "BLEU"),
        ("div4", "div-4 over three samples, %"),
        ("repetition", "words equal to their left neighbour, %"),
    )
    for axis, (key, title) in zip(axes.flat, shown):
        for name, (color, style) in zip(names, looks * (len(names) // len(looks) + 1)):
            line = sorted((record for record in records if record["sampler"] == name), key=lambda record: record["nfe"])
            calls = [record["nfe"] for record in line]
            axis.plot(calls, [record[key] for record in line], style, color=color, ms=5, lw=1.8, label=name)
            if key in ("rouge_l", "bleu"):
                low, high = zip(*(record[f"{key}_interval"] for record in line))
                axis.fill_between(calls, low, high, color=color, alpha=0.12, lw=0)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set(title=title, xlabel="denoiser calls per text")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(guarded(main))
