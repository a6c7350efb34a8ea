"""The share of masked words that a model guesses."""

import random

import torch

from benchmarks.quality import masked_words
from benchmarks.quality.masked_words import masked_text, top_one, wilson
from diffusion_bert.model.checkpoint import save_checkpoint
from tests.helpers.models import grammar_pairs, new_model, refusal
from tests.helpers.scripts import run


def test_masked_words(tmp_path):
    """A model that always says one word is right where that word was masked, and as often as the floor if it is the
    most common.
    """
    model = new_model()
    texts = [
        pair.target
        for pair in grammar_pairs()[:20]
        if len(model.tokenizer.encode(pair.target)) <= model.denoiser.max_target_length
    ]
    most_common = int(model.token_counts.argmax())
    with torch.no_grad():
        model.denoiser.mlm.cls.predictions.bias[most_common] = 1e4
    used, places, right, floor = top_one(model, [*texts, "word " * 99], 1.0)
    written = [index for text in texts for index in model.tokenizer.encode(text)]
    assert used == len(texts) and places == len(written) and right == floor == written.count(most_common) > 0
    save_checkpoint(tmp_path / "model.pt", model)
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    done = run("benchmarks.quality.masked_words", tmp_path / "model.pt", tmp_path / "texts.txt", "--share", "1")
    assert done.code in (None, 0) and f"| model | {places} | {100 * right / places:.1f}" in done.out, done.err
    assert "above 0" in refusal(
        masked_words.main, [str(tmp_path / "model.pt"), str(tmp_path / "texts.txt"), "--share", "0"]
    )


def test_masked_text_and_interval():
    """The share is kept, at least one place; the interval is Wilson's (10 of 20: 29.9 to 70.1)."""
    assert masked_text([5] * 20, 0.15, 1, random.Random(0)).count(1) == 3 and masked_text(
        [5], 0.15, 1, random.Random(0)
    ) == [1]
    assert [round(value, 1) for value in wilson(10, 20)] == [29.9, 70.1]
