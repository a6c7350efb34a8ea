"""Capitals for the text of an uncased vocabulary."""

import re

from .english import SMALL_WORDS, split_sentences

_CAPITALISED = (
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February April June July September "
    "October November December Christmas English French German Spanish Italian Portuguese Russian Chinese "
    "Japanese Korean Arabic Hindi Indian American British European African America Europe Africa India "
    "China Japan Russia Germany France England Canada Australia Pakistan USA UK U.S. U.S.A. U.K."
).split()
# 60 may be old
_DATE_MONTH = re.compile(r"\b(?:march|may|august)(?= \d{1,2}\b| \d{4}\b)|(?<=\d )(?:march|may|august)\b(?! [^\W\d])")
# what stands before a word inside a sentence
_INSIDE = re.compile(r"(?:[\w)\]&%/.'\u2019-]\s*[\"\u201c\u201d\u2018(\[]?|,\s*\(?)\s*$")
_WORD = re.compile(r"\b(?:(?:[^\W\d_]\.)+[^\W\d_]\b\.?|(?!(?<=\w['\u2019])(?:s|t|m|d|ll|re|ve)\b)\w+)", re.IGNORECASE)


def sentence_case(text: str, source: str = "") -> str:
    """Capitals for the text of an uncased vocabulary: sentence starts, the pronoun I, a short table, and the spellings
    of `source`.

    From the source come words in mixed case or capitals (iPhone, NASA) and words with a capital inside a sentence
    (Paris); a capital at a sentence start proves nothing. Not taken: small words ("The"), words the source also writes
    in lower case, and the words of a sentence with nearly every word capitalised (a title, shouting), where capitals
    carry no information.
    """
    spelling = {word.lower(): word for word in _CAPITALISED} | _source_spellings(source)

    def respell(match: re.Match) -> str:
        word = match[0]
        if word == "i" and not re.match(r"-[^\W\d_]", text[match.end() :]):
            return "I"
        return spelling.get(word, word) if word == word.lower() else word

    cased = _DATE_MONTH.sub(lambda month: month[0].capitalize(), _WORD.sub(respell, text))
    return "".join(_capital_start(piece) for piece in split_sentences(cased))


def _capital_start(sentence: str) -> str:
    word = re.search(r"\w+", sentence)
    if word is None or not word[0].islower():  # "iPhone", "3d", "NASA" stay
        return sentence
    return sentence[: word.start()] + sentence[word.start()].upper() + sentence[word.start() + 1 :]


def _source_spellings(source: str) -> dict[str, str]:
    found, lower_seen = {}, set()
    for sentence in split_sentences(source):
        words = list(_WORD.finditer(sentence))
        lower_seen.update(match[0] for match in words if match[0].islower())
        inside = [match for match in words[1:] if _INSIDE.search(sentence[max(0, match.start() - 6) : match.start()])]
        if _is_title([match[0] for match in inside]):
            continue
        for match, word in ((match, match[0]) for match in words):
            marked = any(c.isupper() for c in word[1:]) or (match in inside and word[0].isupper())
            if marked and (word.lower() not in SMALL_WORDS or word in ("IT", "WHO")):
                found.setdefault(word.lower(), word)
    return {lower: word for lower, word in found.items() if lower not in lower_seen}


def _is_title(inside: list[str]) -> bool:
    """Do nearly all words inside a sentence (small ones too, if there are any) have a capital?"""
    content = [word[0].isupper() for word in inside if word.lower() not in SMALL_WORDS and word[0].isalpha()]
    small = [word[0].isupper() for word in inside if word.lower() in SMALL_WORDS and word != "I"]
    enough = 2 if small else 5  # "Is Barack Obama American?" is no title
    return len(content) >= enough and sum(content) > 0.8 * len(content) and (not small or 2 * sum(small) >= len(small))
