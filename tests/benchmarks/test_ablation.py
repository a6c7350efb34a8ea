"""The ablation benchmark in a tiny form, resuming included, and the original objective against the exact
mathematics.
"""

import json
import math
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from benchmarks.original_diffusion_bert.canvas import canvas_nelbo, on_canvas, write_on_canvas
from benchmarks.original_diffusion_bert.objective import (
    HYBRID,
    keep_probability,
    original_loss,
    original_step_loss,
    sentence_frequencies,
)
from benchmarks.quality import ablation
from benchmarks.quality.ablation_results import claimed, difference, paired, read_results
from diffusion_bert.config.presets import load_preset
from diffusion_bert.config.run_config import RunConfig
from diffusion_bert.data.batching import Collator
from diffusion_bert.data.skills import PAIR
from diffusion_bert.diffusion.process import AbsorbingDiffusion
from diffusion_bert.diffusion.schedule import NoiseSchedule
from diffusion_bert.model.checkpoint import save_checkpoint
from tests.helpers.models import grammar_pairs, new_model, tiny_model
from tests.helpers.scripts import ROOT, write_data

MASK, VOCAB, STEPS = 3, 9, 20


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """32 training pairs, 8 for validation."""
    return write_data(tmp_path_factory.mktemp("data"), train=32, valid=8, test=4)


def flags(data, folder, *more):
    settings = ("vocab_size=500", "max_length=96", "max_target_length=44", "batch_size=16", "num_steps=16")
    return [
        "--data_dir",
        str(data),
        "--max_steps",
        "2",
        "--examples",
        "4",
        "--device",
        "cpu",
        "--results",
        str(folder / "rows.jsonl"),
        "--output",
        str(folder / "table.md"),
        "--set",
        *settings,
        *more,
    ]


# ---- the benchmark -------------------------------------------------------------------------------------------------


def heading_and_table(table: str, printed: str) -> bool:
    return all(part in printed for part in table.split("\n\n"))


def test_a_killed_benchmark_goes_on(data, tmp_path, capsys):
    """Two rows; the second one's line is cut off, as by a crash: only that row is trained again, to the same numbers,
    and the tables are the same.
    """
    file = tmp_path / "rows.jsonl"
    assert ablation.main(flags(data, tmp_path, "--group", "copy")) == 0
    first, table = [json.loads(line) for line in file.read_text().splitlines()], (tmp_path / "table.md").read_text()
    assert [record["row"] for record in first] == ["copy head", "no copy head"] and heading_and_table(
        table, capsys.readouterr().out
    )
    for record in first:
        assert (
            record["steps"] == 2
            and math.isfinite(record["nelbo"])
            and {len(scores) for scores in record["examples"].values()} == {4}
        )
    assert len(re.findall(r"^\| .*copy head", table, flags=re.M)) == 2
    file.write_text(file.read_text()[:-100])
    assert ablation.main(flags(data, tmp_path, "--group", "copy")) == 0
    printed = capsys.readouterr().out
    assert "no copy head, seed 42 ..." in printed and "\ncopy head, seed 42 ..." not in printed
    assert (tmp_path / "table.md").read_text() == table
    assert len(read_results(file)) == 2
    assert ablation.main(flags(data, tmp_path, "--group", "copy")) == 0 and "..." not in capsys.readouterr().out


def test_the_original_objective_as_a_row(data, tmp_path):
    """The original objective trains, writes and is measured; the row that only restates the defaults is shared with
    other groups.
    """
    rows = {row.name: row for row in ablation.groups(None)["original"]}
    options = ablation.parse(flags(data, tmp_path))
    result = ablation.result_of(
        rows["original objective, lambda 0.3 per sentence"], ablation.base_settings(options), 42, options
    )
    assert result["steps"] == 2 and math.isfinite(result["nelbo"]) and result["nfe"] > 0 and len(result["texts"]) == 4
    keys = {
        ablation.config_of(row, ablation.base_settings(options), 42, tmp_path)[1]
        for row in (rows["ours"], ablation.groups(None)["options"][0])
    }
    assert len(keys) == 1


def test_a_student_with_and_without_its_teacher(data, tmp_path, capsys):
    """The student with a teacher's vocabulary learns otherwise with the teacher than without; without one named the
    group is skipped.
    """
    assert ablation.main(flags(data, tmp_path, "--group", "copy", "teacher", "--rows", "none")) == 0
    assert "group teacher: skipped, it needs --teacher" in capsys.readouterr().out
    teacher = tmp_path / "teacher.pt"
    save_checkpoint(teacher, tiny_model())
    assert (
        ablation.main(flags(data, tmp_path, "--group", "teacher", "--teacher", str(teacher), "--max_steps", "6")) == 0
    )
    own, silent, taught = read_results(tmp_path / "rows.jsonl").values()
    assert [record["row"] for record in (own, silent, taught)] == [
        "no teacher",
        "no teacher, its vocabulary",
        "teacher, weight 0.5",
    ]
    assert own["parameters"] != silent["parameters"] == taught["parameters"] and silent["nelbo"] != taught["nelbo"]


