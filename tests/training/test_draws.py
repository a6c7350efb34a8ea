"""Several noised targets beside one source (``noise_draws``): exactly the sum of as many batches with one each, at less
cost.
"""

import dataclasses

import pytest
import torch

from diffusion_bert.config.schema import DataConfig
from diffusion_bert.data.batch import Batch
from diffusion_bert.data.batching import Collator, EpochBatches
from diffusion_bert.data.encoding import encode_pairs
from diffusion_bert.diffusion.random_numbers import keyed_uniform
from diffusion_bert.diffusion.times import sample_times
from diffusion_bert.model.checkpoint import save_checkpoint
from diffusion_bert.training.distillation import Teacher, load_teacher
from diffusion_bert.training.noising import LARGEST, StepShare, draw_times, noised
from diffusion_bert.training.objective import LossOptions, nelbo_terms, training_loss
from tests.helpers.chain import CLS, PAD, SEP, make_batch, make_denoiser, make_diffusion, mixed_rows
from tests.helpers.models import grammar_pairs, new_model, refusal, tiny_config, tiny_tokenizer
from tests.helpers.scripts import new_trainer, read_records, write_data

DRAWS, STEPS = 3, 10


def part(batch: Batch, x_t: torch.Tensor, draw: int) -> torch.Tensor:
    """x_t of one draw of a repeated batch, laid out as the batch was before, [B, L]."""
    out = batch.input_ids.clone()
    for row, (source, target) in enumerate(zip(batch.source_length.tolist(), batch.target_length.tolist())):
        start = source + draw * (target + 1)
        out[row, source : source + target + 1] = x_t[row, start : start + target + 1]
    return out


def drawn(diffusion, batch: Batch, seed: int = 0) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """The batch with DRAWS noised targets in each row, x_t, and a time for each."""
    generator = torch.Generator().manual_seed(seed)
    t = 1 + torch.randint(STEPS, (len(batch), DRAWS), generator=generator)
    ready = noised(batch.repeated(DRAWS), t, STEPS, diffusion, seed, 0, torch.device("cpu"))
    return ready.batch, ready.x_t, ready.t


# ---- the layout ----------------------------------------------------------------------------------------------------


def test_layout_by_hand():
    """The target with its [SEP] stands behind the source as often as asked; every one counts its positions from 0 and
    has its number.
    """
    batch = make_batch([([5, 10], [20, 21]), ([], [26])]).repeated(2)
    assert batch.input_ids.tolist() == [
        [CLS, 5, 10, SEP, 20, 21, SEP, 20, 21, SEP],
        [CLS, SEP, 26, SEP, 26, SEP, PAD, PAD, PAD, PAD],
    ]
    assert batch.valid.sum(1).tolist() == [10, 6] and batch.source_width == 4
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2] and batch.positions[1, :6].tolist() == [
        0,
        1,
        0,
        1,
        0,
        1,
    ]
    assert batch.draw[0].tolist() == [-1] * 4 + [0] * 3 + [1] * 3 and batch.draw[1, :6].tolist() == [-1, -1, 0, 0, 1, 1]
    assert batch.target_mask.int().tolist() == [[0, 0, 0, 0, 1, 1, 0, 1, 1, 0], [0, 0, 1, 0, 1, 0, 0, 0, 0, 0]]
    assert batch.copyable.int().tolist()[0] == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert batch.source_ids().tolist() == [[CLS, 5, 10, SEP], [CLS, SEP, PAD, PAD]]
    places = batch.target_mask.nonzero(as_tuple=True)
    assert batch.examples_of(places).tolist() == [0, 0, 1, 1, 2, 3]


def test_one_draw_is_the_plain_batch():
    """Once is the very same batch, and nothing of it changes; more often, no position goes beyond those of the plain
    batch.
    """
    batch = make_batch(mixed_rows())
    assert batch.repeated(1) is batch
    assert batch.examples_of((torch.tensor([2, 0]), torch.tensor([3, 4]))).tolist() == [2, 0]
    assert int(batch.repeated(40).positions.max()) <= int(batch.positions.max())  # a table of positions need not grow
    assert (
        dataclasses.replace(batch.repeated(2).to("cpu"), draws=1).draws == 1 and batch.repeated(2).to("cpu").draws == 2
    )


