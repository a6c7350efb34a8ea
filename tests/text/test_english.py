"""Text for metrics, text for people: tables of cases and properties."""

import random

import pytest

from diffusion_bert.text.casing import sentence_case
from diffusion_bert.text.english import MASK, detokenize, has_negation, split_sentences, strip_enclosing_quotes
from diffusion_bert.text.metrics import metric_text


@pytest.mark.parametrize(
    "raw, expected",
    [
        ("What is it?", "what is it?"),
        ("Why, really! Yes.", "why, really! yes."),
        (
            "I can't, they're John's; we've I'm I'd I'll",
            "i can't, they're john's ; we've i'm i'd i'll",
        ),  # ; stays split off
        ("(e-mail): 50%", "( e - mail ) : 50 %"),  # only . ? ! , ' are cleaned up
        ("3.5 and 10,000", "3. 5 and 10, 000"),  # the space after a mark stays: that is the convention
        ("U.S.", "u. s."),
        ("say 'yes' now", "say'yes'now"),  # a quote is treated like an apostrophe
        ("the end'", "the end '"),  # nothing follows, so " ' " does not match
        ("Caf\u00e9  \u00c9COLE\tna\u00efve\n", "cafe ecole naive"),  # accents, case, white space
        ("\u4e2d\u6587ab", "\u4e2d \u6587 ab"),
        ("it\u2019s", "it \u2019 s"),  # only the straight apostrophe
        ("zero\u200bwidth\x00", "zerowidth"),
        ("", ""),
    ],
)
def test_metric_text_table(raw, expected):
    assert metric_text(raw) == expected


def test_metric_text_is_the_same_however_words_were_split():
    assert metric_text("don ' t stop , please !") == metric_text("Don't stop, please!") == "don't stop, please!"


PIECES = [
    "the",
    "Cat",
    "'",
    "s",
    '"',
    ".",
    ",",
    "?",
    "!",
    "...",
    "(",
    ")",
    "-",
    "/",
    "3",
    "10",
    "000",
    "i",
    "u",
    "e",
    "\u2019",
    "\u201c",
    "\u201d",
    "$",
    "%",
    ":",
    ";",
    "iPhone",
    "NASA",
    "Mr",
    "etc",
    MASK,
    "\n",
    "\n\n",
    "  ",
    "n't",
    "caf\u00e9",
    "#",
    "&",
    "+",
    "@",
    "parents",
]


def random_texts(count: int, glue: str) -> list[str]:
    rng = random.Random(count)
    return [glue.join(rng.choice(PIECES) for _ in range(rng.randint(0, 14))) for _ in range(count)]


@pytest.mark.parametrize("text", random_texts(150, " ") + random_texts(151, ""))
def test_properties(text):
    once = metric_text(text)
    assert metric_text(once) == once
    assert once == once.lower()
    assert "".join(split_sentences(text)) == text
    assert all(split_sentences(text))
    cased = sentence_case(text.lower(), source=text)
    assert cased.lower() == text.lower()  # only capitals change
    words = [word for word in text.split() if word]
    assert detokenize(words).replace(" ", "") == "".join(words)  # only spaces change
    assert detokenize(words) == detokenize(words).strip()
    assert strip_enclosing_quotes(text) in text


@pytest.mark.parametrize(
    "spaced, expected",
    [
        ("how are you ?", "how are you?"),
        ("yes , no ; so : well !", "yes, no; so: well!"),
        ("wait . . . what ?", "wait... what?"),
        ("( a ) [ b ] { c }", "(a) [b] {c}"),
        ("$ 5 is 50 % of it", "$5 is 50% of it"),
        ("don ' t , i ' m , we ' ve , you ' ll , they ' re , he ' d", "don't, i'm, we've, you'll, they're, he'd"),
        ("my sister ' s house", "my sister's house"),
        ("it \u2019 s", "it\u2019s"),
        ("my parents ' house", "my parents' house"),
        ("the parents ' house and the kids ' room", "the parents' house and the kids' room"),
        ("he says ' hello ' to me", "he says 'hello' to me"),
        ("' yes ' and ' no '", "'yes' and 'no'"),
        ("' the parents ' house ' is big", "'the parents' house' is big"),
        ("rock ' n ' roll at ten o ' clock", "rock 'n' roll at ten o'clock"),
        ("the ' 90s", "the '90s"),
        ("the qur ' an", "the qur'an"),
        ('he said " hi " .', 'he said "hi".'),
        ('" a " and " b "', '"a" and "b"'),
        ("5 ' 10 \" tall", "5'10\" tall"),
        ("\u201c hi \u201d", "\u201chi\u201d"),
        ("an e - mail", "an e-mail"),
        ("a well - known man - made thing", "a well-known man-made thing"),
        ("and / or", "and/or"),
        ("3 . 5 or 2 . 0 . 1", "3.5 or 2.0.1"),
        ("10 , 000 , 000", "10,000,000"),
        ("in 2010 , 300 men", "in 2010, 300 men"),
        ("1 , 2 , 3", "1, 2, 3"),
        ("10 : 30", "10:30"),
        ("the u . s . army", "the u.s. army"),
        ("in the u . s .", "in the u.s."),
        ("fruit , e . g . , apples", "fruit, e.g., apples"),
        ("see www . quora . com", "see www.quora.com"),
        ("http : / / quora . com / x", "http://quora.com/x"),
        ("# 1 : c + + , c # and r & d", "#1: c++, c# and r&d"),
        ("it is - 5 degrees", "it is -5 degrees"),
        (f"{MASK} ' s {MASK} , {MASK} ?", f"{MASK}'s {MASK}, {MASK}?"),
        ("", ""),
        ("'", "'"),
        ('"', '"'),
        (".", "."),
    ],
)
def test_detokenize_table(spaced, expected):
    assert detokenize(spaced.split()) == expected