def test_every_row_is_legal():
    """Every row of every group is a config that the training accepts, and no two rows of a group are the same run."""
    for name, rows in ablation.groups("tiny", "teacher.pt").items():
        for preset in ("quick_demo", "fast_training"):
            keys = [ablation.config_of(row, load_preset(preset), 1, "runs")[1] for row in rows]
            assert len(set(keys)) == len(rows) >= 2, name
    assert RunConfig.from_flat({}).training.loss == ablation.groups(None)["loss"][0].name


def test_differences_are_paired():
    """A constant gain has an interval of one point; nats are divided by the words of the targets; order decides the
    sign.
    """
    base = [
        {"pairs": [0, 3, 7], "examples": {"rouge_l": [10.0, 50.0, 30.0], "nats": [4.0, 9.0, 7.0], "words": [2, 4, 4]}}
    ]
    better = [
        {"pairs": [0, 3, 7], "examples": {"rouge_l": [12.5, 52.5, 32.5], "nats": [3.0, 7.0, 5.0], "words": [2, 4, 4]}}
    ]
    assert difference(better, base, "rouge_l") == "+2.50 (+2.50 to +2.50)"
    assert difference(base, better, "rouge_l").startswith("-2.50")
    assert difference(better, base, "nats") == "-0.500 (-0.500 to -0.500)"


def test_sentences_are_what_differences_are_over():
    """Two seeds of a sentence count as one value, their mean; a sentence that one of the models could not take does not
    count.
    """

    def record(pairs, values):
        return {"pairs": pairs, "examples": {"rouge_l": values, "words": [3] * len(values)}}

    base = [record([1, 2, 5], [10.0, 20.0, 30.0]), record([1, 2, 5], [10.0, 20.0, 30.0])]
    ours = [record([1, 2, 5], [12.0, 20.0, 31.0]), record([1, 5], [14.0, 27.0])]
    values, words = paired(ours, base, "rouge_l")
    assert values.tolist() == [3.0, -1.0] and words.tolist() == [3.0, 3.0]


def test_a_row_is_trained_by_one_process(tmp_path):
    """A claim holds while its process lives, is void when it was killed, and ends with the row; of many who come at
    once one gets it.
    """
    results = tmp_path / "rows.jsonl"
    with claimed(results, "a") as first, claimed(results, "a") as second, claimed(results, "b") as other:
        assert first and not second and other
    holds = "import sys, time, pathlib; from benchmarks.quality.ablation_results import claimed\n"
    holds += "with claimed(pathlib.Path(sys.argv[1]), 'a') as free: print(free, flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", holds, str(results)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout.readline() == "True\n"
        with claimed(results, "a") as free:
            assert not free
        process.kill()
        process.wait()
    start, end = threading.Barrier(8), threading.Barrier(8)

    def come(_) -> bool:
        start.wait()
        with claimed(results, "a") as free:
            end.wait()  # until all have asked
        return free

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(come, range(8))) == 1
    assert not list(tmp_path.glob("*.claim"))


def test_some_rows_only(data, tmp_path, capsys):
    """--rows trains those it names; the table waits for the base row, and a failing row costs only itself."""
    assert ablation.main(flags(data, tmp_path, "--group", "copy", "--rows", "no copy head")) == 0
    printed = capsys.readouterr().out
    assert "copy head: not trained here" in printed and not (tmp_path / "table.md").exists()
    assert [record["row"] for record in read_results(tmp_path / "rows.jsonl").values()] == ["no copy head"]


def test_interrupted(data, tmp_path, capsys, monkeypatch):
    """Ctrl-C while the second row trains: exit code 130, the first row is kept, and no run directory is left."""
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    run_row = ablation.run_row

    def stop_at_second(row, *arguments):
        # what a training answers that a signal has ended
        return run_row(row, *arguments) if row.name == "copy head" else None

    monkeypatch.setattr(ablation, "run_row", stop_at_second)
    assert ablation.main(flags(data, tmp_path, "--group", "copy")) == 130
    assert "finished rows are kept" in capsys.readouterr().err
    assert [record["row"] for record in read_results(tmp_path / "rows.jsonl").values()] == ["copy head"]
    assert not list((tmp_path / "temporary").iterdir())


def test_mistakes(data, tmp_path, capsys):
    """A setting that is none, or without a value, is one line and exit code 2; nothing is written."""
    for setting, expected in (("nonsense=1", "nonsense"), ("batch_size", "KEY=VALUE")):
        assert ablation.main(flags(data, tmp_path, setting, "--group", "copy")) == 2
        assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# ---- the original objective ----------------------------------------------------------------------------------------


