"""How a [MASK] and a gap may be typed, the final mark that a text with one is read with, and letters that show only
together with another.
"""

import re
import unicodedata

from .english import MASK, split_sentences

GAP = "[MASK*]"  # some words: nobody knows how many
HOLE = re.compile(rf"({re.escape(MASK)}|{re.escape(GAP)})")
_TYPED = re.compile(r"\[ ?mask ?\*? ?\]|< ?mask ?\*? ?>", re.IGNORECASE)
_ASKING = re.compile(
    r"(?:who|whom|whose|what|when|where|why|how|which|is|are|am|was|were|does|did|can|could|will|would|should|shall|has"
    r"|had|might|isn't|aren't|don't you|doesn't|didn't|(?:do|have|may) (?:i|you|we|they|the|your|my|any))\b[^,]*",
    re.IGNORECASE | re.DOTALL,
)
_OPENING, _CLOSING = "\"'\u201c\u2018([ ", "\"'\u201d\u2019)]}*_ \t\r\n"


def with_masks(text: str) -> str:
    """The text with every [mask], [Mask] and <mask> written as [MASK], and every [mask*] and <mask*> as [MASK*]."""
    return _TYPED.sub(lambda typed: GAP if "*" in typed[0] else MASK, text)


def is_mark(letter: str) -> bool:
    """Whether a character stands on the one before it: an accent of its own, a variation selector."""
    return unicodedata.category(letter) in ("Mn", "Mc", "Me")


def shown(text: str) -> str:
    """The text without the characters that do not show alone: marks on others, joiners, soft hyphens and other signs
    without width. Tokenizers may drop them.
    """
    if text.isascii():
        return text
    return "".join(letter for letter in text if not is_mark(letter) and unicodedata.category(letter) != "Cf")


def missing_mark(text: str) -> str:
    """The mark that a text without one at its end is read with: "?" for a question, else "."; "" where there is one.

    Closing quotes and brackets do not count; after a comma, a dash or the like nothing is missing.
    """
    core = shown(text).rstrip(_CLOSING)  # of a [MASK] the letters stay
    if not core[-1:].isalnum():
        return ""
    return "?" if _ASKING.fullmatch(split_sentences(core)[-1].lstrip(_OPENING)) else "."
