"""Make the data folder of configs/general_english.yaml from texts and pairs that you have.

    python -m tools.release_data data/release --text wiki.txt --held_out_text wiki2.txt --qqp data/qqp \\
        --CC data/dialogues

Texts have a paragraph a line (.txt or .txt.xz). Their sentences are kept if they read as plain English (``is_plain``),
and --texts of them are drawn at random. Of the pairs, folders with train.jsonl and valid.jsonl (src, trg), all of qqp
and --replies of CC are taken. The result is a folder for each task: qqp, CC and text, whose valid.txt has sentences of
--held_out_text that are not among the others.
"""

from __future__ import annotations

import lzma
import random
import re
import sys
from pathlib import Path

from diffusion_bert.commands.cli import Parser, guarded, whole_number
from diffusion_bert.errors import UserError
from diffusion_bert.machine.storage import write_atomically

SENTENCE_END = re.compile(r"(?<=[a-z]{3}[.!?]) (?=[A-Z])")  # three letters before the stop: not after "Mr." or "U.S."
PLAIN = re.compile(r"[A-Z][A-Za-z ,;'-]+[.!?]")  # no digits, brackets, quotation marks, markup or foreign letters
WORDS = range(6, 31)
VALIDATION = 2_000  # held-out sentences
MOST_NAMES = 2  # capitals inside the sentence: a small model cannot learn names


def main(argv=None) -> int:
    """Write the folder and say what is in it."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--text", nargs="+", required=True, metavar="FILE", help="texts to train on")
    parser.add_argument("--held_out_text", nargs="+", required=True, metavar="FILE", help="other texts, to validate on")
    parser.add_argument("--qqp", type=Path, required=True, metavar="DIR", help="paraphrase pairs")
    parser.add_argument("--CC", type=Path, required=True, metavar="DIR", help="utterances with replies")
    parser.add_argument(
        "--texts", type=whole_number, default=120_000, metavar="N", help="sentences to train on (default: %(default)s)"
    )
    parser.add_argument(
        "--replies",
        type=whole_number,
        default=40_000,
        metavar="N",
        help="pairs of CC to train on (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all draws (default: %(default)s)")
    options = {"texts": 120_000, "replies": 40_000, "seed": 0} | parser.parse(sys.argv[1:] if argv is None else argv)
    folder, rng = options["folder"], random.Random(options["seed"])
    files = {}
    for task, count in (("qqp", None), ("CC", options["replies"])):
        files[f"{task}/train.jsonl"] = drawn(read_lines(options[task] / "train.jsonl"), count, rng)
        files[f"{task}/valid.jsonl"] = read_lines(options[task] / "valid.jsonl")
    known = sentences(options["text"])
    files["text/train.txt"] = drawn(known, options["texts"], rng)
    known = set(known)
    files["text/valid.txt"] = drawn(
        [text for text in sentences(options["held_out_text"]) if text not in known], VALIDATION, rng
    )
    if there := next((folder / name for name in files if (folder / name).exists()), None):
        raise UserError(f"{there} exists: nothing is overwritten; give a new folder")
    for name, rows in files.items():
        write(folder / name, rows)
    return 0


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, unpacked if its name ends in .xz."""
    try:
        with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else open(path, encoding="utf-8") as file:
            return file.read().removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError, EOFError, lzma.LZMAError) as error:
        raise UserError(f"{path}: {error}; expected a text file in UTF-8") from None


def is_plain(sentence: str) -> bool:
    """Whether a sentence is of moderate length, has plain letters only and few names."""
    words = sentence.split()
    return (
        len(words) in WORDS
        and PLAIN.fullmatch(sentence) is not None
        and sum(word[0].isupper() for word in words[1:]) <= MOST_NAMES
    )


def sentences(files) -> list[str]:
    """The different plain sentences of the files, in their order."""
    lines = (line for file in files for line in read_lines(Path(file)))
    return list(
        dict.fromkeys(sentence for line in lines for sentence in SENTENCE_END.split(line.strip()) if is_plain(sentence))
    )


def drawn(rows: list[str], count: int | None, rng: random.Random) -> list[str]:
    """``count`` of the rows at random, in their order; all if there are no more, or without ``count``."""
    return (
        rows
        if count is None or count >= len(rows)
        else [rows[index] for index in sorted(rng.sample(range(len(rows)), count))]
    )


def write(path: Path, rows: list[str]) -> None:
    """One row a line."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {path.parent}: {error.strerror}; choose another folder") from None
    write_atomically(path, lambda file: file.write("".join(f"{row}\n" for row in rows).encode()))
    print(f"{path}: {len(rows):,} rows")


if __name__ == "__main__":
    sys.exit(guarded(main))
