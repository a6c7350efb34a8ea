"""The GPU's figures in one command: all of its parts run on a CPU in a tiny form, and without a GPU it says so."""

import json
import sys

import pytest
import torch

from benchmarks.common import markdown_table
from benchmarks.speed import gpu, short_training, writing_rates
from diffusion_bert.commands.cli import guarded
from diffusion_bert.config.schema import SAMPLER_NAMES

TINY = (
    "--device cpu --layers 1 --width 32 --heads 2 --vocab_size 400 --batch_size 4 --length 24 --steps 1 --num_steps 2"
    " --max_samples 3 --max_steps 6 --batch_sizes 6 --losses ours,hugging_face"
).split()


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """What all parts wrote; the encoder is left uncompiled, which alone would take longer than all the rest."""
    folder = tmp_path_factory.mktemp("gpu") / "figures"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_COMPILE_DISABLE", "1")
        assert gpu.main([*TINY, "--output_dir", str(folder)]) == 0
    return json.loads((folder / "gpu.json").read_text()), (folder / "gpu.md").read_text()


def test_every_question_has_rows(figures):
    """The questions in order, each with its command, its rows and a table; card, driver, versions and date."""
    found, page = figures
    assert [part["question"] for part in found["parts"]] == list(gpu.LIMITS)
    for part in found["parts"]:
        assert part["problem"] == "" and part["rows"] and part["command"].startswith("python ")
        assert f"### {part['question']}" in page and markdown_table(part["rows"]) in page
    assert found["card"] == "no GPU" and torch.__version__ in found["machine"] and len(found["date"]) == 10


def test_the_rows_are_those_asked_for(figures):
    """Every loss, every sampler, as many steps and sources as were given."""
    step, original, compiled, training, writing, evaluation = (part["rows"] for part in figures[0]["parts"])
    assert [row["step"] for row in original] == ["ours: Trainer.step", "original DiffusionBERT (D3PM)"]
    names = ["ours: Trainer.step", "Hugging Face BertForMaskedLM"]
    assert [[row["step"] for row in rows] for rows in (step, compiled)] == [names, names]
    assert all(row["ms"] > 0 for row in step + compiled)
    assert training[0]["steps"] == 6 and training[0]["target word pieces/s"] > 0
    assert [row["sampler"] for row in writing] == list(SAMPLER_NAMES)
    assert all(row["texts/s"] > 0 and row["calls"] > 0 for row in writing)
    assert evaluation[0]["sources"] == 3 and evaluation[0]["s per source, model"] > 0


def test_without_a_gpu(tmp_path, capsys):
    """One line and exit code 2, and no folder; a folder that holds something is left as it is."""
    if not torch.cuda.is_available():
        assert guarded(gpu.main, ["--output_dir", str(tmp_path / "new")]) == 2
        err = capsys.readouterr().err
        assert "no GPU" in err and "--device cpu" in err and err.count("\n") == 1 and not (tmp_path / "new").exists()
    (tmp_path / "gpu.md").write_text("figures")
    assert guarded(gpu.main, ["--device", "cpu", "--output_dir", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err


def test_all_parts_fit_into_twenty_minutes():
    """The time limits add up to less."""
    assert sum(gpu.LIMITS.values()) < 20 * 60


@pytest.mark.parametrize(
    ("code", "limit", "words"),
    [
        ("import time; time.sleep(60)", 0.5, "not done within"),
        ("import sys; print('error: x is 3', file=sys.stderr); sys.exit(2)", 30, "exit code 2: error: x is 3"),
    ],
)
def test_a_part_that_gives_nothing_says_why(code, limit, words):
    """Too slow, or refused: a reason instead of rows."""
    part = gpu.Part("What?", [sys.executable, "-c", code], lambda seconds: [{"seconds": seconds}])
    rows, problem = gpu.run_part(part, limit)
    assert rows == [] and problem.startswith(words)


def test_speed_of_the_second_half():
    """Steps, operations and word pieces per second from the middle on, compilation in the first half aside."""
    clock = short_training.Clock()
    clock.steps = [(0.0, 5.0, 7.0), (8.0, 5.0, 7.0), (9.0, 5.0, 7.0), (10.0, 5.0, 7.0)]
    assert clock.rates() == (1.0, 5.0, 7.0)


def test_reads_are_counted():
    """Each number that the host asks for counts, over the calls of the denoiser."""
    numbers = torch.ones(4)

    def write():
        return [float(numbers[place]) for place in range(3)]

    assert writing_rates.reads_per_call(write, on_gpu=False) == 3.0


def test_a_table_has_all_names():
    """Columns in the order in which they first come; a figure that a row lacks is empty."""
    table = markdown_table([{"a": 1, "b": 2345}, {"b": 0.5, "c": "x"}])
    assert table == "| a | b | c |\n|---|---|---|\n| 1 | 2,345 |  |\n|  | 0.5 | x |"
