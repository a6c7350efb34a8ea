"""How a [MASK] may be typed, and the final mark a text lacks."""

import pytest

from diffusion_bert.text.masks import missing_mark, with_masks


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("I like [MASK]", "."),
        ("Where is [MASK]", "?"),
        ("Do you [MASK]", "?"),
        ("Have a nice [MASK]", "."),
        ("When I was young, I [MASK]", "."),
        ("Fine. How are [MASK]", "?"),
        ('He said "[MASK]"', "."),
        ('He said "[MASK]."', ""),
        ("(so [MASK])  ", "."),
        ("Hello, [MASK],", ""),
        ("[MASK]!", ""),
        ("[MASK]...", ""),
        ("[MASK]", "."),
        ("", ""),
        ("\u201cIs it [MASK]\u201d", "?"),
    ],
)
def test_missing_mark(text, mark):
    """A question asks for "?", any other text for ".", and nothing is missing behind a mark."""
    assert missing_mark(text) == mark


def test_with_masks():
    """Other spellings become [MASK]; words that only look alike stay."""
    assert with_masks("[mask] <MASK> [Mask], mask [masks] (mask)") == "[MASK] [MASK] [MASK], mask [masks] (mask)"
