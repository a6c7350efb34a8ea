"""The benchmark scripts in a tiny form: they run, count right, and compare like with like. (Their figures are no
test.)
"""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM

from benchmarks import common
from benchmarks.quality import sampler_sweep, score_table
from benchmarks.speed import sampling, train_baselines, train_step
from diffusion_bert.commands.cli import guarded
from diffusion_bert.data.batch import Batch
from diffusion_bert.machine.memory import keep_freed_memory

SMALL_STEP = [
    "--layers",
    "1",
    "--width",
    "32",
    "--heads",
    "2",
    "--vocab_size",
    "120",
    "--batch_size",
    "4",
    "--length",
    "24",
    "--steps",
    "2",
]


def test_train_step_runs(capsys):
    """Every variant asked for has a row, timed in a process of its own; ours is the base; the model and the machine are
    named.
    """
    assert train_step.main([*SMALL_STEP, "--no_memory", "--variants", "ours,ours_2_draws,original"]) == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith("| ") and "targets/s" not in line]
    assert len(rows) == 3 and "| ours: Trainer.step |" in rows[0] and "1.00x" in rows[0]
    assert "batch 4 x 24" in out and "torch" in out and "2048 x 2048" in out


@pytest.mark.parametrize("variant", train_step.arguments([]).variants.split(","))
def test_every_variant_steps(variant):
    """A step of each works, and its matrix products are counted."""
    options = train_step.arguments(SMALL_STEP)
    assert train_step.count_flops(train_step.make_step(variant, options, torch.device("cpu"))) > 1e6


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc")
def test_memory_of_a_step_is_measured(capfd):
    """What a step allocates and frees again shows in the peak, and not in the base."""
    keep_freed_memory(False)  # another test may have asked for it
    held = torch.zeros(1)

    def step():
        nonlocal held
        held = torch.ones(16 * 2**20)  # 64 MB, written to
        held = torch.zeros(1)

    assert 60 * 2**20 < train_step.peak_memory(step, torch.device("cpu")) < 100 * 2**20


def test_flops_are_those_of_the_formula():
    """A plain step without masked places or attention: 6 FLOPs per weight of the encoder and place, counted by the
    counter.
    """
    layer = torch.nn.Linear(32, 64, bias=False)
    x = torch.randn(10, 32, requires_grad=True)
    assert train_step.count_flops(lambda: layer(x).sum().backward()) == 6 * 10 * 32 * 64


