"""The training loop: what it minimises, when it stops, and what it leaves on disk."""

import copy
import importlib.util
import itertools
import math

import pytest
import torch

from diffusion_bert.config.run_config import RunConfig
from diffusion_bert.data.batch import Batch
from diffusion_bert.data.batching import EpochBatches
from diffusion_bert.errors import UserError
from diffusion_bert.model.checkpoint import load_checkpoint
from diffusion_bert.model.payload import read_payload
from diffusion_bert.training import run as run_module
from diffusion_bert.training import trainer as training
from diffusion_bert.training import yardstick
from diffusion_bert.training.interruption import enough_memory, memory_advice
from diffusion_bert.training.noising import StepShare
from diffusion_bert.training.objective import NelboTerms
from diffusion_bert.training.run_directory import RunDirectory
from diffusion_bert.training.state import Reporter
from tests.helpers.models import tiny_config
from tests.helpers.scripts import SMALL, new_trainer, read_records, run, small_flags, without_wall_clock, write_data


class Recorder(Reporter):
    """Remembers what it was told; ``at_step`` may do more."""

    def __init__(self, at_step=None):
        self.steps, self.validations, self.demonstrations, self.at_step = [], [], [], at_step

    def step(self, step, progress, values):
        self.steps.append({"step": step, "progress": progress, **values})
        if self.at_step:
            self.at_step(step)

    def validation(self, record, improved):
        self.validations.append((record, improved))

    def demonstration(self, step):
        self.demonstrations.append(step)


@pytest.fixture(scope="module")
def little(tmp_path_factory):
    """32 training pairs: a few batches an epoch."""
    return write_data(tmp_path_factory.mktemp("little"), train=32, valid=8, test=8)


# ---- what it minimises ---------------------------------------------------------------------------------------------


def test_validation_nelbo_falls(trained):
    """A short training lowers the validation NELBO from every validation to the next (within the noise of six
    steps).
    """
    values = [record["valid_nelbo"] for record in read_records(trained) if record["kind"] == "validation"]
    assert len(values) == 5 and all(later < earlier + 0.05 for earlier, later in itertools.pairwise(values))
    assert values[-1] < 0.9 * values[0]


COMBINATIONS = list(itertools.product(("isolated", "full"), ("none", "prefix", "layerwise"), (True, False)))
LOSSES = [("ce", 0.0, 0.0), ("ce", 0.0, 0.3), ("nelbo", 0.0, 0.0), ("nelbo", 0.0, 0.3), ("nelbo", 0.5, 0.3)]


@pytest.mark.parametrize(("attention", "timestep", "copy_head"), COMBINATIONS)
def test_every_architecture_trains(little, tmp_path, attention, timestep, copy_head):
    """Each attention, time conditioning and copy head makes a step with a finite loss, and the step moves every
    parameter.
    """
    loss, hybrid, word_freq_lambda = LOSSES[COMBINATIONS.index((attention, timestep, copy_head)) % len(LOSSES)]
    trainer = new_trainer(
        little,
        tmp_path,
        reporter := Recorder(),
        attention=attention,
        timestep=timestep,
        copy_head=copy_head,
        loss=loss,
        hybrid_lambda=hybrid,
        word_freq_lambda=word_freq_lambda,
        weight_decay=0.0,
        warmup_ratio=0.0,
        max_steps=2,
    )
    before = {name: value.detach().clone() for name, value in trainer.model.denoiser.named_parameters()}
    trainer.fit()
    assert all(
        math.isfinite(values[name])
        for values in reporter.steps
        for name in ("loss", "grad_norm", "nelbo", "cross_entropy")
    )
    still = [name for name, value in trainer.model.denoiser.named_parameters() if torch.equal(value, before[name])]
    assert not still


@pytest.mark.parametrize(("loss", "hybrid", "word_freq_lambda"), LOSSES)
def test_every_loss_falls(little, tmp_path, loss, hybrid, word_freq_lambda):
    """Every loss, plain and word-frequency noise alike: eight steps of training lower the validation NELBO."""
    trainer = new_trainer(
        little, tmp_path, loss=loss, hybrid_lambda=hybrid, word_freq_lambda=word_freq_lambda, max_steps=8, epochs=8
    )
    trainer.fit()
    records = [record for record in read_records(trainer.run.path) if record["kind"] == "validation"]
    assert records[-1]["valid_nelbo"] < 0.95 * records[0]["valid_nelbo"]


