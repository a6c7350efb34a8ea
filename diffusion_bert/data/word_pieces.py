"""How the pieces of a vocabulary are spelt: WordPiece marks what continues a word (``##ing``), byte-level BPE what
follows a space (``Ġthe``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..text.english import detokenize


class WordPieces:
    """BERT's pieces. Spaces are not among them: the reader's spacing is worked out from the words (text.py)."""

    SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    KIND = "WordPiece"

    def surface(self, token: str) -> str:
        """The piece as it is written, without its mark."""
        return token.removeprefix("##")

    def has_space(self, token: str) -> bool:
        """Whether a space comes before it inside a text."""
        return not token.startswith("##")

    def continues(self, token: str) -> bool:
        """Whether it goes on with the word of the piece before."""
        return token.startswith("##")

    def writable(self, token: str) -> bool:
        """Whether it may be written at all."""
        return not token.startswith("[unused")

    def words(self, tokens: Sequence[str]) -> list[str]:
        """Whole words, each punctuation mark one of its own."""
        words: list[str] = []
        for token in tokens:
            if token.startswith("##") and words:
                words[-1] += token[2:]
            else:
                words.append(token.removeprefix("##"))
        return words

    def text(self, tokens: Sequence[str]) -> str:
        """The pieces as text."""
        return detokenize(self.words(tokens))


class BytePieces:
    """The pieces of RoBERTa and ModernBERT: every one is a string of bytes, each byte shown as a character of its own,
    the space as Ġ.
    """

    SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
    KIND = "byte-level BPE"
    SPACE = "Ġ"

    def __init__(self):
        # the bytes that print as themselves in Latin-1; the others follow from 256 on
        shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
        hidden = [byte for byte in range(256) if byte not in shown]
        self.bytes = {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(hidden)}

    def _decode(self, tokens: Sequence[str], errors: str = "replace") -> str:
        return bytes(
            self.bytes[character] for token in tokens for character in token if character in self.bytes
        ).decode(errors=errors)

    def surface(self, token: str) -> str:
        return self._decode([token]).removeprefix(" ")

    def has_space(self, token: str) -> bool:
        return token.startswith(self.SPACE)

    def continues(self, token: str) -> bool:
        return not self.has_space(token) and self.surface(token)[:1].isalnum()

    def writable(self, token: str) -> bool:
        """Not a part of a character, which alone is no text, nor white space alone, nor a filler of the vocabulary."""
        try:
            return bool(self._decode([token], "strict").strip()) and not token.startswith(("[unused", "madeupword"))
        except UnicodeDecodeError:
            return False

    def words(self, tokens: Sequence[str]) -> list[str]:
        return self._decode(tokens).split()

    def text(self, tokens: Sequence[str]) -> str:
        return " ".join(self.words(tokens))


def evenly_spaced(json_text: str, space_before: bool = True) -> str:
    """A byte-level tokenizer, as JSON, that reads any white space as one space and gives the first word one too: so a
    word has the same pieces wherever it stands. Applied again it changes nothing. Without ``space_before`` the first
    word gets none: for the rest of a word.
    """
    tokenizer = json.loads(json_text)
    spacing = [
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
    ]
    normalizer = tokenizer["normalizer"]
    steps = (
        [] if normalizer is None else normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    )
    tokenizer["normalizer"] = {
        "type": "Sequence",
        "normalizers": [*(step for step in steps if step not in spacing), *spacing],
    }
    for splitter in _splitters(tokenizer):
        if splitter["type"] == "ByteLevel":
            splitter["add_prefix_space"] = space_before
    return json.dumps(tokenizer, ensure_ascii=False)


def is_byte_level(json_text: str) -> bool:
    """Whether a tokenizer, as JSON, is byte-level BPE."""
    tokenizer = json.loads(json_text)
    return tokenizer["model"]["type"] == "BPE" and any(
        splitter["type"] == "ByteLevel" for splitter in _splitters(tokenizer)
    )


def _splitters(tokenizer: dict) -> list[dict]:
    splitter = tokenizer.get("pre_tokenizer")
    return [] if splitter is None else splitter["pretokenizers"] if splitter["type"] == "Sequence" else [splitter]
