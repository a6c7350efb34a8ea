"""The benchmark of corrections: its mistakes, what counts as corrected, the floor, and a tiny run."""

import random
import re

import pytest

from benchmarks.quality import corrections
from benchmarks.quality.corrections import KINDS, Damaged, Neighbours, damaged, damaged_texts, measure, touched
from diffusion_bert.model.checkpoint import save_checkpoint
from tests.helpers.models import grammar_pairs, refusal, tiny_model

TEXT = "Tom's sister can play the piano well."


@pytest.mark.parametrize("seed", range(8))
def test_mistakes(seed):
    """One mistake, never in the first word nor in one with an apostrophe; its place is between first and last."""
    words = TEXT.split()
    for kind in KINDS:
        one = damaged(TEXT, kind, random.Random(seed), ["garden"])
        typed = one.text.split()
        assert typed[0] == "Tom's" and one.text != TEXT and one.text.endswith(".")
        bare = [word.strip(".") for word in typed]
        if kind == "replaced":
            assert bare[one.first] == "garden" and len(typed) == len(words)
        elif kind == "doubled":
            assert bare[one.first] == bare[one.last] and len(typed) == len(words) + 1
        elif kind == "dropped":
            assert len(typed) == len(words) - 1 and typed[: one.first + 1] == words[: one.first + 1]
        else:
            assert bare[one.first] == words[one.last].strip(".") and bare[one.last] == words[one.first].strip(".")
        assert touched(one, TEXT) == (True, False) and touched(one, one.text) == (False, False)
    assert damaged("Hello.", "doubled", random.Random(seed), []) is None


def test_what_is_changed_elsewhere():
    """A change beside the mistake counts as found, one far away as elsewhere; both can be."""
    damage = Damaged("a b c d e f", "a b c c d e f", "doubled", 2, 3)
    assert touched(damage, "a b c d e f") == (True, False) and touched(damage, "a b x d e f") == (True, False)
    assert touched(damage, "z b c c d e f") == (False, True) and touched(damage, "z b c d e f") == (True, True)


def test_floors():
    """Changing nothing finds nothing; the neighbours drop a doubled word and know what was seen between two."""
    damages = damaged_texts([TEXT] * 8, seed=1)
    rows = measure(list, damages)
    assert [count for count, _ in rows["all"]] == [0, 0, 0, 0] and rows["all"][0][1] == len(damages)
    perfect = measure(lambda texts: [one.original for one in damages], damages)
    assert [count for count, _ in perfect["all"]] == [len(damages), len(damages), 0, 0]
    floor = Neighbours([TEXT] * 3)
    assert floor(["Tom's sister sister can play the piano well."]) == [TEXT]
    assert floor(["Tom's sister can garden the piano well.", TEXT]) == ["Tom's sister can play the piano well.", TEXT]


def test_a_tiny_run(tmp_path, capsys):
    """From flags to a table of all systems and kinds; a file without a fitting sentence is refused."""
    save_checkpoint(tmp_path / "model.pt", tiny_model())
    lines = [pair.target for pair in grammar_pairs()[:30]]
    (tmp_path / "texts.txt").write_text("\n".join(lines) + "\n")
    flags = ["--checkpoint", str(tmp_path / "model.pt"), "--text_file", str(tmp_path / "texts.txt")]
    assert corrections.main([*flags, "--texts", "12", "--max_changes", "1"]) == 0
    out = capsys.readouterr().out
    for name in ("correct_text", "change nothing", "most common neighbour"):
        assert f"| {name} | all |" in out
    size = int(re.search(r"change nothing \| all \| (\d+) \| 0\.0 ", out)[1])  # those that fit
    assert "s per text" in out and 0 < size < 12
    (tmp_path / "texts.txt").write_text("Hello.\n")
    assert "no sentence" in refusal(corrections.main, flags)
    assert "cannot read" in refusal(corrections.main, [*flags[:3], str(tmp_path / "none.txt")])
