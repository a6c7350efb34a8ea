"""Text in, text out, with a random model: what was typed stays, shapes and limits hold, mistakes give one line."""

import random
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.data.skills import NO_SOURCE, PAIR
from diffusion_bert.generation.canvas import Canvas
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.generation.infilling import FILL_SHARE, MaskedText, mask_text, splice, tokenize_masked
from diffusion_bert.generation.ranking import Ranking, ranking_score
from diffusion_bert.model.diffusion_model import build_model
from diffusion_bert.text.english import continued, split_sentences
from tests.helpers.models import grammar_pairs, refusal, save_bert, tiny_config, tiny_model

FAST = SamplingConfig(num_steps=3)
SOURCE = "How can I learn to cook?"
SHORT = [pair.source for pair in grammar_pairs() if len(tiny_model().tokenizer.encode(pair.source)) <= 20]
LONG = " ".join(SHORT[:6])
SKILLS = ("paraphrase_text", "complete_text", "fill_masks")
each_skill = pytest.mark.parametrize("skill", SKILLS)
each_attention = pytest.mark.parametrize("attention", ["isolated", "full"])


def generator(attention: str = "isolated") -> DiffusionTextGenerator:
    return DiffusionTextGenerator(tiny_model(attention), FAST)


def typed_part_stays(text: str, filled: str) -> bool:
    """Everything outside the [MASK]s of ``text`` is in ``filled`` as it was typed, with something in each [MASK]'s
    place.
    """
    pattern = "(.+?)".join(re.escape(part) for part in text.split("[MASK]"))
    return re.fullmatch(pattern, filled, re.DOTALL) is not None and "[MASK]" not in filled


def short_words(g: DiffusionTextGenerator, count: int) -> list[str]:
    """Words that are one piece each."""
    return [token for token in g.tokenizer.tokens if token.isalpha() and len(token) > 2][:count]


# ---- shapes and seeds ----------------------------------------------------------------------------------------------


@each_skill
@each_attention
def test_shapes(skill, attention):
    """A string gives num_samples distinct strings, a list a list of such lists, in the order given; an empty list gives
    an empty one.
    """
    work = getattr(generator(attention), skill)
    for count in (1, 4):
        one = work(SOURCE, num_samples=count)
        assert len(one) == len(set(one)) == count and all(isinstance(text, str) and text.strip() for text in one)
    many = work([SOURCE, "Why?", SOURCE + " Where?"], num_samples=2)
    assert [len(texts) for texts in many] == [2, 2, 2]
    assert len(work((SOURCE,), num_samples=1)) == 1 and work([]) == []


@each_skill
def test_texts_do_not_influence_each_other(skill):
    """At temperature 0 a text gets the same answer alone and among others, whatever the batch size."""
    texts = [SOURCE, "Why is the [MASK]?", *SHORT[:5]]
    work = getattr(generator(), skill)
    together = work(texts, num_samples=1, temperature=0.0)
    assert (
        together
        == work(texts, num_samples=1, temperature=0.0, batch_size=1)
        == [work(text, num_samples=1, temperature=0.0) for text in texts]
    )


@each_skill
def test_seeds(skill):
    """The same seed gives the same texts, another seed others."""
    work = getattr(generator(), skill)
    one = work(SOURCE, temperature=1.0, seed=5)
    assert one == work(SOURCE, temperature=1.0, seed=5) != work(SOURCE, temperature=1.0, seed=6)


def test_options_of_the_generator_and_of_the_call():
    """Options are set once and overridden per call, without changing what was set."""
    g = DiffusionTextGenerator(tiny_model(), SamplingConfig(num_steps=3, num_samples=2))
    assert len(g.paraphrase_text(SOURCE)) == 2 and len(g.paraphrase_text(SOURCE, num_samples=5)) == 5
    assert len(g.paraphrase_text(SOURCE)) == 2 and g.options.num_samples == 2


@each_skill
def test_candidates_are_distinct_even_at_temperature_zero(skill):
    """Candidates that come out twice are tried again: no two are equal."""
    found = getattr(generator(), skill)(SOURCE, num_samples=5, temperature=0.0)
    assert len(set(found)) == 5


