"""Spans of 1 to 4 words taken out of sentences: how often does a gap [MASK*] get them back, and what stands there else?

    python -m benchmarks.quality.gaps --checkpoint runs/NAME/best_model.pt --test_file valid.txt
    python -m benchmarks.quality.gaps --checkpoint MODEL.pt --test_file valid.txt --texts 40 --output_dir out

Rows: the gap, of unknown length; the same with its true number of word pieces given; and one [MASK] for each word that
was taken out, as one would type it without gaps. The first text at temperature 0 counts. It is exact where it is the
sentence again, capitals aside. Each row leaves ROW.jsonl in the output folder, lines with source, output and reference,
for a judge of fluency. Intervals: 95 %.
"""

from __future__ import annotations

import dataclasses
import json
import random
import re
import sys
import time
from pathlib import Path

from benchmarks.quality.masked_words import wilson
from diffusion_bert.commands.cli import Parser, guarded, whole_number
from diffusion_bert.config.paths import checkpoint_file
from diffusion_bert.data.reading import read_file
from diffusion_bert.errors import UserError
from diffusion_bert.text.english import MASK
from diffusion_bert.text.masks import GAP

MOST_WORDS = 4


@dataclasses.dataclass
class Cut:
    """A sentence, the words of it that are taken out, and what is left with a hole between it."""

    text: str
    words: list[str]
    before: str
    after: str

    def with_hole(self, hole: str) -> str:
        """The text with something else in the place of the words."""
        return self.before + hole + self.after


def cut(text: str, rng: random.Random) -> Cut | None:
    """One to four neighbouring words taken out, without the punctuation marks around them; None where fewer than two
    would be left.
    """
    words, size = list(re.finditer(r"\S+", text)), rng.randint(1, MOST_WORDS)
    if len(words) < size + 2:
        return None
    first = rng.randrange(len(words) - size + 1)
    start, end = words[first].start(), words[first + size - 1].end()
    while start < end and not text[start].isalnum():
        start += 1
    while start < end and not text[end - 1].isalnum():
        end -= 1
    return Cut(text, text[start:end].split(), text[:start], text[end:]) if start < end else None


def cuts_of(generator, texts: list[str], seed: int) -> list[Cut]:
    """The cuts that every row can be asked for: the model takes the sentence, and the words are within a gap."""
    found = []
    for number, text in enumerate(texts):
        one = cut(text, random.Random(f"{seed} {number}"))
        if one is None or len(generator.tokenizer.encode(text)) + 1 > generator.target_limit():
            continue
        if len(generator.tokenizer.encode(" ".join(one.words))) <= generator.options.max_gap:
            found.append(one)
    return found


def restored(generator, row: str, cuts: list[Cut]) -> list[str]:
    """The texts of a row."""
    from diffusion_bert.generation.filling import filled
    from diffusion_bert.generation.ranking import Piece

    if row == "gap":
        return [texts[0] for texts in generator.fill_masks([one.with_hole(GAP) for one in cuts])]
    if row == "one_mask_per_word":
        typed = [one.with_hole(" ".join([MASK] * len(one.words))) for one in cuts]
        return [texts[0] for texts in generator.fill_masks(typed)]
    known = {n: [(len(generator.tokenizer.encode(" ".join(one.words))),)] for n, one in enumerate(cuts)}
    pieces = [Piece(one.with_hole(GAP)) for one in cuts]
    answers = filled(generator, pieces, generator.options, lengths=known)
    return [answer.texts[0] for answer in answers]


ROWS = {
    "gap": "[MASK*], length unknown",
    "length_known": "[MASK*], its length known",
    "one_mask_per_word": "one [MASK] for each word",
}


def measure(generator, cuts: list[Cut], folder: Path) -> list[dict]:
    """One record for each row; its outputs go to a file of its own."""
    records = []
    for row in ROWS:
        start = time.perf_counter()
        outputs = restored(generator, row, cuts)
        seconds = (time.perf_counter() - start) / len(cuts)
        lines = []
        for one, output in zip(cuts, outputs):
            written = output[len(one.before) : len(output) - len(one.after)].split()
            lines.append({"source": one.with_hole(GAP), "prompt": one.with_hole(GAP), "output": output})
            lines[-1] |= {"reference": one.text, "words": len(one.words), "words_written": len(written)}
            lines[-1]["exact"] = output.casefold() == one.text.casefold()
        (folder / f"{row}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        records.append({"row": row, "seconds": seconds, "lines": lines})
    return records


def table(records: list[dict]) -> str:
    """Markdown: exact restorations of all and by the number of words, how many words more or fewer were written."""
    head = [f"{size} word{'s' * (size > 1)}" for size in range(1, MOST_WORDS + 1)]
    lines = [f"| | exact, % | {' | '.join(head)} | words too many | off by | s/text |", "|---" * (len(head) + 5) + "|"]
    for record in records:
        rows = record["lines"]
        low, high = wilson(sum(line["exact"] for line in rows), len(rows))
        cells = [f"{100 * sum(line['exact'] for line in rows) / len(rows):.1f} ({low:.1f}-{high:.1f})"]
        for size in range(1, MOST_WORDS + 1):
            those = [line["exact"] for line in rows if line["words"] == size]
            cells.append(f"{100 * sum(those) / len(those):.1f} of {len(those)}" if those else "")
        more = [line["words_written"] - line["words"] for line in rows]
        cells += [f"{sum(more) / len(more):+.2f}", f"{sum(map(abs, more)) / len(more):.2f}", f"{record['seconds']:.2f}"]
        lines.append(f"| {ROWS[record['row']]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv=None) -> int:
    """Restore by every row and print the table."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", metavar="FILE", help="default: the newest best_model.pt below runs/")
    parser.add_argument(
        "--test_file", metavar="FILE", required=True, help="sentences not seen in training, a line each"
    )
    parser.add_argument("--texts", type=whole_number, default=500, metavar="N", help="the first so many (default: 500)")
    parser.add_argument("--seed", type=whole_number, default=0, metavar="N", help="which words are taken (default: 0)")
    parser.add_argument("--max_gap", type=whole_number, default=8, metavar="N", help="longest gap tried (default: 8)")
    parser.add_argument("--output_dir", metavar="DIR", default="gaps", help="default: gaps")
    given = parser.parse_args(sys.argv[1:] if argv is None else argv)
    texts = [pair.target for pair in read_file(given.test_file).pairs[: given.texts]]

    from benchmarks.common import machine
    from diffusion_bert.generation.generator import DiffusionTextGenerator

    options = {"temperature": 0.0, "num_samples": 1, "best_of": 1, "max_gap": given.max_gap}
    generator = DiffusionTextGenerator.from_checkpoint(checkpoint_file(given.checkpoint), **options)
    cuts = cuts_of(generator, texts, given.seed)
    if not cuts:
        raise UserError(f"{given.test_file}: no sentence of three words or more that fits this model")
    folder = Path(given.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}; {len(cuts):,} of {len(texts):,} texts, seed {given.seed}, gaps of 1 to {given.max_gap}")
    text = table(measure(generator, cuts, folder))
    (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nWritten: {folder}/*.jsonl, table.md")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
