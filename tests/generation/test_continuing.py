"""Texts of several sentences: continued sentence by sentence, rewritten one by one, streamed."""

import re

import pytest

from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.generation.continuing import echoes, finished_sentences, gone_on
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.generation.ranking import Answer
from diffusion_bert.text.english import split_sentences
from tests.helpers.models import new_model, refusal, tiny_model

OPTIONS = {"num_steps": 3, "num_samples": 2, "best_of": 1, "temperature": 0.0, "rank_by": "revealed"}
PARAGRAPH = 'Dear John,\nHow can I learn to cook? Where is the museum today?\n\n  - Is it open on Friday?\n\n"Yes!"\n'


def generator(model=None, **options) -> DiffusionTextGenerator:
    return DiffusionTextGenerator(model or tiny_model(), SamplingConfig(**{**OPTIONS, **options}))


# ---- complete ------------------------------------------------------------------------------------------------------


def follow(written: dict):
    """gone_on with the continuations of a table; what was asked for."""
    asked = []

    def write(texts, of):
        assert len(texts) == len(of) == len(set(of))
        asked.append(texts)
        return [Answer([text + written[text]]) for text in texts]

    return write, asked


def test_it_goes_on_until_there_are_enough_sentences():
    """A sentence may take several rounds; a text with enough of them is left alone; each goes on for itself."""
    steps = {"He sat.": " It rained.", "He saw": " her.", "He sat. It rained.": " We left.", "He saw her.": " She ran."}
    write, asked = follow(steps)
    parts = []
    (answer,) = gone_on(["He"], [Answer(["He sat.", "He saw"])], 3, write, parts.append)
    assert answer.texts == ["He sat. It rained. We left.", "He saw her. She ran."] and parts == [
        " It rained.",
        " We left.",
    ]
    assert asked == [["He sat.", "He saw"], ["He sat. It rained.", "He saw her."]]
    write, asked = follow({"He saw": " her."})
    (answer,) = gone_on(["He"], [Answer(["He sat. It rained.", "He saw"])], 2, write)
    assert answer.texts == ["He sat. It rained.", "He saw her."] and asked == [["He saw"]]


def test_it_ends_where_only_an_echo_follows():
    """A continuation that says a sentence again is not added, and not asked for twice."""
    steps = {"He sat down.": " He sat.", "He saw her.": " She ran.", "He saw her. She ran.": " He saw her."}
    write, asked = follow(steps)
    (answer,) = gone_on(["He"], [Answer(["He sat down.", "He saw her."])], 4, write)
    assert answer.texts == ["He sat down.", "He saw her. She ran."]
    assert len(asked) == 2 and asked[1] == ["He saw her. She ran."]


@pytest.mark.parametrize(
    ("given", "added", "expected"),
    [
        ("We went home.", " We slept.", False),
        ("We went home.", " we went HOME!", True),
        ("Last year we went home.", " We went home.", True),
        ("He slept. We went", " home. He slept.", True),
        ("He went. She ate.", " It rained.", False),
    ],
)
def test_echoes(given, added, expected):
    """The same sentence, or one with words left out, whatever its capitals and marks."""
    assert echoes(given, given + added) is expected


@pytest.mark.parametrize(
    ("added", "count"), [(" home. We", 1), (' home." Then he left!', 2), ("", 0), (" home", 0), (" a\u2026", 1)]
)
def test_finished_sentences(added, count):
    """Those with a mark at the end."""
    assert finished_sentences(added) == count


def test_complete_begins_as_with_one_sentence():
    """Every candidate begins with what one sentence gives, the text as it was typed first; a list gives lists."""
    g = generator(temperature=1.0)
    texts = ["The best WAY", "On  Monday"]
    one, three = g.complete_text(texts), g.complete_text(texts, max_sentences=3)
    for text, first, longer in zip(texts, one, three):
        assert all(text in before and after.startswith(before) for before, after in zip(first, longer))
    assert g.complete_text(texts, max_sentences=1) == one
    assert any(len(b) > len(a) for first, longer in zip(one, three) for a, b in zip(first, longer))
    assert g.complete_text(texts[0], max_sentences=3) == three[0]


