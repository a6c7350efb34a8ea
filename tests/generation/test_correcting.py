"""Corrections: what may be changed, that all else stays, how many there are; real mistakes."""

import dataclasses
import math

import pytest
import torch

from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.generation import correcting
from diffusion_bert.generation.correcting import Change, Correction, _Part, judged_edits, log_frequency
from diffusion_bert.generation.edits import (
    ADD,
    DROP,
    EXCHANGE,
    REPLACE,
    SPELL,
    Edit,
    is_alike,
    is_misspelled,
    is_name,
    is_unknown,
    proposed_edits,
    read,
)
from diffusion_bert.generation.generator import DiffusionTextGenerator
from tests.helpers.models import new_model, refusal, tiny_model
from tests.helpers.scripts import ROOT

TEXTS = [
    "Where  is the THE museum on Friday?",
    "i can't learn to cook in 2 weeks",
    "How can I learn learn to cook, play and swim?!",
    "We met Anna -- at the museum (on Friday) ...",
]


def generator(model=None, **options) -> DiffusionTextGenerator:
    return DiffusionTextGenerator(model or tiny_model(), SamplingConfig(device="cpu", **options))


@pytest.fixture
def eager(monkeypatch):
    """Every edit is good enough."""
    monkeypatch.setattr(correcting, "LEAST_GAIN", dict.fromkeys(correcting.LEAST_GAIN, float("-inf")))


@pytest.mark.parametrize("text", TEXTS)
def test_all_else_comes_back_as_it_was_typed(eager, text):
    """Undoing the changes that are named, from right to left, gives the typed text to the character; no more than
    max_changes of them, none touching another.
    """
    for most in (1, 3):
        correction = generator(max_changes=most).correct_text(text)
        assert isinstance(correction, Correction) and 1 <= len(correction.changes) <= most
        undone, before = correction.text, len(correction.text)
        for change in reversed(correction.changes):
            end = change.start + len(change.after)
            assert undone[change.start : end] == change.after and end <= before and change.before != change.after
            undone, before = undone[: change.start] + change.before + undone[end:], change.start
        assert undone == text


def test_nothing_is_changed_without_a_reason(monkeypatch):
    """Where no edit gains enough the text comes back."""
    monkeypatch.setattr(correcting, "LEAST_GAIN", dict.fromkeys(correcting.LEAST_GAIN, 1e9))
    assert generator().correct_text(TEXTS) == [Correction(text, ()) for text in TEXTS]


def test_a_list_is_worked_on_as_its_texts_are(eager):
    """Together and alone: the same corrections; a list gives a list."""
    g = generator(max_changes=1)
    assert [one.text for one in g.correct_text(TEXTS)] == [g.correct_text(text).text for text in TEXTS]
    assert g.correct_text([]) == []


def test_which_words_may_be_changed():
    """No number, no word at an apostrophe, no name; the first word of a sentence is no name by its capital alone."""
    model = tiny_model()
    reading = read("The museum can't open on 5 May. Anna met iOS and HE met Bob.", model)
    assert [reading.typed(word) for word in reading.words] == [
        *("The", "museum", "open", "on", "May", "Anna", "met", "iOS", "and", "HE", "met", "Bob")
    ]
    assert [reading.typed(word) for word in reading.words if is_name(reading, word)] == ["May", "iOS", "HE", "Bob"]
    (edits,) = proposed_edits(model, [reading], generator().collator, 64)
    assert edits and not {edit.typed(reading.text) for edit in edits if edit.kind in ("replace", "spell")} & {
        *("May", "iOS", "HE", "Bob", "can", "t", "5")
    }


def test_edits_of_neighbours():
    """Equal neighbours give a drop that keeps the first as typed, also of other case; neighbours exchange their
    capitals; a comma between keeps both.
    """
    model, collator = new_model(), generator().collator

    def kinds(text):
        (edits,) = proposed_edits(model, [read(text, model)], collator, 64)
        return {edit.applied(text) for edit in edits if edit.kind == DROP}

    assert kinds("Is the  the museum open?") == {"Is the museum open?"}
    assert kinds("The the museum") == {"The museum"} and kinds("very, very open") == set()
    text = "Museum the is Open. is it"
    (edits,) = proposed_edits(model, [read(text, model)], collator, 64)
    exchanged = {edit.applied(text) for edit in edits if edit.kind == EXCHANGE}
    ways = {"The museum is Open. is it", "Museum is the Open. is it", "Museum the Open is. is it"}
    assert exchanged <= {*ways, "Museum the is Open. it is"}