def test_candidates_differ_from_the_source_where_possible():
    """What equals the text to avoid comes last, and only when nothing else is found."""
    g = generator()
    examples, keys = [(PAIR, g.tokenizer.encode(SOURCE))], [(SOURCE, 0)]
    names = iter(["Same.", "other", "same.", "Same.", "third"] + ["other"] * 50)
    (found,) = g._candidates(
        examples, keys, SamplingConfig(num_steps=1, num_samples=3), lambda *_: next(names), avoid=["  SAME. "]
    )
    assert sorted(found.texts[:2]) == ["other", "third"] and found.texts[2] == "Same." and found.trace is None
    assert g._candidates(examples, keys, SamplingConfig(num_steps=1, num_samples=3), lambda *_: "x", avoid=["x"]) == [
        (["x"], None)
    ]


@each_skill
def test_no_special_token_is_ever_written(skill):
    """No [UNK], [PAD] or ## in any text, even from a source of unknown signs."""
    for text in getattr(generator(), skill)(
        ["\U0001f600 \u4e2d\u6587 how?", SOURCE], temperature=3.0, top_p=1.0, num_samples=4
    ):
        assert not any(re.search(r"\[(UNK|PAD|CLS|SEP|MASK|unused)|##", candidate) for candidate in text)


# ---- paraphrase and complete ---------------------------------------------------------------------------------------


def test_generated_sentences_look_like_sentences():
    """An uncased vocabulary gives sentences with a capital and no blank before punctuation; names take the source's
    spelling.
    """
    g = generator()
    for text in g.paraphrase_text(SOURCE, num_samples=6, temperature=1.0):
        assert not text[0].islower() and " ?" not in text and " ." not in text and text == text.strip()
    assert g.sentence(g.tokenizer.encode("how can i go to paris ?"), "I love Paris.") == "How can I go to Paris?"


@pytest.mark.parametrize(
    "text", [SOURCE, "  two  BLANKS\tand tab", "iPhone \u2014 caf\u00e9", "a \ufb01rst \u00df", "a", "Is that so?"]
)
def test_complete_starts_with_the_typed_text(text):
    """The text comes back as it was typed (outer blanks at its end aside), and something is added."""
    for candidate in generator().complete_text(text, num_samples=3):
        assert candidate.startswith(text.rstrip()) and len(candidate) > len(text.rstrip())


def test_a_text_of_several_sentences_is_paraphrased_one_by_one():
    """A text too long for the model is worked on sentence by sentence: as many candidates, each with all sentences."""
    g = generator()
    assert not g._fits_as_source(LONG) and len(split_sentences(LONG)) > 3
    found = g.paraphrase_text(LONG, num_samples=3)
    assert len(found) == len(set(found)) == 3
    parts = [g.paraphrase_text(part, num_samples=1, temperature=0.0)[0] for part in split_sentences(LONG)]
    assert g.paraphrase_text(LONG, num_samples=1, temperature=0.0) == ["".join(parts)]


@pytest.mark.parametrize("skill, limit", [("paraphrase_text", 39), ("fill_masks", 24), ("complete_text", 58)])
def test_too_long_a_sentence_is_refused_with_the_limit(skill, limit):
    """At the limit a sentence is taken whole, one piece over it is refused with both numbers; nothing is cut."""
    work = getattr(generator(), skill)
    text = " ".join(["how"] * limit)
    assert work(text, num_samples=1)
    message = refusal(work, text + " how", num_samples=1)
    assert str(limit) in message and str(limit + 1) in message
    if skill != "complete_text":
        refusal(work, "Why? " + text + " how.", num_samples=1)


# ---- fill ----------------------------------------------------------------------------------------------------------

pieces = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
        st.sampled_from("aB zI'.,?!- \t\n\u00e9\u0301\u00df\u0130\ufb01#[]"),
    ),
    max_size=8,
)


def test_a_sign_in_the_place_of_a_word_stands_at_the_word_before():
    """What fill hides by itself takes its space along when a sign comes instead; in the place of a typed [MASK] the
    space stays.
    """
    tokenizer, text = tiny_model().tokenizer, "Where is the museum today"
    stop = tokenizer.encode(".")[0]
    for typed, expected in ((text, "Where is the museum."), (text.replace("today", "[MASK]"), "Where is the museum .")):
        ids, spans = tokenize_masked(typed, tokenizer)
        last = [place for place, (start, _) in enumerate(spans) if start >= typed.rindex(" ")]
        words = [tokenizer.mask_id if place in last else index for place, index in enumerate(ids)]
        masked = MaskedText(
            typed,
            Canvas(NO_SOURCE, [], words[: last[0] + 1], 0.5),
            [*spans[: last[0]], (spans[last[0]][0], len(typed))],
        )
        parts = splice(masked, [*ids[: last[0]], stop], tokenizer, lambda whole, typed: whole)
        assert "".join(part for part, _ in parts) == expected


