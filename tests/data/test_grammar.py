"""The sample grammar: every sentence has one reading, the splits share no meaning, and a lookup does not solve the
test.
"""

import hashlib
import itertools
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from diffusion_bert.data.grammar import Grammar, Group, split_of, tokens
from diffusion_bert.evaluation.grammar_rows import NearestPair

GRAMMAR = Grammar.load()
GROUPS = list(GRAMMAR.groups.values())
SPLITS = ("train", "valid", "test")
SLOT = re.compile(r"\{(\w+)\}")
PRINT_DIGESTS = (
    "import hashlib; from diffusion_bert.data.grammar import Grammar; g = Grammar.load(); "
    "print([hashlib.sha256(repr(g.pairs(s, 500, seed=3)).encode()).hexdigest() for s in ('train', 'valid', 'test')])"
)


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[tuple[str, str]]]:
    return {split: GRAMMAR.pairs(split) for split in SPLITS}


def random_sentences(count: int, seed: int = 0):
    rng = random.Random(seed)
    for i in range(count):
        group = GROUPS[i % len(GROUPS)]
        frame, fillers = rng.randrange(len(group.frames)), group.draw(rng)
        yield group, frame, fillers, group.render(frame, fillers)


def lists() -> dict[str, tuple[str, ...]]:
    return {group.lists[slot]: fillers for group in GROUPS for slot, fillers in group.slots.items()}


# ---- the data


def test_counts():
    assert len(GROUPS) >= 16
    assert all(4 <= len(group.frames) <= 6 and 2 <= len(group.slots) <= 3 for group in GROUPS)
    assert sum(len(group.frames) for group in GROUPS) >= 64
    assert len({filler for fillers in lists().values() for filler in fillers}) >= 400
    assert GRAMMAR.count_pairs() >= 20_000


def test_count_pairs_is_exact_on_a_small_group():
    group = Group(
        "trip",
        {"a": "city", "b": "city"},
        ["From {a} to {b}.", "To {b} from {a}!", "{a}, {b}?"],
        {"city": ["Rome", "Oslo", "Bonn"]},
    )
    meanings = [(a, b) for a, b in itertools.product(group.slots["a"], group.slots["b"]) if a != b]
    assert group.count_pairs() == len(meanings) * 3 * 2


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_some_frame_of_every_group_reorders_the_slots(group):
    assert len({tuple(SLOT.findall(frame)) for frame in group.frames}) >= 2


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_frames_of_a_group_differ_by_more_than_a_word(group):
    for first, second in itertools.combinations(group.frames, 2):
        a, b = (Counter(tokens(SLOT.sub("", frame))) for frame in (first, second))
        assert (a - b).total() + (b - a).total() >= 3, (first, second)  # one swapped word makes 2


def test_fillers_are_short_and_plain():
    for name, fillers in lists().items():
        assert len(set(map(str.lower, fillers))) == len(fillers), name
        for filler in fillers:
            assert 1 <= len(filler.split()) <= 4 and "," not in filler and filler == filler.strip(), (name, filler)


def test_no_filler_begins_or_ends_with_another_of_its_list():
    for name, fillers in lists().items():
        for a, b in itertools.permutations(map(tokens, fillers), 2):
            assert a[: len(b)] != b and a[-len(b) :] != b, (name, a, b)


def test_sentences_are_short():
    assert 8 <= statistics.mean(len(text.split()) for *_, text in random_sentences(5_000)) <= 16
    for group in GROUPS:
        longest = {slot: max(fillers, key=lambda filler: len(tokens(filler))) for slot, fillers in group.slots.items()}
        for frame in group.frames:
            assert len(tokens(frame.format(**longest))) <= 24, frame


def test_sentences_look_like_sentences():
    for *_, text in random_sentences(5_000):
        assert text[0].isupper() and text[-1] in ".?!" and "  " not in text and "{" not in text, text


def test_a_frame_that_loses_a_slot_is_refused():
    with pytest.raises(ValueError, match=r"group 'g'.*'Only {a}.'.*exactly once"):
        Group("g", {"a": "x", "b": "x"}, ["{a} and {b}.", "Only {a}."], {"x": ["one", "two"]})


