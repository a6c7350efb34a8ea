"""BERTScore with a small random BERT: its defining properties, by hand and through a model, and what is refused."""

import pytest
import torch

from diffusion_bert.evaluation.bertscore import BertScorer, f_measure
from tests.helpers.models import refusal, save_bert


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    """Random weights: enough for every property that does not speak of meaning."""
    folder = tmp_path_factory.mktemp("bertscore") / "bert"
    save_bert(folder)
    return BertScorer(str(folder))


def test_f_measure_by_hand():
    """Reference (e1, e2), hypothesis (e1): R = (1 + 0) / 2, P = 1, F = 2/3; what does not count may be matched but is
    not averaged.
    """
    e1, e2 = torch.eye(2)
    both, one = torch.stack([e1, e2]), e1[None]
    yes = torch.tensor([True])
    assert f_measure(both, torch.tensor([True, True]), one, yes) == pytest.approx(2 / 3)
    assert f_measure(both, torch.tensor([True, False]), one, yes) == pytest.approx(1.0)
    assert f_measure(both, torch.tensor([False, True]), one, yes) == 0.0
    assert f_measure(both, torch.tensor([False, False]), one, yes) == 0.0


def test_identical_texts_give_100(scorer):
    """And others give less."""
    texts = ["how can i learn to cook?", "what is the q", "a"]
    assert scorer.score(texts, texts) == pytest.approx([100.0] * 3, abs=1e-3)
    others = scorer.score(texts, ["what is the q", "how can i play!", "the cook learn"])
    assert all(0 < value < 99.9 for value in others)


def test_swapping_keeps_f(scorer):
    """Swapping reference and hypothesis swaps precision and recall; an empty text scores 0."""
    one, other = ["how can i learn to cook?", ""], ["ask the cook", "a cook"]
    assert scorer.score(one, other) == pytest.approx(scorer.score(other, one), abs=1e-4)
    assert scorer.score(one, other)[1] == 0.0


def test_company_does_not_matter(scorer):
    """A pair scores the same alone and beside longer texts, in the order of the input."""
    texts, written = ["a cook", "how can i learn to play and ask?", "the q"], ["cook", "how to learn", "the q is a q"]
    together = scorer.score(texts, written)
    assert together == pytest.approx([scorer.score([one], [other])[0] for one, other in zip(texts, written)], abs=1e-3)


def test_refusals(tmp_path):
    """No such directory, a broken one, one without weights, and a hub that cannot be reached: one line each."""
    assert "config.json is missing" in refusal(BertScorer, str(tmp_path / "nowhere"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert "cannot load the BERTScore model" in refusal(BertScorer, str(tmp_path / "broken"))
    assert "cannot reach" in refusal(BertScorer, "microsoft/deberta-xlarge-mnli")
