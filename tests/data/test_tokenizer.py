"""WordPiece: learned the same way everywhere, read from a BERT unchanged, special tokens in a text are ordinary
text.
"""

import hashlib
import os
import subprocess
import sys

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from diffusion_bert.data.tokenizer import SPECIAL_TOKENS, TextTokenizer
from tests.helpers.models import grammar_texts, refusal, save_bert, tiny_tokenizer

LEARN_ELSEWHERE = """
import hashlib, sys
from diffusion_bert.data.tokenizer import TextTokenizer
texts = sys.stdin.read().split("\\n")
print(hashlib.sha256(TextTokenizer.learn(texts, 600).json.encode()).hexdigest())
"""


def test_learning_is_deterministic():
    """The same texts give the same vocabulary, id by id: again in this process and in others with another hash seed."""
    again = TextTokenizer.learn(list(grammar_texts()), 600)
    assert again.json == TextTokenizer.learn(grammar_texts(), 600).json
    digest = hashlib.sha256(again.json.encode()).hexdigest()
    for hash_seed in ("1", "77"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "RAYON_NUM_THREADS": "2",
        }
        result = subprocess.run(
            [sys.executable, "-c", LEARN_ELSEWHERE],
            input="\n".join(grammar_texts()),
            env=environment,
            capture_output=True,
            text=True,
        )
        assert result.stdout.strip() == digest, result.stderr


@pytest.mark.parametrize("size", [100, 150, 600, 5000])
def test_vocabulary_limit(size):
    """Never more pieces than asked for, however small; the specials come first and no piece occurs twice."""
    tokenizer = TextTokenizer.learn(grammar_texts(), size)
    assert tokenizer.vocab_size <= size and len(set(tokenizer.tokens)) == tokenizer.vocab_size
    assert tuple(tokenizer.tokens[:5]) == SPECIAL_TOKENS and tokenizer.special_ids == [0, 1, 2, 3, 4]
    assert tokenizer.unk_id not in tokenizer.encode("how can i learn to cook?") or size == 100


def test_vocabulary_limit_with_many_letters():
    """An alphabet larger than the vocabulary keeps its most common letters."""
    texts = ["".join(map(chr, range(0x3041, 0x3097))), *["zzz yyy"] * 50]
    tokenizer = TextTokenizer.learn(texts, 120)
    assert tokenizer.vocab_size <= 120 and {"z", "##z", "y"} <= set(tokenizer.tokens)


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        (["".join(chr(0x4E00 + 3 * n + k) for k in range(20)) for n in range(600)] * 2, "\u4e10\u4e28\u4fff"),
        (["Élan über naïve cafés"] * 3, "élüï"),
        (["한국어 배우기"] * 3, "한국어배"),
        (["где музей ёлка"] * 3, "гёй"),
    ],
)
def test_letters_of_other_languages_are_kept(texts, kept):
    """Chinese beyond 500 letters, accents, Hangul: in the vocabulary and not stripped, unless that is asked for."""
    tokenizer = TextTokenizer.learn(texts, 4000)
    assert all(tokenizer.unk_id not in tokenizer.encode(text) for text in texts)
    assert set(kept) <= {letter for token in tokenizer.tokens for letter in token}
    if kept == "élüï":
        stripped = TextTokenizer.learn(texts, 4000, strip_accents=True)
        assert stripped.encode("élan") == stripped.encode("elan") != tokenizer.encode("élan")


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_literal_special_tokens_are_ordinary_text(token):
    """What looks like a special token in a text becomes no special id, [UNK] for unknown signs aside."""
    tokenizer = tiny_tokenizer()
    specials = {*tokenizer.special_ids} - {tokenizer.unk_id}
    for ids in (
        tokenizer.encode(f"how {token} cook"),
        tokenizer.encode_many([token])[0],
        tokenizer.encode_with_offsets(token)[0],
    ):
        assert len(ids) >= 3 and not specials & set(ids)


def test_words_joins_pieces():
    """Pieces with ## are joined to the word before; at the start they stand for themselves."""
    tokenizer = TextTokenizer.from_vocabulary([*SPECIAL_TOKENS, "cook", "##ing", "##s", "?"])
    assert tokenizer.words([5, 6, 7, 5, 8]) == ["cookings", "cook", "?"]
    assert tokenizer.words([6, 7]) == ["ings"] and tokenizer.words([]) == []
    text = "how can i learn to cook potato salad in 3 weeks ?"
    assert " ".join(tiny_tokenizer().words(tiny_tokenizer().encode(text))) == text


def test_offsets_point_at_the_text():
    """Each piece's span holds its letters; the spans are in order."""
    text = "  Learning,  to COOK (soon)?"
    ids, spans = tiny_tokenizer().encode_with_offsets(text)
    assert ids == tiny_tokenizer().encode(text)
    assert [text[start:end].lower() for start, end in spans] == [
        tiny_tokenizer().tokens[index].removeprefix("##") for index in ids
    ]
    assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:]))


def test_json_round_trip():
    """A tokenizer survives as its JSON string: same ids, same sets."""
    one, two = tiny_tokenizer(), TextTokenizer(tiny_tokenizer().json)
    assert two.json == one.json and two.tokens == one.tokens
    assert (
        two.encode_many(grammar_texts())
        == one.encode_many(grammar_texts())
        == [one.encode(text) for text in grammar_texts()]
    )
    assert two.continuation.tolist() == [token.startswith("##") for token in one.tokens]
    assert two.is_uncased and two.forbidden_ids == [0, 2, 3, 4]