@pytest.mark.parametrize("loss", ["ce", "nelbo"])
def test_accumulated_halves_are_one_batch(little, tmp_path, loss):
    """Two micro-batches of four make the same step as the one batch of eight they come from: counts are taken over the
    whole group.
    """
    settings = {"loss": loss, "dropout": 0.0, "batch_size": 8, "epochs": 1}
    whole, halves = (new_trainer(little, tmp_path / name, Recorder(), **settings) for name in ("whole", "halves"))
    batch = EpochBatches(whole.data.train, whole.data.collator, whole.config.data, 8, 0, 0)[0]
    parts = [
        Batch(
            *(
                field[half]
                for field in (batch.input_ids, batch.source_length, batch.prompt_length, batch.target_length)
            ),
            batch.pad_id,
            batch.mask_id,
        )
        for half in (slice(0, 4), slice(4, 8))
    ]
    for trainer, group in ((whole, [batch]), (halves, parts)):
        trainer.started = 0.0
        trainer.step(StepShare.whole(group))
    one, two = whole.reporter.steps[0], halves.reporter.steps[0]
    for name in ("loss", "grad_norm", "nelbo", "cross_entropy", "tokens", "lr"):
        assert two[name] == pytest.approx(one[name], rel=1e-4), name


def test_a_group_without_a_masked_place_is_harmless(little, tmp_path):
    """When by chance nothing is masked, the step has a finite loss and weights."""
    trainer = new_trainer(little, tmp_path, Recorder(), loss="ce", max_steps=1)
    plain = trainer.model.diffusion

    class NoNoise:
        def __getattr__(self, name):
            return getattr(plain, name)

        def q_sample(self, x_0, *_, **__):
            return x_0.clone()

    trainer.started = 0.0
    trainer.host_diffusion = NoNoise()
    trainer.step(StepShare.whole([trainer._epoch_batches(0)[0]]))
    assert math.isfinite(trainer.reporter.steps[0]["loss"])
    assert all(bool(value.isfinite().all()) for value in trainer.model.denoiser.parameters())


def test_training_is_reproducible(little, tmp_path):
    """The same seed gives the same weights to the bit, another seed others; dropout and accumulation on."""
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trainer = new_trainer(little, tmp_path / name, seed=seed, max_steps=3, batch_size=8, accumulation_steps=2)
        trainer.fit()
        weights.append(trainer.model.denoiser.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(
        torch.equal(weights[0][name], weights[2][name])
        for name in weights[0]
        if weights[0][name].shape == weights[2][name].shape
    )


# ---- the learning rate ---------------------------------------------------------------------------------------------


def test_learning_rate_rises_and_falls_to_zero(little, tmp_path):
    """Linear warm-up to the peak, linear decay, exactly zero when training is over."""
    trainer = new_trainer(little, tmp_path, reporter := Recorder(), batch_size=8, epochs=5, warmup_ratio=0.25)
    trainer.fit()
    rates = [values["lr"] for values in reporter.steps]
    assert len(rates) == 20 and rates[0] > 0 and max(rates) == pytest.approx(SMALL["lr"], rel=0.01)
    peak = rates.index(max(rates))
    assert peak in (4, 5)
    assert all(a < b for a, b in itertools.pairwise(rates[: peak + 1])) and all(
        a > b for a, b in itertools.pairwise(rates[peak:])
    )
    falls = [a - b for a, b in itertools.pairwise(rates[peak + 1 :])]
    assert max(falls) == pytest.approx(min(falls), rel=1e-6)
    assert trainer.learning_rate_factor() == 0.0


def test_learning_rate_follows_the_nearer_limit(little, tmp_path, monkeypatch):
    """With --max_minutes the rate decays over the minutes when these end before the epochs do, and training stops by
    them.
    """

    class Clock:
        now = 1000.0

        @classmethod
        def monotonic(cls):
            return cls.now

    for module in (run_module, training):
        monkeypatch.setattr(module, "time", Clock)

    def tick(step):
        Clock.now += 1.0

    trainer = new_trainer(little, tmp_path, reporter := Recorder(tick), epochs=100, max_minutes=0.1, warmup_ratio=0.0)
    result = trainer.fit()
    assert result.reason == "max_minutes" and len(reporter.steps) == 6 and result.state.finished
    rates = [values["lr"] / SMALL["lr"] for values in reporter.steps]
    assert rates == pytest.approx([1 - done / 6 for done in range(6)], abs=0.02)


# ---- when it stops -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "reason", "steps"),
    [
        ({"epochs": 2}, "epochs", 4),
        ({"epochs": 2, "max_steps": 3}, "max_steps", 3),
        ({"epochs": 1, "max_steps": 50}, "epochs", 2),
        ({"max_minutes": 0}, "max_minutes", 1),
    ],
)
def test_it_stops_for_the_right_reason(little, tmp_path, settings, reason, steps):
    """Whichever limit comes first ends the training and is named."""
    result = new_trainer(little, tmp_path, **settings).fit()
    assert (result.reason, result.state.step, result.state.finished) == (reason, steps, True)