@settings(max_examples=120, deadline=None, database=None, derandomize=True)
@given(st.lists(pieces, min_size=2, max_size=4))
@example(["", ""])
@example(["\u00df ", " \ufb01x "])
@example(["\u0130", "\u0130 \u4e2d", "\uac00"])
@example(["Hello.\n\nI ", " #[masc] [SEP]", "##ing"])
@example(["  HOW  can\t", "learn ", " , \u201cto\u201d  Cook ?  "])
@example(["a\u0301", "\u200bx\u200d", " e\u0301 "])
def test_fill_returns_everything_outside_the_masks_exactly(parts):
    """Case, spacing and every sign outside [MASK] come back as typed, whatever they are; every [MASK] is replaced."""
    text = "[MASK]".join(parts)
    for filled in generator().fill_masks(text, num_samples=2, num_steps=2, temperature=1.0):
        assert typed_part_stays(text, filled), filled


@each_attention
def test_adjacent_and_glued_masks(attention):
    """Each [MASK] takes one piece: after a letter or another [MASK] it continues the word, else it begins one."""
    g = generator(attention)
    for text in ("How [MASK] I [MASK][MASK][MASK] to cook?", "un[MASK] [MASK]", "[MASK]"):
        for filled in g.fill_masks(text, num_samples=4, temperature=1.0):
            assert typed_part_stays(text, filled) and len(filled.split()) == len(text.split())


def test_masks_in_a_long_text():
    """In a text of several sentences only the [MASK]s change; sentences without one come back exactly."""
    text = LONG.replace(" the ", "  THE ") + " So what  is [MASK]?\n\nAnd [MASK] too."
    for filled in generator().fill_masks(text, num_samples=3):
        assert typed_part_stays(text, filled)


@pytest.mark.parametrize("count", [1, 2, 3, 9, 15])
def test_without_a_mask_about_a_third_of_the_words_changes(count):
    """A text without [MASK] keeps two thirds of its words in their places, and its spacing and punctuation (but see the
    test of signs).
    """
    g = generator()
    words = short_words(g, count)
    text = "  ".join(words) + " !"
    changed = 0
    for filled in g.fill_masks(text, num_samples=6, temperature=1.0):
        # a punctuation mark in the place of a word takes one of its spaces along
        found = re.split(r"  | (?=[^\w\s])", re.fullmatch(r"(.*) !", filled)[1])
        assert len(found) == count
        different = sum(one != other for one, other in zip(words, found))
        assert different <= max(1, round(count * FILL_SHARE))
        changed += different
    assert changed > 0


def test_other_words_for_every_candidate():
    """Without [MASK] the candidates mask different words."""
    g = generator()
    words = short_words(g, 9)
    found = g.fill_masks(" ".join(words), num_samples=6, temperature=1.0)
    places = {
        tuple(number for number, (one, other) in enumerate(zip(words, text.split())) if one != other) for text in found
    }
    assert len(places) > 2


@pytest.mark.parametrize("text", ["...", "?", "12", "a \U0001f600"])
def test_texts_without_words(text):
    """Punctuation and numbers can be filled, too, and what is unknown may stand in a text."""
    assert generator().fill_masks(text, num_samples=1, num_steps=1)


@pytest.mark.parametrize("text", ["\U0001f600", "\u4e2d\u6587"])
def test_texts_of_the_unknown(text):
    """Of a text that is unknown to the vocabulary from end to end the model would see nothing."""
    assert "knows nothing in the text" in refusal(generator().fill_masks, text)


def test_a_long_text_with_an_invisible_sentence():
    """A sentence without a single word piece (invisible signs) between others comes back as it is."""
    text = LONG + "\n\n\u200b\u200b\n\n" + LONG
    (filled,) = generator().fill_masks(text, num_samples=1)
    assert "\n\n\u200b\u200b\n\n" in filled


def test_a_cased_vocabulary_gets_no_capitals(tmp_path):
    """With a cased vocabulary the model's own spelling is kept."""
    save_bert(tmp_path, lowercase=False)
    model = build_model(tiny_config(model_name_or_path=str(tmp_path)), [], 0)
    g = DiffusionTextGenerator(model, FAST)
    assert not g.tokenizer.is_uncased
    assert g.sentence(g.tokenizer.encode("how is the cook ?")) == "how is the cook?"
    assert g.paraphrase_text("how is the cook?", num_samples=1)


