"""Which candidates come first."""

import pytest

from diffusion_bert.generation.ranking import COST, is_near_copy, ranking_score, repeated_phrases

SKY = "Why is the sky blue?"
LONG = "The quick brown fox jumps over a lazy dog while nobody in our whole big town is looking."


@pytest.mark.parametrize(
    ("text", "source", "expected"),
    [
        ("Why is sky blue?", SKY, True),
        ("why is the Sky blue", SKY, True),
        ("Why is the sky so blue?", SKY, True),
        ("Why is the sky is blue?", SKY, True),
        ("Is why the sky blue?", SKY, True),
        ("?", SKY, True),
        ("Why is the sky grey?", SKY, False),
        ("What makes the sky blue?", SKY, False),
        ("I'd like to schedule a meeting.", "I would like to schedule a meeting.", False),
        (LONG.replace("lazy", "sleepy"), LONG, True),
        (LONG.replace("lazy", "sleepy").replace("looking", "watching"), LONG, False),
        ("", "", True),
    ],
)
def test_near_copies(text, source, expected):
    """What only adds, drops or moves words of the source, or exchanges one of many; either way round."""
    assert is_near_copy(text, source) == is_near_copy(source, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in Switzerland in Switzerland", {("in", "switzerland")}),
        ("The report, the report by the report by noon", {("the", "report"), ("the", "report", "by")}),
        ("It was very, very good.", {("very",)}),
        ("what is what it is", set()),
        ("one two three four five one two three four five", set()),
        ("", set()),
    ],
)
def test_phrases_twice_in_a_row(text, expected):
    """Up to four words, whatever the case and the punctuation marks between them."""
    assert repeated_phrases(text) == expected


@pytest.mark.parametrize(
    ("text", "reversible", "cost"),
    [
        ("Why is the sky so blue?", True, COST),
        ("Why is the sky so blue?", False, 0.0),
        ("Why is the, is the sky blue?", True, 2 * COST),
        ("Why, why is it blue?", False, COST),
        ("What makes the sky blue?", True, 0.0),
        ("Why isn't the sky grey?", True, COST),
        ("Why is the sky not blue?", True, 2 * COST),
        ("Why isn\u2019t the sky blue?", True, COST),
        ("Why is nothing blue?", False, 0.0),
        ("why is the sky BLUE?", True, float("inf")),
    ],
)
def test_what_a_candidate_pays(text, reversible, cost):
    """Near copies of a paraphrase and new repetitions cost; the source itself is never an answer before another."""
    assert ranking_score(text, -1.0, SKY, reversible) == -1.0 - cost


def test_a_repetition_of_the_source_is_free():
    """Who types "very, very" may get it back."""
    assert ranking_score("That is very, very nice.", -1.0, "This is very, very good.", True) == -1.0
