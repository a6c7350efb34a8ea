"""From pairs to batches: nothing cut, every example once an epoch, the layout by hand, the same batches on every machine."""

import numpy as np
import pytest
import torch
from tiny import grammar_pairs, tiny_tokenizer

from diffusion_bert.config import DataConfig
from diffusion_bert.data import CONTINUE, NO_SOURCE, PAIR, Collator, EpochBatches, describe, encode_pairs, fixed_batches
from diffusion_bert.layout import Batch
from diffusion_bert.reading import Pair
from diffusion_bert.tasks import TASKS
from diffusion_bert.tokenization import SPECIAL_TOKENS, TextTokenizer

PROMPT = "paraphrase:"
PAD, UNK, CLS, SEP, MASK = range(5)
WORDS = TextTokenizer.from_vocabulary([*SPECIAL_TOKENS, "paraphrase", "continue", ":", "a", "b", "c", "d", "##e"])
PARAPHRASE, CONTINUED, COLON, A, B, C, D, E = range(5, 13)


def many(size: int = 700, config: DataConfig | None = None):
    """Encoded grammar pairs and their collator."""
    return encode_pairs(grammar_pairs("train", size), tiny_tokenizer(), config or DataConfig(), PROMPT), Collator(tiny_tokenizer(), PROMPT)


def same(one: Batch, two: Batch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("input_ids", "source_length", "prompt_length", "target_length"))


# ---- encoding ---------------------------------------------------------------------------------------------------------------------------


def test_encoded_pairs_round_trip():
    """Every kept pair has exactly its tokenizer's ids, nothing cut; lengths and `kept` agree."""
    pairs = [*grammar_pairs("train", 40), Pair(None, "how can i cook ?"), Pair("", "why ?")]
    data = encode_pairs(pairs, tiny_tokenizer(), DataConfig(), PROMPT)
    assert len(data) == len(pairs) and data.kept.tolist() == list(range(len(pairs))) and not data.notes
    for index, pair in enumerate(pairs):
        assert data.source(index).tolist() == tiny_tokenizer().encode(pair.source or "") and data.target(index).tolist() == tiny_tokenizer().encode(
            pair.target
        )
    assert data.source_lengths.tolist() == [len(data.source(index)) for index in range(len(data))]
    assert data.target_lengths.tolist() == [len(data.target(index)) for index in range(len(data))]
    assert data.has_source.tolist() == [True] * 40 + [False, True]
    assert "42 examples" in describe(TASKS["sample"], data)


def test_what_does_not_fit_is_left_out_and_counted():
    """At the limits a pair is kept, one piece over it is left out, each reason with its count; the kept ones are whole."""
    config = DataConfig(max_length=20, max_target_length=8)  # 20 - [CLS] - 2 [SEP] - prompt of 2 = 15 for source and target
    pairs = [
        Pair("a", " ".join("b" * 8)),
        Pair("a", " ".join("b" * 9)),
        Pair(" ".join("a" * 7), " ".join("b" * 8)),
        Pair(" ".join("a" * 8), " ".join("b" * 8)),
        Pair(" ".join("a" * 14), "c"),
        Pair(" ".join("a" * 30), "c"),
        Pair("a", "\u200b"),
        Pair(None, "d"),
    ]
    data = encode_pairs(pairs, WORDS, config, PROMPT)
    assert data.kept.tolist() == [0, 2, 4, 7] and data.has_source.tolist() == [True, True, True, False]
    assert [data.source(index).tolist() for index in range(4)] == [[A], [A] * 7, [A] * 14, []]
    assert [data.target(index).tolist() for index in range(4)] == [[B] * 8, [B] * 8, [C], [D]]
    assert len(data.notes) == 3
    for note, words in zip(
        data.notes, ("1 of 8 rows left out: targets longer", "2 of 8 rows left out: pairs longer", "1 of 8 rows left out: targets without")
    ):
        assert note.startswith(words)