def scripted(monkeypatch, values):
    """Validation returns these NELBOs one after the other."""
    rest = iter(values)

    def fake(*_, **__):
        zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        return [NelboTerms(torch.tensor(next(rest), dtype=torch.float64), zero, zero, zero, one, one)]

    monkeypatch.setattr(yardstick, "estimate_nelbo_by_group", fake)


def test_patience(little, tmp_path, monkeypatch):
    """It stops after so many validations in a row without a better NELBO; a better one starts the count again."""
    scripted(monkeypatch, [9.0, 8.0, 8.5, 7.0, 7.0, 7.5, 1.0])
    result = new_trainer(little, tmp_path, epochs=20, patience=2).fit()
    assert (
        result.reason == "patience"
        and result.state.epoch == 5
        and result.state.best_nelbo == 7.0
        and result.state.best_step == 6
    )


def test_best_model_is_the_argmin(little, tmp_path, monkeypatch):
    """best_model.pt holds the very weights of the validation with the lowest NELBO, its metrics name that step; last.pt
    holds the last ones.
    """
    scripted(monkeypatch, [9.0, 8.0, 6.0, 7.0, 6.5, 6.0])
    seen = {}
    trainer = new_trainer(
        little,
        tmp_path,
        Recorder(lambda step: seen.update({step: copy.deepcopy(trainer.model.denoiser.state_dict())})),
        eval_steps=1,
        max_steps=5,
        epochs=9,
    )
    trainer.fit()
    best, last = load_checkpoint(trainer.run.best), load_checkpoint(trainer.run.last)
    assert best.metrics["step"] == 2 and best.metrics["valid_nelbo"] == 6.0
    for model, step in ((best, 2), (last, 5)):
        assert all(torch.equal(value, seen[step][name]) for name, value in model.denoiser.state_dict().items())


def test_the_last_weights_are_validated_too(little, tmp_path):
    """A training that ends between two validations still validates what it ends with."""
    trainer = new_trainer(little, tmp_path, batch_size=4, max_steps=3)
    trainer.fit()
    assert [record["step"] for record in read_records(trainer.run.path) if record["kind"] == "validation"] == [0, 3]


