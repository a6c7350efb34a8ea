"""Tables and pictures."""

import dataclasses

import pytest

from diffusion_bert.evaluation.figures import plot_curves, plot_evaluation
from diffusion_bert.evaluation.parts import Evaluation
from diffusion_bert.evaluation.report import (
    LEGEND,
    markdown,
    nelbo_lines,
    nelbo_sentence,
    plain_table,
    score_lines,
    table,
)
from diffusion_bert.evaluation.score import Score

ROWS = {
    "model": {
        "bleu": 12.345,
        "bleu_interval": [11.0, 13.0],
        "rouge_l": 40.0,
        "overlap": 20.0,
        "ibleu": 5.9,
        "nfe": 8.0,
    },
    "copy": {"bleu": 22.2, "rouge_l": 57.3, "overlap": 100.0, "ibleu": -2.2},
}
NELBO = {
    f"{name}_per_{unit}": value
    for unit in ("token", "word")
    for name, value in (("reveal", 3.0), ("stay", -0.1), ("length", 0.2), ("nelbo", 3.1), ("perplexity_bound", 22.2))
}
SCORE = Score(10.0, 10.0, 10.0, 4.6, 13.0, 5.0, 1.0, 30.0, "a strong system", "Poor", "none", ["Bronze: more accuracy"])


def test_table():
    """One column per metric that any row has, an empty cell where a row lacks it, intervals in brackets."""
    lines = table(ROWS).splitlines()
    assert lines[0] == "| | BLEU | ROUGE-L | overlap | iBLEU | calls |"
    assert lines[2].startswith("| model | 12.35 (11.0-13.0) | 40.00 |") or lines[2].startswith(
        "| model | 12.34 (11.0-13.0) | 40.00 |"
    )
    assert lines[3].endswith("| -2.2 |  |") and all(line.count("|") == 7 for line in lines)


def test_markdown_holds_all_parts():
    """Every part that was measured is there; the convention of the metrics stands beside their table."""
    reconstruction = {
        "50": {
            "accuracy": 33.3,
            "floor": 7.0,
            "places": 1234,
            "examples": [{"original": "A b.", "corrupted": "a ____", "restored": "A c."}],
        }
    }
    example = {"source": "s", "reference": "r", "output": "o", "samples": ["x", "y"]}
    text = markdown(Evaluation("qqp", 50, reconstruction, ROWS, [example], NELBO, SCORE, ["a note"]), "Title")
    for words in (
        "# Title",
        "- a note",
        "| 50 % | 33.3 % | 7.0 % | 1,234 |",
        "DiffuSeq protocol",
        "- source: s",
        "sample: y",
        "per word piece",
        "Poor, level none",
        "Bronze: more",
    ):
        assert words in text, words


def test_markdown_begins_with_the_answer():
    """Score, verdict, level, what is missing, next command; three examples; a small table; pictures; the rest."""
    example = {"source": "a | b", "reference": "r", "output": "o", "samples": ["x"]}
    result = Evaluation("qqp", 50, {}, ROWS, [example] * 5, NELBO, SCORE, ["a note"], {"top_p": 0.9}, "test")
    text = markdown(result, "Title", "my runs/best_model.pt")
    order = (
        "**Score 10.0 of 100: Poor, level none.**",
        "- missing for Bronze: more accuracy",
        "`python continue_training.py --checkpoint 'my runs/best_model.pt' --auto`",
        "| a \\| b | o | r |",
        "| | BLEU | ROUGE-L | overlap | iBLEU |",
        "(evaluation.png)",
        "(confidence_map.png)",
        "## All metrics",
        "a note",
        "| top_p | 0.9 |",
    )
    places = [text.index(words) for words in order]
    assert places == sorted(places) and text.count("| a \\| b | o | r |") == 3


def test_good_models_are_put_to_work():
    """With the verdict Good the next command talks to the model."""
    good = dataclasses.replace(SCORE, verdict="Good", level="Gold", missing=[])
    text = markdown(Evaluation("qqp", 50, rows=ROWS, score=good), "Title", "best_model.pt")
    assert "nothing is missing" in text and "interactive_generation.py --checkpoint best_model.pt" in text


def test_plain_table():
    """Aligned columns without Markdown, in 80 columns even with the longest names and numbers."""
    wide = {**ROWS, "nearest training pair": {**ROWS["model"], "rouge_l_interval": [-10.0, 10.0], "overlap": 100.0}}
    for rows in (ROWS, wide, {"model": {**ROWS["model"], "valid": 98.0}}):
        lines = plain_table(rows).splitlines()
        assert len(lines) == len(rows) + 1 and len(lines[0].split("  ")) > 5 and "|" not in "".join(lines)
        assert max(map(len, [*lines, *LEGEND.splitlines(), *nelbo_sentence(NELBO).splitlines()])) <= 80
    assert lines[0].split()[-2:] == ["valid", "%"] and lines[1].endswith("98.0")


def test_markdown_of_little():
    """An evaluation of plain texts has no table, no score, and no empty headings."""
    text = markdown(Evaluation("custom", 5), "Title")
    assert "## " not in text


def test_lines():
    """The NELBO per word piece and per word; the score with its formula and what is missing."""
    assert nelbo_lines(NELBO).count("3.100") == 2
    lines = score_lines(Evaluation("qqp", 50, score=SCORE)).splitlines()
    assert (
        lines[0] == "10.0 of 100: Poor, level none"
        and "0.7 x 10.0" in lines[1]
        and "4.6" in lines[2]
        and "Bronze" in lines[4]
    )


@pytest.mark.parametrize(("pairs", "words"), [(1, "from 1 pair:"), (2, "from 2 pairs:"), (49, "from 49 pairs:")])
def test_few_pairs_give_no_verdict(pairs, words):
    """Of fewer than 50 pairs the score means little: it says so instead of a verdict."""
    perfect = dataclasses.replace(SCORE, points=100.0, verdict="Good", level="Gold", missing=[])
    text = score_lines(Evaluation("qqp", pairs, score=perfect))
    page = markdown(Evaluation("qqp", pairs, rows=ROWS, score=perfect), "Title").split("## ")[0]
    for shown in (text, page):
        assert words in shown and "means little" in shown and "Good" not in shown and "Gold" not in shown
    assert "100.0 of 100: Good, level Gold" in score_lines(Evaluation("qqp", 50, score=perfect))


@pytest.mark.parametrize(
    "records", [[], [{"kind": "validation", "step": 0, "valid_nelbo": 5.0, "valid_reveal": 4.0, "valid_length": 1.0}]]
)
def test_curves_of_short_runs(tmp_path, records):
    """A run that ended before its first log line still gets its picture."""
    plot_curves(records, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_picture_of_an_evaluation(tmp_path):
    """With rows and without them."""
    for number, rows in enumerate((ROWS, {})):
        plot_evaluation(Evaluation("qqp", 1, {"50": {"accuracy": 1.0, "floor": 2.0}}, rows), tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 5_000
