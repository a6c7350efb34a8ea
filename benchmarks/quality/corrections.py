"""How often a damaged sentence is corrected, and a whole one left alone.

    python -m benchmarks.quality.corrections --checkpoint runs/NAME/best_model.pt --text_file valid.txt
    python -m benchmarks.quality.corrections --checkpoint FILE --text_file valid.txt --train_file train.txt --texts 500

Into every sentence one mistake is made: a word is replaced by one of another sentence, doubled, dropped, or exchanged
with the next. Beside ``correct_text``: changing nothing, and the most common neighbour (equal neighbours are dropped;
else a word that was never seen beside either of its neighbours gives way to the one seen most often between them).

    found        something was changed where the mistake is
    corrected       the sentence is the original again, to the character
    elsewhere    something was changed where no mistake is
    unharmed     of the same sentences without a mistake, those that were changed

Intervals: 95 % (Wilson).
"""

from __future__ import annotations

import difflib
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import machine
from benchmarks.quality.masked_words import wilson
from diffusion_bert.commands.cli import Parser, guarded, whole_number
from diffusion_bert.errors import UserError

KINDS = ("replaced", "doubled", "dropped", "swapped")
WORD = re.compile(r"(?<![\w'\u2019-])[A-Za-z]+(?![\w'\u2019-])")
Correct = Callable[[Sequence[str]], list[str]]


class Damaged(NamedTuple):
    """A sentence with a mistake between its words (split at spaces) number ``first`` and ``last``."""

    original: str
    text: str
    kind: str
    first: int
    last: int


def damaged(text: str, kind: str, rng: random.Random, words: Sequence[str]) -> Damaged | None:
    """The text with one mistake, never in its first word; None where there is no place for it. ``words``: what may
    replace one.
    """
    spans = [match.span() for match in WORD.finditer(text)]
    places = []
    for number, (start, end) in enumerate(spans):
        if start == 0 or text[start - 1] != " ":
            continue
        after = spans[number + 1] if number + 1 < len(spans) else (0, 0)
        if kind != "swapped" or (after[0] == end + 1 and text[end] == " " and text[start:end] != text[slice(*after)]):
            places.append((start, end, after[1]))
    if not places:
        return None
    start, end, stop = rng.choice(places)
    word, index = text[start:end], len(text[:start].split())
    if kind == "replaced":
        other = [candidate for candidate in words if candidate.lower() != word.lower()]
        return Damaged(text, f"{text[:start]}{rng.choice(other)}{text[end:]}", kind, index, index) if other else None
    if kind == "doubled":
        return Damaged(text, f"{text[:start]}{word} {text[start:]}", kind, index, index + 1)
    if kind == "dropped":
        return Damaged(text, text[: start - 1] + text[end:], kind, index - 1, index)
    return Damaged(text, f"{text[:start]}{text[end + 1 : stop]} {word}{text[stop:]}", kind, index, index + 1)


def damaged_texts(texts: Sequence[str], seed: int) -> list[Damaged]:
    """Every text with a mistake, the kinds in turn (the next one that has a place in it); a text without any is left
    out.
    """
    rng = random.Random(seed)
    words = [word for text in texts for word in WORD.findall(text) if word.islower()]
    made = []
    for number, text in enumerate(texts):
        tried = (damaged(text, kind, rng, words) for kind in KINDS[number % len(KINDS) :] + KINDS)
        made.append(next((one for one in tried if one is not None), None))
    return [one for one in made if one is not None]


def touched(damage: Damaged, text: str) -> tuple[bool, bool]:
    """Whether a corrected text differs from the damaged one where the mistake is, and elsewhere."""
    here = elsewhere = False
    matcher = difflib.SequenceMatcher(None, damage.text.split(), text.split(), autojunk=False)
    for tag, start, end, *_ in matcher.get_opcodes():
        if tag != "equal":
            inside = start <= damage.last + 1 and max(end - 1, start) >= damage.first
            here, elsewhere = here or inside, elsewhere or not inside
    return here, elsewhere


