"""The benchmark of plain text in a tiny form: it trains, measures and writes rows, and compares them text by text."""

import json

import pytest

from benchmarks.quality import plain_text
from diffusion_bert.model.checkpoint import save_checkpoint
from tests.helpers.models import grammar_pairs, new_model, refusal


def test_rows_are_trained_measured_and_kept(tmp_path, capsys):
    """Two rows of two steps, each with its own weights and their average; a second call trains nothing again."""
    save_checkpoint(tmp_path / "model.pt", new_model())
    texts = list(dict.fromkeys(pair.target for pair in grammar_pairs()))
    texts = [text for text in texts if len(text.split()) < 16]
    (tmp_path / "train.txt").write_text("\n".join(texts[4:]) + "\n")
    (tmp_path / "valid.txt").write_text("\n".join(texts[:4]) + "\n")
    files = [f"--{name}_file={tmp_path / name}.txt" for name in ("train", "valid")]
    rows = ["--rows", "defaults", "low_noise_share=0.9", "--set", "batch_size=8 lr=0.01 lr_factor=1", "--steps", "2"]
    flags = [f"--checkpoint={tmp_path / 'model.pt'}", *files, *rows, f"--results={tmp_path / 'rows.jsonl'}"]
    assert plain_text.main([*flags, "--written", "2"]) == 0
    first = capsys.readouterr().out
    records = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    names = ["defaults", "defaults, averaged", "low_noise_share=0.9", "low_noise_share=0.9, averaged"]
    assert [record["row"] for record in records] == names and all(record["steps"] == 2 for record in records)
    nats = [record["scores"]["nats"] for record in records]
    assert all(len(values) == 4 for values in nats) and len({str(values) for values in nats}) == 4
    assert all("[MASK]" not in text for record in records for text in record["outputs"]["fill"])
    beginning = plain_text.prompts(texts[:2])[1][0]
    assert records[0]["outputs"]["complete"][0].startswith(beginning)
    assert plain_text.main([*flags, "--written", "2"]) == 0
    again = capsys.readouterr().out
    assert "seed 42 ..." in first and "seed 42 ..." not in again and again.strip() in first


def test_prompts():
    """Two words are hidden, and the mark at the end of a text stays."""
    (fill,), (beginning,) = plain_text.prompts(["It is late, isn't it?"])
    assert fill.count("[MASK]") == 2 and fill.endswith("?") and beginning == "It is late,"
    assert plain_text.prompts(["Go!"])[0] == ["[MASK]!"]


def test_differences_are_paired_and_weighted():
    """Two texts of 1 and 3 masked places: 100 and 200 more per cent right are 300 / 4 = 75 more in all."""
    base = {"scores": {"right": [0.0, 100.0], "places": [1, 3]}}
    better = {"scores": {"right": [100.0, 300.0], "places": [1, 3]}}
    assert plain_text.cell("right", [base], None) == "25.0"
    assert plain_text.cell("right", [better, better], [base, base]).startswith("100.0: +75.0 (")


@pytest.mark.parametrize("row", ["low_noise_share", "low_noise_share="])
def test_refusals(row, tmp_path):
    """Options without a value."""
    files = [f"--{name}=x" for name in ("checkpoint", "train_file", "valid_file")]
    assert "name=value" in refusal(plain_text.main, [*files, "--set", row])