def test_from_pretrained_equals_transformers(tmp_path):
    """A BERT directory's tokenizer gives the ids of transformers itself, for all text without literal special
    tokens.
    """
    save_bert(tmp_path)
    ours, theirs = TextTokenizer.from_pretrained(str(tmp_path)), transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("How is COOKING?", "unaffable, \u00e0 la k!", "what\tis \U0001f600 learning..", ""):
        assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids
    assert (
        ours.vocab_size == len(theirs) and ours.mask_id == theirs.mask_token_id and ours.cls_id == theirs.cls_token_id
    )
    assert "[unused0]" in ours.tokens and ours.unwritable_ids == [0, 1, 2, 3, 4, 5]
    assert ours.mask_id not in ours.encode("how [MASK] is") and ours.words(ours.encode("[MASK]")) == ["[", "mask", "]"]
    assert ours.words(ours.encode("unaffable cooking")) == ["unaffable", "cooking"]


def test_padding_and_truncation_of_a_saved_tokenizer_do_not_count(tmp_path):
    """A tokenizer.json that pads or cuts is read without these habits."""
    save_bert(tmp_path)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(3)
    backend.enable_padding(length=10)
    tokenizer = TextTokenizer(backend.to_str())
    assert list(map(len, tokenizer.encode_many(["how", "how is the cook"]))) == [1, 4]


@pytest.mark.parametrize(
    "model",
    [models.BPE(), models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"), models.Unigram([("[UNK]", 0.0)], unk_id=0)],
)
def test_other_kinds_of_tokenizers_are_refused(model):
    """BPE, word-level and unigram tokenizers are refused, even with BERT's special tokens."""
    backend = Tokenizer(model)
    assert "not a BERT WordPiece tokenizer" in refusal(TextTokenizer, backend.to_str(), "that one")
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    message = refusal(TextTokenizer, backend.to_str(), "that one")
    assert message.startswith("that one") and type(model).__name__ in message


@pytest.mark.parametrize("json_text", ["", "{}", "nonsense", "\n"])
def test_what_is_no_tokenizer_is_refused(json_text):
    """Text that is no tokenizer gives one line."""
    assert "not a tokenizer" in refusal(TextTokenizer, json_text)


def test_missing_specials_are_named():
    """A WordPiece vocabulary without [MASK] is refused by name."""
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3}, unk_token="[UNK]"))
    assert "lacks [MASK]" in refusal(TextTokenizer, backend.to_str())


STRETCHES = st.text(
    st.sampled_from("aeKq ?.[]\t\n\r\x1c\x85\u00a0\u2028\u200b\u0301\u00c5\u03a3\u1e9e\u0130\u6f22\u00ad#\U0001f600")
    | st.characters(exclude_categories=["Cs"])
)


@given(st.lists(STRETCHES, max_size=8))
@settings(max_examples=300, deadline=None)
def test_encoding_many_is_encoding_each(texts):
    """Stretch by stretch or whole, with any spaces, accents, signs and controls: the same ids."""
    tokenizer = tiny_tokenizer()
    assert tokenizer.splits_at_spaces
    assert tokenizer.encode_many(texts) == [tokenizer.encode(text) for text in texts]


@given(st.lists(STRETCHES, min_size=1, max_size=8))
@settings(max_examples=300, deadline=None)
def test_words_are_counted_as_if_in_whole_texts(texts):
    """BERT's rules split a text between its spaces as they split the whole: what ``learn`` counts rests on this."""
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()

    def words(text: str) -> list[str]:
        return [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]

    for text in texts:
        assert words(text) == [word for stretch in text.split(" ") for word in words(stretch)]


def test_other_rules_are_not_split_at_spaces():
    """A tokenizer with other rules, or with an added token that holds a space, is asked for whole texts."""
    words = [*SPECIAL_TOKENS, "new", "york", "k"]
    backend = Tokenizer.from_str(TextTokenizer.from_vocabulary(words).json)
    backend.add_tokens(["new york"])
    tokenizer = TextTokenizer(backend.to_str())
    assert not tokenizer.splits_at_spaces and tokenizer.encode_many(["new york", "york"]) == [[8], [6]]
    backend = Tokenizer.from_str(TextTokenizer.from_vocabulary(words).json)
    backend.normalizer = normalizers.Replace("new york", "k")
    tokenizer = TextTokenizer(backend.to_str())
    assert not tokenizer.splits_at_spaces and tokenizer.encode_many(["new york"]) == [[7]]


def test_what_is_remembered_is_bounded(monkeypatch):
    """Past the bound the memory starts afresh, and the ids stay the same."""
    monkeypatch.setattr("diffusion_bert.data.tokenizer.MAX_KNOWN", 3)
    tokenizer = TextTokenizer(tiny_tokenizer().json)
    for text in ("how can i", "learn to cook", "in the garden", "how can"):
        assert tokenizer.encode_many([text]) == [tokenizer.encode(text)]
        assert len(tokenizer._known) <= 6
