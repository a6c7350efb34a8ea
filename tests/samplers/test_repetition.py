"""No word beside itself: by every sampler, with its exceptions, and never at the price of an unfinished text."""

import pytest
import torch

from diffusion_bert.diffusion.schedule import NoiseSchedule
from diffusion_bert.samplers import SAMPLERS, Repeats, SamplerOptions
from tests.helpers.chain import keys_of

VOCAB, MASK = 12, 11
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())


def rules(
    rows: int, source: list[int] = (), repeatable: list[int] = (), content: list[int] = (), before: int = -1
) -> Repeats:
    flags = torch.zeros(2, VOCAB, dtype=torch.bool)
    flags[0, list(repeatable)] = True
    flags[1, list(content)] = True
    ids = torch.tensor([[*source, -1, -1]]).expand(rows, -1)
    return Repeats(ids, flags[0], flags[1], torch.full((rows,), bool(content)), torch.full((rows,), before))


def write(
    sampler, log_mu: torch.Tensor, repeats: Repeats | None, x_t: torch.Tensor | None = None, seed: int = 0, **options
) -> torch.Tensor:
    """x_0 [B, T] of a denoiser that knows one distribution per place, log_mu [B, T, V]."""
    x_t = torch.full(log_mu.shape[:2], MASK) if x_t is None else x_t
    keys = keys_of(len(x_t), seed)
    options = SamplerOptions(repeats=repeats, **{"steps": 5, **options})
    return sampler(
        lambda x, tau, rows: log_mu[rows][x == MASK], x_t, NoiseSchedule(), MASK, torch.ones(len(x_t)), options, keys
    ).x_0


def alike(rows: int = 300, places: int = 8, seed: int = 0) -> torch.Tensor:
    """log mu [rows, places, V]: all places of a row like the same few words, [MASK] has none."""
    logits = (
        2 * torch.randn(rows, 1, VOCAB, generator=torch.Generator().manual_seed(seed)).expand(-1, places, -1).clone()
    )
    logits[..., MASK] = float("-inf")
    return torch.log_softmax(logits, -1)


def repeats_of(x: torch.Tensor) -> torch.Tensor:
    """The words that stand directly after themselves."""
    return x[:, 1:][x[:, 1:] == x[:, :-1]]


@each_sampler
@pytest.mark.parametrize("steps", (1, 3, 20))
@pytest.mark.parametrize("temperature", (0.0, 1.0))
def test_no_word_stands_beside_itself(sampler, steps, temperature):
    """Off, such a denoiser repeats all the time; on, never, down to a single call, and everything is written."""
    log_mu = alike()
    assert len(repeats_of(write(sampler, log_mu, None, steps=steps, temperature=temperature))) > 300
    x_0 = write(sampler, log_mu, rules(300), steps=steps, temperature=temperature)
    assert len(repeats_of(x_0)) == 0 and not bool((x_0 == MASK).any())


@each_sampler
def test_what_may_repeat(sampler):
    """A piece that may stand beside itself still does, and so does one that the source has twice in a row; one that it
    has twice apart does not.
    """
    x_0 = write(sampler, alike(), rules(300, source=[3, 3, 7, 5, 7], repeatable=[2]), steps=3)
    assert set(repeats_of(x_0).tolist()) == {2, 3}


@each_sampler
def test_neighbours_that_were_given(sampler):
    """Words beside given ones differ from them; given words that repeat stay as they are; so does the word before the
    first place.
    """
    x_t = torch.full((300, 8), MASK)
    x_t[:, 3:5] = 6
    x_0 = write(sampler, alike(), rules(300, before=1), x_t)
    assert bool((x_0[:, 3:5] == 6).all()) and set(repeats_of(x_0).tolist()) == {6} and len(repeats_of(x_0)) == 300
    assert not bool((x_0[:, 0] == 1).any())


@each_sampler
@pytest.mark.parametrize("steps", (1, 4))
def test_content_words_are_counted(sampler, steps):
    """A content word stands as often as in the source at most, once if it is not there; other words as often as the
    model likes.
    """
    content, source = [0, 1, 2, 3, 4], [1, 9, 1, 8, 1]
    x_0 = write(sampler, alike(), rules(300, source=source, content=content), steps=steps)
    most = [int((x_0 == word).sum(-1).max()) for word in range(VOCAB - 1)]
    assert [most[word] for word in content] == [1, 3, 1, 1, 1] and max(most[5:]) > 3
    assert len(repeats_of(x_0)) == 0


@each_sampler
def test_the_surer_place_keeps_the_word(sampler):
    """Of two places that want the same word in one call the more probable one gets it; the other takes its next
    best.
    """
    mu = torch.full((1, 2, VOCAB), 1e-6)
    mu[0, 0, 3], mu[0, 0, 4], mu[0, 1, 3], mu[0, 1, 5] = 0.7, 0.3, 0.9, 0.1
    mu[..., MASK] = 0.0
    x_0 = write(sampler, mu.log(), rules(1), steps=1, temperature=0.0, gamma=9.0)
    if sampler is not SAMPLERS["first_hitting"]:  # which reveals one after the other, in any order
        assert x_0.tolist() == [[4, 3]]
    assert x_0.tolist() in ([[4, 3]], [[3, 5]])


@each_sampler
def test_where_nothing_else_is_possible(sampler):
    """Where only one word has mass it is written even beside itself: rules never leave a place empty or invent a
    word.
    """
    log_mu = torch.full((4, 5, VOCAB), float("-inf"))
    log_mu[..., 7] = 0.0
    for repeats in (rules(4), rules(4, content=[7])):
        assert bool((write(sampler, log_mu, repeats, steps=3) == 7).all())


@each_sampler
def test_rows_have_their_own_rules(sampler):
    """At temperature 0 a row is written the same alone and among others, with a source of its own."""
    log_mu, repeats = alike(6), rules(6, content=[0, 1, 2, 3, 4, 5])
    repeats = Repeats(
        torch.randint(8, (6, 9), generator=torch.Generator().manual_seed(1)),
        repeats.repeatable,
        repeats.content,
        torch.tensor([True, False] * 3),
        torch.arange(6),
    )
    if sampler in (SAMPLERS["ancestral"], SAMPLERS["first_hitting"], SAMPLERS["remask"]):
        return  # their order is random
    together = write(sampler, log_mu, repeats, temperature=0.0)
    for row in range(6):
        one = slice(row, row + 1)
        alone = Repeats(
            repeats.source_ids[one], repeats.repeatable, repeats.content, repeats.counted[one], repeats.before[one]
        )
        assert torch.equal(write(sampler, log_mu[one], alone, temperature=0.0)[0], together[row])