@pytest.mark.parametrize("prompt", ["paraphrase:", "reply:", ""])
def test_no_sequence_exceeds_max_length(prompt):
    """Whatever skill an example gets, and whichever prompt is longer, its sequence fits into max_length."""
    tokenizer = TextTokenizer.from_vocabulary(
        [*SPECIAL_TOKENS, *"abcdefghijklmnopqrstuvwxyz:", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    )
    config = DataConfig(max_length=24, max_target_length=20, source_dropout=0.3, continue_share=0.4)
    pairs = [Pair("a " * source, "b " * target) for source in range(0, 16) for target in range(1, 20)] + [
        Pair(None, "c " * target) for target in range(1, 20)
    ]
    data = encode_pairs(pairs, tokenizer, config, prompt)
    all_widths = [batch.input_ids.shape[1] for epoch in range(3) for batch in EpochBatches(data, Collator(tokenizer, prompt), config, 64, 0, epoch)]
    assert max(all_widths) <= 24


def test_no_pairs_at_all():
    """Nothing in, nothing out: no batches."""
    data = encode_pairs([], WORDS, DataConfig(), PROMPT)
    assert len(data) == 0 and len(EpochBatches(data, Collator(WORDS, PROMPT), DataConfig(), 4, 0, 0)) == 0


# ---- the layout of a batch --------------------------------------------------------------------------------------------------------------


def test_layout_by_hand():
    """[CLS] prompt source [SEP] target [SEP] written out for one example of each skill, with every mask."""
    collator = Collator(WORDS, PROMPT)
    batch = collator.batch([(PAIR, [A, B], [C, D, E]), (NO_SOURCE, (), [A]), (CONTINUE, [A], [B, C])])
    assert batch.input_ids.tolist() == [
        [CLS, PARAPHRASE, COLON, A, B, SEP, C, D, E, SEP],
        [CLS, SEP, A, SEP, PAD, PAD, PAD, PAD, PAD, PAD],
        [CLS, CONTINUED, COLON, A, SEP, B, C, SEP, PAD, PAD],
    ]
    assert batch.source_length.tolist() == [6, 2, 5] and batch.prompt_length.tolist() == [2, 0, 2] and batch.target_length.tolist() == [3, 1, 2]

    def drawn(mask) -> list[str]:
        return ["".join(".x"[int(value)] for value in row) for row in mask]

    assert drawn(batch.valid) == ["xxxxxxxxxx", "xxxx......", "xxxxxxxx.."]
    assert drawn(batch.target_mask) == ["......xxx.", "..x.......", ".....xx..."]
    assert drawn(batch.copyable) == ["...xx.....", "..........", "...x......"]
    assert drawn(batch.is_target_segment) == ["......xxxx", "..xxxxxxxx", ".....xxxxx"]
    assert batch.source_ids().tolist() == [[CLS, PARAPHRASE, COLON, A, B, SEP], [CLS, SEP] + [PAD] * 4, [CLS, CONTINUED, COLON, A, SEP, PAD]]
    assert (batch.pad_id, batch.mask_id, len(batch)) == (PAD, MASK, 3) and batch.input_ids.dtype == torch.int64


def test_continue_cuts_at_word_boundaries_only():
    """Prefix and rest are the whole target; neither is empty, and the rest never begins inside a word."""
    data, collator = many(100)
    for index in range(len(data)):
        for cut in (0.0, 0.3, 0.7, 0.999999):
            skill, prefix, rest = collator.example(data, index, CONTINUE, cut)
            assert skill == CONTINUE and len(prefix) and len(rest)
            assert [*prefix, *rest] == data.target(index).tolist()
            assert not tiny_tokenizer().continuation[rest[0]]


def test_continue_reaches_every_boundary():
    """The cut runs over all word boundaries of a target; a single word cannot be continued and is written without a source."""
    collator, data = Collator(WORDS, PROMPT), encode_pairs([Pair("a", "ae b ce d"), Pair("a", "aee")], WORDS, DataConfig(), PROMPT)
    assert data.target(0).tolist() == [A, E, B, C, E, D]
    assert [len(collator.example(data, 0, CONTINUE, cut)[1]) for cut in (0.0, 0.34, 0.67)] == [2, 3, 5]
    skill, source, target = collator.example(data, 1, CONTINUE, 0.5)
    assert skill == NO_SOURCE and len(source) == 0 and list(target) == [A, E, E]


def test_no_source_and_pair():
    """NO_SOURCE has the whole target and an empty source; PAIR has both as they are."""
    data, collator = many(5)
    skill, source, target = collator.example(data, 3, NO_SOURCE)
    assert skill == NO_SOURCE and len(source) == 0 and np.array_equal(target, data.target(3))
    skill, source, target = collator.example(data, 3, PAIR)
    assert skill == PAIR and np.array_equal(source, data.source(3)) and np.array_equal(target, data.target(3))


# ---- epochs -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, batch_size", [(700, 32), (700, 7), (10, 64), (1, 1), (64, 64)])
def test_every_example_once_per_epoch(size, batch_size):
    """An epoch's batches are a permutation of the examples: the last partial batch is kept, a batch may be larger than the data."""
    data, collator = many(size)
    epoch = EpochBatches(data, collator, DataConfig(), batch_size, seed=1, epoch=0)
    assert sorted(index for batch in epoch.batches for index in batch) == list(range(size))
    assert len(epoch) == -(-size // batch_size) and sum(len(epoch[number]) for number in range(len(epoch))) == size
    assert max(map(len, epoch.batches)) <= batch_size


def test_epochs_depend_on_seed_and_number_alone():
    """The same (seed, epoch) gives the same batches; another epoch or seed gives others."""
    data, collator = many(200)

    def batches(seed: int, epoch: int) -> list[Batch]:
        dataset = EpochBatches(data, collator, DataConfig(), 16, seed, epoch)
        return [dataset[number] for number in range(len(dataset))]

    first = batches(1, 0)
    assert all(map(same, first, batches(1, 0)))
    for seed, epoch in ((1, 1), (2, 0), (0, 1)):
        assert not all(map(same, first, batches(seed, epoch)))


def test_shares_of_the_skills():
    """Over some epochs the shares of skills are near the options, and differ from epoch to epoch for one example."""
    config = DataConfig(source_dropout=0.2, continue_share=0.3)
    data, collator = many()
    skills = np.stack([EpochBatches(data, collator, config, 64, 3, epoch).skills for epoch in range(10)])
    shares = [(skills == skill).mean() for skill in (PAIR, NO_SOURCE, CONTINUE)]
    assert shares == pytest.approx([0.5, 0.2, 0.3], abs=0.025)  # 4 sigma of 7,000 draws
    assert (skills.std(axis=0) > 0).mean() > 0.9
    only = DataConfig(source_dropout=0.0, continue_share=0.0)
    assert (EpochBatches(data, collator, only, 64, 3, 0).skills == PAIR).all()


@pytest.mark.parametrize("shares, limit", [((0.0, 0.0), 0.02), ((0.1, 0.1), 0.13)])
def test_padding_is_rare(shares, limit):
    """Pairs are bucketed by length; those trained without their source leave their places empty, so that no batch holds one skill only."""
    config = DataConfig(source_dropout=shares[0], continue_share=shares[1])
    data, collator = many()
    batches = [batch for epoch in range(2) for batch in EpochBatches(data, collator, config, 32, 0, epoch)]
    places, padding = sum(batch.valid.numel() for batch in batches), sum(int((~batch.valid).sum()) for batch in batches)
    assert padding / places < limit


def test_skills_are_mixed_within_batches():
    """Hardly a batch holds one skill only, and the share of pairs does not depend on the length."""
    data, collator = many()
    epoch = EpochBatches(data, collator, DataConfig(source_dropout=0.2, continue_share=0.2), 32, 0, 0)
    assert all(len(set(epoch.skills[batch])) > 1 for batch in epoch.batches if len(batch) == 32)


def test_share_of_continued_texts():
    """text_continue_share divides plain texts between continuing and writing without a source, and leaves pairs alone."""
    tokenizer = tiny_tokenizer()
    texts = [Pair(None, pair.target) for pair in grammar_pairs("train", 700)]
    data = encode_pairs([*texts, *grammar_pairs("train", 700)], tokenizer, DataConfig(), "paraphrase:")
    collator = Collator(tokenizer, "paraphrase:")
    plain = DataConfig(source_dropout=0.2)
    for share in (0.0, 0.3, 1.0):
        config = DataConfig(source_dropout=0.2, text_continue_share=share)
        epoch = EpochBatches(data, collator, config, 64, 3, 0)
        assert (epoch.skills[:700] == CONTINUE).mean() == pytest.approx(share, abs=0.07)
        assert (epoch.skills[:700] != PAIR).all()
        assert (epoch.skills[700:] == EpochBatches(data, collator, plain, 64, 3, 0).skills[700:]).all()


def test_plain_texts_are_never_pairs():
    """A text without a source is continued or written without one, half and half, whatever the shares say."""
    texts = [Pair(None, pair.target) for pair in grammar_pairs("train", 700)]
    data = encode_pairs(texts, tiny_tokenizer(), DataConfig(), PROMPT)
    skills = EpochBatches(data, Collator(tiny_tokenizer(), PROMPT), DataConfig(source_dropout=0.0, continue_share=0.0), 32, 0, 0).skills
    assert not (skills == PAIR).any() and (skills == CONTINUE).mean() == pytest.approx(0.5, abs=0.08)


def test_workers_change_nothing():
    """Through a DataLoader, with no worker or two, come the same batches in the same order."""
    data, collator = many(100)
    dataset = EpochBatches(data, collator, DataConfig(), 16, 0, 0)
    alone = list(torch.utils.data.DataLoader(dataset, batch_size=None))
    shared = list(torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2))
    assert len(alone) == len(shared) == len(dataset)
    assert all(same(one, two) and same(one, dataset[number]) for number, (one, two) in enumerate(zip(alone, shared)))


def test_fixed_batches():
    """Validation batches: all examples once, sorted by length, the same every time; a limit takes an even spread; texts go without source."""
    data, collator = many(100)
    batches = fixed_batches(data, collator, 16)
    assert all(map(same, batches, fixed_batches(data, collator, 16)))
    targets = sorted(tuple(row[mask].tolist()) for batch in batches for row, mask in zip(batch.input_ids, batch.target_mask))
    assert targets == sorted(tuple(data.target(index).tolist()) for index in range(len(data)))
    lengths = [length for batch in batches for length in (batch.source_length + batch.target_length).tolist()]
    assert lengths == sorted(lengths)
    assert sum(map(len, fixed_batches(data, collator, 16, limit=10))) == 10 and sum(map(len, fixed_batches(data, collator, 16, limit=1000))) == 100
    texts = encode_pairs([Pair(None, "how can i cook ?"), Pair("why ?", "what ?")], tiny_tokenizer(), DataConfig(), PROMPT)
    batch = fixed_batches(texts, collator)[0]
    assert sorted(zip(batch.prompt_length.tolist(), batch.source_length.tolist())) == [(0, 2), (2, 4 + len(tiny_tokenizer().encode("why ?")))]