def test_parts_are_applied_with_capitals():
    """A new word takes the capitals that the whole sentence gives it; changes made before move along."""
    part = _Part("we go to to paris")
    part.apply(Edit(DROP, 6, 11, "to"), 1.0, lambda whole, typed: whole)
    part.apply(Edit(SPELL, 9, 14, "london", 6), 2.0, lambda whole, typed: whole.title())
    part.apply(Edit(REPLACE, 0, 2, "they", 4), 3.0, lambda whole, typed: whole.title())
    part.apply(Edit(ADD, 5, 7, "go home", 4), 4.0, lambda whole, typed: whole.upper())
    assert part.text == "they go HOME to London"
    assert part.changes == [
        Change("we", "they", 0, 3.0),
        Change("go", "go HOME", 5, 4.0),
        Change("to to", "to", 13, 1.0),
        Change("paris", "London", 16, 2.0),
    ]
    assert part.best([]) is None


def test_words_spelled_alike():
    """One may have been typed for the other."""
    assert is_alike("the", "teh") and is_alike("goes", "go") and is_alike("Have", "has")
    assert not is_alike("museum", "friday") and not is_alike("she", "the")
    assert is_misspelled("the", "teh") and is_misspelled("because", "becuase") and is_misspelled("Friend", "freind")
    assert not is_misspelled("water", "watermelon") and not is_misspelled("hat", "that")


def test_a_word_that_is_known_is_not_misspelled():
    """Only a word of several pieces that is none of the training targets may be."""
    model = tiny_model()
    assert is_unknown(model, model.tokenizer.encode("museun")) and not is_unknown(model, model.tokenizer.encode("the"))
    assert not any(is_unknown(model, word) for word in list(model.known_words.words)[:20])


def test_frequency_of_a_word():
    """The share of its pieces in the training targets, each counted once more; a model without counts has one too."""
    model = tiny_model()
    counts, (index,) = model.token_counts, model.tokenizer.encode("the")
    share = (float(counts[index]) + 1) / (float(counts.sum()) + model.tokenizer.vocab_size)
    assert log_frequency(model, "the") == pytest.approx(math.log(share)) and 0 < share < 1
    assert log_frequency(model, "the the") == pytest.approx(2 * math.log(share))
    empty = dataclasses.replace(model, token_counts=torch.zeros(0, dtype=torch.int64))
    assert log_frequency(empty, "the") == pytest.approx(-math.log(model.tokenizer.vocab_size))


def test_gains_are_differences_of_the_whole_score():
    """Within its window an edit gains what the leave-one-out sums of the two texts differ by (a short text lies in the
    window whole); a text of the same ids is no edit.
    """
    g = generator()
    text = "Is it it open?"
    (judged,) = judged_edits(g.model, [text], g.collator, 24, 64)
    (drop,) = [one for one in judged if one.edit.kind == DROP]
    before, after = g.score(text, score_draws=2), g.score("Is it open?", score_draws=2)
    assert drop.gain == pytest.approx(after.leave_one_out - before.leave_one_out, abs=1e-3)


def test_long_texts_are_corrected_sentence_by_sentence(eager):
    """max_changes counts for the whole text."""
    text = "Where is the museum on Friday? " * 8
    correction = generator(max_changes=2).correct_text(text)
    assert len(correction.changes) == 2 and correction.text.count("museum on Friday?") >= 6


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", {}, "empty"),
        ("museum " * 60, {}, "corrects at most"),
        ("The [MASK] is open.", {}, "fill it first with mask"),
        ("Hello.", {"max_change": 1}, "did you mean 'max_changes'?"),
        ("Hello.", {"max_changes": 0}, "at least 1"),
        (["Hello.", None], {}, "item 1 of the list"),
    ],
)
def test_refusals(text, options, words):
    """One line each."""
    assert words in refusal(generator().correct_text, text, **options)


def test_the_released_model_mends_plain_mistakes():
    """With the bundled checkpoint: doubled words go, neighbours change places, good sentences stay."""
    g = DiffusionTextGenerator.from_checkpoint(ROOT / "checkpoints" / "general_english.pt", device="cpu")
    good = ["What is the best way to learn English?", "How can I lose weight?"]
    fixed = g.correct_text([*good, "What is the the best way to learn English?", "How I can lose weight?"])
    assert [one.text for one in fixed[:2]] == good
    assert fixed[2].text == good[0] and fixed[2].changes[0].before == "the the"
