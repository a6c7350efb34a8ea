"""Training in bf16 on a processor: the same losses as in float32 within a stated bound, in every way of training; the
decision, and what a resume makes of it. Emulated bf16 gives the same numbers where the processor has none.
"""

import pytest
import torch

from diffusion_bert.commands.announcement import announce
from diffusion_bert.data.splits import load_pairs
from diffusion_bert.machine import precision
from diffusion_bert.machine.precision import Precision, decide_precision, product_rates
from diffusion_bert.model.payload import read_payload
from diffusion_bert.training.distillation import Teacher
from diffusion_bert.training.run_directory import RunDirectory
from diffusion_bert.training.trainer import Trainer
from tests.helpers.models import new_model, refusal
from tests.helpers.scripts import new_trainer, only_run, read_records, run, small_flags, write_data
from tests.training.test_distributed import finished, launch

BOUND = 0.01  # of the loss, at each of the first steps
CPU = torch.device("cpu")
SHAPES = ((512, 384, 1536),)
WAYS = {
    "plain": {},
    "dropout": {"dropout": 0.1},
    "bound": {"loss": "nelbo", "hybrid_lambda": 0.1},
    "two draws": {"noise_draws": 2},
    "accumulation": {"accumulation_steps": 3},
    "average": {"ema_decay": 0.9},
    "smoothing": {"label_smoothing": 0.1, "loss_weighting": "linear"},
    "full attention": {"attention": "full", "timestep": "prefix", "word_freq_lambda": 0.2, "time_correction": False},
}