class Neighbours:
    """The floor: which words were seen beside which."""

    def __init__(self, texts: Sequence[str]):
        self.after: dict[str, Counter] = {}
        self.before: dict[str, Counter] = {}
        for text in texts:
            words = ["", *text.lower().split(), ""]
            for one, other in zip(words, words[1:]):
                self.after.setdefault(one, Counter())[other] += 1
                self.before.setdefault(other, Counter())[one] += 1

    def __call__(self, texts: Sequence[str]) -> list[str]:
        return [self._corrected(text) for text in texts]

    def _corrected(self, text: str) -> str:
        typed = text.split(" ")
        words = ["", *(word.lower() for word in typed), ""]
        for place in range(1, len(words) - 2):
            if words[place] == words[place + 1]:
                return " ".join(typed[: place - 1] + typed[place:])
        for place in range(1, len(words) - 1):
            follow, lead = self.after.get(words[place - 1], Counter()), self.before.get(words[place + 1], Counter())
            if not follow[words[place]] and not lead[words[place]]:
                best = max(follow.keys() & lead.keys(), key=lambda word: follow[word] * lead[word], default="")
                if best:
                    return " ".join([*typed[: place - 1], best, *typed[place:]])
        return text


def measure(correct: Correct, damages: Sequence[Damaged]) -> dict[str, list[tuple[int, int]]]:
    """Per kind of mistake (and "all"): counts and sizes of found, corrected, elsewhere, unharmed."""
    outputs, unharmed = correct([one.text for one in damages]), correct([one.original for one in damages])
    rows = {}
    for kind in (*KINDS, "all"):
        chosen = [n for n, one in enumerate(damages) if kind in (one.kind, "all")]
        marks = [touched(damages[n], outputs[n]) for n in chosen]
        counts = [
            sum(here for here, _ in marks),
            sum(outputs[n] == damages[n].original for n in chosen),
            sum(elsewhere for _, elsewhere in marks),
            sum(unharmed[n] != damages[n].original for n in chosen),
        ]
        rows[kind] = [(count, len(chosen)) for count in counts]
    return rows


def table(results: dict[str, dict[str, list[tuple[int, int]]]]) -> str:
    """Markdown, a row for every system and kind of mistake, in per cent."""
    lines = ["| | mistake | texts | found | corrected | elsewhere | unharmed |", "|---|---|---|---|---|---|---|"]
    for name, rows in results.items():
        for kind, counts in rows.items():
            if size := counts[0][1]:
                cells = [
                    f"{100 * count / size:.1f} ({max(0.0, low):.1f}-{high:.1f})"
                    for count, _ in counts
                    for low, high in [wilson(count, size)]
                ]
                lines.append(f"| {name} | {kind} | {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that hold something."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is no UTF-8'}") from None


def main(argv=None) -> int:
    """Print the table."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", metavar="FILE", help="default: the newest best_model.pt below runs/")
    parser.add_argument("--text_file", metavar="FILE", required=True, help="sentences that the model has not seen")
    parser.add_argument(
        "--train_file", metavar="FILE", help="where neighbours are counted (default: the text file's other lines)"
    )
    parser.add_argument("--texts", type=whole_number, default=500, metavar="N", help="so many of them (default: 500)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which ones, and the mistakes (default: 0)")
    parser.add_argument("--max_changes", type=whole_number, metavar="N", help="as in fix (default: its own)")
    given = {"texts": 500, "seed": 0} | parser.parse(sys.argv[1:] if argv is None else argv)
    lines = read_lines(Path(given["text_file"]))
    random.Random(given["seed"]).shuffle(lines)
    from diffusion_bert.generation.generator import DiffusionTextGenerator

    options = {"max_changes": given["max_changes"]} if "max_changes" in given else {}
    generator = DiffusionTextGenerator.from_checkpoint(given.get("checkpoint"), **options)
    room = generator.target_limit() - 2  # what correct_text takes whole
    chosen, others = lines[: given["texts"]], lines[given["texts"] :]
    damages = [
        damage
        for damage in damaged_texts(chosen, given["seed"])
        if max(len(generator.tokenizer.encode(text)) for text in damage[:2]) <= room
    ]
    if not damages:
        raise UserError(f"{given['text_file']}: no sentence of two words or more that fits this model")
    counted = read_lines(Path(given["train_file"])) if "train_file" in given else others
    print(f"{machine()}; {len(damages):,} texts, seed {given['seed']}, neighbours of {len(counted):,} lines\n")
    start = time.perf_counter()
    systems: dict[str, Correct] = {
        "correct_text": lambda texts: [answer.text for answer in generator.correct_text(texts)],
        "change nothing": list,
        "most common neighbour": Neighbours(counted),
    }
    print(table({name: measure(correct, damages) for name, correct in systems.items()}))
    print(f"\n{(time.perf_counter() - start) / (2 * len(damages)):.2f} s per text")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
