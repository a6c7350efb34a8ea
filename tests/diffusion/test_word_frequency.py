"""Informativeness: rare = positive, common = negative, fixed per token type."""

import math

import numpy as np
import pytest
import torch

from diffusion_bert.diffusion.word_frequency import count_tokens, informativeness


def test_count_tokens():
    """Counts over lists, arrays and empty sequences."""
    counts = count_tokens([[3, 3, 1], np.array([1, 0], dtype=np.uint16), []], 5)
    assert counts.tolist() == [1, 2, 0, 2, 0] and counts.dtype == torch.int64
    assert count_tokens([], 3).tolist() == [0, 0, 0]


def test_by_hand():
    """Counts 7, 1, 0 worked out on paper: f = 1, 1/3, 0; m = (7 + 1/3) / 8 = 11/12; gaps -1/12, 7/12, 11/12; divided by
    11/12.
    """
    h = informativeness(torch.tensor([7, 1, 0]))
    torch.testing.assert_close(h, torch.tensor([-1 / 11, 7 / 11, 1.0], dtype=torch.float64))


def test_by_hand_with_specials():
    """The same words beside two specials with huge counts: the specials get 0 and change nothing."""
    h = informativeness(torch.tensor([9999, 7, 1, 10**9, 0]), special_ids=[0, 3])
    torch.testing.assert_close(h, torch.tensor([0.0, -1 / 11, 7 / 11, 0.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("seed", range(5))
def test_properties_on_random_counts(seed):
    """max|h| = 1, the mean of h over running words is 0, rarer words never have smaller h, and unseen ids are the
    rarest.
    """
    counts = torch.from_numpy(np.random.default_rng(seed).zipf(1.6, 200).clip(max=10**6) - 1)
    h = informativeness(counts)
    assert h.abs().max().item() == 1.0
    assert abs(float((counts * h).sum() / counts.sum())) < 1e-12
    assert bool((h[counts.argsort(stable=True)].diff() <= 0).all())
    assert bool((h[counts == 0] == h.max()).all())


def test_unseen_ids_take_part_in_the_maximum():
    """An unseen id is the farthest from the mean here, so it gets exactly 1 and the seen ones less."""
    h = informativeness(torch.tensor([100, 50, 0]))
    assert h[2] == 1.0 and bool((h[:2].abs() < 1).all())


@pytest.mark.parametrize("counts", [[0, 0, 0], [], [5, 5, 5], [1, 1, 1], [math.floor(1e12)] * 4])
def test_nothing_to_tell_apart(counts):
    """No counts, or all equal: h = 0 everywhere."""
    h = informativeness(torch.tensor(counts, dtype=torch.int64))
    assert h.dtype == torch.float64 and not bool(h.any())


def test_only_specials_counted():
    """A corpus of nothing but specials tells nothing."""
    assert not bool(informativeness(torch.tensor([10, 20, 0]), special_ids=[0, 1]).any())


def test_counts_are_not_changed():
    """The caller's counts stay as they are."""
    counts = torch.tensor([4, 2, 1])
    informativeness(counts, special_ids=[0])
    assert counts.tolist() == [4, 2, 1]


def test_counting_in_parts():
    """More than a million ids are counted in parts, with the same result as by hand."""
    blocks = [np.full(700_000, number % 3) for number in range(4)]
    assert count_tokens(iter(blocks), 4).tolist() == [1_400_000, 700_000, 700_000, 0]
