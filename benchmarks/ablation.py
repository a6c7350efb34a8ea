"""Which option earns its place? Trains one model per row for the same wall-clock time and compares each with its group's first row, pair by pair.

    python benchmarks/ablation.py --group loss lambda --max_minutes 5 --results ablation.jsonl
    python benchmarks/ablation.py --data_dir path/to/qqp --preset fast_training --max_minutes 20 --seeds 42 43 --output ablation.md
    python benchmarks/ablation.py --group pretrained --model_name_or_path path/to/bert --data_dir path/to/qqp

Every finished row is one line of --results; finished rows are not trained again, and one that was killed starts anew. NELBO is the validation
yardstick (T = 1000, fixed noise) in nats per word piece. Text is written for the same validation sources by the default sampler at temperature 0.
Differences are means over these sources (and seeds), with a 95 % bootstrap interval over them: what another seed would change they do not know.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from diffusion_bert import metrics  # noqa: E402
from diffusion_bert.config import RunConfig, SamplingConfig, load_preset  # noqa: E402
from diffusion_bert.errors import UserError  # noqa: E402

COPIES = 8  # noised copies of each example for its own NELBO
PAIRS_ONLY = {"source_dropout": 0.0, "continue_share": 0.0}
PLAIN_NETWORK = {**PAIRS_ONLY, "attention": "full", "copy_head": False, "word_freq_lambda": 0.0}


@dataclass
class Row:
    """One run: settings on top of the base, trained by our objective or by the original one."""

    name: str
    settings: dict = field(default_factory=dict)
    objective: str = "ours"


def groups(model: str | None) -> dict[str, list[Row]]:
    """All groups in their order; the first row of each is what the others are compared with."""
    fresh = {"model_name_or_path": model, "lr": None, "dropout": None}
    return {
        "lambda": [
            Row("lambda 0", {"word_freq_lambda": 0.0}),
            *(
                Row(f"lambda {value}, {'with' if on else 'without'} time correction", {"word_freq_lambda": value, "time_correction": on})
                for value in (0.15, 0.3)
                for on in (True, False)
            ),
        ],
        "loss": [Row("ce"), Row("nelbo", {"loss": "nelbo"}), Row("nelbo + 0.1 ce", {"loss": "nelbo", "hybrid_lambda": 0.1})],
        "copy": [Row("copy head"), Row("no copy head", {"copy_head": False})],
        "attention": [Row("isolated"), Row("full", {"attention": "full"})],
        "source_dropout": [Row(f"source dropout {value}", {"source_dropout": value}) for value in (0.1, 0.0, 0.3)],
        "self_conditioning": [Row("off"), Row("on", {"self_conditioning": True})],
        "timestep": [Row(name, {"timestep": name}) for name in ("none", "prefix", "layerwise")],
        "pretrained": [Row("from scratch", {**fresh, "from_scratch": True}), Row("pretrained", fresh)] if model else [],
        "options": [
            Row("defaults"),
            Row("label smoothing 0.1", {"label_smoothing": 0.1}),
            Row("EMA 0.999", {"ema_decay": 0.999}),
            Row("linear weight", {"loss_weighting": "linear"}),
            Row("both directions", {"symmetric": True}),
        ],
        "original": [
            Row("ours"),
            Row("ours, pairs only", PAIRS_ONLY),
            Row("ours on the plain network", PLAIN_NETWORK),
            Row("original objective", PLAIN_NETWORK, "original"),
            Row("original objective, lambda 0.3 per sentence", {**PLAIN_NETWORK, "word_freq_lambda": 0.3}, "original"),
        ],
    }


# ---- one run ----------------------------------------------------------------------------------------------------------------------------


def run_row(row: Row, config: RunConfig, examples: int) -> dict | None:
    """Train and evaluate; None when the user interrupted it."""
    from benchmarks.original_objective import canvas_nelbo, train_original, write_on_canvas
    from diffusion_bert.checkpoint import RunDirectory, load_checkpoint
    from diffusion_bert.commands.training_run import prepare
    from diffusion_bert.data import PAIR, spread_choice
    from diffusion_bert.generation import DiffusionTextGenerator
    from diffusion_bert.model import build_model, pick_device
    from diffusion_bert.objective import estimate_nelbo
    from diffusion_bert.tasks import load_pairs
    from diffusion_bert.training import Trainer

    splits = load_pairs(config.data, config.training.seed)
    model = build_model(config, (text for pair in splits.train for text in pair if text), config.training.seed)
    train, data = prepare(model, splits, fit=True)
    pairs = [pair for pair in splits.valid if pair.source is not None]
    tokenizer, room = model.tokenizer, config.data.max_length - 4 - len(data.collator.prompts[PAIR])
    sizes = [(len(tokenizer.encode(pair.source)), len(tokenizer.encode(pair.target))) for pair in pairs]
    fits = [i for i, (source, target) in enumerate(sizes) if target <= config.data.max_target_length and source + target <= room]
    pairs = [pairs[fits[i]] for i in spread_choice(len(fits), examples)]
    batches = [data.collator.batch([(PAIR, tokenizer.encode(p.source), tokenizer.encode(p.target))] * COPIES) for p in pairs]
    if row.objective == "original":
        result = train_original(model.to(pick_device(config.training.device)), train, data.collator)
        width = int((train.source_lengths + train.target_lengths).max()) + 3 + len(data.collator.prompts[PAIR])
        width = max([width, *(batch.input_ids.shape[1] for batch in [*data.valid, *batches])])
        nats, tokens = canvas_nelbo(model, data.valid, width)
        nelbo = nats / tokens
        own = [canvas_nelbo(model, [batch], width, seed)[0] / COPIES for seed, batch in enumerate(batches)]
        generator = DiffusionTextGenerator(model)
        sources = [tokenizer.encode(pair.source) for pair in pairs]
        written = write_on_canvas(model, sources, data.collator, width, generator.options.num_steps)
    else:
        trainer = Trainer(model, data, RunDirectory.create(config))
        outcome = trainer.fit()
        if outcome.reason == "interrupted":
            return None
        result, nelbo = {"steps": outcome.state.step, "seconds": outcome.state.seconds}, outcome.state.best_nelbo
        model = load_checkpoint(trainer.run.best).to(trainer.device)
        correct = config.diffusion.time_correction
        terms = [estimate_nelbo(model.denoiser, model.diffusion, [batch], correct, seed, model.device) for seed, batch in enumerate(batches)]
        own = [float(term.total) / COPIES for term in terms]
        generator = DiffusionTextGenerator(model, SamplingConfig(temperature=0.0, length_beam=1))
        outputs = generator.generate_ids([(PAIR, tokenizer.encode(pair.source)) for pair in pairs], generator.options, [1] * len(pairs), 0)
        written = [(output[0].ids, output[0].nfe) for output in outputs]
    texts = [generator.sentence(list(ids), pair.source) for (ids, _), pair in zip(written, pairs)]
    return {
        **result, "parameters": model.parameter_count, "nelbo": nelbo, "nfe": float(np.mean([calls for _, calls in written])),
        "examples": {"nats": own, "words": [len(pair.target.split()) for pair in pairs], **text_scores(pairs, texts, config.data.task_name)},
        "texts": texts[:5],
    }  # fmt: skip


def text_scores(pairs, texts: list[str], task: str) -> dict[str, list[float]]:
    """Scores of each text, in percent, by name."""
    from diffusion_bert.text import metric_text

    triples = [(metric_text(pair.source), metric_text(pair.target), metric_text(text)) for pair, text in zip(pairs, texts)]
    scores = {
        "rouge_l": [metrics.rouge_l(reference, text) for _, reference, text in triples],
        "bleu": [metrics.sentence_bleu(reference, text) for _, reference, text in triples],
        "overlap": [metrics.overlap(source, text) for source, _, text in triples],
        "dist1": [metrics.distinct_n(text) for *_, text in triples],
        "repetition": [metrics.repetition_rate(text) for *_, text in triples],
    }
    if task == "sample":
        from diffusion_bert.grammar import Grammar

        grammar = Grammar.load()
        scores["valid"] = [100.0 * grammar.is_paraphrase(pair.source, text) for pair, text in zip(pairs, texts)]
    return scores


# ---- the results file -------------------------------------------------------------------------------------------------------------------


def read_results(path: Path) -> dict[str, dict]:
    """Finished rows by key; a line cut off by a crash is dropped."""
    records = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
            records[record["key"]] = record
        except (ValueError, KeyError, TypeError):
            continue
    return records


def append_result(path: Path, record: dict) -> None:
    """One more line; after a half line, on a line of its own."""
    whole = not path.is_file() or not path.stat().st_size or path.read_bytes().endswith(b"\n")
    with open(path, "a", encoding="utf-8") as file:
        file.write(("" if whole else "\n") + json.dumps(record) + "\n")


def config_of(row: Row, base: dict, seed: int, folder: Path) -> tuple[RunConfig, str]:
    """The resolved settings of a row, and the key of its result: equal settings share one run, in whatever group they stand."""
    config = RunConfig.from_flat({**base, **row.settings, "seed": seed, "output_dir": str(folder)}, f"row '{row.name}'")
    flat = {name: value for name, value in config.to_flat().items() if name not in ("output_dir", "device", "num_workers")}
    return config, hashlib.sha256(json.dumps([flat, row.objective], sort_keys=True).encode()).hexdigest()[:16]


# ---- the table --------------------------------------------------------------------------------------------------------------------------

COLUMNS = {"rouge_l": "ROUGE-L", "bleu": "BLEU", "overlap": "overlap", "dist1": "dist-1", "repetition": "repeats", "valid": "valid %"}


def difference(ours: list[dict], base: list[dict], name: str) -> str:
    """Mean paired difference of a score with its interval; for ``nats`` per word of the targets."""
    one, two = (np.concatenate([record["examples"][name] for record in records]) for records in (ours, base))
    if name != "nats":
        low, high = metrics.bootstrap_interval(list(one - two))
        return f"{np.mean(one - two):+.2f} ({low:+.2f} to {high:+.2f})"
    words = np.concatenate([record["examples"]["words"] for record in base]).astype(float)
    draws = np.random.default_rng(0).integers(len(words), size=(1000, len(words)))
    low, high = np.percentile((one - two)[draws].sum(1) / words[draws].sum(1), [2.5, 97.5])
    return f"{(one - two).sum() / words.sum():+.3f} ({low:+.3f} to {high:+.3f})"


def table(title: str, rows: list[tuple[str, list[dict]]]) -> str:
    """Markdown of one group: (name, one record per seed) each; the first row is the baseline."""
    shown = [name for name in COLUMNS if all(name in record["examples"] for _, records in rows for record in records)]
    head = ["row", "seeds", "steps", "NELBO", "diff. per word", "ROUGE-L diff.", *(COLUMNS[name] for name in shown)]
    lines = [f"**{title}**", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    base = {record["seed"]: record for record in rows[0][1]}
    for number, (name, records) in enumerate(rows):
        paired = [record for record in records if record["seed"] in base]
        others = [base[record["seed"]] for record in paired]
        cells = [name, str(len(records)), f"{np.mean([r['steps'] for r in records]):,.0f}", f"{np.mean([r['nelbo'] for r in records]):.3f}"]
        cells += [difference(paired, others, "nats"), difference(paired, others, "rouge_l")] if number and paired else ["", ""]
        cells += [f"{np.mean([np.mean(record['examples'][score]) for record in records]):.2f}" for score in shown]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


# ---- the command ------------------------------------------------------------------------------------------------------------------------


def parse(argv) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", nargs="+", choices=list(groups(None)), help="which groups (default: all, in this order)")
    parser.add_argument("--preset", default="quick_demo", help="base settings; --set changes them")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings for every row, such as batch_size=32 task_name=qqp")
    parser.add_argument("--data_dir", help="folder with train.jsonl and valid.jsonl")
    parser.add_argument("--model_name_or_path", help="a pretrained BERT for the group 'pretrained'")
    parser.add_argument("--max_minutes", type=float, default=5.0, help="training time of every row")
    parser.add_argument("--max_steps", type=int, help="train every row for so many steps instead of minutes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--examples", type=int, default=200, help="validation pairs that are written and compared")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--results", type=Path, default=Path("ablation.jsonl"), help="file of finished rows")
    parser.add_argument("--output", type=Path, help="also write the tables to this Markdown file")
    return parser.parse_args(argv)


def base_settings(options: argparse.Namespace) -> dict:
    """What all rows share: preset, --set, data and the limit; as many epochs as the limit allows."""
    import yaml

    base = load_preset(options.preset)
    for text in options.set:
        name, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"--set {text}: expected KEY=VALUE, for example batch_size=32")
        base[name] = yaml.safe_load(value)
    if options.data_dir:
        base["data_dir"] = options.data_dir
        if base.get("task_name", "sample") == "sample" and not any(text.startswith("task_name=") for text in options.set):
            base["task_name"] = "custom"
    limit = {"max_steps": options.max_steps, "max_minutes": None} if options.max_steps else {"max_steps": None, "max_minutes": options.max_minutes}
    return {**base, **limit, "epochs": 100_000, "device": options.device}


def result_of(row: Row, base: dict, seed: int, options: argparse.Namespace) -> dict:
    """The row's result from the file, or from a run whose directory is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="ablation_"))
    try:
        config, key = config_of(row, base, seed, folder)
        key = f"{key}_{options.examples}"
        record = read_results(options.results).get(key)
        if record is None:
            print(f"{row.name}, seed {seed} ...", flush=True)
            result = run_row(row, config, options.examples)
            if result is None:
                raise KeyboardInterrupt
            record = {"key": key, "row": row.name, "objective": row.objective, "settings": row.settings, "seed": seed, **result}
            append_result(options.results, record)
        return record
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def work(options: argparse.Namespace) -> int:
    """Run what is missing, then print the tables of all that is there."""
    base, tables = base_settings(options), []
    all_groups = groups(options.model_name_or_path)
    for group in options.group or all_groups:
        print(f"group {group}{'' if all_groups[group] else ': skipped, it needs --model_name_or_path'}", flush=True)
        finished: list[tuple[str, list[dict]]] = []
        for row in all_groups[group]:
            try:
                finished.append((row.name, [result_of(row, base, seed, options) for seed in options.seeds]))
            except UserError as error:
                if not finished:
                    raise
                print(f"{row.name} is left out: {error}", flush=True)  # such as both directions, in a task that has only one
        if finished:
            tables.append(table(group, finished))
            print("\n" + tables[-1], flush=True)
    if options.output and tables:
        options.output.write_text("\n".join(tables), encoding="utf-8")
    return 0


def main(argv=None) -> int:
    """Errors of the user on one line, exit code 2."""
    try:
        return work(parse(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: finished rows are kept, this one starts anew next time", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