def example(seed: int = 0):
    """Clean ids, a noised version, logits without mass on [MASK], and a target mask."""
    draw = torch.Generator().manual_seed(seed)
    x_0 = torch.randint(4, VOCAB, (3, 6), generator=draw)
    x_next = torch.where(torch.rand(3, 6, generator=draw) < 0.5, MASK, x_0)
    logits = torch.randn(3, 6, VOCAB, generator=draw)
    logits[..., MASK] = -60.0
    return x_0, x_next, logits, torch.rand(3, 6, generator=draw) < 0.8


@pytest.mark.parametrize("t", [0, 1, 7, STEPS - 1])
def test_without_word_frequencies_it_is_the_exact_bound(t):
    """lambda = 0: its KL is ours for the step t + 1 -> t, at masked places; clean ones add the hybrid term alone."""
    x_0, x_next, logits, target = example()
    x_next = torch.full_like(x_0, MASK) if t == STEPS - 1 else x_next
    keep = keep_probability(t, STEPS, 0.0, torch.zeros(3, 6))
    total = float(original_loss(logits, x_0, x_next, t, STEPS, keep, target, MASK))
    log_mu = torch.log_softmax(logits, -1)
    hidden = (x_next == MASK) & target
    count = int(hidden.sum())
    times = torch.full((count,), float(t), dtype=torch.float64)
    kl = AbsorbingDiffusion(NoiseSchedule(), MASK).kl(log_mu[hidden], x_0[hidden], times / STEPS, (times + 1) / STEPS)
    # plain KL = r (-log mu); with [MASK] as a second outcome of both laws the rest is 0
    hybrid = -log_mu.gather(-1, x_0[..., None]).squeeze(-1)[target].sum()
    assert total == pytest.approx(float(kl.reveal.sum()) + HYBRID * float(hybrid), rel=2e-4)


@pytest.mark.parametrize("t", [0, 10, 19])
def test_every_time_has_finite_gradients(t):
    """The first and the last step included, with frequencies per sentence."""
    model = new_model(attention="full", copy_head=False)
    collator, tokenizer = Collator(model.tokenizer, model.task.prompt), model.tokenizer
    batch = collator.batch(
        [(PAIR, tokenizer.encode(pair.source), tokenizer.encode(pair.target)) for pair in grammar_pairs()[:3]]
    )
    canvas = on_canvas(batch, batch.input_ids.shape[1])
    loss = original_step_loss(model, canvas, batch.target_length, t, 20, torch.Generator().manual_seed(0))
    loss.backward()
    gradients = [parameter.grad for parameter in model.denoiser.parameters() if parameter.grad is not None]
    assert float(loss.detach()) > 0 and gradients and all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_marginal_of_a_sentence():
    """Everything is clean at 0 and masked at T; frequencies are centred per sentence, so that rarer words go first."""
    counts = torch.tensor([0, 0, 0, 0, 1000, 100, 10, 1, 0])
    x_0, present = torch.tensor([[4, 5, 6, 7]]), torch.tensor([[True, True, True, False]])
    f = sentence_frequencies(counts, x_0, present)
    assert float(f[present].sum()) == pytest.approx(0, abs=1e-6) and float(f[0, 3]) == 0
    keep = keep_probability(10, STEPS, 0.3, f)[0]
    assert keep[0] > keep[1] > keep[2] and float(keep[3]) == pytest.approx(0.5)
    assert keep_probability(0, STEPS, 0.3, f).eq(1).all() and keep_probability(STEPS, STEPS, 0.3, 0 * f).eq(0).all()


def test_the_canvas():
    """All that follows the source is target and everything is seen; the bound is reproducible and no text holds a
    special token.
    """
    model = new_model(attention="full", copy_head=False, word_freq_lambda=0.0)
    collator, tokenizer = Collator(model.tokenizer, model.task.prompt), model.tokenizer
    pairs = grammar_pairs()[:3]
    batch = collator.batch([(PAIR, tokenizer.encode(pair.source), tokenizer.encode(pair.target)) for pair in pairs])
    canvas = on_canvas(batch, 60)
    assert canvas.valid.all() and canvas.input_ids.shape == (3, 60)
    assert torch.equal(canvas.is_target_segment.sum(-1), 60 - batch.source_length)
    assert torch.equal(canvas.input_ids[:, : batch.input_ids.shape[1]], batch.input_ids)
    one, two = (canvas_nelbo(model, [batch], 60, seed=4) for _ in range(2))
    assert one == two and one[1] == float(batch.target_length.sum()) and np.isfinite(one[0]) and one[0] > 0
    for ids, calls in write_on_canvas(model, [tokenizer.encode(pair.source) for pair in pairs], collator, 60):
        assert 1 <= calls <= 60 and not set(ids) & {
            tokenizer.pad_id,
            tokenizer.sep_id,
            tokenizer.cls_id,
            tokenizer.mask_id,
        }
