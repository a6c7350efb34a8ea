"""A WordPiece or byte-level BPE tokenizer: read from a BERT, or learned from the training data; it travels inside every
checkpoint as JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from ..errors import UserError
from .vocabulary import learn_vocabulary, load_tokenizer, uncased
from .word_pieces import BytePieces, WordPieces, evenly_spaced, is_byte_level

SPECIAL_TOKENS = WordPieces.SPECIAL
MAX_KNOWN = 500_000  # stretches of text whose ids are remembered


class TextTokenizer:
    """Text <-> word-piece ids. Literal special tokens in a text are ordinary text; only ``fill``/``mask`` give [MASK] a
    meaning.

    Args:
        json_text: the fast tokenizer's serialised form.
        source: where it came from, for error messages.
    """

    def __init__(self, json_text: str, source: str = "tokenizer"):
        try:
            self.backend = Tokenizer.from_str(json_text)
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{source}: not a tokenizer ({str(error)[:80]})") from None
        self.pieces = BytePieces() if is_byte_level(json_text) else WordPieces()
        if isinstance(self.pieces, BytePieces):
            json_text = evenly_spaced(json_text)
            self.backend = Tokenizer.from_str(json_text)
        _as_ordinary_text(self.backend)
        self.json = json_text
        self._known: dict[str, list[int]] = {}  # ids of stretches between spaces
        # some byte-level vocabularies have the specials of RoBERTa, others those of BERT
        special = min((self.pieces.SPECIAL, SPECIAL_TOKENS), key=lambda names: len(self._missing(names)))
        missing = self._missing(special)
        if missing or not (isinstance(self.backend.model, models.WordPiece) or isinstance(self.pieces, BytePieces)):
            reason = (
                f"it lacks {', '.join(missing)}" if missing else f"its model is {type(self.backend.model).__name__}"
            )
            raise UserError(
                f"{source}: not a BERT {self.pieces.KIND} tokenizer ({reason}); choose a BERT such as bert-base-uncased"
            )
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            self.backend.token_to_id(token) for token in special
        )
        self.tokens = [
            self.backend.id_to_token(index) or f"[unused-{index}]"
            for index in range(self.backend.get_vocab_size(with_added_tokens=True))
        ]

    def _missing(self, names: Iterable[str]) -> list[str]:
        return [token for token in names if self.backend.token_to_id(token) is None]

    @classmethod
    def from_pretrained(cls, name_or_path: str, **where) -> TextTokenizer:
        """The tokenizer of a hub model or local directory, through transformers; ``where`` are its options, such as
        local_files_only.
        """
        tokenizer = load_tokenizer(name_or_path, **where)
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise UserError(f"{name_or_path}: it has no fast tokenizer; choose a BERT such as bert-base-uncased")
        return cls(tokenizer.backend_tokenizer.to_str(), source=str(name_or_path))

    @classmethod
    def learn(cls, texts: Iterable[str], vocab_size: int, strip_accents: bool = False) -> TextTokenizer:
        """Learn an uncased WordPiece vocabulary of at most ``vocab_size`` pieces from texts; the same texts always give
        the same one.
        """
        return cls.from_vocabulary(learn_vocabulary(texts, vocab_size, strip_accents), strip_accents)

    @classmethod
    def from_vocabulary(cls, tokens: Sequence[str], strip_accents: bool = False) -> TextTokenizer:
        """An uncased BERT tokenizer with these tokens, the ids being their places."""
        backend = Tokenizer(
            models.WordPiece(
                {token: index for index, token in enumerate(tokens)}, unk_token="[UNK]", max_input_chars_per_word=100
            )
        )
        backend.normalizer = uncased(strip_accents)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece(prefix="##")
        backend.add_special_tokens(list(SPECIAL_TOKENS))
        return cls(backend.to_str())

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    @property
    def special_ids(self) -> list[int]:
        """[PAD], [UNK], [CLS], [SEP], [MASK]: informativeness 0."""
        return [self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id]

    @property
    def forbidden_ids(self) -> list[int]:
        """Never words: no mass in mu. ([UNK] keeps its mass in training, or one emoji would make the NELBO
        infinite.)
        """
        return [self.pad_id, self.cls_id, self.sep_id, self.mask_id]

    @cached_property
    def unwritable_ids(self) -> list[int]:
        """Never written when sampling: specials, [UNK] and unused entries."""
        added = (
            []
            if isinstance(self.pieces, WordPieces)
            else [i for i, token in self.backend.get_added_tokens_decoder().items() if token.special]
        )
        return sorted(
            {
                *self.special_ids,
                *added,
                *(index for index, token in enumerate(self.tokens) if not self.pieces.writable(token)),
            }
        )

    @cached_property
    def continuation(self) -> torch.Tensor:
        """[V] bool: pieces that continue a word (``##ing``)."""
        return torch.tensor([self.pieces.continues(token) for token in self.tokens])

    @cached_property
    def signs(self) -> torch.Tensor:
        """[V] bool: pieces without a letter or digit: punctuation and symbols."""
        return torch.tensor([not any(map(str.isalnum, self.surface(index))) for index in range(len(self.tokens))])

    @cached_property
    def repeatable(self) -> torch.Tensor:
        """[V] bool: pieces that may well stand beside themselves in good English: quotes, brackets and other
        punctuation, ##digits inside a number. In QQP about nine tenths of the pieces that do are such.
        """
        return torch.tensor([self._is_repeatable(token) for token in self.tokens])

    def _is_repeatable(self, token: str) -> bool:
        surface = self.pieces.surface(token)
        return _is_punctuation(surface) or (self.pieces.continues(token) and surface.isdigit())

    @cached_property
    def is_uncased(self) -> bool:
        return self.encode("Q") == self.encode("q")

    def encode(self, text: str) -> list[int]:
        """Ids without special tokens."""
        return self.backend.encode(text, add_special_tokens=False).ids

    @cached_property
    def splits_at_spaces(self) -> bool:
        """Whether a text's ids are those of its stretches between spaces, one after the other: so it is with BERT's own
        rules.
        """
        # a special one is ordinary text here, another might hold a space
        added = self.backend.get_added_tokens_decoder().values()
        normalizer, splitter = self.backend.normalizer, self.backend.pre_tokenizer
        is_bert = isinstance(normalizer, normalizers.BertNormalizer) and isinstance(
            splitter, pre_tokenizers.BertPreTokenizer
        )
        return is_bert and all(token.special for token in added)

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts; each distinct stretch between spaces is looked up in the vocabulary once, and what is new
        in parallel.
        """
        if not self.splits_at_spaces:
            return self._encode_batch(texts)
        rows = [text.split(" ") for text in texts]
        if len(self._known) > MAX_KNOWN:
            self._known.clear()
        new = list({stretch for row in rows for stretch in row} - self._known.keys())
        self._known.update(zip(new, self._encode_batch(new)))
        known = self._known
        return [[index for stretch in row for index in known[stretch]] for row in rows]

    def _encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_with_offsets(self, text: str, goes_on: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and the (start, end) of each in the text, white space left out. ``goes_on``: the text begins right behind
        a masked place.
        """
        bytewise = isinstance(self.pieces, BytePieces)
        encoding = (self._unspaced if bytewise and goes_on else self.backend).encode(text, add_special_tokens=False)
        if not bytewise:
            return encoding.ids, encoding.offsets
        return encoding.ids, [(end - len(text[start:end].lstrip()), end) for start, end in encoding.offsets]

    @cached_property
    def _unspaced(self) -> Tokenizer:
        backend = Tokenizer.from_str(evenly_spaced(self.json, space_before=False))
        _as_ordinary_text(backend)
        return backend

    def with_blanks(self, ids: Iterable[int]) -> str:
        """The word pieces as a line of text in which masked places show as ____."""
        if isinstance(self.pieces, BytePieces):
            return self.pieces.text(["Ġ____" if index == self.mask_id else self.tokens[index] for index in ids])
        return " ".join("____" if index == self.mask_id else self.tokens[index] for index in ids).replace(" ##", "")

    def surface(self, index: int) -> str:
        """A piece as it is written, without the mark of its kind."""
        return self.pieces.surface(self.tokens[index])

    def words(self, ids: Iterable[int]) -> list[str]:
        """Whole words; of WordPiece also every punctuation mark, of byte-level BPE what stands between spaces."""
        return self.pieces.words([self.tokens[index] for index in ids])

    def text(self, ids: Iterable[int]) -> str:
        """The ids as text with a reader's spacing."""
        return self.pieces.text([self.tokens[index] for index in ids])


def _is_punctuation(token: str) -> bool:
    """No letter or digit, and not what ends or divides a sentence."""
    return not any(character.isalnum() for character in token) and token not in tuple(".,:;?!")


def _as_ordinary_text(backend: Tokenizer) -> None:
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True
