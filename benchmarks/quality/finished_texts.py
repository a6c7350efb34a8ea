"""What the options of sampling make of the same texts: outputs for any judge, ROUGE-L where there are references, time.

    python -m benchmarks.quality.finished_texts --checkpoint runs/NAME/best_model.pt --test_file valid.jsonl \\
        --texts 150 --rows defaults "rank_by=leave_one_out" "rank_by=leave_one_out revise=2" --output_dir finished
    python -m benchmarks.quality.finished_texts --skill fill --test_file p.txt --rows defaults allow_punctuation=true

Every row is a set of options on top of the defaults. The first candidate of each text is kept: one file ROW.jsonl per
row, lines with source, output and, of a pair, reference. Prints a Markdown table: ROUGE-L, the share of the source's
words kept (overlap), seconds per text when all are written together, and for one text alone.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

from diffusion_bert.commands.cli import Parser, guarded
from diffusion_bert.config.paths import checkpoint_file
from diffusion_bert.errors import UserError

SKILLS = ("para", "fill", "complete", "reply")
ALONE = 8  # texts that are also written one by one, for the time a single answer takes


def main(argv=None) -> int:
    """Write every row and print the table."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", metavar="FILE", help="default: the newest best_model.pt below runs/")
    parser.add_argument("--test_file", metavar="FILE", required=True, help=".jsonl of pairs (src, trg), or .txt")
    parser.add_argument("--skill", choices=SKILLS, default="para", help="what is written (default: para)")
    parser.add_argument("--texts", type=int, default=150, metavar="N", help="the first so many texts (default: 150)")
    parser.add_argument("--rows", nargs="+", default=["defaults"], metavar="OPTIONS", help='such as "revise=2 seed=1"')
    parser.add_argument("--output_dir", metavar="DIR", default="finished", help="default: finished")
    given = parser.parse_args(sys.argv[1:] if argv is None else argv)
    rows = [(row, row_options(row)) for row in given.rows]
    sources, references = read_texts(Path(given.test_file), given.texts)
    folder = Path(given.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    records = measure(checkpoint_file(given.checkpoint), given.skill, sources, references, rows, folder)
    text = table(records)
    (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    print(f"{text}\n\nWritten: {folder}/*.jsonl, table.md")
    return 0


def row_options(row: str) -> dict:
    """The options of a row, "name=value name=value"; "defaults" has none. Values are YAML; names are checked later."""
    import yaml

    if row == "defaults":
        return {}
    parts = [part.partition("=") for part in row.split()]
    if not all(name and sign and value for name, sign, value in parts):
        raise UserError(f"rows has '{row}': expected defaults, or name=value with spaces between them")
    return {name: yaml.safe_load(value) for name, _, value in parts}


def read_texts(path: Path, count: int) -> tuple[list[str], list[str]]:
    """The first sources, and their references (none for lines of plain text)."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()][:count]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if path.suffix != ".jsonl":
        return lines, []
    pairs = [json.loads(line) for line in lines]
    return [pair["src"] for pair in pairs], [pair["trg"] for pair in pairs]


def measure(checkpoint: Path, skill: str, sources, references, rows, folder: Path) -> list[dict]:
    """One record per row; its outputs go to a file of its own."""
    from benchmarks.common import machine
    from diffusion_bert.data.skills import commands_of
    from diffusion_bert.generation.generator import DiffusionTextGenerator
    from diffusion_bert.text import metrics

    generator = DiffusionTextGenerator.from_checkpoint(checkpoint)
    works = {"fill": generator.fill_masks, "complete": generator.complete_text, "para": generator.paraphrase_text}
    if skill == "reply":
        task = commands_of(generator.model.skills).get("reply")
        if task is None:
            raise UserError(f"{checkpoint} has not learned to reply; choose another --skill")
        works["reply"] = lambda texts, **options: generator.rewrite(texts, task=task, **options)
    work = works[skill]
    print(f"{machine()}\n{checkpoint}, {skill}, {len(sources)} texts", flush=True)
    records = []
    for name, options in rows:
        start = time.perf_counter()
        outputs = [texts[0] for texts in work(sources, **options)]
        together = (time.perf_counter() - start) / len(sources)
        start = time.perf_counter()
        for source in sources[:ALONE]:
            work(source, **options)
        alone = (time.perf_counter() - start) / min(ALONE, len(sources))
        path = folder / f"{re.sub(r'[^a-z0-9.]+', '_', name.lower())}.jsonl"
        lines = [{"source": s, "prompt": s, "output": o} for s, o in zip(sources, outputs)]
        for line, reference in zip(lines, references):
            line["reference"] = reference
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        record = {"row": name, "overlap": metrics.mean([metrics.overlap(s, o) for s, o in zip(sources, outputs)])}
        if references:
            record["rouge_l"] = metrics.mean([metrics.rouge_l(r, o) for r, o in zip(references, outputs)])
        records.append({**record, "together": together, "alone": alone})
        print(f"  {name}: {together:.2f} s/text, {alone:.2f} s alone", flush=True)
    return records


def table(records: list[dict]) -> str:
    """Markdown; ROUGE-L only where there are references."""
    lines = ["| options | ROUGE-L | overlap | s/text | s alone |", "|---|---|---|---|---|"]
    for record in records:
        rouge = f"{record['rouge_l']:.2f}" if "rouge_l" in record else ""
        seconds = f"{record['together']:.3f} | {record['alone']:.2f}"
        lines.append(f"| {record['row']} | {rouge} | {record['overlap']:.2f} | {seconds} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded(main))
