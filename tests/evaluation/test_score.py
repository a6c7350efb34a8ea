"""The benchmark score: its arithmetic, its verdicts and its levels."""

import re

import pytest

from diffusion_bert.evaluation.score import ANCHORS, anchored, benchmark_score

COPY = {"ibleu": -5.0, "overlap": 100.0}
UNIGRAM = {"ibleu": 1.0}


def score(
    task="sample",
    ibleu=15.0,
    accuracy=(60.0, 50.0, 20.0),
    floor=5.0,
    long_rouge=50.0,
    long_words=15.0,
    div4=80.0,
    **model,
):
    """A score from a few numbers, the rest being blameless."""
    row = {"ibleu": ibleu, "overlap": 30.0, "repetition": 0.0, "rouge_l": 50.0, **model}
    reconstruction = {key: {"accuracy": value, "floor": floor} for key, value in zip(("20", "50", "80"), accuracy)}
    rows = {"model": row, "one sample": {"div4": div4}, "copy": COPY, "unigram": UNIGRAM}
    return benchmark_score(task, rows, reconstruction, long_rouge, long_words)


def test_anchors():
    """0 points at the floor and below, 80 at the strong system, at most 100."""
    assert [anchored(value, 10.0, 30.0) for value in (-5.0, 10.0, 20.0, 30.0, 35.0, 99.0)] == [0, 0, 40, 80, 100, 100]


@pytest.mark.parametrize("task", ["sample", "qqp", "CC", "custom"])
def test_formula_is_the_arithmetic(task):
    """The numbers in the printed formula, computed, give the points."""
    result = score(task, ibleu=6.3)
    number = r"(-?[\d.]+)"
    part = rf"{number} = 80 x \(\w+ {number} - floor {number}\) / \({number} - {number}\)"
    points, *parts = map(
        float, re.match(rf"{number} = 0\.7 x {number} \+ 0\.3 x {number}\n", result.formula()).groups()
    )
    found = [tuple(map(float, numbers)) for numbers in re.findall(part, result.formula())]
    assert points == pytest.approx(0.7 * parts[0] + 0.3 * parts[1], abs=0.1) and len(found) == 2
    for value, (shown, measured, floor, strong, floor_again) in zip(parts, found):
        assert value == shown and floor == floor_again
        assert shown == pytest.approx(min(100, max(0, 80 * (measured - floor) / (strong - floor))), abs=1.0)
    assert result.strong_name in result.formula()


def test_the_strong_system_is_good_and_the_floor_poor():
    """A named strong system gets 80 points of generation; what lies at the floor gets none."""
    for task, (_, strong) in ANCHORS.items():
        assert score(task, ibleu=strong).generation == pytest.approx(80) and score(task, ibleu=strong).verdict == "Good"
        assert score(task, ibleu=UNIGRAM["ibleu"], accuracy=(100.0, 100.0, 100.0)).verdict == "Poor"


@pytest.mark.parametrize(
    ("points", "verdict"), [(0, "Poor"), (39.9, "Poor"), (40.1, "Fair"), (59.9, "Fair"), (60.1, "Good"), (100, "Good")]
)
def test_verdicts(points, verdict):
    """Good from 60, Fair from 40, else Poor."""
    strong = ANCHORS["sample"][1]
    ibleu, accuracy = 1.0 + points / 80 * (strong - 1.0), 5.0 + points / 80 * 55.0
    result = score(ibleu=ibleu, accuracy=(50.0, accuracy, 10.0))
    assert result.points == pytest.approx(points) and result.verdict == verdict


@pytest.mark.parametrize(
    ("change", "level", "missing"),
    [
        ({}, "Gold", None),
        ({"ibleu": 17.0, "accuracy": (40.0, 30.0, 20.0)}, "Silver", "Gold: score 4"),
        ({"ibleu": 17.0, "accuracy": (40.0, 10.0, 5.0)}, "Bronze", "Silver: score 3"),
        ({"ibleu": 22.0, "accuracy": (40.0, 40.0, 20.0)}, "Silver", "Gold: score 5"),
        ({"accuracy": (34.9, 50.0, 20.0)}, "none", "Bronze: accuracy at 20 % corruption 34.9 %, needs 35"),
        ({"ibleu": 10.0}, "Bronze", "Silver: generation"),
        ({"overlap": 60.1}, "Bronze", "Silver: overlap"),
        ({"div4": 39.0}, "Bronze", "Silver: div-4"),
        ({"long_words": 11.0}, "Silver", "Gold: the longest quarter"),
        ({"long_rouge": 44.0}, "Silver", "Gold: ROUGE-L"),
        ({"long_rouge": None}, "Silver", "Gold: ROUGE-L"),
        ({"repetition": 1.5}, "Silver", "Gold: repeated"),
        ({"accuracy": (34.9, 50.0, 20.0), "ibleu": -9.0, "repetition": 9.0}, "none", "Bronze: accuracy"),
    ],
)
def test_levels(change, level, missing):
    """A level needs its criteria and those of all below; what is missing for the next one, and only that, is told."""
    result = score(**{"ibleu": 24.0, **change})
    assert result.level == level
    assert (result.missing == []) == (missing is None)
    assert all(text.startswith(missing.split(":")[0]) for text in result.missing) and (
        missing is None or any(text.startswith(missing) for text in result.missing)
    )


def test_a_floor_above_the_anchor():
    """Where copying already beats the task's named system, the anchor moves above the floor: no division by zero, no
    free points.
    """
    rows = {
        "model": {"ibleu": 45.0, "overlap": 50.0, "repetition": 0.0, "rouge_l": 50.0},
        "one sample": {"div4": 50.0},
        "copy": {"ibleu": 45.0},
        "unigram": {"ibleu": 0.0},
    }
    result = benchmark_score(
        "sample", rows, {key: {"accuracy": 0.0, "floor": 0.0} for key in ("20", "50", "80")}, 1.0, 1.0
    )
    assert result.generation == 0 and result.strong > result.floor


def test_a_floor_of_reconstruction_near_the_top():
    """When the most common word piece alone restores nearly everything, nothing is divided by zero."""
    assert 0 <= score(accuracy=(99.0, 99.0, 99.0), floor=99.0).reconstruction <= 100
