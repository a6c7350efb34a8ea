"""Distillation: what the teacher's share of the loss is, that weight 0 is no teacher at all, and what is refused."""

import shutil

import pytest
import torch

from diffusion_bert.data.batching import Collator
from diffusion_bert.data.skills import NO_SOURCE, PAIR
from diffusion_bert.model.checkpoint import load_checkpoint, save_checkpoint
from diffusion_bert.model.diffusion_model import build_model
from diffusion_bert.model.payload import read_payload
from diffusion_bert.training.distillation import Teacher, divergence, load_teacher, teacher_of
from diffusion_bert.training.objective import LossOptions, nelbo_terms, training_loss
from tests.helpers.models import grammar_pairs, grammar_texts, new_model, refusal, tiny_config, tiny_tokenizer
from tests.helpers.scripts import SMALL, compare_runs, only_run, run, small_flags

STEPS = 16


def noised(model):
    """A batch of three sentences, noised, and its times."""
    encode = model.tokenizer.encode
    rows = [
        (PAIR if number else NO_SOURCE, encode(source)[:18] if number else [], encode(target)[:20])
        for number, (source, target) in enumerate(grammar_pairs()[:3])
    ]
    batch = Collator(model.tokenizer, model.task.prompt).batch(rows)
    t = torch.tensor([5, 11, STEPS])
    x_t = model.diffusion.q_sample(
        batch.input_ids, t.double() / STEPS, batch.target_mask, torch.Generator().manual_seed(0)
    )
    return batch, x_t, t


def terms_of(model, teacher=None, time_correction=True):
    return nelbo_terms(
        model.denoiser,
        model.diffusion,
        *noised(model),
        STEPS,
        time_correction,
        LossOptions(kl_gradient=False, teacher=teacher),
    )


def other_model(**settings):
    """As ``new_model`` but with other weights."""
    model = new_model(**settings)
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in model.denoiser.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_divergence_by_hand():
    """0 for equal distributions; otherwise sum p log(p/q); impossible words add nothing, and no NaN reaches the
    gradient.
    """
    p, q = torch.tensor([[0.5, 0.25, 0.25, 0.0]]), torch.tensor([[0.25, 0.25, 0.5, 0.0]])
    expected = 0.5 * torch.tensor(2.0).log() + 0.25 * torch.tensor(0.5).log()
    logits = q.log().requires_grad_()
    value = divergence(p.log(), torch.log_softmax(logits, -1))
    torch.testing.assert_close(value, expected.double()[None])
    value.sum().backward()
    torch.testing.assert_close(logits.grad, q - p)
    assert float(divergence(p.log(), p.log())) == 0.0
    sure = torch.tensor([[0.0, -float("inf"), -float("inf"), -float("inf")]])
    torch.testing.assert_close(divergence(sure, q.log()), torch.tensor([4.0], dtype=torch.float64).log())


@pytest.mark.parametrize("time_correction", [True, False])
def test_a_teacher_that_is_the_student_teaches_nothing(time_correction):
    """With weight 1 and equal weights the surrogate is 0, and so is its gradient."""
    model, twin = new_model(), new_model()
    terms = terms_of(model, Teacher(twin.denoiser, 1.0), time_correction)
    assert abs(float(terms.surrogate.detach())) < 1e-4 and float(terms.cross_entropy.detach()) > 1
    terms.surrogate.backward()
    plain = new_model()
    terms_of(plain, None, time_correction).surrogate.backward()
    own, usual = (
        max(float(p.grad.abs().max()) for p in m.denoiser.parameters() if p.grad is not None) for m in (model, plain)
    )
    assert own < 1e-5 * usual


@pytest.mark.parametrize("student", ["new", "other"])
def test_the_share_of_the_teacher(student):
    """The surrogate is (1 - a) cross-entropy + a KL, linear in a; everything reported is that of the student alone,
    whatever a is.
    """
    model, teacher = (
        (new_model if student == "new" else other_model)(),
        other_model(copy_head=False, self_conditioning=True),
    )
    plain = terms_of(model)
    none, half, whole = (terms_of(model, Teacher(teacher.denoiser, weight)) for weight in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half.surrogate, (none.surrogate + whole.surrogate) / 2)
    torch.testing.assert_close(none.surrogate, plain.cross_entropy, rtol=1e-5, atol=1e-5)
    assert float(whole.surrogate.detach()) > 0
    for name in ("reveal", "stay", "length", "cross_entropy", "masked", "tokens"):
        torch.testing.assert_close(getattr(half, name), getattr(plain, name), rtol=1e-5, atol=1e-4)
    training_loss(half, "ce", 0.0, half.masked, half.tokens).backward()
    assert all(p.grad is None and not p.requires_grad for p in teacher.denoiser.parameters())


def test_the_student_moves_towards_the_teacher():
    """Gradient steps on the KL alone lower it, from a student of another size on the same vocabulary."""
    student, teacher = new_model(model_name_or_path="mini", vocab_size=600), Teacher(other_model().denoiser, 1.0)
    optimizer = torch.optim.Adam(student.denoiser.parameters(), 1e-3)
    values = []
    for _ in range(6):
        loss = terms_of(student, teacher).surrogate
        values.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert values[-1] < 0.8 * values[0]


def test_a_padded_vocabulary_is_no_other_vocabulary():
    """Embedding tables of other lengths over the same words are compared word by word."""
    model = new_model()
    teacher = Teacher(model.denoiser, 1.0)
    batch, x_t, t = noised(model)
    tau = t.double() / STEPS
    size = model.tokenizer.vocab_size
    wide, same, narrow = (teacher.log_mu(batch, x_t, tau, size + extra) for extra in (3, 0, -2))
    assert (
        torch.equal(wide[:, :size], same)
        and bool((wide[:, size:] == float("-inf")).all())
        and torch.equal(narrow, same[:, :-2])
    )