# ---- a [MASK] means a word -------------------------------------------------------------------------------------------


@each_attention
@pytest.mark.parametrize(
    "text",
    [
        "[MASK] is the museum",
        "Where is the [MASK]",
        "Where is the [MASK]?",
        "The [MASK] [MASK] [MASK] to cook",
        "I like [MASK], but not [MASK], today",
        'He said "[MASK]" to me',
        "(The [MASK])",
        "It's [MASK] that don't [MASK]",
        "The [MASK]'s museum \u2019 [MASK]",
    ],
)
def test_a_mask_means_a_word(attention, text):
    """Adjacent, at either end, before a comma, in quotes: every [MASK] becomes a word, all else stays as typed."""
    tokenizer = tiny_model().tokenizer
    for filled in generator(attention).fill_masks(text, num_samples=6, temperature=3.0, top_p=1.0):
        assert typed_part_stays(text, filled) and "##" not in filled and not filled.endswith(" ."), filled
        pattern = r"(\w+)".join(re.escape(part) for part in text.split("[MASK]"))
        words = re.fullmatch(pattern, filled)
        assert words, filled
        known = [tokenizer.encode(word) for word in words.groups()]
        assert all(len(ids) == 1 and not tokenizer.continuation[ids[0]] for ids in known)


def test_punctuation_may_be_allowed():
    """With allow_punctuation a mark may stand at a [MASK]; without it none does."""
    g = generator()
    signs = [
        {
            g.fill_masks(
                "Where [MASK] is [MASK]",
                num_samples=1,
                temperature=100.0,
                top_p=1.0,
                seed=seed,
                allow_punctuation=allowed,
            )[0][6:7].isalnum()
            for seed in range(60)
        }
        for allowed in (True, False)
    ]
    assert signs == [{True, False}, {True}]


@pytest.mark.parametrize("typed", ["[mask]", "<mask>", "[Mask]", "<MASK>", "[ MASK ]"])
def test_other_spellings_of_the_mask(typed):
    """They mean the same in fill and in mask, and are counted as holes, not as text."""
    g = generator()
    assert g.fill_masks(f"Where is {typed} now?") == g.fill_masks("Where is [MASK] now?")
    assert g.masked_parts(f"A {typed}") == [("A [MASK]", True)]


def test_the_final_mark_is_read_but_not_shown():
    """The canvas ends with the mark that the text lacks, within the limit; the answer does not."""
    model = tiny_model()
    stop, question = (model.tokenizer.encode(mark)[0] for mark in ".?")

    def last(text: str, **options) -> int:
        return mask_text(text, model.tokenizer, model.schedule, random.Random(0), **options).canvas.words[-1]

    assert last("I like the [MASK]") == last("I like [MASK] museum") == stop
    assert last("Where is the [MASK]") == last("Fine. Where is the [MASK]") == question
    assert last("I like [MASK] cook,") != stop and last("I like the [MASK]!") not in (stop, question)
    assert last("I like the [MASK]", allow_punctuation=True) == model.tokenizer.mask_id
    assert last("I like the [MASK]", limit=4) == model.tokenizer.mask_id
    assert all(not text.endswith((".", "?")) for text in generator().fill_masks("I like the [MASK]", num_samples=5))


def test_contractions_stay_as_they_were_typed():
    """Where fill chooses the words itself, those with an apostrophe are left alone; pieces of an apostrophe that it
    writes stand together.
    """
    text = "It's fine that I don\u2019t cook the museum's food"
    for filled in generator().fill_masks(text, num_samples=6, temperature=3.0):
        assert all(word in filled for word in ("It's", "don\u2019t", "museum's")) and filled != text
    tokenizer = tiny_model().tokenizer
    ids = tokenizer.encode("it's")
    masked = MaskedText("cooking it", Canvas(NO_SOURCE, [], [tokenizer.mask_id] * 3, 0.5), [(0, 3), (3, 5), (5, 7)])
    assert len(ids) == 3
    parts = splice(masked, ids, tokenizer, lambda whole, typed: whole)
    assert "".join(part for part, _ in parts) == "it's it" and [place for _, place in parts if place is not None] == [
        0,
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("given", "added", "expected"),
    [
        ("It", "'s me", "It's me"),
        ("It'", "s me", "It's me"),
        ("I", "see", "I see"),
        ("So", ", no", "So, no"),
        ("the boys'", "house", "the boys' house"),
        ("He said", "'no'", "He said 'no'"),
    ],
)
def test_a_contraction_goes_on_without_a_space(given, added, expected):
    """What completes a contraction stands at once beside it."""
    assert continued(given, added) == expected


