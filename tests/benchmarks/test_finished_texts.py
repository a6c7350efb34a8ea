"""The benchmark of finished texts in a tiny form: it writes what a judge needs, and refuses what it cannot read."""

import json

from benchmarks.quality import finished_texts
from diffusion_bert.model.checkpoint import save_checkpoint
from tests.helpers.models import grammar_pairs, refusal, tiny_model


def test_it_writes_a_file_per_row(tmp_path, capsys):
    """One line per text, of a pair with its reference; a row with options of its own has a file of its own."""
    save_checkpoint(tmp_path / "best_model.pt", tiny_model())
    pairs = [{"src": pair.source, "trg": pair.target} for pair in grammar_pairs()[:2]]
    (tmp_path / "valid.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (tmp_path / "fill.txt").write_text("Where is the [MASK]\n")
    common = ["--checkpoint", str(tmp_path / "best_model.pt"), "--output_dir", str(tmp_path / "out")]
    rows = ["num_steps=1 num_samples=1", "num_steps=1 num_samples=1 rank_by=leave_one_out revise=1"]
    assert finished_texts.main([*common, "--test_file", str(tmp_path / "valid.jsonl"), "--rows", *rows]) == 0
    written = sorted((tmp_path / "out").glob("*.jsonl"))
    assert len(written) == 2 and "ROUGE-L" in capsys.readouterr().out
    lines = [json.loads(line) for line in written[0].read_text().splitlines()]
    assert [(line["source"], line["reference"]) for line in lines] == [(pair["src"], pair["trg"]) for pair in pairs]
    assert finished_texts.main([*common, "--test_file", str(tmp_path / "fill.txt"), "--skill", "fill"]) == 0
    (line,) = (tmp_path / "out" / "defaults.jsonl").read_text().splitlines()
    assert "reference" not in json.loads(line) and "[MASK]" not in json.loads(line)["output"]


def test_refusals(tmp_path):
    """A row that is no list of options, and a file that is not there."""
    assert "name=value" in refusal(finished_texts.row_options, "revise")
    assert finished_texts.row_options("defaults") == {}
    assert finished_texts.row_options("revise=2 shorten=true rank_by=revealed") == {
        "revise": 2,
        "shorten": True,
        "rank_by": "revealed",
    }
    assert "cannot read" in refusal(finished_texts.read_texts, tmp_path / "none.jsonl", 3)
