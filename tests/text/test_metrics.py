"""Scores against values computed by hand. Words are single letters, so that the n-grams can be counted by eye."""

import math
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from diffusion_bert.text import metrics

LN2, LN4 = math.log(2), math.log(4)
# |hypothesis| 4, |reference| 5, every n-gram matches: BP = exp(1 - 5/4), all p_n = 1
SHORT_BY_ONE = 100 * math.exp(-0.25)  # 77.88
# |hypothesis| 5, |reference| 4: BP = 1, p = 4/5, 3/4, 2/3, 1/2, product 1/5
LONG_BY_ONE = 100 * 0.2**0.25  # 66.87


def random_sentence(rng: random.Random, longest: int = 8) -> str:
    return " ".join(rng.choice("abcde") for _ in range(rng.randint(0, longest)))


def test_bleu_argument_order():
    assert metrics.sentence_bleu(reference="a b c d e", hypothesis="a b c d") == pytest.approx(SHORT_BY_ONE)
    assert metrics.sentence_bleu(reference="a b c d", hypothesis="a b c d e") == pytest.approx(LONG_BY_ONE)
    assert metrics.sentence_bleu("a b c d e", "a b c d") == pytest.approx(77.88, abs=0.005)


@pytest.mark.parametrize(
    "reference, hypothesis, expected",
    [
        ("a b c d", "a b c d", 100.0),
        # 1-grams a b d of a b x d; 2-grams ab of ab bx xd; no 3-gram of 2: ln4/(5*2)/2; no 4-gram of 1: ln4/(5*4)/1
        ("a b c d", "a b x d", 100 * (3 / 4 * 1 / 3 * (LN4 / 10 / 2) * (LN4 / 20)) ** 0.25),
        # clipping: "a" counts once although it stands four times; no 2-gram of 3, no 3-gram of 2, no 4-gram of 1; BP =
        # 1
        ("a b", "a a a a", 100 * (1 / 4 * (LN4 / 10 / 3) * (LN4 / 20 / 2) * (LN4 / 40)) ** 0.25),
        # an exact copy of two words: 3- and 4-grams do not exist and count as 0 of 1
        ("a b", "a b", 100 * (LN2 / 10 * LN2 / 20) ** 0.25),
        # one word: only p_1 = 1 counts, BP = exp(1 - 2/1)
        ("a b", "a", 100 * math.exp(-1)),
        ("a", "a", 100.0),
        ("a b c d", "x y z w", 0.0),
        ("a b c d", "", 0.0),
        ("", "a b c d", 0.0),
        ("", "", 0.0),
    ],
)
def test_bleu_by_hand(reference, hypothesis, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics.sentence_bleu(reference, hypothesis) == pytest.approx(expected)


def test_method_4_is_the_one_of_nltk_3_6_and_later():
    # before 3.6 a zero count became n - 1 + 5/ln|hypothesis| (n = 3: 5.61 of 2, n = 4: 6.61 of 1), and this pair scored
    # 147
    assert metrics.sentence_bleu("a b c d", "a b x d") == pytest.approx(18.62, abs=0.005)


def test_rouge_l_by_hand():
    # longest common subsequence a c e = 3; P = 3/4, R = 3/5, F = 2 * 0.45 / 1.35 = 2/3
    assert metrics.rouge_l("a b c d e", "a c e f") == pytest.approx(100 * 2 / 3)
    assert metrics.rouge_l("what is it?", "What , is it") == pytest.approx(100.0)  # punctuation and case do not count
    assert metrics.rouge_l("cats run", "cat runs") == 0.0  # no stemming
    assert metrics.rouge_l("a b", "") == 0.0 == metrics.rouge_l("", "a b")


def test_distinct_n_by_hand():
    assert metrics.distinct_n("a b a c") == pytest.approx(75.0)  # a b c of 4
    assert metrics.distinct_n("a b a b", n=2) == pytest.approx(100 * 2 / 3)  # ab ba of ab ba ab
    assert metrics.distinct_n("") == 0.0 == metrics.distinct_n("a b", n=3)


def test_self_bleu_by_hand():
    # pairs (1, 2), (1, 3), (2, 3): the earlier is the hypothesis, the later the reference; "x y" shares no word
    assert metrics.self_bleu(["a b c d", "a b c d e", "x y"]) == pytest.approx(SHORT_BY_ONE / 3)
    assert metrics.self_bleu(["a b c d e", "a b c d", "x y"]) == pytest.approx(LONG_BY_ONE / 3)
    assert metrics.self_bleu(["a b c d"] * 3) == pytest.approx(100.0)
    assert metrics.self_bleu(["a b c d"]) == 0.0 == metrics.self_bleu([])


def test_diverse_4_by_hand():
    # abcd bcde | abcd | none: 2 different of 3; a 4-gram across two samples would add more
    assert metrics.diverse_4(["a b c d e", "a b c d", "x y"]) == pytest.approx(100 * 2 / 3)
    assert metrics.diverse_4(["a b c d"] * 3) == pytest.approx(100 / 3)
    assert metrics.diverse_4(["a b c", "d"]) == 0.0


def test_mbr_by_hand():
    # as hypothesis: x.. 0 + 0, abcd 0 + 77.88, abcde 0 + 66.87; with BLEU's arguments swapped the last would win
    assert metrics.mbr_select(["x y z w", "a b c d", "a b c d e"]) == 1
    assert metrics.mbr_select(["x y z w", "a b c d e", "a b c d"]) == 2


@pytest.mark.parametrize(
    "candidates, expected",
    [
        (["x", "y", "z"], 0),  # all sums 0: the first
        (["", "x y z w", "a b c d"], 1),  # all sums 0, but a blank one never wins
        (["", "  ", ""], 0),
        (["a"], 0),
        (["c d", "a b c d", "a b c d"], 1),  # equal candidates tie: the first
    ],
)
def test_mbr_ties_and_blanks(candidates, expected):
    assert metrics.mbr_select(candidates) == expected


def test_mbr_agrees_with_the_definition():
    rng = random.Random(0)
    for _ in range(30):
        candidates = [random_sentence(rng) or "a" for _ in range(6)]
        sums = [
            math.fsum(metrics.sentence_bleu(other, one) for j, other in enumerate(candidates) if j != i)
            for i, one in enumerate(candidates)
        ]
        assert metrics.mbr_select(candidates) == sums.index(max(sums))


def test_all_pairs_at_once_agree_with_nltk():
    """Counting every text's n-grams once gives NLTK's numbers: the whole range of lengths, repeated words, blanks."""
    rng = random.Random(3)
    for longest in (2, 5, 14):
        for _ in range(12):
            texts = [random_sentence(rng, longest) for _ in range(7)] + ["", "a a a a a"]
            table = metrics.bleu_table(texts)
            for j, reference in enumerate(texts):
                for i, hypothesis in enumerate(texts):
                    assert table[j][i] == pytest.approx(
                        metrics.sentence_bleu(reference, hypothesis), rel=1e-12, abs=1e-12
                    )
    assert metrics.bleu_table([]) == []


def test_equal_texts_get_equal_numbers():
    """To the last bit, so that ties are ties."""
    table = metrics.bleu_table(["a b c d e", "b c x", "a b c d e"])
    assert table[0] == table[2] and [row[0] for row in table] == [row[2] for row in table]


def test_overlap_and_ibleu_by_hand():
    assert metrics.overlap(source="a b c d e", output="a b c d") == pytest.approx(SHORT_BY_ONE)
    # 0.8 * 77.88 - 0.2 * 100: the hypothesis is a copy of the source
    assert metrics.ibleu("a b c d e", "a b c d", "a b c d") == pytest.approx(0.8 * SHORT_BY_ONE - 20.0)
    assert metrics.ibleu("a b c d", "x y z w", "a b c d", alpha=0.5) == pytest.approx(50.0)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a b c d", 0.0),
        ("someone someone called", 100 / 3),
        ("a a a b", 50.0),  # the second and the third a
        ("a b a b", 0.0),  # not adjacent
        ("The the end", 100 / 3),  # case ignored
        ("live in india india?", 25.0),
        ("no, no", 0.0),
        ("", 0.0),
    ],
)
def test_repetition_rate(text, expected):
    assert metrics.repetition_rate(text) == pytest.approx(expected)