def test_validation_does_not_disturb_training(little, tmp_path):
    """Validating after every step leaves the same weights as validating once an epoch."""
    weights = []
    for name, settings in (("often", {"eval_steps": 1}), ("seldom", {})):
        trainer = new_trainer(little, tmp_path / name, batch_size=8, max_steps=4, **settings)
        trainer.fit()
        weights.append(trainer.model.denoiser.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_nan_stops_and_names_the_way_out(little, tmp_path):
    """A weight that turns NaN stops training with the step, the learning rate and the last good checkpoint, and nothing
    NaN is saved.
    """

    def poison(step):
        if step == 3:
            next(trainer.model.denoiser.parameters()).data.fill_(float("nan"))

    trainer = new_trainer(little, tmp_path, Recorder(poison), epochs=9, save_steps=1)
    with pytest.raises(UserError, match=r"step 3: the loss is nan .* learning rate 0\.0\d+; .*best_model\.pt"):
        trainer.fit()
    assert all(bool(value.isfinite().all()) for value in load_checkpoint(trainer.run.best).denoiser.parameters())


def test_a_full_disk_leaves_the_old_checkpoint(little, tmp_path, monkeypatch):
    """A save that fails half way is one line; the previous last.pt is as it was, and no temporary file stays."""
    trainer = new_trainer(little, tmp_path, epochs=9, save_steps=1)
    save, kept = torch.save, {}

    def full(payload, file):
        if "training" in payload and trainer.run.last.exists():
            kept["bytes"] = trainer.run.last.read_bytes()
            file.write(b"half a file")
            raise OSError(28, "No space left on device")
        save(payload, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"last\.pt: No space left on device"):
        trainer.fit()
    assert trainer.run.last.read_bytes() == kept["bytes"] and not list(trainer.run.path.glob(".*"))


def test_without_a_main_thread_signals_are_left_alone(little, tmp_path):
    """Training works in a thread, where Python allows no signal handlers."""
    import threading

    result = []
    thread = threading.Thread(target=lambda: result.append(new_trainer(little, tmp_path, max_steps=1).fit().reason))
    thread.start()
    thread.join()
    assert result == ["max_steps"]


# ---- what it leaves ------------------------------------------------------------------------------------------------


def test_run_directory_holds_everything(trained):
    """Exactly the promised files; both checkpoints re-read with weights_only and match their checksum; the config
    rebuilds the same settings.
    """
    names = {path.name for path in trained.iterdir()}
    assert names == {"best_model.pt", "last.pt", "config.yaml", "metrics.jsonl", "training_results.json", "curves.png"}
    for path in trained.glob("*.pt"):
        payload = read_payload(path)  # weights_only=True, checksum
        assert payload["format"] == "diffusion-bert" and set(payload["versions"]) >= {"torch", "transformers", "python"}
        assert ("training" in payload) == (path.name == "last.pt")
    assert (trained / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_run_directory_name(trained):
    """The name tells model, task, learning rate, seed, T and lambda, and ends in a number."""
    assert trained.name == "tiny_sample_lr0.002_seed3_T16_lambda0.2_001"


def test_run_directories_are_numbered(little, tmp_path):
    """The same settings again get the next number; the first run stays as it is."""
    config = RunConfig.from_flat({**SMALL, "output_dir": str(tmp_path / "a" / "b")})
    names = [RunDirectory.create(config).path.name[-4:] for _ in range(3)]
    assert names == ["_001", "_002", "_003"]


def test_unsafe_model_names_make_safe_folders(tmp_path):
    """A hub id with a slash, or a local path, gives one folder name without separators."""
    (tmp_path / "my bert").mkdir()
    for name, expected in (("someone/bert-x", "someone-bert-x"), (str(tmp_path / "my bert"), "my-bert")):
        config = RunConfig.from_flat({**SMALL, "model_name_or_path": name, "output_dir": str(tmp_path / "out")})
        path = RunDirectory.create(config).path
        assert path.parent == tmp_path / "out" and path.name.startswith(f"{expected}_sample_")


def test_metrics_records(little, tmp_path):
    """metrics.jsonl has a line per logging step with loss, terms, rate and speed, and one per validation; every number
    is finite.
    """
    trainer = new_trainer(little, tmp_path, batch_size=8, epochs=2, logging_steps=2)
    trainer.fit()
    records = read_records(trainer.run.path)
    train = [record for record in records if record["kind"] == "train"]
    valid = [record for record in records if record["kind"] == "validation"]
    assert [record["step"] for record in train] == [2, 4, 6, 8] and [record["step"] for record in valid] == [0, 4, 8]
    assert {
        "loss",
        "grad_norm",
        "lr",
        "nelbo",
        "reveal",
        "stay",
        "length",
        "cross_entropy",
        "tokens_per_second",
        "seconds",
        "epoch",
    } <= set(train[0])
    assert {"valid_nelbo", "valid_reveal", "valid_stay", "valid_length", "valid_nelbo_per_word", "epoch"} <= set(
        valid[0]
    )
    assert all(math.isfinite(value) for record in records for value in record.values() if not isinstance(value, str))
    for record in valid:
        assert record["valid_nelbo"] == pytest.approx(
            record["valid_reveal"] + record["valid_stay"] + record["valid_length"]
        )
    assert [record["epoch"] for record in valid] == [0, 1, 2]


def test_logged_averages_are_those_of_the_steps(little, tmp_path):
    """A line is the mean over the steps since the line before."""
    trainer = new_trainer(little, tmp_path, reporter := Recorder(), batch_size=8, epochs=1, logging_steps=2)
    trainer.fit()
    first = next(record for record in read_records(trainer.run.path) if record["kind"] == "train")
    for name in ("loss", "nelbo", "lr", "tokens"):
        assert first[name] == pytest.approx((reporter.steps[0][name] + reporter.steps[1][name]) / 2)


def test_demonstrations_come_when_asked(little, tmp_path):
    """Every so many steps; by default once an epoch."""
    for name, settings, expected in (("asked", {"demonstration_steps": 3}, [3]), ("default", {}, [2, 4])):
        trainer = new_trainer(little, tmp_path / name, reporter := Recorder(), epochs=2, **settings)
        trainer.fit()
        assert reporter.demonstrations == expected


def test_results_and_output_of_the_script(little, tmp_path):
    """The script tells the data, what was left out, two examples, a demonstration at three noise levels, validation,
    test, folder, next command.
    """
    result = run(
        "run_conditional_training",
        *small_flags(little, output_dir=tmp_path / "out", epochs=1, max_target_length=28, demonstration_steps=1),
    )
    assert result.code == 0
    for words in (
        "examples",
        "left out: targets longer than max_target_length 28",
        "  ->  ",
        "30% noise",
        "60% noise",
        "90% noise",
        "target ",
        "____",
    ):
        assert words in result.out, words
    folder = next((tmp_path / "out").iterdir())
    for words in (
        "epoch 1.00, step",
        "Test NELBO",
        str(folder),
        f"python evaluate_trained_model.py --checkpoint {folder / 'best_model.pt'}",
    ):
        assert words in result.out, words
    assert result.err == ""  # no bars in a pipe


def test_weight_decay_spares_biases_and_norms(little, tmp_path):
    """Only matrices decay; every parameter is in exactly one group."""
    trainer = new_trainer(little, tmp_path, weight_decay=0.1)
    decayed, plain = trainer.optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim > 1 for p in decayed["params"]) and all(p.ndim <= 1 for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(trainer.model.denoiser.parameters()))


@pytest.mark.parametrize("limit", (0.01, 0.0))
def test_gradients_are_clipped(little, tmp_path, limit):
    """--max_grad_norm bounds what reaches the optimizer, as clipping before a plain AdamW does; 0 turns clipping
    off.
    """
    trainer = new_trainer(little, tmp_path, max_grad_norm=limit, max_steps=1)
    take, norms = trainer.optimizer.step, []

    def step():
        groups = copy.deepcopy(trainer.optimizer.param_groups)
        for group, originals in zip(groups, trainer.optimizer.param_groups):
            for parameter, original in zip(group["params"], originals["params"]):
                parameter.grad = None if original.grad is None else original.grad.clone()
        parameters = [parameter for group in groups for parameter in group["params"]]
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, limit or float("inf"))))
        torch.optim.AdamW([{**group, "fused": False} for group in groups]).step()
        take()
        for parameter, own in zip(parameters, (p for group in trainer.optimizer.param_groups for p in group["params"])):
            # the first step of AdamW is nearly the sign of the gradient: where that is tiny, its last digits show
            torch.testing.assert_close(own, parameter, rtol=1e-4, atol=1e-6)

    trainer.optimizer.step = step
    trainer.fit()
    assert len(norms) == 1 and norms[0] > 0.1  # without clipping more than 0.01 would arrive


