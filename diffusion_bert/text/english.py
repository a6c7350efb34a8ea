"""Strings in, strings out: the text that metrics see, and the text that people see.

Two conventions live here and must not be mixed. `metric_text` is lower-cased BERT text as DiffuSeq's evaluation script
sees it; every score is computed on it, whatever vocabulary a checkpoint has. `detokenize` (and casing.py) turn
generated words into normal English for a reader.
"""

import re

MASK = "[MASK]"
NEGATION = re.compile(
    r"\b(?:not|no|never|nobody|nothing|none|nowhere|neither|nor|without|cannot)\b|n['\u2019]t\b", re.IGNORECASE
)

_GLUE = "\x00"  # "no space on this side"
_WITHOUT_WIDTH = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))
_APOSTROPHES = ("'", "\u2019")
_CONTRACTED = {"s", "t", "m", "d", "ll", "re", "ve"}  # it ' s
_ELIDED_BEFORE = {"o", "d", "l", "y", "ma"}  # o ' clock, y ' all
_ELIDED_AFTER = re.compile(r"em|cause|til|tis|twas|bout|\d\ds?", re.IGNORECASE)  # ' em, ' 90s
_NEVER_POSSESSIVE = {
    "says",
    "is",
    "was",
    "this",
    "as",
    "does",
    "has",
    "means",
    "his",
    "its",
    "us",
    "words",
}  # "he says ' yes ' to"
_SPACING = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (  # in this order
        (r"(?<=\d) ([.:\u2013]) (?=\d)", r"\1"),  # 3 . 5   10 : 30   1990 \u2013 1995 (an en dash)
        (r"\b(\d{1,3}) , (?=\d{3}\b)", r"\1,"),  # 10 , 000
        (r"\b([^\W\d_]) \. (?=[^\W\d_] \.)", r"\1."),  # u . s .   e . g .
        (
            r"\b(u(?= \. [sk]\b)|ph(?= \. d\b)|[bm](?= \. (?:tech|com|sc|ed|phil|arch|pharm)\b)) \. ",
            r"\1.",
        ),  # ph . d   b . tech
        (r"(?<=\.[^\W\d_]) \. - (?=\w)", ".-"),  # u.s .  - china
        (r"\b(https?|ftp) : / / ", r"\1://"),
        (r"\b(www) \. ", r"\1."),
        (r"(?<=\w) \. (?=(?:com|org|net|edu|gov|io|js|py|exe|pdf|html)\b)", "."),  # quora . com
        (r"(?<=\w) ([/_^]) (?=\w)", r"\1"),  # and / or
        (
            r"\b(be|is|to|of|by|than) - (?=\d)|(?:^|(?<=[(=<>*/+] ))- (?=\d)",
            lambda minus: f"{minus[1]} -" if minus[1] else "-",
        ),  # a negative number
        (r"(?<=\w) - (?=\w|\$ ?\d)", "-"),  # e - mail
        (r"(?<=-) (?=-)", ""),
        (r"(?<=\w) @ (?=\w+\.\w)", "@"),  # name @ gmail.com
        (r"@ (?=\w)", "@"),
        (r"(?<=\w) \+ \+|(?<=\d) \+(?! ?[\w(])", lambda plus: plus[0].replace(" ", "")),  # c + +   50 +
        (r"\b(\w|at) & (?=\w(?![\w+]))", r"\1&"),  # r & d
        (r"\b([cf]) #(?=\W|$)", r"\1#"),  # c #
        (r"(?<!\w)# (?=\w)", "#"),
        (r"([(\[{$\u201c\u2018]) ", r"\1"),
        (r" (?=[.,?!;:)\]}%\u2026\u201d])", ""),
    )
)