# ---- refusals ------------------------------------------------------------------------------------------------------


@each_skill
@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u200b", ["good text", ""]])
def test_empty_texts_are_refused(skill, text):
    """Nothing to work on, also in a list: one line."""
    assert "empty" in refusal(getattr(generator(), skill), text)


@each_skill
@pytest.mark.parametrize(
    "text",
    [
        None,
        5,
        b"bytes",
        ["good text", None],
        [["nested"]],
        3.5,
        bytearray(b"x"),
        {"one", "two"},
        {"src": "a"},
        Path("a"),
    ],
)
def test_what_is_no_text_is_refused(skill, text):
    """A value of another type is refused by its type."""
    assert "expected a string" in refusal(getattr(generator(), skill), text)


@each_skill
@pytest.mark.parametrize("text", ["\U0001f600", "\U0001f600!", "\U0001f389 \U0001f389?", "\u6771\u4eac."])
def test_what_the_vocabulary_does_not_know_is_refused(skill, text):
    """Also with a punctuation mark beside it."""
    assert "knows nothing in the text" in refusal(getattr(generator(), skill), text)


@each_skill
def test_strings_and_lists_of_numpy(skill):
    """They are texts like any other."""
    ask = partial(getattr(generator(), skill), num_steps=2, best_of=1, seed=3)
    assert ask(np.str_("How are you?")) == ask("How are you?")
    assert ask(np.array(["How are you?"])) == ask(("How are you?",)) == ask(text for text in ["How are you?"])


@each_skill
def test_half_characters_are_refused(skill):
    """Half of a surrogate pair, as a broken terminal or JSON gives it, is refused."""
    assert "half of a character" in refusal(getattr(generator(), skill), "how \ud83d")


@each_skill
@pytest.mark.parametrize(
    "option, value, expected",
    [
        ("temprature", 1.0, "did you mean 'temperature'"),
        ("samples", 1, "num_samples"),
        ("temperature", -1.0, "at least 0"),
        ("temperature", "hot", "a number"),
        ("num_samples", 0, "at least 1"),
        ("num_samples", 2.5, "whole number"),
        ("top_p", 1.5, "at most 1"),
        ("sampler", "confident", "did you mean 'confidence'"),
        ("num_steps", 0, "at least 1"),
        ("seed", -1, "at least 0"),
        ("guidance_scale", -0.1, "at least 0"),
        ("no_repeat", "word", "off, adjacent, content"),
        ("gamma", -1, "at least 0"),
        ("remask_cap", 1.1, "at most 1"),
        ("remask_order", "entropy", "confidence, ancestral"),
        ("margin", 1, "true or false"),
        ("length", "0", "whole number of at least 1"),
        ("length", True, "expected"),
        ("length", 2.5, "expected"),
    ],
)
def test_wrong_options_are_refused(skill, option, value, expected):
    """An unknown option names the nearest, a wrong value what is expected."""
    message = refusal(getattr(generator(), skill), SOURCE, **{option: value})
    assert option in message and expected in message


@each_skill
@pytest.mark.parametrize(
    "options",
    [
        {"top_p": 0.0},
        {"top_k": 1},
        {"temperature": 100.0},
        {"sampler": "ancestral"},
        {"length_beam": 500},
        {"num_steps": 1000},
        {"seed": 2**32 - 1},
        {"sampler": "entropy", "gamma": 1e300},
        {"sampler": "remask", "remask_cap": 1.0, "remask_order": "ancestral"},
        {"guidance_scale": 100.0},
        {"sampler": "first_hitting", "no_repeat": "off"},
        {"length": 24},
        {"allow_punctuation": True},
        {"length": "short", "margin": True},
    ],
)
def test_extreme_options_work(skill, options):
    """The ends of the options' ranges are legal in fact."""
    assert getattr(generator(), skill)(SOURCE, num_samples=2, **options)


def test_the_source_itself_comes_last():
    """It is given only where there are not enough other texts, and more are asked for."""
    ranking = Ranking(1, 3)
    for text, score in (("The old cat sleeps.", 0.0), ("The cat sleeps.", -1.0), ("A cat is asleep.", -1.2)):
        ranking.add(0, text, ranking_score(text, score, "The old cat sleeps. ", reversible=True))
    texts = ["A cat is asleep.", "The cat sleeps.", "The old cat sleeps."]
    assert ranking.answers()[0].texts == texts and ranking.missing() == [0]