# ---- the sum of as many batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ("ce", "nelbo"))
@pytest.mark.parametrize("time_correction", (True, False))
@pytest.mark.parametrize("options", ({}, {"copy_head": False}, {"self_conditioning": True}), ids=str)
def test_draws_are_separate_batches(options, time_correction, loss):
    """Every term and every gradient is the sum over the draws, each beside its source in a batch of its own, in
    float64.
    """
    denoiser, diffusion, plain = make_denoiser(**options), make_diffusion(lam=0.25), make_batch(mixed_rows())
    batch, x_t, t = drawn(diffusion, plain)
    two_pass = "self_conditioning" in options
    masked, tokens = int((x_t == batch.mask_id).sum()), DRAWS * int(plain.target_length.sum())

    def totals(parts):
        denoiser.zero_grad(set_to_none=True)
        terms = [nelbo_terms(denoiser, diffusion, *one, STEPS, time_correction, two_pass=two_pass) for one in parts]
        sum(training_loss(term, loss, 0.1 if loss == "nelbo" else 0.0, masked, tokens) for term in terms).backward()
        return sum(term.stacked() for term in terms), {name: p.grad for name, p in denoiser.named_parameters()}

    together, gradients = totals([(batch, x_t, t)])
    apart, expected = totals([(plain, part(plain, x_t, draw), t[:, draw]) for draw in range(DRAWS)])
    torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-9)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-7, atol=1e-7, msg=name)


