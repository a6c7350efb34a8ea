"""Random numbers by what they are for: uniform, independent, and the same however a batch is cut."""

import pytest
import torch

from diffusion_bert.diffusion.random_numbers import RandomNumbers, keyed_uniform, row_keys


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


# ---- a generator per place -----------------------------------------------------------------------------------------

KEYS = row_keys(3, range(200), [0] * 200)
DRAWS = 20


def numbers_of(keys: torch.Tensor, width: int = 12) -> torch.Tensor:
    """[rows, places, DRAWS]: what every place gives, one number after the other, in all three ways of asking."""
    numbers = RandomNumbers(keys, width)
    rows, columns = (
        index.flatten() for index in torch.meshgrid(torch.arange(len(keys)), torch.arange(width), indexing="ij")
    )
    drawn = [numbers.everywhere()]
    drawn += [values.view(len(keys), width) for values in numbers.at(rows, columns, 3).unbind(-1)]
    while len(drawn) < DRAWS:
        drawn.append(numbers.at(rows, columns, 1).view(len(keys), width))
    return torch.stack(drawn, -1)


def fits(counts: torch.Tensor, total: int) -> bool:
    """Chi-squared of equally likely cells within 4 sigma, by its cube root (Wilson and Hilferty 1931)."""
    expected, freedom = total / len(counts), len(counts) - 1
    chi = float(((counts.double() - expected) ** 2).sum() / expected)
    spread = 2 / (9 * freedom)
    return abs((chi / freedom) ** (1 / 3) - 1 + spread) < 4 * spread**0.5


def is_uniform(values: torch.Tensor, bins: int = 16) -> bool:
    """The counts of equal bins and the first two moments are those of the uniform law, within 4 sigma."""
    n = values.numel()
    counts = torch.bincount((values * bins).long().flatten(), minlength=bins)
    mean, square = (values - 0.5).mean(), (values - 0.5).square().mean()
    return fits(counts, n) and bool(mean.abs() < 4 / (12 * n) ** 0.5 and (square - 1 / 12).abs() < 4 / (180 * n) ** 0.5)


def are_independent(one: torch.Tensor, two: torch.Tensor, bins: int = 8) -> bool:
    """The table of pairs is that of independent uniform numbers, and there is no correlation, within 4 sigma."""
    n = one.numel()
    pairs = (one * bins).long() * bins + (two * bins).long()
    correlation = 12 * ((one - 0.5) * (two - 0.5)).mean()
    return fits(torch.bincount(pairs.flatten(), minlength=bins**2), n) and bool(correlation.abs() < 4 / n**0.5)


@pytest.mark.parametrize(
    "keys",
    [
        KEYS,
        row_keys(0, [0] * 200, range(200)),
        torch.arange(200),
        row_keys(2**40, [2**64 - 1 - text for text in range(200)], [7] * 200),
    ],
    ids=("texts", "candidates", "bare keys", "large numbers"),
)
def test_rows_places_and_draws_are_independent(keys):
    """Uniform as a whole and by place and draw; no dependence between neighbouring rows, places and draws, nor between
    these and the numbers of the row as a whole.
    """
    values = numbers_of(keys)
    assert bool((values >= 0).all() and (values < 1).all()) and values.unique().numel() == values.numel()
    assert is_uniform(values)
    assert all(is_uniform(part) for part in (*values.unbind(-1), *values.unbind(1)))
    for one, two in (
        (values[1:], values[:-1]),
        (values[:, 1:], values[:, :-1]),
        (values[..., 1:], values[..., :-1]),
        (values[1:, :-1], values[:-1, 1:]),
        (values[:, 1:, :-1], values[:, :-1, 1:]),
        (values[:100], values[100:]),
    ):
        assert are_independent(one, two)
    numbers = RandomNumbers(keys, 12)
    of_rows = torch.stack([numbers.of_rows() for _ in range(DRAWS)], -1)
    assert is_uniform(of_rows) and all(are_independent(of_rows, part) for part in values.unbind(1))


def test_the_sum_of_a_row_is_that_of_independent_numbers():
    """Sums over places and draws have the variance of independent numbers, over all rows, within 4 sigma."""
    values = numbers_of(row_keys(1, range(4000), [0] * 4000))
    sums = (values - 0.5).sum((1, 2))
    n, variance = len(sums), values[0].numel() / 12
    assert abs(sums.mean()) < 4 * (variance / n) ** 0.5
    assert abs(sums.square().mean() - variance) < 4 * variance * (2 / n) ** 0.5


def test_a_place_knows_nothing_of_the_others():
    """Its numbers are the same in another order of rows, alone, in a wider canvas, and whatever others were asked."""
    whole = numbers_of(KEYS)
    assert torch.equal(numbers_of(KEYS[[7, 2]]), whole[[7, 2]])
    assert torch.equal(numbers_of(KEYS[:5], 30)[:, :12], whole[:5])
    numbers, first = RandomNumbers(KEYS[:5], 12), RandomNumbers(KEYS[:5], 12).of_rows()
    assert torch.equal(numbers.everywhere(), whole[:5, :, 0])
    for _ in range(3):  # one place goes on alone
        numbers.at(torch.tensor([3]), torch.tensor([4]), 1)
    rows, columns = torch.tensor([3, 3, 2]), torch.tensor([4, 5, 4])
    assert numbers.at(rows, columns, 1)[:, 0].tolist() == [whole[3, 4, 4], whole[3, 5, 1], whole[2, 4, 1]]
    assert torch.equal(numbers.of_rows(), first)


def test_keys():
    """Seed, text and candidate each make another key; the order and the others make none."""
    keys = torch.cat([row_keys(seed, [*range(50), -1, 2**63], [number] * 52) for seed in (0, 1) for number in (0, 1)])
    assert keys.unique().numel() == 4 * 52
    assert torch.equal(row_keys(1, [5, 3], [0, 9]), row_keys(1, [3, 4, 5], [9, 0, 0])[[2, 0]])