def make_batch(rows: int = 3, length: int = 12) -> tuple[BertForMaskedLM, Batch, int]:
    """A small BERT and a batch, half target, without padding."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    half = length // 2
    ids = torch.randint(5, 40, (rows, length))
    batch = Batch(
        ids, torch.full((rows,), half), torch.zeros(rows, dtype=torch.long), torch.full((rows,), half - 1), 0, 3
    )
    return BertForMaskedLM(config).train(), batch, 3


def test_baselines_agree_where_they_must():
    """On the same noise the plain masked-only loss is Hugging Face's, and MDLM's is the same cross-entropies weighted
    by 1/t.
    """
    model, batch, mask_id = make_batch()
    losses = []
    for work in (train_baselines.masked_only_loss, train_baselines.hugging_face_loss):
        torch.manual_seed(4)
        losses.append(work(model, batch, mask_id))
    assert float(losses[0].detach()) == pytest.approx(float(losses[1].detach()), rel=1e-5)
    torch.manual_seed(4)
    mdlm = train_baselines.mdlm_loss(model, batch, mask_id)
    torch.manual_seed(4)
    x_t, masked, t = train_baselines.noised(batch, mask_id)
    logits = model(x_t, attention_mask=batch.valid).logits
    logits[..., mask_id] = float("-inf")
    nll = F.cross_entropy(logits.transpose(1, 2), batch.input_ids, reduction="none")
    expected = (nll * masked / t[:, None]).sum() / batch.target_mask.sum()
    torch.manual_seed(4)
    subs = train_baselines.mdlm_subs_loss(model, batch, mask_id)
    assert float(subs.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    # the plain form leaves [MASK] its mass
    assert float(mdlm.detach()) == pytest.approx(float(expected.detach()), rel=0.1) and float(mdlm.detach()) > float(
        subs.detach()
    )


def test_the_original_loss_by_hand():
    """Without word frequencies its KL is a reveal rate times the cross-entropy of the masked places, plus the hybrid
    term.
    """
    model, batch, mask_id = make_batch()
    steps, hybrid = 4, 0.1
    loss = train_baselines.OriginalLoss(torch.zeros(40), mask_id, steps, 0.0, hybrid)
    for seed in range(6):
        torch.manual_seed(seed)
        value = loss(model, batch, mask_id)
        torch.manual_seed(seed)
        t = int(torch.randint(steps - 1, (1,)))
        marginal = torch.zeros(*batch.input_ids.shape, 40)
        marginal.scatter_(-1, batch.input_ids[..., None], min(1 - (t + 1) / steps, 0.999))
        marginal[..., mask_id] = 1 - marginal.sum(-1)
        drawn = torch.distributions.Categorical(logits=torch.log(marginal + 1e-20)).sample()
        x_next = torch.where(batch.target_mask, drawn, batch.input_ids)
        logits = model(x_next, attention_mask=batch.valid).logits
        nll = F.cross_entropy(logits.transpose(1, 2), batch.input_ids, reduction="none")
        masked = (x_next == mask_id) & batch.target_mask
        # q(x_t = x_0 | masked) = r; p gives x_0 the share r mu_x, and [MASK] 1 - r (what mu puts on [MASK] itself is
        # lost in the noise)
        r = 1 / (t + 1)
        # at t = 0 it is the cross-entropy of p(x_0 | x_1): certain at clean places, r = 1 elsewhere
        by_hand = (nll * masked).sum() * r + hybrid * (nll * batch.target_mask).sum()
        assert float(value.detach()) == pytest.approx(float(by_hand.detach()) / 3, rel=0.05)
        assert math.isfinite(float(value.detach()))
        value.backward()
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_sampling_runs(capsys):
    """Speed and exactness on a small model: both ways are timed, all words equal the slow reference's."""
    argv = [
        "--size",
        "tiny",
        "--vocab_size",
        "120",
        "--sources",
        "1",
        "--lengths",
        "2",
        "--candidates",
        "1",
        "--num_steps",
        "3",
        "--rounds",
        "1",
    ]
    assert sampling.main([*argv, "--check_sources", "6", "--parts", "speed,exact,quality"]) == 0
    out = capsys.readouterr().out
    assert "exact: 6 of 6" in out and "ours is faster by" in out and "quality: left out" in out


def test_a_wrong_word_is_noticed(monkeypatch):
    """The exactness check fails when the reference writes something else."""
    options = sampling.arguments(["--size", "tiny", "--vocab_size", "120", "--check_sources", "3", "--num_steps", "2"])
    model = sampling.load(options)
    monkeypatch.setattr(sampling, "slow_reference", lambda *_: [])
    with pytest.raises(RuntimeError, match="on 3 of 3"):
        sampling.exact(model, options)


def test_the_plain_loop_writes_every_place():
    """Whatever the number of steps, no [MASK] is left and each source has its candidates."""
    options = sampling.arguments(["--size", "tiny", "--vocab_size", "120"])
    model = sampling.load(options)
    for steps in (1, 3, 10):
        written = sampling.plain_loop(
            model.denoiser.mlm.__class__(sampling_config(model)).eval(), model, [[9, 10], [11]], 2, steps, 0.7, 3
        )
        assert written.shape == (4, 64) and not bool((written == model.tokenizer.mask_id).any())


