"""What the options of training do to plain text: one model per row, all continued from the same checkpoint for the same
number of steps on the same texts in the same order.

    python -m benchmarks.quality.plain_text --checkpoint checkpoints/general_english.pt \\
        --train_file path/to/train.txt --valid_file path/to/valid.txt --steps 500 --seeds 42 43 \\
        --rows defaults low_noise_share=0.5 --fluency_model path/to/causal_lm --meaning_model path/to/all-MiniLM-L6-v2

A row is a set of options on top of --preset and --set. With an ``ema_decay`` among these, every trained model is
measured twice: with its own weights, and with their running average.

Measured on the validation texts, text by text: the bound on -log p (nats per word, T = 1000, ``COPIES`` fixed noised
copies of each), how many of the words at 15 % masked places are right, and the fluency and meaning of what is written
at temperature 0: texts with two words hidden and filled in (``fill``), and the first three words continued
(``complete``). Meaning is that of the whole text, so it is judged for ``fill`` only. Differences are paired by text and
by seed against the first row, with a 95 % bootstrap interval over the texts. Finished rows stand in --results with
their texts, for any other judge, and are not trained again.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import machine
from benchmarks.quality.ablation_results import append_result, read_results
from benchmarks.quality.finished_texts import row_options
from benchmarks.quality.masked_words import masked_texts, own_choice
from diffusion_bert.commands.child_settings import child_config
from diffusion_bert.commands.cli import Parser, guarded, whole_number
from diffusion_bert.errors import UserError

COPIES = 4  # noised copies of each text for its own bound
HIDDEN, GIVEN = 2, 3  # words that ``fill`` has to find, and that ``complete`` is given
PLAIN = {"temperature": 0.0, "num_samples": 1, "best_of": 1, "length_beam": 1, "rank_by": "revealed"}
SCORES = {  # name: (heading, decimals, what a text counts for)
    "right": ("masked words right, %", 1, "places"),
    "nats": ("nats per word", 3, "words"),
    "fill_fluency": ("fluency of fills", 3, None),
    "fill_meaning": ("meaning of fills", 3, None),
    "complete_fluency": ("fluency of completions", 3, None),
}


def prompts(texts: list[str], seed: int = 0) -> tuple[list[str], list[str]]:
    """Texts with ``HIDDEN`` whole words as [MASK], a mark at a word's end left in place; and the first ``GIVEN`` words
    of each.
    """
    rng, fills = random.Random(seed), []
    for text in texts:
        words = text.split()
        for place in rng.sample(range(len(words)), min(HIDDEN, len(words))):
            words[place] = "[MASK]" + words[place][len(words[place].rstrip(".,;:!?")) :]
        fills.append(" ".join(words))
    return fills, [" ".join(text.split()[:GIVEN]) for text in texts]


def scores(model, texts: list[str], written: list[str], judges: dict) -> dict:
    """Of each text: nats, words, right and masked places; and what is written for ``written``, with its scores."""
    from diffusion_bert.config.schema import SamplingConfig
    from diffusion_bert.data.batching import Collator
    from diffusion_bert.data.skills import NO_SOURCE
    from diffusion_bert.generation.generator import DiffusionTextGenerator
    from diffusion_bert.training.yardstick import estimate_nelbo

    model.denoiser.eval()
    collator, correct = Collator(model.tokenizer, model.task.prompt), model.config.diffusion.time_correction
    found: dict[str, list[float]] = {"nats": [], "words": [], "right": [], "places": []}
    for seed, (line, masked, truth) in enumerate(masked_texts(model, texts, 0.15)):
        batch = collator.batch([(NO_SOURCE, [], model.tokenizer.encode(line))] * COPIES)
        terms = estimate_nelbo(model.denoiser, model.diffusion, [batch], correct, seed)
        found["nats"].append(float(terms.total) / COPIES)
        found["words"].append(len(line.split()))
        found["right"].append(100.0 * int((own_choice(model, masked).argmax(-1) == truth).sum()))
        found["places"].append(len(truth))
    generator = DiffusionTextGenerator(model, SamplingConfig())
    fills, beginnings = prompts(written)
    outputs = {
        "fill": [answer[0] for answer in generator.fill_masks(fills, **PLAIN)],
        "complete": [answer[0] for answer in generator.complete_text(beginnings, **PLAIN)],
    }
    if "fluency" in judges:
        found |= {f"{name}_fluency": judges["fluency"].nats(output) for name, output in outputs.items()}
    if "meaning" in judges:
        found["fill_meaning"] = judges["meaning"].cosines(written, outputs["fill"])
    return {"scores": found, "outputs": outputs}


def train(checkpoint: Path, settings: dict, folder: str):
    """The trainer of a finished run that continues a checkpoint with these settings."""
    from diffusion_bert.data.splits import load_pairs
    from diffusion_bert.training.preparation import child_model, encode_training_data
    from diffusion_bert.training.run_directory import RunDirectory
    from diffusion_bert.training.trainer import Trainer

    config = child_config(checkpoint, {**settings, "output_dir": folder})
    splits = load_pairs(config.data, config.training.seed)
    model = child_model(config, splits, checkpoint)
    _, data = encode_training_data(model, splits, fit=False)
    trainer = Trainer(model, data, RunDirectory.create(config))
    trainer.last_validation = 0  # all rows start from the same weights: their bound at step 0 is of no use
    if trainer.fit().reason == "interrupted":
        raise KeyboardInterrupt
    return trainer


def run_row(row: str, seed: int, given: dict, texts: list[str], judges: dict) -> list[dict]:
    """The records of one trained model: its own weights, and their average if it has one."""
    options = row_options(row)
    settings = {"preset": given["preset"], "task_name": "text", "eval_steps": None, "symmetric": False}
    settings |= {"train_file": given["train_file"], "valid_file": given["valid_file"], "seed": seed}
    settings |= {"max_steps": given["steps"], "max_minutes": None, "epochs": 1000, **given["set"], **options}
    written = [text for text in texts if len(text.split()) > GIVEN + 1][: given["written"]]
    with tempfile.TemporaryDirectory(prefix="plain_text_") as folder:
        trainer = train(Path(given["checkpoint"]), settings, folder)
        common = {"seed": seed, "steps": trainer.state.step, "seconds": trainer.state.seconds, "machine": machine()}
        common["precision"] = trainer.precision.name
        records = [{**common, "row": row, **scores(trainer.model, texts, written, judges)}]
        if trainer.average is not None:
            with trainer.averaged():
                name = f"{row}, averaged"
                records.append({**common, "row": name, **scores(trainer.model, texts, written, judges)})
    return [{"key": f"{record['row']}|{seed}", **record} for record in records]


def cell(name: str, records: list[dict], base: list[dict] | None) -> str:
    """The mean of a score over texts and seeds, and its paired difference from the ``base`` of the same seeds."""
    _, decimals, counted = SCORES[name]
    values = np.array([record["scores"][name] for record in records])
    weights = np.array(records[0]["scores"][counted] if counted else np.ones(values.shape[1]))
    mean = f"{values.sum() / (len(values) * weights.sum()):.{decimals}f}"
    if base is None:
        return mean
    gap = (values - np.array([record["scores"][name] for record in base])).mean(0)
    draws = np.random.default_rng(0).integers(len(gap), size=(1000, len(gap)))
    low, high = np.percentile(gap[draws].sum(1) / weights[draws].sum(1), [2.5, 97.5])
    middle = gap.sum() / weights.sum()
    return f"{mean}: {middle:+.{decimals}f} ({low:+.{decimals}f} to {high:+.{decimals}f})"


def table(records: list[dict]) -> str:
    """Markdown: a line per row, compared with the first row where both have the seed."""
    rows: dict[str, dict[int, dict]] = {}
    for record in records:
        rows.setdefault(record["row"], {})[record["seed"]] = record
    shown = [name for name in SCORES if all(name in record["scores"] for record in records)]
    first = next(iter(rows.values()))
    lines = ["| row | seeds | " + " | ".join(SCORES[name][0] for name in shown) + " |", "|---" * (2 + len(shown)) + "|"]
    for row, by_seed in rows.items():
        seeds = sorted(set(by_seed) & set(first))
        own, base = [by_seed[seed] for seed in seeds], [first[seed] for seed in seeds]
        cells = [cell(name, own, None if by_seed is first else base) for name in shown] if seeds else []
        lines.append(f"| {row} | {', '.join(map(str, seeds))} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parse(argv) -> dict:
    """The flags."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", metavar="FILE", required=True, help="what every row is continued from")
    parser.add_argument("--train_file", metavar="FILE", required=True, help=".txt, a text per line")
    parser.add_argument("--valid_file", metavar="FILE", required=True, help=".txt, texts that are measured")
    parser.add_argument("--rows", nargs="+", metavar="OPTIONS", help='such as defaults "low_noise_share=0.5"')
    parser.add_argument("--preset", help="settings of all rows (default: everyday_english)")
    parser.add_argument("--set", metavar="OPTIONS", help='more of them, such as "batch_size=48 ema_decay=0.999"')
    parser.add_argument("--steps", type=whole_number, metavar="N", help="steps of every row (default: 500)")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="(default: 42)")
    parser.add_argument("--texts", type=whole_number, metavar="N", help="validation texts measured (default: 500)")
    parser.add_argument("--written", type=whole_number, metavar="N", help="texts written per skill (default: 150)")
    parser.add_argument("--fluency_model", metavar="NAME", help="any causal language model, directory or hub id")
    parser.add_argument("--meaning_model", metavar="NAME", help="any sentence encoder, directory or hub id")
    parser.add_argument("--results", metavar="FILE", help="finished rows (default: plain_text.jsonl)")
    default = {"preset": "everyday_english", "set": "defaults", "rows": ["defaults"], "steps": 500, "seeds": [42]}
    default |= {"texts": 500, "written": 150, "results": "plain_text.jsonl"}
    return default | {name: value for name, value in parser.parse(argv).items() if value is not None}


def main(argv=None) -> int:
    """Train what is missing, then print the table."""
    from diffusion_bert.data.reading import read_file
    from diffusion_bert.evaluation.fluency import FluencyJudge
    from diffusion_bert.evaluation.meaning import MeaningJudge

    given = parse(sys.argv[1:] if argv is None else argv)
    given["set"] = row_options(given["set"])
    texts = [pair.target for pair in read_file(given["valid_file"]).pairs][: given["texts"]]
    if not texts:
        raise UserError(f"{given['valid_file']} has no text: give a file with one text per line")
    makers, results = {"fluency": FluencyJudge, "meaning": MeaningJudge}, Path(given["results"])
    judges = {name: make(given[f"{name}_model"]) for name, make in makers.items() if f"{name}_model" in given}
    for seed in given["seeds"]:
        for row in given["rows"]:
            if f"{row}|{seed}" not in read_results(results):
                print(f"{row}, seed {seed} ...", flush=True)
                for record in run_row(row, seed, given, texts, judges):
                    append_result(results, record)
    print(f"\n{machine()}\n\n{table(list(read_results(results).values()))}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
