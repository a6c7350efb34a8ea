"""The benchmark of gaps in a tiny form: what is taken out, what is counted, what a judge gets."""

import json
import random

import pytest

from benchmarks.quality import gaps
from diffusion_bert.model.checkpoint import save_checkpoint
from tests.helpers.models import grammar_pairs, refusal, tiny_model

SENTENCES = [pair.target for pair in grammar_pairs()[:6]]


@pytest.mark.parametrize("text", ['He said "Go home, Tom." and left.', "One two three.", *SENTENCES])
def test_what_is_taken_out(text):
    """One to four words, without the marks around them; at least two are left, and together they are the text."""
    sizes = set()
    for seed in range(30):
        one = gaps.cut(text, random.Random(seed))
        if one is not None:
            words = text[len(one.before) : len(text) - len(one.after)]
            assert one.with_hole(words) == text and words.split() == one.words
            assert words[0].isalnum() and words[-1].isalnum() and 1 <= len(one.words) <= len(text.split()) - 2
            sizes.add(len(one.words))
    assert 1 in sizes and max(sizes) <= 4
    assert gaps.cut("Two words", random.Random(0)) is None


def test_the_table():
    """Shares by the number of words, and how many words too many."""
    lines = [{"words": 1, "words_written": 1, "exact": True}, {"words": 2, "words_written": 5, "exact": False}]
    rows = gaps.table([{"row": "gap", "seconds": 0.5, "lines": lines}]).splitlines()
    assert rows[-1].startswith("| [MASK*], length unknown | 50.0 (") and rows[-1].count("|") == rows[0].count("|")
    assert "| 100.0 of 1 | 0.0 of 1 |  |  | +1.50 | 1.50 | 0.50 |" in rows[-1]


def test_it_runs(tmp_path, capsys):
    """Every row leaves its outputs, in which all but the span is as it was; the one that knows the length writes it."""
    save_checkpoint(tmp_path / "model.pt", tiny_model())
    (tmp_path / "texts.txt").write_text("\n".join([*SENTENCES, "Two words"]) + "\n")
    arguments = ["--checkpoint", str(tmp_path / "model.pt"), "--test_file", str(tmp_path / "texts.txt")]
    assert gaps.main([*arguments, "--texts", "4", "--max_gap", "3", "--output_dir", str(tmp_path / "out")]) == 0
    assert "length unknown" in capsys.readouterr().out and (tmp_path / "out" / "table.md").is_file()
    for row in gaps.ROWS:
        for line in map(json.loads, (tmp_path / "out" / f"{row}.jsonl").read_text().splitlines()):
            before, after = line["source"].split("[MASK*]")
            assert line["reference"] in SENTENCES and line["output"].startswith(before)
            assert line["output"].endswith(after) and line["words_written"] >= 1
            assert row != "one_mask_per_word" or line["words_written"] == line["words"]
    (tmp_path / "short.txt").write_text("Two words\n")
    arguments[-1] = str(tmp_path / "short.txt")
    assert "three words" in refusal(gaps.main, arguments)
