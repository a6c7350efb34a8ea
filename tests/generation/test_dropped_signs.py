"""Signs that a tokenizer drops (accents of their own, joiners, variation selectors) go with the word they belong to."""

import random

import pytest

from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.generation.canvas import CONTINUATION, NEW_WORD, NO_SIGN
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.generation.infilling import mask_text, splice, tokenize_masked
from diffusion_bert.text.masks import missing_mark, shown
from tests.helpers.models import new_model

WORDS = {
    "acute accent at the end": "cafe\u0301",
    "diaeresis inside": "ko\u0308nig",
    "two marks on a letter": "a\u0323\u0302n",
    "zero-width joiner at the end": "learn\u200d",
    "zero-width space inside": "mu\u200bseum",
    "word joiner at the beginning": "\u2060cook",
    "byte-order mark at the beginning": "\ufeffcook",
    "soft hyphen inside": "mu\u00adseum",
    "variation selector": "cook\ufe0f",
    "right-to-left mark": "open\u200f",
    "Hebrew points": "\u05e9\u05c1\u05b8",
}


@pytest.fixture(scope="module")
def generator() -> DiffusionTextGenerator:
    return DiffusionTextGenerator(new_model(strip_accents=True), SamplingConfig(num_steps=2, temperature=1.0))


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("pattern", ["{} the museum", "where is {} today?", "Open {}", "\u201c{}\u201d, he said"])
def test_a_replaced_word_leaves_no_sign_behind(generator, word, pattern):
    """Whichever words fill chooses, this one stands as it was typed or is gone with all its signs."""
    tokenizer, text, signs, replaced = generator.tokenizer, pattern.format(word), set(word) - set(shown(word)), 0
    (new,) = tokenizer.encode("the")
    for seed in range(20):
        masked = mask_text(text, tokenizer, generator.model.schedule, random.Random(seed))
        ids = [new if index == tokenizer.mask_id else index for index in masked.canvas.words]
        written = "".join(part for part, _ in splice(masked, ids, tokenizer, lambda whole, typed: whole))
        assert word in written or not signs & set(written), ascii(written)
        replaced += word not in written
    assert 0 < replaced < 20


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
def test_what_is_not_replaced_stays(generator, word):
    """Beside a [MASK] or gap every sign comes back, also at once beside it."""
    for hole in ("[MASK]", "[MASK*]"):
        for pattern in ("{word} {hole}", "{word}{hole} {word}", "{hole}{word}", "\u0301{hole}\u200d {word}"):
            text = pattern.format(word=word, hole=hole)
            before, after = text.split(hole)
            for filled in generator.fill_masks(text, num_samples=2, max_gap=2):
                assert filled.startswith(before) and filled.endswith(after) and hole not in filled


def test_spans_are_the_whole_word(generator):
    """The offsets of the pieces of a word leave out nothing of it; white space belongs to none."""
    tokenizer = generator.tokenizer
    for word in WORDS.values():
        ids, spans = tokenize_masked(f" {word} the  {word}", tokenizer)
        assert spans[0][0] == 1 and spans[-1][1] == 2 * len(word) + 7
        covered = {place for start, end in spans for place in range(start, end)}
        assert len(covered) == 2 * len(word) + 3 and len(ids) == len(spans)


def test_a_mark_stays_on_what_it_stands_on(generator):
    """The variation selector of a sign belongs to the sign, a joiner behind it to the word."""
    for text, start in (("where is #\ufe0fcook?", 11), ("where is #\u2060cook?", 10)):
        ids, spans = tokenize_masked(text, generator.tokenizer)
        assert start in [first for first, _ in spans], spans


@pytest.mark.parametrize("word", ["cafe\u0301", "museum\u200d", "cook\ufe0f"])
def test_a_word_with_a_sign_at_its_end_is_a_word(generator, word):
    """A [MASK] glued to it goes on with it, a text that ends with it lacks its mark, and its apostrophe is one."""
    model = generator.model

    def kind(text: str) -> int:
        canvas = mask_text(text, model.tokenizer, model.schedule, random.Random(0)).canvas
        return canvas.constraints[canvas.words.index(model.tokenizer.mask_id)]

    assert kind(f"{word}[MASK]") == CONTINUATION + NO_SIGN and kind(f"{word} [MASK]") == NEW_WORD + NO_SIGN
    assert missing_mark(f"the {word}") == "." and missing_mark(f"where is the {word}") == "?"
    for text in generator.fill_masks(f"open {word}'s museum", num_samples=6, temperature=3.0):
        assert f"{word}'s" in text
