"""No invented words: what is forbidden while others stand, what clashes in one call, and what a sampler leaves."""

import itertools

import pytest
import torch

from diffusion_bert.data.lexicon import Lexicon
from diffusion_bert.diffusion.schedule import NoiseSchedule
from diffusion_bert.samplers import SAMPLERS, SamplerOptions, Spelling
from tests.helpers.chain import keys_of

MASK, VOCAB = 0, 8  # 1 to 4 begin a word, 5 to 7 go on with one
CONTINUES = torch.tensor([False] * 5 + [True] * 3)
WORDS = {(1, 5), (1, 5, 6), (2, 6), (2, 6, 5, 7)}
OWN = {(3, 7)}


def spelling(rows: int = 1, words=WORDS, own=OWN) -> Spelling:
    return Spelling(Lexicon(words), [Lexicon(own if row == 0 else ()) for row in range(rows)], CONTINUES)


def is_spelt(text: list[int], words=WORDS | OWN) -> bool:
    """Whether every continuation of a finished text belongs to a known word."""
    found: list[list[int]] = []
    for index in text:
        if bool(CONTINUES[index]):
            if not found:
                return False
            found[-1].append(index)
        else:
            found.append([index])
    return all(len(word) == 1 or tuple(word) in words for word in found)


def test_one_hole_is_exact():
    """Where all other places stand, a piece is allowed just if it makes a text of known words, if any piece does."""
    rules = spelling()
    for rest in itertools.product(range(1, VOCAB), repeat=3):
        for hole in range(4):
            text = [*rest[:hole], MASK, *rest[hole:]]
            if bool(CONTINUES[text[0]]):
                continue  # nothing begins with a continuation
            log_mu = torch.zeros(1, VOCAB)
            log_mu[:, MASK] = float("-inf")
            rules.forbid(torch.tensor([text]), torch.tensor([0]), torch.tensor([hole]), log_mu, MASK)
            # words that do not touch the hole are no concern of it
            start, end = hole, hole + 1
            while start > 0 and bool(CONTINUES[text[start - 1]]):
                start -= 1
            start = max(0, start - 1)
            while end < 4 and bool(CONTINUES[text[end]]):
                end += 1
            fits = [is_spelt([*text[start:hole], piece, *text[hole + 1 : end]]) for piece in range(1, VOCAB)]
            expected = fits if any(fits) else [True] * (VOCAB - 1)
            assert log_mu[0, 1:].isfinite().tolist() == expected, text


def test_what_can_still_become_a_word_is_allowed():
    """No text of known words is cut off: from any of its maskings every true piece keeps its mass."""
    rules = spelling()
    texts = [[1, 5, 6, 4], [2, 6, 5, 7], [4, 3, 7, 2], [2, 6, 1, 5], [1, 2, 3, 4]]
    for text, hidden in itertools.product(texts, itertools.product([False, True], repeat=4)):
        columns = torch.tensor([place for place in range(4) if hidden[place]], dtype=torch.long)
        x_t = torch.tensor([[MASK if hide else word for word, hide in zip(text, hidden)]])
        log_mu = torch.zeros(len(columns), VOCAB)
        rules.forbid(x_t, torch.zeros_like(columns), columns, log_mu, MASK)
        assert all(log_mu[number, text[place]] == 0 for number, place in enumerate(columns.tolist()))


def test_only_the_row_with_the_source_may_write_its_words():
    """The second row does not have the words of the first one's source."""
    rules, x_t = spelling(2), torch.tensor([[3, MASK], [3, MASK]])
    log_mu = torch.zeros(2, VOCAB)
    rules.forbid(x_t, torch.tensor([0, 1]), torch.tensor([1, 1]), log_mu, MASK)
    assert log_mu[:, 7].isfinite().tolist() == [True, False] and bool(log_mu[:, 5:7].isneginf().all())


def test_clash():
    """Of pieces chosen in one call that make no known word the best-scored one stays; known words all do."""
    rules = spelling()
    x_t = torch.full((1, 4), MASK)
    places = torch.zeros(4, dtype=torch.long), torch.arange(4)
    score, every = torch.tensor([-1.0, -0.5, -2.0, -0.1]), torch.ones(4, dtype=torch.bool)

    def clash(words: list[int], chosen=every) -> list[bool]:
        return rules.clash(x_t, *places, torch.tensor(words), chosen, score, MASK).tolist()

    assert clash([1, 5, 6, 4]) == clash([3, 7, 2, 6]) == [False] * 4
    assert clash([1, 7, 4, 4]) == [True, False, True, False]  # the place behind ends the word
    assert clash([4, 4, 4, 6]) == [False, False, True, False]
    assert clash([1, 7, 4, 4], torch.tensor([False, True, False, False])) == [False] * 4


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 4])
def test_few_unknown_words_are_left(sampler, steps):
    """With a denoiser that knows no words, most rows come out spelt, where nearly none did before (a word begun on both
    sides of a gap may find none for it); what is left is reported.
    """
    torch.manual_seed(0)
    x_t = torch.full((64, 6), MASK)

    def denoise(canvas, tau, rows):
        log_mu = torch.randn(int((canvas == MASK).sum()), VOCAB)
        log_mu[:, MASK] = float("-inf")
        return log_mu.log_softmax(-1)

    shares = []
    for rules in (None, spelling(64)):
        options = SamplerOptions(steps=steps, spelling=rules)
        keys = keys_of(64, 1)
        x_0 = SAMPLERS[sampler](
            denoise, x_t, NoiseSchedule("mutual"), MASK, torch.ones(64, dtype=torch.float64), options, keys
        ).x_0
        assert MASK not in x_0
        good = [is_spelt(text, WORDS | (OWN if row == 0 else set())) for row, text in enumerate(x_0.tolist())]
        shares.append(sum(good) / 64)
        unknown = spelling(64).unknown_places(x_0, torch.ones_like(x_0, dtype=torch.bool), MASK).any(-1)
        assert unknown.tolist() == [not flag for flag in good]
    assert shares[0] < 0.2 and shares[1] > 0.75, shares
