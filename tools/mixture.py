"""Sources of a training mixture: what a recipe says of each, and the rows that are left of it."""

from __future__ import annotations

import json
import lzma
import random
import re
from collections import Counter
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusion_bert.config.fields import build, option
from diffusion_bert.config.tasks import TASKS
from diffusion_bert.errors import UserError, nearest

SENTENCE_END = re.compile(r"(?<=[a-z]{3}[.!?]) (?=[A-Z])")  # three letters before the stop: not after "Mr." or "U.S."
PLAIN = re.compile(r"[A-Z][A-Za-z ,;'-]+[.!?]")  # no digits, brackets, quotation marks, markup or foreign letters
PLAIN_WORDS = range(6, 31)
MOST_NAMES = 2  # capitals inside the sentence: a small model cannot learn names
NEAR_COPY = 0.85  # shared words / all words of a pair, above which a pair teaches copying

Row = dict[str, str]


@dataclass
class Source:
    """A file of pairs or texts, how much of it is taken, and what must be said about it."""

    name: str = option("", "short name, for the list of sources")
    licence: str = option("", "licence or terms of use, with the attribution they ask for")
    task: str = option("text", "folder that its rows go to", tuple(TASKS))
    train: str | None = option(None, "file of training rows: .jsonl with src and trg, .txt or .txt.xz")
    valid: str | None = option(None, "file of validation rows")
    style: str | None = option(None, "style that the model learns to write these texts in")
    share: float | None = option(
        None, "share of the task's training rows, drawn or repeated to reach it", low=0, high=1
    )
    count: int | None = option(None, "most training rows, drawn at random", low=1)
    valid_count: int | None = option(None, "most validation rows, drawn at random", low=1)
    sentences: bool = option(False, "paragraphs: take their plain sentences")
    near_copies: float = option(1.0, "share kept of the pairs whose sides have nearly the same words", low=0, high=1)
    same_target: int | None = option(None, "most rows with one target", low=1)
    source_words: int = option(0, "fewest words of a source: a shorter one gives no context", low=0)
    fewest_words: int = option(1, "fewest words of a target or text", low=1)
    most_words: int | None = option(None, "most words of a target or text", low=1)
    drop: str | None = option(None, "regular expression: rows that it finds are left out, whatever their case")

    @classmethod
    def from_recipe(cls, settings: Any, origin: str) -> Source:
        """A source of a recipe.

        Raises:
            UserError: no table, an unknown key, a wrong value, no name or licence, or nothing to read.
        """
        if not isinstance(settings, dict):
            raise UserError(f"{origin} is {settings!r}: expected a table with name, licence, task and train")
        names = [f.name for f in fields(cls)]
        for key in settings:
            if key not in names:
                raise UserError(
                    f"{origin}: unknown key '{key}': expected some of {', '.join(names)}{nearest(str(key), names)}"
                )
        for key in ("name", "licence"):
            if key not in settings:
                raise UserError(f"{origin} has no {key}: every source is listed with its name and licence")
        source = build(cls, settings, origin)
        if source.train is None and source.valid is None:
            raise UserError(f"{origin} has neither train nor valid: name a file")
        if source.share is not None and not 0 < source.share < 1:
            raise UserError(f"{origin}: share is {source.share}: expected between 0 and 1; without it all rows count")
        source.dropped  # noqa: B018  a wrong pattern is refused before anything is read
        return source

    @cached_property
    def dropped(self) -> re.Pattern | None:
        """The compiled pattern of ``drop``."""
        try:
            return re.compile(self.drop, re.IGNORECASE) if self.drop is not None else None
        except re.error as error:
            raise UserError(f"source {self.name}: drop is no regular expression ({error})") from None

    def rows(self, file: str, folder: Path, rng: random.Random) -> list[Row]:
        """The different rows of a file that pass all filters, in their order: {"src", "trg"}, or {"text"} and perhaps
        "style" for the task text. ``folder`` is where a relative path starts.
        """
        rows = list({tuple(row.items()): row for row in self._read(folder / file)}.values())
        rows = [row for row in rows if self.passes(row, rng)]
        if self.same_target is not None:
            seen: Counter[str] = Counter()
            rows = [row for row in rows if _nth(seen, words_key(written(row))) <= self.same_target]
        return rows

    def _read(self, path: Path) -> list[Row]:
        lines = read_lines(path)
        style = {"style": self.style} if self.style is not None else {}
        if self.task == "text":
            texts = (
                [_columns(line, path, number)["src"] for number, line in enumerate(lines, 1)]
                if ".jsonl" in path.suffixes
                else lines
            )
            if self.sentences:
                texts = [text for line in texts for text in SENTENCE_END.split(line.strip()) if is_plain(text)]
            return [{"text": text.strip(), **style} for text in texts if text.strip()]
        return [{**_columns(line, path, number), **style} for number, line in enumerate(lines, 1)]

    def passes(self, row: Row, rng: random.Random) -> bool:
        """Whether a row is kept by the filters of its own; ``rng`` decides of a near copy."""
        target = words(written(row))
        if len(target) < self.fewest_words or (self.most_words is not None and len(target) > self.most_words):
            return False
        if self.dropped is not None and any(self.dropped.search(row[side]) for side in row if side != "style"):
            return False
        if "src" not in row:
            return True
        if len(words(row["src"])) < self.source_words or not words(row["src"]):
            return False
        return overlap(row["src"], row["trg"]) <= NEAR_COPY or rng.random() < self.near_copies


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, unpacked if its name ends in .xz."""
    try:
        with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else open(path, encoding="utf-8") as file:
            return file.read().removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError, EOFError, lzma.LZMAError) as error:
        raise UserError(f"{path}: {error}; expected a text file in UTF-8") from None


def _columns(line: str, path: Path, number: int) -> Row:
    try:
        row = json.loads(line)
        return {"src": str(row["src"]), "trg": str(row["trg"])}
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f'{path}, line {number}: expected {{"src": "...", "trg": "..."}}, found {line[:40]!r}'
        ) from None


def is_plain(sentence: str) -> bool:
    """Whether a sentence is of moderate length, has plain letters only and few names."""
    parts = sentence.split()
    return (
        len(parts) in PLAIN_WORDS
        and PLAIN.fullmatch(sentence) is not None
        and sum(word[0].isupper() for word in parts[1:]) <= MOST_NAMES
    )


def words(text: str) -> list[str]:
    """Its words in lower case, without punctuation."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())