def test_length_ratio_is_a_plain_ratio():
    assert metrics.length_ratio(reference="a b c d", hypothesis="a b") == 0.5
    assert metrics.length_ratio("a", "") == 0.0
    assert metrics.length_ratio("", "a b") == 2.0


def test_mean():
    assert metrics.mean([1, 2, 6]) == 3.0
    assert metrics.mean([0.1] * 10) == 0.1  # exact summation
    with pytest.raises(ValueError, match="no values"):
        metrics.mean([])


def test_bootstrap_interval():
    assert metrics.bootstrap_interval([5.0] * 20) == (5.0, 5.0)
    rng = random.Random(1)
    values = [rng.gauss(10.0, 2.0) for _ in range(400)]
    low, high = metrics.bootstrap_interval(values)
    # standard error 2 / sqrt(400) = 0.1: the 95 % interval is about 2 * 1.96 * 0.1 wide and holds the sample mean
    assert low < metrics.mean(values) < high and high - low == pytest.approx(0.392, rel=0.2)
    assert metrics.bootstrap_interval(values) == (low, high) != metrics.bootstrap_interval(values, seed=1)
    narrow = metrics.bootstrap_interval(values, level=0.5)
    assert low < narrow[0] < narrow[1] < high


@pytest.mark.parametrize("values, options", [([], {}), ([1.0], {"level": 95}), ([1.0], {"resamples": 0})])
def test_bootstrap_refuses(values, options):
    with pytest.raises(ValueError, match="got"):
        metrics.bootstrap_interval(values, **options)


def test_mbr_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        metrics.mbr_select([])


def test_every_score_stays_in_its_range():
    rng = random.Random(2)
    for _ in range(200):
        one, two, three = (random_sentence(rng) for _ in range(3))
        scores = [
            metrics.sentence_bleu(one, two),
            metrics.rouge_l(one, two),
            metrics.distinct_n(one),
            metrics.repetition_rate(one),
        ]
        scores += [metrics.self_bleu([one, two, three]), metrics.diverse_4([one, two, three])]
        assert all(0.0 <= score <= 100.0 + 1e-9 for score in scores)
        assert -20.0 - 1e-9 <= metrics.ibleu(one, two, three) <= 80.0 + 1e-9
        assert metrics.rouge_l(one, two) == pytest.approx(metrics.rouge_l(two, one))


def test_importing_needs_no_heavy_library():
    code = (
        "import sys, diffusion_bert.text.metrics, diffusion_bert.text.english;"
        " print(sorted({'nltk', 'rouge_score', 'tokenizers', 'torch'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