def test_last_epochs_are_kept(little, tmp_path):
    """--keep_checkpoints N leaves epoch_<n>.pt of the last N epochs, each with the weights of its epoch's end, and none
    by default.
    """
    seen = {}
    trainer = new_trainer(
        little,
        tmp_path,
        Recorder(lambda step: seen.update({step: copy.deepcopy(trainer.model.denoiser.state_dict())})),
        epochs=4,
        keep_checkpoints=2,
    )
    trainer.fit()
    assert {path.name for path in trainer.run.path.glob("*.pt")} == {
        "best_model.pt",
        "last.pt",
        "epoch_3.pt",
        "epoch_4.pt",
    }
    for epoch in (3, 4):
        kept = load_checkpoint(trainer.run.epoch(epoch)).denoiser.state_dict()
        assert all(torch.equal(value, seen[2 * epoch][name]) for name, value in kept.items())


def test_an_old_epoch_goes_only_after_the_new_one_is_written(little, tmp_path, monkeypatch):
    """When the disk is full the older checkpoint stays."""
    trainer = new_trainer(little, tmp_path, epochs=4, keep_checkpoints=1)
    save = run_module.save_checkpoint

    def full(path, *rest):
        if path.name == "epoch_2.pt":
            raise UserError("no space")
        save(path, *rest)

    monkeypatch.setattr(run_module, "save_checkpoint", full)
    with pytest.raises(UserError, match="no space"):
        trainer.fit()
    assert trainer.run.epoch(1).is_file()


