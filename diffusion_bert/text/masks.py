"""How a [MASK] may be typed, and the final mark that a text with one is read with."""

import re

from .english import MASK, split_sentences

_TYPED = re.compile(r"\[ ?mask ?\]|< ?mask ?>", re.IGNORECASE)
_ASKING = re.compile(
    r"(?:who|whom|whose|what|when|where|why|how|which|is|are|am|was|were|does|did|can|could|will|would|should|shall|has"
    r"|had|might|isn't|aren't|don't you|doesn't|didn't|(?:do|have|may) (?:i|you|we|they|the|your|my|any))\b[^,]*",
    re.IGNORECASE | re.DOTALL,
)
_OPENING, _CLOSING = "\"'\u201c\u2018([ ", "\"'\u201d\u2019)]}*_ \t\r\n"


def with_masks(text: str) -> str:
    """The text with every [mask], [Mask] and <mask> written as [MASK]."""
    return _TYPED.sub(MASK, text)


def missing_mark(text: str) -> str:
    """The mark that a text without one at its end is read with: "?" for a question, else "."; "" where there is one.

    Closing quotes and brackets do not count; after a comma, a dash or the like nothing is missing.
    """
    core = text.rstrip(_CLOSING)  # of a [MASK] the letters stay
    if not core[-1:].isalnum():
        return ""
    return "?" if _ASKING.fullmatch(split_sentences(core)[-1].lstrip(_OPENING)) else "."
