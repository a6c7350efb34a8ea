"""DistributedDataParallel beside our flat sum, on a tiny model: both ways run, and give the same gradients."""

import json

import pytest

from benchmarks.speed import ddp
from diffusion_bert.commands.cli import guarded

TINY = "--layers 1 --width 32 --heads 2 --vocab_size 120 --batch_size 4 --length 24 --steps 1".split()


def test_both_ways_agree(tmp_path, capsys):
    """A row each, and gradients of two processes that differ by rounding at most."""
    path = tmp_path / "rows.json"
    assert ddp.main([*TINY, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["largest"] > 1e-3 and found["apart"] <= 1e-6 * found["largest"]
    assert [row["gradients summed by"] for row in found["rows"]] == ["our flat sum", "DistributedDataParallel"]
    assert all(row["ms a step"] > 0 for row in found["rows"]) and "2 gloo processes" in capsys.readouterr().out


@pytest.mark.parametrize(("argv", "words"), [(["--batch_size", "3"], "batch_size is 3: expected a multiple of the 2")])
def test_refusals(argv, words, capsys):
    """A batch that cannot be halved is one line and exit code 2."""
    assert guarded(ddp.main, argv) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
