"""The running average of the weights: its law, what carries it, and that without it nothing changes."""

import pytest
import torch

from diffusion_bert.model.checkpoint import restore
from diffusion_bert.model.payload import read_payload
from diffusion_bert.training.optimizer import WeightAverage
from diffusion_bert.training.run_directory import RunDirectory
from diffusion_bert.training.trainer import Trainer
from diffusion_bert.training.yardstick import estimate_nelbo
from tests.helpers.models import refusal, tiny_config
from tests.helpers.scripts import new_trainer, write_data

SETTINGS = {"dropout": 0.1, "batch_size": 8, "accumulation_steps": 2, "max_steps": 6, "epochs": 9, "save_steps": 100}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """32 training pairs: two steps an epoch."""
    return write_data(tmp_path_factory.mktemp("data"), train=32, valid=8, test=4)


def test_the_average_follows_its_formula():
    """After n updates it is the weighted sum of all weights seen, with d_n = min(decay, (1 + n) / (10 + n)); tied
    weights are averaged once.
    """
    module = torch.nn.Linear(3, 2)
    module.twin = module.weight
    average = WeightAverage(module, 0.4)
    expected = module.weight.detach().clone()
    assert sorted(average.average) == ["bias", "weight"]
    for number in range(1, 9):
        with torch.no_grad():
            module.weight.normal_(generator=torch.Generator().manual_seed(number))
        average.update()
        decay = min(0.4, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * module.weight.detach()
        torch.testing.assert_close(average.average["weight"], expected)


def test_constant_weights_are_their_own_average():
    """The average of what does not change is the same to the bit."""
    module = torch.nn.Linear(3, 2)
    average = WeightAverage(module, 0.999)
    for _ in range(20):
        average.update()
    assert torch.equal(average.average["weight"], module.weight)


def test_in_place_gives_the_weights_back():
    """Inside the block the network has the average, afterwards its own weights to the bit, also after an error; both
    keep their storage.
    """
    module = torch.nn.Linear(3, 2)
    average = WeightAverage(module, 0.5)
    with torch.no_grad():
        module.weight += 1.0
    own, place = module.weight.detach().clone(), module.weight.data_ptr()
    with pytest.raises(ZeroDivisionError), average.in_place():
        assert torch.equal(module.weight, average.average["weight"]) and not torch.equal(module.weight, own)
        raise ZeroDivisionError
    assert torch.equal(module.weight, own) and module.weight.data_ptr() == place


def test_training_itself_is_the_same_with_and_without(data, tmp_path):
    """The average only watches: with it the trained weights are those without it; best_model.pt differs, and without it
    last.pt has no average.
    """
    plain, averaged = (
        new_trainer(data, tmp_path / name, ema_decay=decay, **SETTINGS)
        for name, decay in (("plain", 0.0), ("averaged", 0.9))
    )
    plain.fit()
    averaged.fit()
    one, two = read_payload(plain.run.last), read_payload(averaged.run.last)
    assert all(torch.equal(one["weights"][name], two["weights"][name]) for name in one["weights"])
    assert "average" not in one["training"] and plain.average is None
    best = read_payload(averaged.run.best)["weights"]
    assert any(not torch.equal(best[name], two["weights"][name]) for name in best)


def test_best_model_holds_the_average_and_its_nelbo(data, tmp_path):
    """When the last validation was the best, best_model.pt holds exactly the average that last.pt carries, and its
    NELBO is the recorded one.
    """
    trainer = new_trainer(data, tmp_path, ema_decay=0.5, **SETTINGS)
    trainer.fit()
    assert trainer.state.best_step == trainer.state.step == 6
    best, last = read_payload(trainer.run.best), read_payload(trainer.run.last)
    average = last["training"]["average"]
    assert average["updates"] == 6
    assert all(torch.equal(best["weights"][name], value) for name, value in average["average"].items())
    model = restore(best)
    terms = estimate_nelbo(model.denoiser, model.diffusion, trainer.data.valid, model.config.diffusion.time_correction)
    assert terms.per_token()["nelbo"] == best["metrics"]["valid_nelbo"]


def test_resumed_to_the_bit(data, tmp_path):
    """Interrupted after three steps and resumed, weights, average and best model are those of the uninterrupted run."""
    whole = new_trainer(data, tmp_path / "whole", ema_decay=0.9, **SETTINGS)
    whole.fit()
    first = new_trainer(data, tmp_path / "part", ema_decay=0.9, **SETTINGS)
    step = first.step

    def stop_after_three(*share):
        step(*share)
        first.stop_signal = 2 if first.state.step == 3 else None

    first.step = stop_after_three
    assert first.fit().reason == "interrupted"
    payload = read_payload(first.run.last)
    second = Trainer(restore(payload), first.data, RunDirectory(first.run.path), resume=payload["training"])
    second.fit()
    for name in ("best", "last"):
        one, two = (read_payload(getattr(trainer.run, name)) for trainer in (whole, second))
        assert all(torch.equal(one["weights"][key], two["weights"][key]) for key in one["weights"]), name
    assert one["training"]["average"]["updates"] == two["training"]["average"]["updates"] == 6
    pairs = zip(one["training"]["average"]["average"].values(), two["training"]["average"]["average"].values())
    assert all(torch.equal(a, b) for a, b in pairs)


def test_refusals(data, tmp_path):
    """A decay of 1 would never move; the average of another network is no use."""
    assert "ema_decay is 1" in refusal(tiny_config, ema_decay=1)
    average = WeightAverage(torch.nn.Linear(3, 2), 0.5)
    assert "averaged weights" in refusal(average.restore, WeightAverage(torch.nn.Linear(2, 2), 0.5).state())
