"""Texts in sentences: where one ends, what stands between them, and how line breaks come back."""

import pytest

from diffusion_bert.text.paragraphs import fitted_in, is_fragment, sentence_parts
from tests.text.test_english import random_texts

CASES = [  # sentences in «»
    # abbreviations, initials, numbers
    "«Dr. Smith came in.» «He sat down.»",
    "«We met at 3 p.m. on Monday.» «It was fine.»",
    "«I live in the U.S.» «It is big.»",
    "«J. R. R. Tolkien wrote it, e.g. in Oxford.» «Yes.»",
    "«It costs 3.5 dollars, see Fig. 3.» «Cheap!»",
    "«Mr.\nSmith is here.»",
    # quotes and brackets
    '«He said "Go. Now." and left.» «Then we ate.»',
    '"«I am here.» «You are there.»" «We met.»',
    '«"Is it late?" she asked.» "«Yes!»"',
    "(«He left.» «She stayed.») «They met.»",
    "\u201c«Go.»\u201d «He went.»",
    '"«One.» "«Two.»',
    "«It is 5'10\" tall.» «Yes.»",
    "«:) Hello.» :(",
    # lists
    "- «milk»\n- «eggs and bread»\n",
    "1. «Wash the rice.»\n2. «Boil it.»\n3) «Eat.»",
    "  * «a»\n  * «b b.»\n",
    "a) «One»\nb) «Two»",
    "«We need:»\n \u2022 «an egg»\n \u2022 «a spoon»",
    # lines without a mark, and lines that go on
    "«Dear John,»\n«I am well.»\n\n«Best wishes,»\n«Ann»",
    "«A title»\n«Then the first sentence.» «Then\nthe second one goes on.»",
    "«Roses are red,»\n«Violets are blue»",
    "«milk»\n«eggs»",
    "«This is a long line that was broken because there was no more room,\nas letters are.» «So is the\nnext.»",
    "«One.»\r\n«Two.»\r\n\r\n«Three»",
    "> «Hi Tom.»\n> «How are you?»",
    "***\n«Hi.»\n...\n",
    "\n\n  «Tom!»\t«Ann?»  «Yes.»\u2028«No» ",
    "# «A heading of four words»\n«And text.»",
]


@pytest.mark.parametrize("marked", CASES)
def test_sentences(marked):
    """Sentences are those in angle quotes, and the stretches joined are the text."""
    text = marked.replace("«", "").replace("»", "")
    parts = sentence_parts(text)
    assert "".join(f"«{part}»" if is_sentence else part for part, is_sentence in parts) == marked
    assert "".join(part for part, _ in parts) == text


@pytest.mark.parametrize(
    "text", [*random_texts(120, " "), *random_texts(121, ""), "", " \n", "(", '"', '"""', "()", "- "]
)
def test_nothing_is_lost(text):
    """Whatever the text, its stretches joined are the text, and no sentence is without a letter or digit."""
    parts = sentence_parts(text)
    assert "".join(part for part, _ in parts) == text
    assert all(any(map(str.isalnum, part)) for part, is_sentence in parts if is_sentence)


def test_an_open_quote_ends_where_the_sentence_would_be_too_long():
    """A quotation that does not fit is cut at its sentences."""
    text = 'He said "It is late. We go. You stay." and left.'
    assert [part for part, is_sentence in sentence_parts(text) if is_sentence] == [text]
    short = [part for part, is_sentence in sentence_parts(text, lambda part: len(part) < 30) if is_sentence]
    assert short == ['He said "It is late.', "We go.", 'You stay." and left.']


@pytest.mark.parametrize(
    ("written", "typed", "expected"),
    [
        ("A fast fox jumps over it.", "The quick fox\nleaps over it.", "A fast fox\njumps over it."),
        ("One two three four five six.", "A b\r\n  c d\n e f.", "One two\r\n  three four\n five six."),
        ("Short.", "A line\nand one more.", "Short."),
        ("No break here.", "None was here.", "No break here."),
        ("A loaf of bread.", "some bread and butter", "A loaf of bread"),
        ("Two words!", "two words", "Two words!"),
    ],
)
def test_line_breaks_come_back(written, typed, expected):
    """A break stands near to where it stood; there is a full stop only where one was typed."""
    assert fitted_in(written, typed, f"Hello. {typed}") == expected


def test_a_text_of_one_sentence_keeps_its_full_stop():
    """What was typed without a mark as the whole text is answered as before."""
    assert fitted_in("I am well.", "i feel well", " i feel well") == "I am well."


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Dear John,", True),
        ("Ann", True),
        ("Go!", False),
        ("Is it", True),
        ("milk and two eggs", False),
        ("So...", False),
    ],
)
def test_fragments(sentence, expected):
    """A few words without a final mark are no sentence."""
    assert is_fragment(sentence) is expected