@pytest.mark.parametrize("weighting", ("none", "linear"))
def test_draws_with_a_teacher(weighting):
    """The teacher's share and the weight of a place are those of its own draw."""
    student, teacher, diffusion = (
        make_denoiser(),
        Teacher(make_denoiser(3, copy_head=False), 0.5),
        make_diffusion(lam=0.25),
    )
    plain = make_batch(mixed_rows())
    batch, x_t, t = drawn(diffusion, plain)
    settings = {"label_smoothing": 0.1, "loss_weighting": weighting, "teacher": teacher, "kl_gradient": False}
    options = LossOptions(**settings)
    together = nelbo_terms(student, diffusion, batch, x_t, t, STEPS, options=options)
    apart = [
        nelbo_terms(student, diffusion, plain, part(plain, x_t, draw), t[:, draw], STEPS, options=options)
        for draw in range(DRAWS)
    ]
    torch.testing.assert_close(together.surrogate, sum(term.surrogate for term in apart), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_targets_do_not_see_each_other():
    """Changing the words of one target changes the states of that target alone."""
    denoiser, batch = make_denoiser(), make_batch(mixed_rows()).repeated(2)
    tau = torch.ones(len(batch), dtype=torch.float64)
    changed = torch.where(batch.target_mask & (batch.draw == 1), batch.mask_id, batch.input_ids)
    one, other = (denoiser.hidden_states(batch, x_t, tau) for x_t in (batch.input_ids, changed))
    differs = (one - other).abs().amax(-1) > 1e-9
    assert not (differs & (batch.draw < 1) & batch.valid).any()
    assert (differs | ~(batch.target_mask & (batch.draw == 1))).all()


# ---- noise and times -----------------------------------------------------------------------------------------------


def test_noise_of_the_draws():
    """Each draw alone is what it would be without the others: masked as often as its time says, place by place
    independent. Of two draws the second hides what the first shows; the next pair knows nothing of them.
    """
    diffusion, rows = make_diffusion(lam=0.0), 4000
    plain = make_batch([([5], [20, 21, 22, 23])] * rows)
    t = torch.tensor([[3, STEPS + 1 - 3, 3, 9]]).expand(rows, 4)
    x_t = noised(plain.repeated(4), t, STEPS, diffusion, 1, 0, torch.device("cpu")).x_t
    masks = torch.stack([(part(plain, x_t, draw) == plain.mask_id)[plain.target_mask] for draw in range(4)])
    sigma, count = 0.5 / masks.shape[1] ** 0.5, masks.shape[1]
    assert masks.double().mean(1).tolist() == pytest.approx([0.3, 0.8, 0.3, 0.9], abs=5 * sigma)
    assert bool((masks[0] | masks[1]).all())
    assert float((masks[0] & masks[1]).double().mean()) == pytest.approx(1 / STEPS, abs=5 * sigma)
    assert float((masks[0] & masks[2]).double().mean()) == pytest.approx(0.09, abs=5 * sigma)
    assert float((masks[1] & masks[3]).double().mean()) == pytest.approx(0.72, abs=5 * sigma)
    for mask in masks.double():
        neighbours = torch.corrcoef(mask.view(rows, 4).T)
        assert float((neighbours - torch.eye(4)).abs().max()) < 5 / rows**0.5
    final = noised(plain.repeated(2), torch.full((rows, 2), STEPS), STEPS, diffusion, 1, 0, torch.device("cpu")).x_t
    assert bool((final[plain.repeated(2).target_mask] == plain.mask_id).all()) and count == 4 * rows


def test_the_other_end_of_the_uniform_numbers():
    """LARGEST - u lies in [0, 1) like u, and turned round twice it is u to the last bit."""
    u = keyed_uniform(1, torch.arange(100), torch.arange(100).expand(100, 100))
    ends = torch.tensor([0.0, 2.0**-53, LARGEST], dtype=torch.float64)
    for values in (u, ends):
        other = LARGEST - values
        assert bool(((other >= 0) & (other < 1)).all()) and torch.equal(LARGEST - other, values)


def test_noise_does_not_depend_on_the_cut():
    """A row keeps its noise when the batch is cut in two, as accumulation and several processes do."""
    diffusion, rows = make_diffusion(), [([5, 9], [20, 21, 22, 23])] * 6
    t = 1 + torch.arange(12).view(6, 2) % STEPS
    whole = noised(make_batch(rows).repeated(2), t, STEPS, diffusion, 3, 0, torch.device("cpu")).x_t
    halves = [
        noised(
            make_batch(rows[:3]).repeated(2), t[start : start + 3], STEPS, diffusion, 3, start, torch.device("cpu")
        ).x_t
        for start in (0, 3)
    ]
    assert torch.equal(whole, torch.cat(halves))


@pytest.mark.parametrize("draws", (1, 2, 3, 4))
def test_times_of_the_draws(draws):
    """Of two draws the second has T + 1 - t; all first ones of all examples are spread evenly; one draw has the times
    it always had.
    """
    examples, num_steps = 8, 1000
    t = draw_times(examples, draws, num_steps, torch.Generator().manual_seed(3))
    assert t.shape == (examples, draws) and int(t.min()) >= 1 and int(t.max()) <= num_steps
    for second in range(1, draws, 2):
        assert bool((t[:, second - 1] + t[:, second] == num_steps + 1).all())
    first = t[:, ::2].flatten().sort().values
    assert bool(((first.diff() - num_steps / len(first)).abs() <= 1).all())
    if draws == 1:
        assert torch.equal(t[:, 0], sample_times(examples, num_steps, torch.Generator().manual_seed(3)))


# ---- training ------------------------------------------------------------------------------------------------------


def test_training_with_draws(tmp_path):
    """A run with several draws learns, counts every noised word, and its halves make the same step as the whole
    batch.
    """
    data = write_data(tmp_path / "data", train=32, valid=8, test=4)
    settings = {
        "loss": "ce",
        "dropout": 0.0,
        "max_steps": 8,
        "epochs": 8,
        "logging_steps": 1,
        "source_dropout": 0.0,
        "continue_share": 0.0,
    }
    trainer = new_trainer(data, tmp_path / "draws", noise_draws=DRAWS, **settings)
    trainer.fit()
    records = read_records(trainer.run.path)
    values = [record["valid_nelbo"] for record in records if record["kind"] == "validation"]
    assert values[-1] < 0.95 * values[0]
    whole, halves = (
        new_trainer(data, tmp_path / name, noise_draws=DRAWS, **{**settings, "batch_size": 8})
        for name in ("whole", "halves")
    )
    batch = whole._epoch_batches(0)[0]
    fields = ("input_ids", "source_length", "prompt_length", "target_length")
    parts = [
        dataclasses.replace(batch, **{name: getattr(batch, name)[half] for name in fields})
        for half in (slice(0, 4), slice(4, 8))
    ]
    told = []
    for one, group in ((whole, [batch]), (halves, parts)):
        one.reporter.step = lambda step, progress, values: told.append(values)
        one.started = 0.0
        one.step(StepShare.whole(group))
        one.log.read()
    assert told[0]["loss"] == pytest.approx(told[1]["loss"], rel=1e-5) and told[0]["grad_norm"] == pytest.approx(
        told[1]["grad_norm"], rel=1e-4
    )
    assert told[0]["tokens"] == told[1]["tokens"] == DRAWS * int(batch.target_length.sum())


def many(config: DataConfig):
    """500 short pairs, encoded."""
    tokenizer = tiny_tokenizer()
    return encode_pairs(grammar_pairs("train", 500), tokenizer, config, "paraphrase:"), Collator(
        tokenizer, "paraphrase:"
    )


def test_tokens_per_batch_counts_all_draws():
    """The bound on rows x width holds for the rows as they are, with all their targets."""
    config = DataConfig(max_length=96, max_target_length=40, tokens_per_batch=900, noise_draws=3)
    data, collator = many(config)
    batches = list(EpochBatches(data, collator, config, 64, 3, 0))
    sizes = [batch.input_ids.numel() for batch in batches]
    assert max(sizes) <= 900 and sum(sizes) / len(sizes) > 0.6 * 900
    assert {batch.draws for batch in batches} == {3} and sum(map(len, batches)) == len(data)


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", ({"attention": "full"}, {"timestep": "layerwise"}))
def test_a_teacher_without_isolation_is_refused(tmp_path, settings):
    """Its source would see several targets, or it would be told one time for all."""
    save_checkpoint(tmp_path / "teacher.pt", new_model(**settings))
    message = refusal(load_teacher, tiny_config(teacher=str(tmp_path / "teacher.pt"), noise_draws=2))
    assert "--noise_draws 1" in message and "teacher.pt" in message
