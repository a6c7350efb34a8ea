"""Vocabularies: one learned from texts, or that of a model on the hub or on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from .word_pieces import WordPieces

BASIC_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789.,:;?!'\"()-&%$#/"
COMMON_LETTERS = 500  # these are in the alphabet however rare; others must occur twice


def load_tokenizer(name_or_path: str, **where):
    """The tokenizer of a hub model or local directory, by transformers with its options ``where``, such as
    local_files_only.

    Raises:
        OSError: it has no vocabulary. The library would make do with the special tokens, so that every word is an
            unknown one.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name_or_path, use_fast=True, **where)
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise OSError(f"{name_or_path} has no vocabulary (vocab.txt or tokenizer.json is missing)")
    return tokenizer


def uncased(strip_accents: bool = False) -> normalizers.BertNormalizer:
    """Small letters, with their accents unless these are to be stripped (which also takes Hangul apart)."""
    return normalizers.BertNormalizer(lowercase=True, strip_accents=strip_accents)


def learn_vocabulary(texts: Iterable[str], vocab_size: int, strip_accents: bool = False) -> list[str]:
    """An uncased WordPiece vocabulary of at most ``vocab_size`` pieces, in the order of their ids; the same texts
    always give the same one.
    """
    normalizer, splitter = uncased(strip_accents), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    # words end at every space, so each distinct stretch between spaces is split up once
    for stretch, count in Counter(stretch for text in texts for stretch in text.split(" ")).items():
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(stretch)):
            counts[word] += count
    alphabet, inside = _alphabet(counts, vocab_size - len(WordPieces.SPECIAL))
    # The library numbers the pieces "##x" in the order of a randomly seeded hash table and breaks ties by number.
    # Named as special tokens, they get fixed numbers; the vocabulary is then put into a fresh tokenizer in which
    # they are ordinary.
    fixed = [*WordPieces.SPECIAL, *(f"##{letter}" for letter in inside)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=fixed, initial_alphabet=alphabet, show_progress=False
    )
    draft = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    draft.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    known = set(alphabet)
    draft.train_from_iterator(
        (" ".join([word] * count) for word, count in sorted(counts.items()) if set(word) <= known), trainer
    )
    return sorted(draft.get_vocab(), key=draft.token_to_id)


def _alphabet(counts: Counter[str], room: int) -> tuple[list[str], list[str]]:
    """(letters, those of them that also stand inside words) for at most ``room`` pieces, the most frequent first: a
    letter takes one place, and one more as ##x. What only stands alone, as Chinese does, needs no ##x.
    """
    letters, inside = Counter(BASIC_ALPHABET), set(BASIC_ALPHABET)
    for word, count in counts.items():
        for letter in word:
            letters[letter] += count
        if len(word) > 1:
            inside.update(word)
    alphabet: list[str] = []
    for letter in sorted(letters, key=lambda letter: (-letters[letter], letter)):
        places = 1 + (letter in inside)
        if places > room or (len(alphabet) >= COMMON_LETTERS and letters[letter] < 2):
            break
        alphabet.append(letter)
        room -= places
    return sorted(alphabet), sorted(letter for letter in alphabet if letter in inside)
