"""Fluency and meaning by small random models: their formulas by hand, and what is refused."""

import math

import pytest
import torch

from diffusion_bert.evaluation.fluency import FluencyJudge
from diffusion_bert.evaluation.meaning import MeaningJudge
from diffusion_bert.evaluation.report import judged_sentence, table
from tests.helpers.models import refusal, save_bert, save_gpt

TEXTS = ["how can i learn", "the cook", "a q", "can i play the cook and learn to ask"]


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    """(folder, model) of a random causal language model."""
    folder = tmp_path_factory.mktemp("gpt")
    return folder, save_gpt(folder).double().eval()


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """(folder, model) of a random encoder."""
    folder = tmp_path_factory.mktemp("bert")
    return folder, save_bert(folder, "BertModel").double().eval()


@torch.no_grad()
def test_fluency_is_the_mean_of_the_negative_logs(gpt):
    """Word by word, one text at a time, in float64: -1/n sum log p(x_i | x_<i), the first word after the start."""
    folder, model = gpt
    judge = FluencyJudge(str(folder))
    for text, nats in zip(TEXTS, judge.nats(TEXTS)):
        ids = [0, *judge.tokenizer(text).input_ids]
        by_hand = [
            -float(model(torch.tensor([ids[:place]])).logits[0, -1].log_softmax(-1)[ids[place]])
            for place in range(1, len(ids))
        ]
        assert len(by_hand) == len(text.split()) and nats == pytest.approx(math.fsum(by_hand) / len(by_hand), abs=1e-5)


def test_fluency_columns(gpt):
    """Perplexity is e to the mean of the nats, and so are the ends of its interval; an empty text is a guess among all
    tokens; company does not matter.
    """
    judge = FluencyJudge(str(gpt[0]))
    values = judge.measured(TEXTS, TEXTS, TEXTS)
    nats = [FluencyJudge(str(gpt[0])).nats([text])[0] for text in TEXTS]
    assert values["fluency"] == pytest.approx(sum(nats) / len(nats), abs=1e-5)
    assert values["perplexity"] == pytest.approx(math.exp(values["fluency"]))
    low, high = values["perplexity_interval"]
    assert low < values["perplexity"] < high and math.log(high) == pytest.approx(values["fluency_interval"][1])
    assert judge.nats([""]) == [pytest.approx(math.log(judge.model.config.vocab_size))]


def test_a_model_without_a_start_token(tmp_path):
    """The first token of the vocabulary stands in, and a text longer than the model reads is cut."""
    save_gpt(tmp_path, start_token=False)
    nats = FluencyJudge(str(tmp_path)).nats(["the cook", "the cook " * 200])
    assert all(0 < value < 20 for value in nats)


@torch.no_grad()
def test_meaning_is_the_cosine_of_mean_vectors(bert):
    """One pair at a time, in float64."""
    folder, model = bert
    judge = MeaningJudge(str(folder))

    def vector(text: str) -> torch.Tensor:
        encoded = judge.tokenizer(text, return_tensors="pt")
        return model(**encoded).last_hidden_state[0].mean(0)

    pairs = list(zip(TEXTS, TEXTS[1:] + TEXTS[:1]))
    found = judge.cosines(*zip(*pairs))
    for value, (one, other) in zip(found, pairs):
        assert value == pytest.approx(float(torch.cosine_similarity(vector(one), vector(other), dim=0)), abs=1e-5)


def test_meaning_limits(bert):
    """A copy has 1, order does not matter, an empty text has 0; the references are not looked at."""
    judge = MeaningJudge(str(bert[0]))
    assert judge.cosines(TEXTS, TEXTS) == pytest.approx([1.0] * 4, abs=1e-5)
    assert judge.cosines(TEXTS, TEXTS[::-1]) == pytest.approx(judge.cosines(TEXTS[::-1], TEXTS), abs=1e-6)
    assert judge.cosines(["the cook", ""], ["", "the cook"]) == [0.0, 0.0]
    assert judge.measured(TEXTS, ["", "", "", ""], TEXTS)["meaning"] == pytest.approx(1.0, abs=1e-5)


def test_the_report_says_both():
    """A sentence of outputs beside sources and references; columns only where a judge was asked."""
    rows = {
        "model": {"bleu": 20.0, "perplexity": 31.26, "perplexity_interval": [29.0, 34.04], "meaning": 0.9123},
        "copy": {"bleu": 10.0, "perplexity": 22.0, "meaning": 1.0},
        "reference": {"perplexity": 25.0, "meaning": 0.875},
    }
    assert judged_sentence(rows) == (
        "perplexity per token: outputs 31.3 (29.0-34.0), sources 22.0, references 25.0\n"
        "meaning kept: outputs 0.912, references 0.875"
    )
    assert judged_sentence({"model": {"bleu": 1.0}}) == ""
    assert "| BLEU | perplexity | meaning |" in table(rows) and "| reference |  | 25.0 | 0.875 |" in table(rows)


def test_refusals(gpt, bert, tmp_path):
    """No such folder, a model without the weights that count, one that sees ahead, and a hub that cannot be reached."""
    assert "fluency_model is" in refusal(FluencyJudge, str(tmp_path / "nowhere"))
    assert "meaning_model is" in refusal(MeaningJudge, str(tmp_path / "nowhere"))
    assert "lacks weights" in refusal(FluencyJudge, str(bert[0]))
    save_bert(tmp_path / "mlm", "BertLMHeadModel")
    assert "expected a causal language model" in refusal(FluencyJudge, str(tmp_path / "mlm"))
    assert "cannot reach" in refusal(FluencyJudge, "someone/no-such-model")
    assert "cannot reach" in refusal(MeaningJudge, "someone/no-such-model")