@pytest.fixture
def fast_bf16(monkeypatch):
    """A processor with fast bf16, whatever this one is, for models of any width."""
    monkeypatch.setattr(precision, "processor_flags", lambda: frozenset({"avx512_bf16"}))
    monkeypatch.setattr(precision, "product_rates", lambda shapes: (100.0, 300.0))
    monkeypatch.setattr(precision, "NARROWEST", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"), train=48, valid=8, test=4)


def losses(data, folder, wanted: str, steps: int = 3, teacher=None, **settings) -> torch.Tensor:
    """The losses of the first steps, [steps]."""
    values = []

    class Noting(Trainer):
        def _after_step(self, share):
            values.append(self.state.window["loss"])
            return super()._after_step(share)

    made = new_trainer(data, folder, precision=wanted, max_steps=steps, lr=1e-3, **{"dropout": 0.0, **settings})
    trainer = Noting(made.model, made.data, made.run, teacher=teacher)
    assert trainer.precision.name == wanted
    trainer.fit()
    types = {p.dtype for p in trainer.model.denoiser.parameters()}
    types |= {value.dtype for state in trainer.optimizer.state.values() for value in state.values()}
    types |= set() if trainer.average is None else {value.dtype for value in trainer.average.average.values()}
    assert types == {torch.float32}  # master weights, optimizer, average
    return torch.tensor(values).diff(prepend=torch.zeros(1))


def assert_close(half: torch.Tensor, exact: torch.Tensor) -> None:
    assert not torch.equal(half, exact)  # it was bf16
    torch.testing.assert_close(half, exact, rtol=BOUND, atol=0)


@pytest.mark.parametrize("way", WAYS)
def test_losses_agree_with_float32(data, tmp_path, fast_bf16, way):
    """Within one percent at each of three steps."""
    assert_close(*(losses(data, tmp_path, wanted, **WAYS[way]) for wanted in ("bf16", "fp32")))


def test_self_conditioning_agrees(data, tmp_path, fast_bf16):
    """Also in steps with a first pass, whose weights' copies without gradient are not used in the second."""
    assert_close(*(losses(data, tmp_path, wanted, 6, self_conditioning=True) for wanted in ("bf16", "fp32")))


def test_distillation_agrees(data, tmp_path, fast_bf16):
    """The teacher's pass is in bf16 too, what it expects in float32."""
    size = new_trainer(data, tmp_path).model.denoiser.bert_config.vocab_size
    teacher = Teacher(new_model(vocab_size=size).denoiser, 0.5)
    assert_close(*(losses(data, tmp_path, wanted, teacher=teacher) for wanted in ("bf16", "fp32")))


def test_weights_are_cast_once_per_step(data, tmp_path, fast_bf16, monkeypatch):
    """However many micro-batches a step has, a weight of the encoder is taken to bf16 once."""
    trainer = new_trainer(data, tmp_path, precision="bf16", accumulation_steps=3)
    share = next(trainer._shares_of_epoch())
    trainer.step(share)
    with torch.profiler.profile(record_shapes=True) as recorded:
        trainer.step(share)
    inner, width = trainer.model.denoiser.mlm.bert.encoder.layer[0].intermediate.dense.weight.shape
    casts = [e for e in recorded.events() if e.name == "aten::_to_copy" and e.input_shapes[0] == [inner, width]]
    layers = trainer.model.denoiser.bert_config.num_hidden_layers
    assert len(share.batches) == 3 and len(casts) == layers * (1 + 3)  # and the gradients of three back


def test_validation_is_float32(data, tmp_path, fast_bf16):
    """The yardstick of the same weights is the same to the bit."""
    one, other = (new_trainer(data, tmp_path, precision=wanted).validate() for wanted in ("bf16", "fp32"))
    assert one == other


def test_two_processes(data, tmp_path, fast_bf16):
    """Two processes train in bf16 like one with twice the accumulation, within the bound."""
    flags = {"dropout": 0.0, "batch_size": 4, "logging_steps": 1, "epochs": 1, "precision": "bf16"}
    pair = finished(
        launch(tmp_path, 2, "run_conditional_training", *small_flags(data, output_dir=tmp_path / "2", **flags))
    )
    assert [code for code, _, _ in pair] == [0, 0], pair
    flags |= {"accumulation_steps": 2}
    assert run("run_conditional_training", *small_flags(data, output_dir=tmp_path / "1", **flags)).code == 0
    ours, whole = ([r["loss"] for r in read_records(only_run(tmp_path / n)) if r["kind"] == "train"] for n in "21")
    assert ours == pytest.approx(whole, rel=BOUND) and len(ours) > 3


# ---- the decision --------------------------------------------------------------------------------------------------


def test_auto_takes_what_is_clearly_faster(monkeypatch, fast_bf16):
    """At least twice as fast: bf16, with both rates; less, too narrow, or without the flag: float32. fp32 measures
    nothing.
    """
    assert decide_precision("auto", CPU, SHAPES) == Precision(True, rates=(100.0, 300.0))
    assert decide_precision("auto", CPU, SHAPES).describe() == "bf16 (products at 300 GFLOP/s in bf16, 100 in float32)"
    monkeypatch.setattr(precision, "product_rates", lambda shapes: (100.0, 199.0))
    assert not decide_precision("auto", CPU, SHAPES).bf16 and decide_precision("bf16", CPU, SHAPES).bf16
    monkeypatch.setattr(precision, "NARROWEST", 385)
    assert decide_precision("auto", CPU, SHAPES) == decide_precision("fp32", CPU, SHAPES) == Precision(False)


def test_slow_bf16_is_refused(monkeypatch, fast_bf16):
    """One line with both figures, whether the flag or the speed is missing."""
    monkeypatch.setattr(precision, "product_rates", lambda shapes: (100.0, 2.0))
    message = refusal(decide_precision, "bf16", CPU, SHAPES)
    assert "2 GFLOP/s in bf16, 100 in float32" in message and "--precision auto" in message
    monkeypatch.setattr(precision, "processor_flags", frozenset)
    assert "neither avx512_bf16 nor amx_bf16" in refusal(decide_precision, "bf16", CPU, SHAPES)
    with decide_precision("auto", CPU, SHAPES).autocast():
        assert not torch.is_autocast_enabled("cpu")


def test_products_are_timed():
    """Two positive rates."""
    assert all(rate > 0 for rate in product_rates(((8, 16, 32), (8, 32, 16))))


def test_the_run_says_it(data, tmp_path, fast_bf16, capsys):
    """The Model line has the precision and both rates."""
    trainer = new_trainer(data, tmp_path)
    announce(trainer, load_pairs(trainer.config.data, 0), trainer.data.train, keep=True)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Model"))
    assert line.endswith(", bf16 (products at 300 GFLOP/s in bf16, 100 in float32)")


def test_a_resume_keeps_its_precision(data, tmp_path, fast_bf16, monkeypatch):
    """What auto decided is in last.pt and stays, whatever the products would say now; on a processor without bf16 the
    run goes on in float32 and says so. A run from before is one in float32.
    """
    trainer = new_trainer(data, tmp_path, max_steps=2)
    trainer.save_last()
    saved = read_payload(trainer.run.last)["training"]
    assert saved["precision"] == "bf16"

    def resumed(saved) -> Precision:
        return Trainer(trainer.model, trainer.data, RunDirectory(trainer.run.path), resume=saved).precision

    monkeypatch.setattr(precision, "product_rates", lambda shapes: (100.0, 100.0))
    assert resumed(saved).bf16 and not resumed({**saved, "precision": "fp32"}).bf16
    assert not resumed({name: value for name, value in saved.items() if name != "precision"}).bf16
    monkeypatch.setattr(precision, "processor_flags", frozenset)
    result = run("continue_training", "--resume", "--model_dir", trainer.run.path)
    assert result.code == 0, result.err
    assert "this processor has no bf16, in which the run began: on in float32" in result.out