# ---- whole runs ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def student_flags(trained, data_dir):
    """Flags of a student of the shared run, which takes its vocabulary."""
    return lambda output, **more: small_flags(
        data_dir,
        **{
            "output_dir": output,
            "max_steps": 6,
            "epochs": 3,
            "teacher": trained / "best_model.pt",
            "vocab_size": 300,
            **more,
        },
    )


def test_a_run_with_a_teacher(student_flags, trained, tmp_path):
    """The student has the teacher's vocabulary, none of its weights, and a loss of its own; the teacher's path is in
    its settings.
    """
    result = run("run_conditional_training", *student_flags(tmp_path))
    assert result.code == 0, result.err
    assert "Teacher " in result.out and "50% of the loss" in result.out
    payload, teacher = read_payload(only_run(tmp_path) / "last.pt"), read_payload(trained / "best_model.pt")
    assert payload["tokenizer"] == teacher["tokenizer"] and payload["config"]["teacher"] == str(
        trained / "best_model.pt"
    )
    assert payload["weights"].keys() == teacher["weights"].keys()
    assert not any(
        torch.equal(payload["weights"][name], teacher["weights"][name])
        for name in payload["weights"]
        if name.endswith("dense.weight")
    )


def test_weight_zero_is_plain_training(student_flags, trained, data_dir, tmp_path):
    """To the bit: the same run without a teacher, on the same vocabulary; with weight 0.5 it is another."""
    for name, more in (("zero", {"distillation_weight": 0}), ("half", {})):
        assert run("run_conditional_training", *student_flags(tmp_path / name, **more)).code == 0
    from diffusion_bert.config.run_config import RunConfig
    from diffusion_bert.data.splits import load_pairs
    from diffusion_bert.training.preparation import encode_training_data
    from diffusion_bert.training.run_directory import RunDirectory
    from diffusion_bert.training.trainer import Trainer

    config = RunConfig.from_flat(
        {**SMALL, "data_dir": str(data_dir), "output_dir": str(tmp_path / "plain"), "max_steps": 6, "epochs": 3}
    )
    splits = load_pairs(config.data, config.training.seed)
    model = build_model(config, [], config.training.seed, load_checkpoint(trained / "best_model.pt").tokenizer)
    _, data = encode_training_data(model, splits, fit=True)
    trainer = Trainer(model, data, RunDirectory.create(config))
    trainer.fit()
    assert compare_runs(only_run(tmp_path / "zero"), trainer.run.path) == []
    assert any("weight" in problem for problem in compare_runs(only_run(tmp_path / "half"), trainer.run.path))


def test_resume_needs_the_teacher(student_flags, trained, tmp_path):
    """An interrupted run goes on to the same weights with its teacher; without the teacher's file it is refused in one
    line.
    """
    teacher = tmp_path / "teacher.pt"
    shutil.copy(trained / "best_model.pt", teacher)
    assert run("run_conditional_training", *student_flags(tmp_path / "whole", teacher=teacher)).code == 0
    whole = only_run(tmp_path / "whole")

    from diffusion_bert.training import trainer as module

    after_step = module.Trainer._after_step

    def stopping(self, epoch_ended):
        if self.state.step == 3:
            self.stop_signal = 2
        return after_step(self, epoch_ended)

    module.Trainer._after_step = stopping
    try:
        assert run("run_conditional_training", *student_flags(tmp_path / "cut", teacher=teacher)).code == 130
    finally:
        module.Trainer._after_step = after_step
    cut = only_run(tmp_path / "cut")
    teacher.rename(tmp_path / "moved.pt")
    refused = run("continue_training", "--resume", "--model_dir", cut)
    assert refused.code == 2 and str(teacher) in refused.err and refused.err.count("\n") == 1
    (tmp_path / "moved.pt").rename(teacher)
    resumed = run("continue_training", "--resume", "--model_dir", cut)
    assert resumed.code == 0, resumed.err
    assert compare_runs(cut, whole) == []


def test_refusals(tmp_path):
    """Another vocabulary (both sides are named), too few positions, loss nelbo, a weight beyond 1."""
    save_checkpoint(tmp_path / "teacher.pt", new_model())
    config = tiny_config(teacher=str(tmp_path / "teacher.pt"), vocab_size=200)
    teacher, stranger = load_teacher(config), build_model(config, grammar_texts(), 0)
    message = refusal(teacher_of, stranger, teacher)
    assert "the student tiny has 200 word pieces" in message and f"teacher.pt {tiny_tokenizer().vocab_size}" in message
    assert teacher_of(build_model(config, [], 0, teacher.tokenizer), teacher).weight == 0.5
    config.data.max_length = 10_000
    assert "only 512 positions" in refusal(load_teacher, config)
    assert "no such checkpoint" in refusal(load_teacher, tiny_config(teacher=str(tmp_path / "nowhere.pt")))
    assert "use --loss ce" in refusal(tiny_config, teacher="t.pt", loss="nelbo")
    assert "at most 1" in refusal(tiny_config, teacher="t.pt", distillation_weight=1.5)
    assert load_teacher(tiny_config()) is None and teacher_of(stranger, None) is None
    teacher.config = tiny_config(distillation_weight=0.0, teacher="t.pt")
    assert teacher_of(teacher, teacher) is None  # no share in the loss
