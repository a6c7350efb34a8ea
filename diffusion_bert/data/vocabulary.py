"""Vocabularies: one learned from texts, or that of a model on the hub or on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from .word_pieces import WordPieces

BASIC_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789.,:;?!'\"()-&%$#/"
MAX_ALPHABET = 500


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


def learn_vocabulary(texts: Iterable[str], vocab_size: int) -> list[str]:
    """An uncased WordPiece vocabulary of at most ``vocab_size`` pieces, in the order of their ids; the same texts
    always give the same one.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    # words end at every space, so each distinct stretch between spaces is split up once
    for stretch, count in Counter(stretch for text in texts for stretch in text.split(" ")).items():
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(stretch)):
            counts[word] += count
    letters = Counter(BASIC_ALPHABET)
    for word, count in counts.items():
        for letter in word:
            letters[letter] += count
    # each letter takes two places, x and ##x
    size = min(MAX_ALPHABET, (vocab_size - len(WordPieces.SPECIAL)) // 2)
    alphabet = sorted(sorted(letters, key=lambda letter: (-letters[letter], letter))[:size])
    # The library numbers the pieces "##x" in the order of a randomly seeded hash table and breaks ties by number.
    # Named as special tokens, they get fixed numbers; the vocabulary is then put into a fresh tokenizer in which
    # they are ordinary.
    fixed = [*WordPieces.SPECIAL, *(f"##{letter}" for letter in alphabet)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=fixed, initial_alphabet=alphabet, show_progress=False
    )
    draft = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    draft.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    draft.train_from_iterator(
        (" ".join([word] * count) for word, count in sorted(counts.items()) if set(word) <= set(alphabet)), trainer
    )
    return sorted(draft.get_vocab(), key=draft.token_to_id)
