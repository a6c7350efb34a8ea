"""Random numbers by place: uniform, independent, and the same however a batch is cut."""

import torch

from diffusion_bert.training.noising import keyed_uniform


def grid(rows: int, places: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(rows), torch.arange(places).expand(rows, places)


def test_uniform():
    """Mean, variance and the counts of sixteen equal bins are those of the uniform law, within four sigma."""
    values = keyed_uniform(7, *grid(400, 250)).flatten()
    n = len(values)
    assert values.min() >= 0 and values.max() < 1
    assert abs(values.mean() - 0.5) < 4 / (12 * n) ** 0.5
    assert abs(values.var() - 1 / 12) < 4 / (180 * n) ** 0.5
    counts = torch.histc(values, 16, 0, 1)
    assert ((counts - n / 16).abs() < 4 * (n / 16 * 15 / 16) ** 0.5).all()


def test_neighbours_are_independent():
    """No correlation between neighbouring keys, rows and places: within four sigma of 0."""
    values = keyed_uniform(1, *grid(300, 300)) - 0.5
    other_key = keyed_uniform(2, *grid(300, 300)) - 0.5
    for a, b in (
        (values[1:], values[:-1]),
        (values[:, 1:], values[:, :-1]),
        (values[1:, :-1], values[:-1, 1:]),
        (values, other_key),
    ):
        assert abs((a * b).mean() * 12) < 4 / a.numel() ** 0.5


def test_only_key_row_and_place_count():
    """Any cut of rows, any width and any order give the same numbers; another key gives others. Large keys are
    welcome.
    """
    whole = keyed_uniform(2**62 + 5, *grid(10, 20))
    rows = torch.tensor([7, 2])
    places = torch.tensor([[3, 0, 19], [5, 5, 1]])
    assert torch.equal(keyed_uniform(2**62 + 5, rows, places), whole[rows[:, None], places])
    assert not (keyed_uniform(2**62 + 6, *grid(10, 20)) == whole).any()
    assert whole.unique().numel() == whole.numel()