def words_key(text: str) -> str:
    """What two texts share that differ in case and punctuation only."""
    return " ".join(words(text))


def written(row: Row) -> str:
    """What a model learns to write from the row."""
    return row["text"] if "text" in row else row["trg"]


def overlap(first: str, second: str) -> float:
    """Jaccard overlap of two texts: different words they share / different words of both, in 0..1."""
    one, other = set(words(first)), set(words(second))
    return len(one & other) / max(1, len(one | other))


def drawn(rows: list[Row], count: int | None, rng: random.Random) -> list[Row]:
    """``count`` of the rows at random, in their order; all if there are no more, or without ``count``."""
    if count is None or count >= len(rows):
        return rows
    return [rows[index] for index in sorted(rng.sample(range(len(rows)), count))]


def by_share(parts: list[tuple[Source, list[Row]]], rng: random.Random) -> list[tuple[Source, list[Row]]]:
    """The parts of one task with the shares that their sources ask for.

    Sources without a share keep their rows, R of them; with shares s that sum to S the task gets R / (1 - S) rows, and
    a source s of these: whole copies of its rows, and the rest drawn.

    Raises:
        UserError: shares that leave nothing for the others, no others, or a share of nothing.
    """
    total = sum(source.share or 0 for source, _ in parts)
    whole = sum(len(rows) for source, rows in parts if source.share is None)
    if not total:
        return parts
    task = parts[0][0].task
    if total >= 1 or not whole:
        raise UserError(
            f"task {task}: shares of {total:g} in all, and {whole:,} rows without a share; expected shares below 1 in"
            " all and at least one source without one, which the others are measured by"
        )
    result = []
    for source, rows in parts:
        if source.share is not None:
            if not rows:
                raise UserError(f"source {source.name} has no rows left: a share of nothing; loosen its filters")
            wanted = max(1, round(source.share * whole / (1 - total)))
            rows = rows * (wanted // len(rows)) + drawn(rows, wanted % len(rows), rng)
        result.append((source, rows))
    return result


def _nth(seen: Counter[str], key: str) -> int:
    """How often the key has now been met."""
    seen[key] += 1
    return seen[key]