def detokenize(words: list[str]) -> str:
    """Whole words, punctuation apart as BERT's basic splitting leaves it -> normal English spacing.

    `["don", "'", "t", "pay", "$", "3", ".", "5", "!"]` -> `don't pay $3.5!`. Straight double quotes are paired by
    parity. What the words alone cannot tell is decided for the commoner case: a hyphen between two words joins them
    ("e-mail").
    """
    text = " ".join(_glue_double_quotes(_glue_apostrophes([word for word in words if word])))
    text = re.sub(f" ?{_GLUE} ?", "", text)
    for pattern, replacement in _SPACING:
        text = pattern.sub(replacement, text)
    return text


def _glue_double_quotes(words: list[str]) -> list[str]:
    result, is_open, odd = list(words), False, words.count('"') % 2
    for i, word in enumerate(words):
        if word != '"':
            continue
        inches = i > 0 and words[i - 1].isdigit() and odd and not is_open  # 5'10"
        result[i] = _GLUE + word if is_open or inches or (i and i == len(words) - 1) else word + _GLUE
        is_open, odd = (is_open, 0) if inches else (not is_open, odd)
    return result


def _glue_apostrophes(words: list[str]) -> list[str]:
    """Mark every free-standing apostrophe as joined to its left, its right or both: contraction, possessive, elision or
    single quote.
    """
    result, lone = list(words), []
    for i, word in enumerate(words):
        left, right, after = _neighbours(words, i)
        if word not in _APOSTROPHES or result[i] != word:
            continue
        if right.lower() == "n" and after in _APOSTROPHES:  # rock ' n ' roll
            result[i], result[i + 2] = word + _GLUE, _GLUE + after
        elif (
            right.lower() in _CONTRACTED
            and (left[-1:].isalnum() or left[-1:] in (")", "]", "%", '"'))
            or right.isalnum()
            and left.lower() in _ELIDED_BEFORE
            or right.isdigit()
            and left.isdigit()  # 5'10"
        ):
            result[i] = _GLUE + word + _GLUE
        else:
            lone.append(i)
    is_open = False
    for k, i in enumerate(lone):
        is_open, side = _lone_apostrophe(words, lone[k:], is_open or "\u2018" in words[:i])
        result[i] = {"left": _GLUE + words[i], "right": words[i] + _GLUE, "both": _GLUE + words[i] + _GLUE}[side]
    return result


def _neighbours(words: list[str], i: int) -> tuple[str, str, str]:
    """(the word before i, the word after it, the one after that), "" where there is none."""
    return (words[i - 1] if i else ""), *(words[i + 1 : i + 3] + ["", ""])[:2]


def _lone_apostrophe(words: list[str], lone: list[int], is_open: bool) -> tuple[bool, str]:
    """(whether a single quote is open afterwards, the side the apostrophe at lone[0] clings to)."""
    left, right, _ = _neighbours(words, lone[0])
    even = len(lone) % 2 == 0
    plural = left.lower().endswith("s") and left.lower() not in _NEVER_POSSESSIVE and right.isalnum()
    if is_open:
        return plural and even, "left"
    if _ELIDED_AFTER.fullmatch(right) or not left:
        return not left and len(lone) > 1, "right"
    if plural and (not even or words[lone[1] - 1].lower().endswith("s")):  # the parents ' house
        return False, "left"
    if len(lone) > 1:
        return True, "right"
    dropped_g = len(left) > 3 and left.lower().endswith("in")  # goin ' home
    return False, "both" if left.isalnum() and right.isalnum() and not dropped_g else "left"


_GLUED_START = re.compile(rf"[.,;:?!)\]%]|['\u2019](?:{'|'.join(sorted(_CONTRACTED))})\b", re.IGNORECASE)
_GLUED_END = re.compile(r"\w['\u2019]")


def continued(given: str, added: str) -> str:
    """A typed text and its continuation with a space between them, unless a mark or the rest of a contraction follows:
    "It" + "'s", "It'" + "s".
    """
    rest = re.match(r"\w+", added)
    contracted = _GLUED_END.fullmatch(given[-2:]) and rest is not None and rest[0].lower() in _CONTRACTED
    return given + ("" if contracted or _GLUED_START.match(added) else " ") + added