def sampling_config(model) -> BertConfig:
    return BertConfig.from_dict({**model.denoiser.bert_config.to_dict(), "is_decoder": False})


@pytest.fixture(scope="module")
def sweep(trained, tmp_path_factory):
    """(argv, folder) of a sweep that was done once."""
    folder = tmp_path_factory.mktemp("sweep")
    argv = [
        "--checkpoint",
        str(trained / "best_model.pt"),
        "--sources",
        "4",
        "--steps",
        "1,3",
        "--samplers",
        "confidence,ancestral",
    ]
    argv += ["--output_dir", str(folder), "--device", "cpu"]
    assert sampler_sweep.main(argv) == 0
    return argv, folder


def test_sweep_measures_and_resumes(sweep, capsys):
    """One line per setting; calls never above the steps; a second call measures nothing again, a cut last line only
    that one.
    """
    argv, folder = sweep
    path = folder / "sweep.jsonl"
    lines = path.read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [(record["sampler"], record["num_steps"]) for record in records] == [
        (name, n) for name in ("confidence", "ancestral") for n in (1, 3)
    ]
    assert all(0 < record["nfe"] <= record["num_steps"] and 0 <= record["div4"] <= 100 for record in records)
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG") and (folder / "sweep.md").read_text().count(
        "\n"
    ) == 6
    assert sampler_sweep.main(argv) == 0 and path.read_text().splitlines() == lines
    path.write_text("\n".join([*lines[:3], lines[3][:40]]) + "\n")
    assert sampler_sweep.main(argv) == 0
    again = [json.loads(line) for line in path.read_text().splitlines()]
    assert again[:3] == records[:3] and {**again[3], "seconds": 0} == {**records[3], "seconds": 0}
    assert sampler_sweep.main([*argv, "--temperature", "0.2"]) == 0 and len(path.read_text().splitlines()) == 8


def test_score_table(trained, tmp_path):
    """Floors, an untrained model and the named checkpoint, each with its interval; the floors and the untrained model
    are Poor.
    """
    out = tmp_path / "table.md"
    argv = [
        f"trained={trained / 'best_model.pt'}",
        "--max_samples",
        "4",
        "--num_steps",
        "2",
        "--length_beam",
        "1",
        "--output",
        str(out),
    ]
    assert score_table.main([*argv, "--device", "cpu"]) == 0
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \(([\d.]+)-([\d.]+)\) \| (\w+) \|", out.read_text(), flags=re.M)
    assert [row[0] for row in rows] == ["copy", "unigram", "untrained", "trained"]
    assert all(row[4] == "Poor" for row in rows[:3]) and all(
        float(row[2]) <= float(row[1]) <= float(row[3]) for row in rows
    )
    assert rows[0][1] == rows[1][1] == "0.0"


@pytest.mark.parametrize(
    ("script", "argv", "words"),
    [
        (sampler_sweep, ["--samplers", "confidense"], "did you mean 'confidence'?"),
        (sampler_sweep, ["--steps", "4,x"], "steps is '4,x'"),
        (score_table, ["runs/best_model.pt"], "is no NAME=FILE"),
        (sampling, ["--parts", "speed,spede"], "parts has 'spede'"),
        (train_step, ["--variants", "ours,theirs"], "variants has 'theirs'"),
        (train_step, [*SMALL_STEP, "--batch_size", "3", "--variants", "ours_2_draws"], "batch_size is 3"),
    ],
)
def test_refusals(script, argv, words, capsys):
    """A mistake is one line and exit code 2."""
    assert guarded(script.main, argv) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_ratio_and_turns():
    """The ratio of medians with quartiles; timing goes round and round."""
    assert common.ratio([2.0, 2.0, 4.0, 2.0], [1.0, 1.0, 1.0, 1.0]).startswith("2.00x (2.00-")
    order = []
    seconds = common.time_in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, 1)
    assert order == ["a", "b"] * 3 and [len(times) for times in seconds.values()] == [2, 2]
