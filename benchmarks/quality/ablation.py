"""Which option earns its place? Trains one model per row for the same wall-clock time and compares each with its
group's first row, pair by pair.

    python -m benchmarks.quality.ablation --group loss lambda --max_minutes 5 --results ablation.jsonl
    python -m benchmarks.quality.ablation --data_dir path/to/qqp --preset fast_training --max_minutes 20 \\
        --seeds 42 43 --output ablation.md
    python -m benchmarks.quality.ablation --group pretrained --model_name_or_path path/to/bert --data_dir path/to/qqp
    python -m benchmarks.quality.ablation --group teacher --teacher checkpoints/general_english.pt \\
        --data_dir path/to/qqp

Every finished row is one line of --results; finished rows are not trained again, and one that was killed starts over.
Several processes may work on the same file side by side (give each its --set num_threads=1): no row is trained twice,
and a last call prints all tables. --rows trains some of the rows only, such as those for which a second seed is wanted.

NELBO is the validation yardstick (T = 1000, fixed noise) in nats per word piece. Text is written for the same
validation sources by the default sampler at temperature 0. Differences are means over these sources (of each the mean
over the seeds), with a 95 % bootstrap interval over the
sources: what another seed would change it does not know, so the NELBO of every seed is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.common import machine
from benchmarks.quality.ablation_results import append_result, claimed, read_results, table
from benchmarks.quality.ablation_rows import Row, groups
from benchmarks.quality.ablation_training import run_row
from diffusion_bert.config.presets import load_preset
from diffusion_bert.config.run_config import RunConfig
from diffusion_bert.data.cache import file_digest
from diffusion_bert.errors import UserError


def config_of(row: Row, base: dict, seed: int, folder: Path) -> tuple[RunConfig, str]:
    """The resolved settings of a row, and the key of its result: equal settings share one run, in whatever group they
    stand.
    """
    config = RunConfig.from_flat({**base, **row.settings, "seed": seed, "output_dir": str(folder)}, f"row '{row.name}'")
    flat = {
        name: value for name, value in config.to_flat().items() if name not in ("output_dir", "data_dir", "num_workers")
    }
    flat["data"] = (
        [file_digest(path).hex() for path in sorted(Path(config.data.data_dir).glob("*.jsonl"))]
        if config.data.data_dir
        else None
    )
    return config, hashlib.sha256(json.dumps([flat, row.objective], sort_keys=True).encode()).hexdigest()[:16]


def parse(argv) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--group", nargs="+", choices=list(groups(None)), help="which groups (default: all, in this order)"
    )
    parser.add_argument("--preset", default="quick_demo", help="base settings; --set changes them")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="settings for every row, such as batch_size=32 task_name=qqp",
    )
    parser.add_argument("--data_dir", help="folder with train.jsonl and valid.jsonl")
    parser.add_argument("--model_name_or_path", help="a pretrained BERT for the group 'pretrained'")
    parser.add_argument("--teacher", metavar="FILE", help="a checkpoint for the group 'teacher'")
    parser.add_argument("--max_minutes", type=float, default=5.0, help="training time of every row")
    parser.add_argument("--max_steps", type=int, help="train every row for so many steps instead of minutes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument(
        "--rows", nargs="+", metavar="NAME", help="train these rows only (tables show all that are finished)"
    )
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
        if base.get("task_name", "sample") == "sample" and not any(
            text.startswith("task_name=") for text in options.set
        ):
            base["task_name"] = "custom"
    limit = (
        {"max_steps": options.max_steps, "max_minutes": None}
        if options.max_steps
        else {"max_steps": None, "max_minutes": options.max_minutes}
    )
    if "," in base.get("task_name", ""):
        raise UserError(f"task_name is {base['task_name']}: an ablation compares models of one task")
    # no row may end early, and plans for so many epochs need batches of one size
    return {**base, **limit, "epochs": 100_000, "patience": None, "tokens_per_batch": None, "device": options.device}


def result_of(row: Row, base: dict, seed: int, options: argparse.Namespace) -> dict | None:
    """The row's result from the file, or from a run whose directory is removed afterwards; None where another process
    trains it, or --rows leaves it out.
    """
    folder = Path(tempfile.mkdtemp(prefix="ablation_"))
    try:
        config, key = config_of(row, base, seed, folder)
        key = f"{key}_{options.examples}"
        with claimed(options.results, key) as free:
            record = read_results(options.results).get(key)
            if record is None and free and (not options.rows or row.name in options.rows):
                print(f"{row.name}, seed {seed} ...", flush=True)
                result = run_row(row, config, options.examples)
                if result is None:
                    raise KeyboardInterrupt
                record = {
                    "key": key,
                    "row": row.name,
                    "objective": row.objective,
                    "settings": row.settings,
                    "seed": seed,
                    **result,
                }
                append_result(options.results, record)
        return record
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def heading(options: argparse.Namespace) -> str:
    """What all tables share: settings, limit, machine."""
    limit = f"{options.max_steps:,} steps" if options.max_steps else f"{options.max_minutes:g} minutes"
    changed = f", {' '.join(options.set)}" if options.set else ""
    return (
        f"Preset {options.preset}{changed}; {limit} a row; {options.examples} validation pairs, temperature 0."
        f" {machine()}.\n"
    )


def work(options: argparse.Namespace) -> int:
    """Run what is missing, then print the tables of all that is there."""
    base, tables = base_settings(options), [heading(options)]
    for path in (options.results, options.output):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{path.parent}: no such folder; make it first")
    all_groups = groups(options.model_name_or_path, options.teacher)
    needed = {"pretrained": "--model_name_or_path", "teacher": "--teacher"}
    print(tables[0], flush=True)
    for group in options.group or all_groups:
        print(f"group {group}{'' if all_groups[group] else f': skipped, it needs {needed[group]}'}", flush=True)
        finished: list[tuple[str, list[dict]]] = []
        for row in all_groups[group]:
            try:
                records = [
                    record for seed in options.seeds if (record := result_of(row, base, seed, options)) is not None
                ]
            except Exception as error:  # one row that fails must not cost the hours of the others
                if isinstance(error, UserError) and not finished and group == (options.group or [*all_groups])[0]:
                    raise
                # such as both directions, in a task that has only one
                print(f"{row.name} is left out: {error}", flush=True)
                continue
            if records:
                finished.append((row.name, records))
            else:
                print(f"{row.name}: not trained here", flush=True)
        if finished and finished[0][0] == all_groups[group][0].name:
            tables.append(table(group, finished))
            print("\n" + tables[-1], flush=True)
    if options.output and len(tables) > 1:
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
        print("interrupted: finished rows are kept, this one starts over next time", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