# ---- parse


def test_parse_reads_back_frame_and_fillers():
    for group, frame, fillers, text in random_sentences(10_000):
        parse = GRAMMAR.parse(text)
        assert (parse.group, parse.frame, parse.fillers) == (group.name, frame, fillers), text
        assert parse.meaning == (group.name, fillers)
        assert GRAMMAR.render(parse) == text


def pieces_of(group: Group, frame: str) -> list[list[tuple[str, ...]]]:
    """The frame as a list of choices between token sequences; a literal word is a choice of one."""
    pieces = []
    for i, part in enumerate(SLOT.split(frame)):
        pieces += (
            [[tuple(tokens(filler)) for filler in group.slots[part]]]
            if i % 2
            else [[(token,)] for token in tokens(part)]
        )
    return pieces


def overlap(a: list, b: list, ahead: tuple[str, ...] = ()) -> bool:
    """Whether some sentence fits both frames, when `a` has already produced the tokens `ahead` that `b` has not."""
    if not ahead:
        if not a or not b:
            return not a and not b
        return any(overlap(a[1:], b, choice) for choice in a[0])
    if not b:
        return False
    for choice in b[0]:
        shared = min(len(choice), len(ahead))
        if choice[:shared] != ahead[:shared]:
            continue
        if overlap(a, b[1:], ahead[shared:]) if len(choice) <= len(ahead) else overlap(b[1:], a, choice[shared:]):
            return True
    return False


def test_no_sentence_fits_two_frames():
    """Proof over all sentences, not a sample: within a frame the fillers of a list are prefix-free, across frames
    nothing overlaps.
    """
    frames = [(f"{group.name}: {frame}", pieces_of(group, frame)) for group in GROUPS for frame in group.frames]
    assert overlap(frames[0][1], frames[0][1])  # the check itself can find an overlap
    for (name_a, a), (name_b, b) in itertools.combinations(frames, 2):
        assert not overlap(a, b), (name_a, name_b)


@pytest.mark.parametrize(
    "text",
    [
        "I don't have butter at home, so how can I still offer Anna a lemon cake?",
        "i don ' t have butter at home , so how can i still offer anna a lemon cake ?",
        "  I DON\u2019T have butter\tat home,so how can I still offer ANNA a lemon cake ?\n",
    ],
)
def test_parse_ignores_case_and_spacing(text):
    parse = GRAMMAR.parse(text)
    assert parse.meaning == ("cooking", (("dish", "a lemon cake"), ("person", "Anna"), ("missing", "butter")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "How can I learn to swim in two weeks",  # last mark missing
        "How can I learn to swim in two?",  # half a filler
        "How can I learn to two weeks in swim?",  # fillers in each other's slots
        "How can I to swim in two weeks?",  # word missing
        "Well, how can I learn to swim in two weeks?",  # word too many
        "How can I learn to swim in two weeks? Thanks.",
        "How can I learn to fly in two weeks?",  # unknown filler
        "[MASK] [MASK] ##ing",
    ],
)
def test_parse_refuses_what_is_not_a_whole_sentence(text):
    assert GRAMMAR.parse(text) is None


def test_parse_is_fast():
    texts = [text for *_, text in random_sentences(2_000)]
    start = time.perf_counter()
    for text in texts:
        GRAMMAR.parse(text)
    assert (time.perf_counter() - start) / len(texts) < 1e-3


# ---- is_paraphrase

SOURCE = "What is the cheapest way to travel from Lisbon to Rome in June?"


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ("How can I get to Rome from Lisbon in June without spending much?", True),
        ("how can i get to rome from lisbon in june without spending much ?", True),
        (SOURCE, False),  # same frame
        (SOURCE.lower(), False),
        ("How can I get to Lisbon from Rome in June without spending much?", False),  # swapped
        ("How can I get to Rome from Lisbon in July without spending much?", False),  # one filler changed
        ("How can I get to Rome from Lisbon in June without much?", False),  # a word missing
        ("How can I get to Rome from Lisbon in June without spending much", False),
        ("How can I get to Rome Rome from Lisbon in June without spending much?", False),
        ("rome rome lisbon ? ?", False),
        ("", False),
    ],
)
def test_is_paraphrase(candidate, expected):
    assert GRAMMAR.is_paraphrase(SOURCE, candidate) is expected
    assert GRAMMAR.is_paraphrase(candidate, SOURCE) is expected