@pytest.mark.parametrize(
    "text, source, expected",
    [
        (
            "how do i know if i'm right? i've no idea. i'll ask",
            "",
            "How do I know if I'm right? I've no idea. I'll ask",
        ),
        (
            "fruit, e.g. apples, i.e. food in the u.s. today. yes",
            "",
            "Fruit, e.g. apples, i.e. food in the U.S. today. Yes",
        ),
        ("about 3.5 of them. good", "", "About 3.5 of them. Good"),
        ("my i-phone", "", "My i-phone"),
        ('"yes!" she said', "", '"Yes!" she said'),
        ("learn english on monday in march", "", "Learn English on Monday in march"),
        ("on may 5 we march in august 2010", "", "On May 5 we march in August 2010"),
        ("60 may be old", "", "60 may be old"),
        ("is paris nice", "I love Paris.", "Is Paris nice"),
        ("nasa, the usa and an iphone", "Has NASA an iPhone?", "NASA, the USA and an iPhone"),
        ("iphone or ipad", "An iPhone or iPad?", "iPhone or iPad"),
        ("is apple good", "Apple is here.", "Is apple good"),  # a sentence start proves nothing
        ("the cat and the apple", "Apple? An Apple is an apple.", "The cat and the apple"),  # the source has both
        ("was obama right", "Was Mr. Obama right?", "Was Obama right"),
        ("a band (queen) and 'abba'", "The band (Queen) and the 'Abba' thing", "A band (Queen) and 'Abba'"),
        ("how to make money", "How To Make Money Online Now", "How to make money"),  # a title
        ("why is it so loud", "WHY IS IT SO LOUD HERE TODAY", "Why is it so loud"),  # shouting
        ("is barack obama american?", "Is Barack Obama American?", "Is Barack Obama American?"),
        ("find an it job in the us", "Which IT job in the US?", "Find an IT job in the US"),
        ("what the beatles did", "What did The Beatles do?", "What the Beatles did"),
        ("it's trump's", "Is it Trump's?", "It's Trump's"),
        ("she's c's friend", "Why is S a C?", "She's C's friend"),  # the 's of a contraction is no word
        (f"{MASK} is {MASK}. so", "", f"{MASK} is {MASK}. So"),
        ("", "", ""),
        ("?", "", "?"),
    ],
)
def test_sentence_case_table(text, source, expected):
    assert sentence_case(text, source) == expected
    assert sentence_case(expected, source) == expected


@pytest.mark.parametrize(
    "pieces",
    [
        ["Hello there. ", "How are you?  ", "Fine!"],
        ["Mr. Smith met Dr. Who. ", "They left."],
        ["He lives in the U.S. ", "It is big. ", "The U.S. Army, e.g. this, i.e. that. ", "End."],
        ["It costs 3.5 dollars. ", "No. 5 is out. ", "No. ", "Really."],
        ["J. K. Rowling wrote it! ", '"Really?" she asked. ', "Yes."],
        ["Wait... what? ", "Well... ", "Then go. ", "Pens, etc. are here. ", "Pens, etc. ", "Ok."],
        ["Is it John F. Kennedy? ", "So do I. ", "Paris it is."],
        ["1. First one. ", "2. Second one. ", "It was 1998. ", "Then more."],
        ['He said "go." ', "Then he left. ", "(Really.) ", "Yes"],
        ["A line\nand more.\n", "Next.\n\n", "no capital\n\n", "here\n"],
        ["all lower case. ", "it goes on? ", "yes"],
        ["  leading. ", "b"],
        ["no mark at all"],
        ["   "],
        [],
    ],
)
def test_split_sentences_table(pieces):
    assert split_sentences("".join(pieces)) == pieces


@pytest.mark.parametrize(
    "text, expected",
    [
        ('"hello there"', "hello there"),
        ("'hello there'", "hello there"),
        ("'don't do it'", "don't do it"),
        ("\u201chello\u201d", "hello"),
        ("\u2018it\u2019s\u2019", "it\u2019s"),
        ('  "a"\n', "a"),
        ('""', ""),
        ('"a" and "b"', '"a" and "b"'),
        ("'a' and 'b'", "'a' and 'b'"),
        ("\u201ca\u201d and \u201cb\u201d", "\u201ca\u201d and \u201cb\u201d"),
        ('"a', '"a'),
        ('a"', 'a"'),
        ('"', '"'),
        ("\"a'", "\"a'"),
        ("\u00aba b\u00bb", "a b"),
        ("\u00bba b\u00ab", "a b"),
        ("\u201ea b\u201c", "a b"),
        ("`a b`", "a b"),
        ("\u00aba\u00bb et \u00abb\u00bb", "\u00aba\u00bb et \u00abb\u00bb"),
        ("", ""),
        ("plain ", "plain "),
    ],
)
def test_strip_enclosing_quotes_table(text, expected):
    assert strip_enclosing_quotes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I do not know.", True),
        ("I don't know.", True),
        ("I DON\u2019T know.", True),
        ("Nobody knows.", True),
        ("No one knows.", True),
        ("A notable knot was noted by the nun.", False),
        ("It can't be", True),
        ("", False),
    ],
)
def test_negations(text, expected):
    """Words that deny something, contracted or not, and no word that only looks like one."""
    assert has_negation(text) == expected