def test_too_little_memory_is_told_in_one_line():
    """A CPU's allocator raises a plain RuntimeError; other errors pass."""
    config, device = tiny_config(batch_size=64), torch.device("cpu")
    with pytest.raises(UserError, match="--batch_size 32"), enough_memory(config, device):
        torch.empty(2**45)
    with pytest.raises(RuntimeError, match="other"), enough_memory(config, device):
        raise RuntimeError("other")


def test_advice_when_memory_is_short():
    """The advised settings see as many examples per step, or one more for an odd batch; at batch size 1 it does not
    advise what is there already.
    """
    for batch, accumulation in ((64, 1), (7, 3), (2, 4)):
        text = memory_advice(torch.device("cuda"), batch, accumulation)
        size, steps = (int(text.split(f"--{name} ")[1].split()[0]) for name in ("batch_size", "accumulation_steps"))
        assert size < batch and size * steps - batch * accumulation in (0, accumulation * (batch % 2))
    assert "--tokens_per_batch 2048 --accumulation_steps 4" in memory_advice(torch.device("cuda"), 64, 2, 4096)
    assert "--max_length" in memory_advice(torch.device("cpu"), 1, 1) and "--batch_size" not in memory_advice(
        torch.device("cpu"), 1, 1
    )


def test_tensorboard(little, tmp_path):
    """With the package: event files beside metrics.jsonl. Without it: one line, before anything is trained."""
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(UserError, match="pip install tensorboard"):
            new_trainer(little, tmp_path, tensorboard=True)
        return
    trainer = new_trainer(little, tmp_path, tensorboard=True, max_steps=2, logging_steps=1)
    trainer.fit()
    assert list((trainer.run.path / "tensorboard").glob("events.out.tfevents.*"))


def test_numbers_that_stay_on_the_device(little, tmp_path):
    """As on a GPU, nothing is read until a line is due: the same metrics; a NaN is found before anything is saved and
    its own step is named.
    """
    records = []
    for name in ("at once", "later"):
        trainer = new_trainer(
            little, tmp_path / name, reporter := Recorder(), batch_size=8, epochs=2, logging_steps=3, dropout=0.0
        )
        if name == "later":
            leave_unread(trainer)
        trainer.fit()
        records.append([without_wall_clock(record) for record in read_records(trainer.run.path)])
        assert [values["step"] for values in reporter.steps] == list(range(1, 9))
    assert records[0] == records[1]
    trainer = new_trainer(little, tmp_path / "nan", epochs=9, batch_size=8, save_steps=4, logging_steps=50)
    leave_unread(trainer, spoilt=2)
    with pytest.raises(UserError, match="step 2: the loss is nan"):
        trainer.fit()
    assert read_payload(trainer.run.last)["training"]["state"]["step"] == 0
    assert all(bool(value.isfinite().all()) for value in load_checkpoint(trainer.run.best).denoiser.parameters())


def leave_unread(trainer, spoilt=None) -> None:
    """Let the trainer's log treat steps as if they were on a GPU; the numbers of step ``spoilt`` become NaN."""

    def add(step):
        trainer.state.window.setdefault("since", trainer.state.seconds)
        if step.step == spoilt:
            step.measured.fill_(math.nan)
        trainer.log.pending.append(step)

    trainer.log.add = add