SMALL_WORDS, _TITLES, _MAYBE_END, _BEFORE_NUMBER = (
    words.split()
    for words in (
        (
            "a an the this that these those and or but if of to in on at for from with by as is are was were be am do"
            " does did has have had can could will would shall should may might must i he she it we you they me him her"
            " them my your his its our their what who why how when where which not no so there then here"
        ),
        "mr mrs ms dr prof st gen sen rep gov capt lt col sgt rev hon mt vs approx dept fig vol e.g i.e cf viz",
        "etc inc ltd co corp jr sr ph.d a.m p.m al",
        "no nos p pp jan feb mar apr jun jul aug sep sept oct nov dec",
    )
)
_END = re.compile(r"(?P<mark>[.!?\u2026]+)(?P<close>[\"'\u201d\u2019)\]]*)\s+|\n[^\S\n]*\n\s*")


def split_sentences(text: str) -> list[str]:
    """Sentences with their trailing white space, so that `"".join(split_sentences(text)) == text`.

    A mark and white space end a sentence, except after abbreviations (Mr., e.g., U.S.), initials and list numbers; so
    does an empty line.
    """
    pieces, start = [], 0
    for end in _END.finditer(text):
        before, after = text[start : end.start()], text[end.end() : end.end() + 30]
        if after and before.strip() and _is_boundary(before, end, after):
            pieces.append(text[start : end.end()])
            start = end.end()
    return pieces + [text[start:]] if text[start:] else pieces


def _is_boundary(before: str, end: re.Match, after: str) -> bool:
    mark, lower_next = end["mark"], after[0].islower()
    if mark is None or re.search(r"\n\s*\n", end[0]):  # an empty line
        return True
    if end["close"] and lower_next:  # "what?" he asked
        return False
    if mark in ("...", "\u2026") or len(mark) > 3 and set(mark) == {"."}:
        return not lower_next
    if mark != ".":
        return True
    word = re.split(r"[\s(\[\"\u201c]", before)[-1].lower()
    following = re.match(r"\w*", after)[0]
    if (
        word in _TITLES
        or (word in _BEFORE_NUMBER and following.isdigit())
        or (word.isdigit() and word == before.strip())
    ):
        return False
    if word != "i" and re.fullmatch(r"(?:[^\W\d_]\.)*[^\W\d_]", word):  # an initial, or U.S.
        return not lower_next and following.lower() in SMALL_WORDS
    return not (word in _MAYBE_END and lower_next)


_QUOTE_PAIRS = dict("\"\" '' `` \u201c\u201d \u2018\u2019 \u00ab\u00bb \u00bb\u00ab \u201e\u201c".split())


def strip_enclosing_quotes(text: str) -> str:
    """Drop one pair of quotes around the whole text (and white space outside it); `"a" and "b"` is returned as it
    came.
    """
    outer = text.strip()
    if len(outer) < 2 or _QUOTE_PAIRS.get(outer[0]) != outer[-1]:
        return text
    inner = outer[1:-1]
    without_apostrophes = re.sub(r"(?<=\w)['\u2019](?=\w)", "", inner)
    return text if {outer[0], outer[-1]} & set(without_apostrophes) else inner


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: white space, marks of a byte order, spaces without width."""
    return not text.translate(_WITHOUT_WIDTH).strip()


def unencodable(text: str) -> str:
    """Why a text is none, or an empty string: zero bytes (binary, UTF-16) and halves of surrogate pairs (an emoji cut
    in two) cannot be encoded.
    """
    if "\0" in text:
        return "holds a zero byte: expected UTF-8 text"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a character: expected UTF-8 text"
    return ""


def has_negation(text: str) -> bool:
    """Whether a word of the text denies something."""
    return NEGATION.search(text) is not None
