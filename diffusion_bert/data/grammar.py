"""The bundled corpus `sample`: paraphrase pairs made by a grammar of frames x fillers, and the exact check of a
paraphrase.

A *frame* is a sentence with named slots ("How can I learn to {skill} in {duration}?"). The frames of one *group* say
the same thing with the same slots, so two of them filled alike are paraphrases. A sentence of the grammar has one
reading only; its *meaning* is the group and the fillers. The splits are by meaning: a combination of fillers met in
`test` was never seen in `train` in any frame, although every frame and every filler was. A model that has learned to
paraphrase gets it right, a lookup in the training pairs cannot.

    grammar = Grammar.load()
    source, target = grammar.pairs("test")[0]
    grammar.is_paraphrase(source, target)  # True
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

GRAMMAR_FILE = Path(__file__).with_name("sample_grammar.yaml")

DEFAULT_SIZES = {"train": 24_000, "valid": 1_000, "test": 1_000}  # split -> pairs
SPLIT_SHARES = {"train": 0.94, "valid": 0.03, "test": 0.03}  # split -> share of all meanings

_WORD_OR_MARK = re.compile(r"[^\W_]+|[^\w\s]|_")
_SLOT = re.compile(r"\{(\w+)\}")
_MAX_MISSES = 20_000  # draws in a row without a new pair before a group counts as used up

Fillers = tuple[tuple[str, str], ...]  # ((slot, filler), ...)


def tokens(text: str) -> list[str]:
    """Return the lower-case words and punctuation marks of `text`: "Don't!", "don ' t !" and a curly apostrophe are the
    same.
    """
    return _WORD_OR_MARK.findall(text.lower().replace("\u2019", "'"))


@dataclass(frozen=True)
class Parse:
    """The one reading of a sentence: its group, the index of its frame in the group, its fillers in canonical slot
    order.
    """

    group: str
    frame: int
    fillers: Fillers

    @property
    def meaning(self) -> tuple[str, Fillers]:
        """What a paraphrase keeps: (group, fillers)."""
        return self.group, self.fillers


class Group:
    """The frames of one topic, with the fillers of their slots.

    Attributes: `name`; `slots`, slot -> fillers, in canonical order; `lists`, slot -> name of its list; `frames`, the
    sentences with slots.
    """

    def __init__(
        self, name: str, lists: Mapping[str, str], frames: Sequence[str], fillers: Mapping[str, Sequence[str]]
    ) -> None:
        """Raises ValueError for a frame that does not use every slot exactly once: it could not keep the meaning."""
        self.name = name
        self.lists = dict(lists)
        self.slots = {slot: tuple(fillers[list_name]) for slot, list_name in lists.items()}
        self.frames = tuple(frames)
        for frame in frames:
            if sorted(_SLOT.findall(frame)) != sorted(self.slots):
                raise ValueError(
                    f"group {name!r}: the frame {frame!r} must use each of the slots {list(self.slots)} exactly once"
                )
        self._filler_of = {
            slot: {" ".join(tokens(filler)): filler for filler in words} for slot, words in self.slots.items()
        }
        self._patterns = [re.compile(self._pattern(frame)) for frame in frames]

    def _pattern(self, frame: str) -> str:
        """Return the regular expression of `frame` over the tokens of a sentence joined by single spaces."""
        pieces: list[str] = []
        for i, part in enumerate(_SLOT.split(frame)):  # text, slot, text, slot, ..., text
            if i % 2:
                pieces.append(f"(?P<{part}>{'|'.join(map(re.escape, self._filler_of[part]))})")
            else:
                pieces.extend(map(re.escape, tokens(part)))
        return " ".join(pieces)

    def matches(self, joined: str) -> Iterator[Parse]:
        """Yield the readings of a sentence given as its tokens joined by single spaces."""
        for i, pattern in enumerate(self._patterns):
            found = pattern.fullmatch(joined)
            if found:
                yield Parse(self.name, i, tuple((slot, self._filler_of[slot][found[slot]]) for slot in self.slots))

    def render(self, frame: int, fillers: Fillers) -> str:
        """Return frame number `frame` with `fillers` put in, starting with a capital letter."""
        text = self.frames[frame].format(**dict(fillers))
        return text[0].upper() + text[1:]

    def draw(self, rng: random.Random) -> Fillers:
        """Return random fillers; slots that share a list ("from {origin} to {goal}") get different ones."""
        while True:
            drawn = tuple((slot, words[_below(rng, len(words))]) for slot, words in self.slots.items())
            if len({(self.lists[slot], filler) for slot, filler in drawn}) == len(drawn):
                return drawn

    def count_meanings(self) -> int:
        """Return the number of different combinations of fillers."""
        sizes = {list_name: len(self.slots[slot]) for slot, list_name in self.lists.items()}
        uses = Counter(self.lists.values())
        return math.prod(math.perm(sizes[list_name], times) for list_name, times in uses.items())

    def count_pairs(self) -> int:
        """Return the number of ordered pairs of different frames with the same meaning."""
        return self.count_meanings() * len(self.frames) * (len(self.frames) - 1)


class Grammar:
    """All groups: makes the pairs of the corpus, reads sentences back, and judges paraphrases."""

    def __init__(self, groups: Iterable[Group]) -> None:
        self.groups = {group.name: group for group in groups}

    @classmethod
    def load(cls) -> Grammar:
        """Return the packaged grammar; read once per process."""
        return _load()

    def parse(self, text: str) -> Parse | None:
        """Return the reading of `text`, or None if it is not, from its first word to its last mark, a sentence of the
        grammar.

        Case and the spacing around punctuation do not matter. Slots sharing a list may hold the same filler here,
        although `pairs` never writes such a sentence.
        """
        joined = " ".join(tokens(text))
        return next((parse for group in self.groups.values() for parse in group.matches(joined)), None)

    def is_paraphrase(self, source: str, candidate: str) -> bool:
        """Return whether both are sentences of the grammar with the same meaning in different frames."""
        first, second = self.parse(source), self.parse(candidate)
        if first is None or second is None:
            return False
        return first.meaning == second.meaning and first.frame != second.frame

    def render(self, parse: Parse) -> str:
        """Return the sentence whose reading is `parse`."""
        return self.groups[parse.group].render(parse.frame, parse.fillers)

    def count_pairs(self) -> int:
        """Return the number of distinct (source, target) pairs that the grammar can make, all splits together."""
        return sum(group.count_pairs() for group in self.groups.values())

    def pairs(self, split: str, size: int | None = None, seed: int = 0) -> list[tuple[str, str]]:
        """Return distinct (source, target) paraphrase pairs of one split, the groups taking turns.

        `size` defaults to `DEFAULT_SIZES`; a smaller list is the beginning of a longer one. `seed` picks other pairs
        from the same split: no seed moves a meaning to another split. The result depends on the arguments alone, not on
        the machine or the Python version. Raises ValueError for an unknown split, or for more pairs than the split of a
        group can give.
        """
        if split not in DEFAULT_SIZES:
            raise ValueError(f"unknown split {split!r}: expected one of {', '.join(DEFAULT_SIZES)}")
        size = DEFAULT_SIZES[split] if size is None else size
        rng = random.Random(f"sample/{split}/{seed}")
        turns = list(self.groups.values())
        made: dict[tuple[str, str], None] = {}  # a set that keeps the order
        while len(made) < size:
            made[_new_pair(turns[len(made) % len(turns)], split, rng, made)] = None
        return list(made)


def split_of(meaning: tuple[str, Fillers]) -> str:
    """Return "train", "valid" or "test": a fixed function of the meaning (Python's own hash differs from run to
    run).
    """
    group, fillers = meaning
    key = "\x1f".join([group, *(filler for _, filler in fillers)])
    place = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64  # uniform in [0, 1)
    if place < SPLIT_SHARES["train"]:
        return "train"
    return "valid" if place < SPLIT_SHARES["train"] + SPLIT_SHARES["valid"] else "test"


def _new_pair(group: Group, split: str, rng: random.Random, made: Mapping[tuple[str, str], None]) -> tuple[str, str]:
    """Return a pair of `group` in `split` that is not in `made`; raises ValueError if it finds none."""
    for _ in range(_MAX_MISSES):
        fillers = group.draw(rng)
        if split_of((group.name, fillers)) != split:
            continue
        first = _below(rng, len(group.frames))
        second = (first + 1 + _below(rng, len(group.frames) - 1)) % len(group.frames)  # any frame but the first
        pair = group.render(first, fillers), group.render(second, fillers)
        if pair not in made:
            return pair
    raise ValueError(
        f"the {split} split has no more than {len(made):,} balanced pairs: group {group.name!r} is used up, ask for"
        " fewer"
    )


def _below(rng: random.Random, n: int) -> int:
    """Return a whole number in [0, n). Python promises the same `random()` in every version, but not the same `choice`
    or `randrange`.
    """
    return int(rng.random() * n)


def words_of(text: str) -> set[str]:
    """Return the distinct words of `text`, without its punctuation marks."""
    return {token for token in tokens(text) if token[0].isalnum()}


@lru_cache(maxsize=1)
def _load() -> Grammar:
    data = yaml.safe_load(GRAMMAR_FILE.read_text(encoding="utf-8"))
    return Grammar(
        Group(name, entry["slots"], entry["frames"], data["lists"]) for name, entry in data["groups"].items()
    )