# ---- pairs


def test_pairs_are_distinct_balanced_paraphrases(corpus):
    for split, size in (("train", 24_000), ("valid", 1_000), ("test", 1_000)):
        pairs = corpus[split]
        assert len(pairs) == len(set(pairs)) == size
        assert all(GRAMMAR.is_paraphrase(source, target) for source, target in pairs)
        per_group = Counter(GRAMMAR.parse(source).group for source, _ in pairs)
        assert len(per_group) == len(GROUPS) and max(per_group.values()) - min(per_group.values()) <= 1


def test_no_meaning_is_shared_by_two_splits(corpus):
    meanings = {
        split: {GRAMMAR.parse(text).meaning for pair in pairs for text in pair} for split, pairs in corpus.items()
    }
    for a, b in itertools.combinations(SPLITS, 2):
        assert not meanings[a] & meanings[b]
    assert {GRAMMAR.parse(source).meaning for source, _ in GRAMMAR.pairs("test", 200, seed=1)}.isdisjoint(
        meanings["train"]
    )
    for split in SPLITS:
        assert {split_of(meaning) for meaning in meanings[split]} == {split}


def test_train_has_every_frame_and_every_filler_on_both_sides(corpus):
    for side in (0, 1):
        parses = [GRAMMAR.parse(pair[side]) for pair in corpus["train"]]
        assert {(p.group, p.frame) for p in parses} == {
            (group.name, i) for group in GROUPS for i in range(len(group.frames))
        }
        assert {(p.group, *item) for p in parses for item in p.fillers} == {
            (group.name, slot, filler)
            for group in GROUPS
            for slot, fillers in group.slots.items()
            for filler in fillers
        }


def test_pairs_are_the_same_in_every_run():
    root = Path(__file__).resolve().parents[2]
    printed = [
        subprocess.run(
            [sys.executable, "-c", PRINT_DIGESTS],
            cwd=root,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    ]
    here = [hashlib.sha256(repr(GRAMMAR.pairs(split, 500, seed=3)).encode()).hexdigest() for split in SPLITS]
    assert printed == [str(here)] * 2


def test_size_takes_a_prefix_and_seed_other_pairs(corpus):
    assert GRAMMAR.pairs("test", 300) == corpus["test"][:300]
    assert GRAMMAR.pairs("test", 0) == []
    assert GRAMMAR.pairs("test", 300, seed=1) != corpus["test"][:300]


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'dev': expected one of train, valid, test"):
        GRAMMAR.pairs("dev")


def test_more_pairs_than_there_are_is_refused():
    group = Group("g", {"a": "x"}, ["Go {a}!", "{a} it is."], {"x": ["up", "down", "left", "right"]})
    with pytest.raises(ValueError, match="group 'g' is used up"):
        Grammar([group]).pairs("train", 100)


def test_train_is_made_quickly():
    start = time.perf_counter()
    GRAMMAR.pairs("train", seed=9)
    assert time.perf_counter() - start < 3  # 0.3 s on an idle core


# ---- the lookup baseline


def test_nearest_pair_takes_the_highest_overlap_and_the_first_of_equals():
    nearest = NearestPair([("a b c", "first"), ("a b c d", "second"), ("c b a", "third")])
    assert nearest.paraphrase("A, b, c!") == "first"
    assert nearest.paraphrase("a b c d e") == "second"
    assert nearest.paraphrase("nothing alike") == "first"
    with pytest.raises(ValueError, match="at least one pair"):
        NearestPair([])


def test_lookup_does_not_solve_the_test(corpus):
    start = time.perf_counter()
    nearest = NearestPair(corpus["train"])
    right = [GRAMMAR.is_paraphrase(source, nearest.paraphrase(source)) for source, _ in corpus["test"][:300]]
    assert statistics.mean(right) < 0.2
    assert time.perf_counter() - start < 10