def test_the_last_sentences_that_fit_are_the_source():
    """A text longer than the model is continued whole where several sentences are asked for, from its last sentences;
    with one it is refused as before, and so is a last sentence that is too long.
    """
    g = generator()
    text = "How can I learn to cook? " * 12 + "The museum is"
    assert "can continue at most" in refusal(g.complete_text, text)
    for longer in g.complete_text(text, max_sentences=2):
        assert longer.startswith(text) and len(longer) > len(text)
    kept = g.last_sentences(text)
    assert text.endswith(kept) and kept.startswith("How can") and len(split_sentences(kept)) > 1
    assert len(g.tokenizer.encode(kept)) <= 39 < len(g.tokenizer.encode("How can I learn to cook? " + kept))
    assert g.last_sentences("word " * 40 + "end") == "word " * 40 + "end"
    assert "can continue at most" in refusal(g.complete_text, "Why? " + "how " * 70, max_sentences=2)


def test_parts_and_traces_of_complete():
    """What is handed out part by part is the first candidate, and its trace ends as it."""
    g, parts, traces = generator(), [], []
    first, _ = g.complete_text("The best way", max_sentences=3, on_part=parts.append)
    assert "".join(parts) == first and len(parts) > 1
    assert g.complete_text("The best way", max_sentences=3, on_trace=traces.append)[0] == first == traces[0].text
    steps = [step for step, _, _ in traces[0].changes]
    assert steps == sorted(steps)


@pytest.mark.parametrize(("value", "expected"), [(0, "at least 1"), (1.5, "whole number"), (101, "at most 100")])
def test_wrong_numbers_of_sentences(value, expected):
    """One line each."""
    assert expected in refusal(generator().complete_text, "The best way", max_sentences=value)


# ---- para ----------------------------------------------------------------------------------------------------------


def test_a_paragraph_keeps_its_shape():
    """Sentences that would fit together are rewritten one by one, as each is alone; line breaks, list, quotes, greeting
    and white space come back exactly.
    """
    g = generator()
    shape = r'Dear John,\n(.+) (.+)\n\n  - (.+)\n\n"(.+)"\n'
    sentences = ["How can I learn to cook?", "Where is the museum today?", "Is it open on Friday?", "Yes!"]
    alone = [g.paraphrase_text(sentence)[0] for sentence in sentences]
    assert g.paraphrase_text(PARAGRAPH)[0] == 'Dear John,\n{} {}\n\n  - {}\n\n"{}"\n'.format(*alone)
    for text in g.paraphrase_text(PARAGRAPH):
        assert re.fullmatch(shape, text)


@pytest.mark.parametrize("text", ["Why?  Where is it?", "Why?\r\nWhere is it?", "\tWhy? \u2028Where is it?\n\n"])
def test_what_stands_between_sentences_stays(text):
    """Two blanks, a Windows line end, a separator: as they were typed."""
    between = re.fullmatch(r"(\s*)Why\?(\s+)Where is it\?(\s*)", text).groups()
    for written in generator().paraphrase_text(text):
        assert written.startswith(between[0]) and between[1] in written and written.endswith(between[2])


def test_tasks_that_answer_a_whole_text():
    """A reply is one to the whole text where that fits; a paraphrase is made of each sentence."""
    g = generator(new_model(task_name="qqp,CC"))
    assert [is_source for _, is_source in g.source_parts("Why? Where is it?")] == [True, False, True]
    assert g.source_parts("Why? Where is it?", whole=True) == [("Why? Where is it?", True)]
    skill = g.model.skills.number("CC", None)
    ids = g.generate_ids([(skill, g.tokenizer.encode("Why? Where is it?"))], g.options, [2], 0)[0]
    assert set(g.rewrite("Why? Where is it?", task="CC")) & {g.sentence(output.ids, "Why?") for output in ids}


def test_names_are_known_from_other_sentences():
    """A name keeps its capital where another sentence of the text shows it."""
    g = generator()
    g.sentence, seen = lambda ids, source="": seen.append(source) or "x", []
    g.paraphrase_text("Paris is open? I like Paris today.")
    assert set(seen) == {"Paris is open? I like Paris today."}


def test_parts_of_para():
    """One stretch after the other, together the first candidate; the same as all at once."""
    g, parts = generator(temperature=1.0), []
    first, _ = g.rewrite(PARAGRAPH, on_part=parts.append)
    assert "".join(parts) == first == g.paraphrase_text(PARAGRAPH)[0]
    assert parts[0] == "Dear John," and len(parts) > 8


@pytest.mark.parametrize("text", ["milk", "Ann\nTom", "...", "Dear John,"])
def test_where_there_is_nothing_else_all_is_rewritten(text):
    """Greetings stay beside sentences only."""
    assert all(written != text for written in generator().paraphrase_text(text, num_samples=1))
