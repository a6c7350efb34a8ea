"""Make a data folder for several tasks from named sources of pairs and plain texts.

    python -m tools.release_data data/everyday --recipe tools/recipes/everyday_english.yaml --from data/sources
    python -m tools.release_data data/mine \\
        --source "name=letters licence=own task=text train=letters.txt style=letter" \\
        --source "name=quora licence='research use' task=qqp train=qqp/train.jsonl share=0.6" \\
        --source "name=rewrites licence=own task=qqp train=rewrites.jsonl valid=held_out.jsonl"

A recipe is a YAML file with a list ``sources`` of tables; the keys of a table are those of a --source (--help explains
them). The folder gets a folder for each task (train.jsonl and valid.jsonl, or train.txt for texts without a style), the
recipe, and SOURCES.md: rows, shares and licences.
"""

from __future__ import annotations

import json
import random
import shlex
import sys
from argparse import RawDescriptionHelpFormatter
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml

from diffusion_bert.commands.cli import Parser, guarded
from diffusion_bert.config.presets import load_settings
from diffusion_bert.errors import UserError
from diffusion_bert.machine.storage import write_atomically
from tools.mixture import Row, Source, by_share, drawn, words_key, written

Parts = list[tuple[Source, list[Row]]]


def main(argv=None) -> int:
    """Read all sources, then write the folder and say what is in it."""
    keys = "\n".join(f"  {f.name:13} {f.metadata['help']}" for f in fields(Source))
    parser = Parser(
        __doc__.splitlines()[0], epilog=f"keys of a source:\n{keys}", formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="YAML file with a list of sources")
    parser.add_argument("--source", action="append", metavar='"KEY=VALUE ..."', help="a source more; may be repeated")
    parser.add_argument(
        "--from", dest="origin", type=Path, metavar="DIR", help="where relative paths start (default: .)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of all draws (default: 0)")
    given = parser.parse(sys.argv[1:] if argv is None else argv)
    recipe = load_settings(given["recipe"]) if "recipe" in given else {}
    recipe |= {"seed": given["seed"]} if "seed" in given else {}
    sources = read_recipe(recipe, given.get("source", []), str(given.get("recipe", "recipe")))
    files, counts = mixture(sources, given.get("origin", Path()), recipe.get("seed", 0))
    kept = {"seed": recipe.get("seed", 0), "sources": [_said(source) for source in sources]}
    files["recipe.yaml"] = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=100)
    files["SOURCES.md"] = listing(counts)
    folder = given["folder"]
    if there := next((folder / name for name in files if (folder / name).exists()), None):
        raise UserError(f"{there} exists: nothing is overwritten; give a new folder")
    for name, content in files.items():
        write(folder / name, content)
    print(files["SOURCES.md"], end="")
    return 0


def read_recipe(recipe: dict[str, Any], more: list[str], origin: str) -> list[Source]:
    """The checked sources of a recipe and of --source flags, in this order.

    Raises:
        UserError: no sources, an unknown key, a wrong value, or two sources with one name in one task.
    """
    unknown = [key for key in recipe if key not in ("seed", "sources")]
    listed = recipe.get("sources", [])
    if unknown or not isinstance(listed, list) or type(recipe.get("seed", 0)) is not int:
        raise UserError(
            f"{origin}: expected a whole number 'seed' and a list 'sources'{', found ' * bool(unknown)}"
            f"{', '.join(map(str, unknown))}"
        )
    sources = [Source.from_recipe(table, f"{origin}, source {number}") for number, table in enumerate(listed, 1)]
    sources += [Source.from_recipe(_table(text), f"--source {number}") for number, text in enumerate(more, 1)]
    if not sources:
        raise UserError('no sources: give --recipe FILE or --source "name=... licence=... task=... train=..."')
    names = [(source.task, source.name) for source in sources]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two sources of {twice[0]} are called '{twice[1]}': give every source its own name")
    return sources


def mixture(
    sources: list[Source], folder: Path, seed: int
) -> tuple[dict[str, Any], list[tuple[str, Source, int, float]]]:
    """The rows of every file of the data folder; and task, source, training rows and share, for the list of sources."""
    files: dict[str, Any] = {}
    counts = []
    for task in dict.fromkeys(source.task for source in sources):
        own = [source for source in sources if source.task == task]
        parts, held_out = [], []
        for source in own:
            rng = random.Random(f"{seed} {task} {source.name}")
            rows = source.rows(source.train, folder, rng) if source.train else []
            parts.append((source, drawn(rows, source.count, rng)))
            rows = source.rows(source.valid, folder, rng) if source.valid else []
            held_out.append((source, drawn(rows, source.valid_count, rng)))
        parts = by_share(parts, random.Random(f"{seed} {task} shares"))
        train = [row for _, rows in parts for row in rows]
        if not train:
            raise UserError(
                f"task {task} has no training rows: every row was filtered out, or no source has a train file"
            )
        known = {_key(row) for row in train}
        valid = [row for _, rows in held_out for row in rows if _key(row) not in known]
        if task != "text" and not valid:
            raise UserError(f"task {task} has no validation rows: give one of its sources a valid file")
        ending = "txt" if task == "text" and not any("style" in row for row in train + valid) else "jsonl"
        files[f"{task}/train.{ending}"] = train
        files |= {f"{task}/valid.{ending}": valid} if valid else {}
        counts += [(task, source, len(rows), len(rows) / len(train)) for source, rows in parts if rows]
    return files, counts


def _key(row: Row) -> tuple[str, str]:
    """What makes a validation row one of the training rows: the same words on both sides."""
    return words_key(row.get("src", "")), words_key(written(row))


def _table(text: str) -> dict[str, Any]:
    """The keys and values of one --source."""
    try:
        parts = [part.partition("=") for part in shlex.split(text)]
    except ValueError as error:
        raise UserError(f"--source {text!r}: {error}") from None
    if wrong := next((key for key, equals, _ in parts if not equals), None):
        raise UserError(f"--source {text!r}: '{wrong}' has no value; expected key=value, with quotes around spaces")
    texts = {f.name for f in fields(Source) if "str" in str(f.type)}
    return {key: value if key in texts else yaml.safe_load(value) for key, _, value in parts}


def _said(source: Source) -> dict[str, Any]:
    """The keys of a source that were given."""
    return {f.name: value for f in fields(source) if (value := asdict(source)[f.name]) != f.default}


def listing(counts: list[tuple[str, Source, int, float]]) -> str:
    """SOURCES.md: a row for each source."""
    lines = ["| task | source | style | training rows | share | licence |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {task} | {source.name} | {source.style or ''} | {rows:,} | {share:.1%} | {source.licence} |"
        for task, source, rows, share in counts
    ]
    return "\n".join(lines) + "\n"


def write(path: Path, content: str | list[Row]) -> None:
    """A text, or one row a line."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {path.parent}: {error.strerror}; choose another folder") from None
    if isinstance(content, list):
        content = "".join(
            f"{row['text'] if path.suffix == '.txt' else json.dumps(row, ensure_ascii=False)}\n" for row in content
        )
    text = content
    write_atomically(path, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    sys.exit(guarded(main))
