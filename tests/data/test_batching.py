"""From pairs to batches: nothing cut, every example once an epoch, the layout by hand, the same batches on every
machine.
"""

import numpy as np
import pytest
import torch

from diffusion_bert.commands.announcement import describe
from diffusion_bert.config.schema import DataConfig
from diffusion_bert.config.tasks import TASKS
from diffusion_bert.data.batch import Batch
from diffusion_bert.data.batching import Collator, EpochBatches, fixed_batches
from diffusion_bert.data.encoded import BLOCK, EncodedPairs
from diffusion_bert.data.encoding import encode_pairs
from diffusion_bert.data.pairs import Pair
from diffusion_bert.data.skills import CONTINUE, NO_SOURCE, PAIR
from diffusion_bert.data.tokenizer import SPECIAL_TOKENS, TextTokenizer
from tests.helpers.models import grammar_pairs, tiny_tokenizer

PROMPT = "paraphrase:"
PAD, UNK, CLS, SEP, MASK = range(5)
WORDS = TextTokenizer.from_vocabulary([*SPECIAL_TOKENS, "paraphrase", "continue", ":", "a", "b", "c", "d", "##e"])
PARAPHRASE, CONTINUED, COLON, A, B, C, D, E = range(5, 13)


def many(size: int = 700, config: DataConfig | None = None):
    """Encoded grammar pairs and their collator."""
    return encode_pairs(grammar_pairs("train", size), tiny_tokenizer(), config or DataConfig(), PROMPT), Collator(
        tiny_tokenizer(), PROMPT
    )


def same(one: Batch, two: Batch) -> bool:
    return all(
        torch.equal(getattr(one, name), getattr(two, name))
        for name in ("input_ids", "source_length", "prompt_length", "target_length")
    )


# ---- encoding ------------------------------------------------------------------------------------------------------


def test_encoded_pairs_round_trip():
    """Every kept pair has exactly its tokenizer's ids, nothing cut; lengths and `kept` agree."""
    pairs = [*grammar_pairs("train", 40), Pair(None, "how can i cook ?"), Pair("", "why ?")]
    data = encode_pairs(pairs, tiny_tokenizer(), DataConfig(), PROMPT)
    assert len(data) == len(pairs) and data.kept.tolist() == list(range(len(pairs))) and not data.notes
    for index, pair in enumerate(pairs):
        assert data.source(index).tolist() == tiny_tokenizer().encode(pair.source or "") and data.target(
            index
        ).tolist() == tiny_tokenizer().encode(pair.target)
    assert data.source_lengths.tolist() == [len(data.source(index)) for index in range(len(data))]
    assert data.target_lengths.tolist() == [len(data.target(index)) for index in range(len(data))]
    assert data.has_source.tolist() == [True] * 40 + [False, True]
    assert "42 examples" in describe(TASKS["sample"], data)


def test_what_does_not_fit_is_left_out_and_counted():
    """At the limits a pair is kept, one piece over it is left out, each reason with its count; the kept ones are
    whole.
    """
    # 20 - [CLS] - 2 [SEP] - prompt of 2 = 15 for source and target
    config = DataConfig(max_length=20, max_target_length=8)
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
        data.notes,
        (
            "1 of 8 rows left out: targets longer",
            "2 of 8 rows left out: pairs longer",
            "1 of 8 rows left out: targets without",
        ),
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
    all_widths = [
        batch.input_ids.shape[1]
        for epoch in range(3)
        for batch in EpochBatches(data, Collator(tokenizer, prompt), config, 64, 0, epoch)
    ]
    assert max(all_widths) <= 24


def test_no_pairs_at_all():
    """Nothing in, nothing out: no batches."""
    data = encode_pairs([], WORDS, DataConfig(), PROMPT)
    assert len(data) == 0 and len(EpochBatches(data, Collator(WORDS, PROMPT), DataConfig(), 4, 0, 0)) == 0


def test_blocks_change_nothing(monkeypatch):
    """Encoded in blocks or in one piece, pairs give the same arrays, and so do the blocks of targets."""
    pairs = [*grammar_pairs("train", 50), Pair("a " * 200, "b"), Pair(None, "why ?")]
    whole = encode_pairs(pairs, tiny_tokenizer(), DataConfig(), PROMPT)
    monkeypatch.setattr("diffusion_bert.data.encoding.BLOCK", 7)
    parts = encode_pairs(pairs, tiny_tokenizer(), DataConfig(), PROMPT)
    assert BLOCK > 1000 and whole.notes == parts.notes and len(whole.notes) == 1
    for name in ("ids", "offsets", "has_source", "kept"):
        assert (
            np.array_equal(getattr(whole, name), getattr(parts, name))
            and getattr(whole, name).dtype == getattr(parts, name).dtype
        )
    targets = np.concatenate([whole.target(index) for index in range(len(whole))])
    for size in (1, 7, 51, 1000):
        assert np.array_equal(np.concatenate(list(whole.target_blocks(size))), targets)


# ---- the layout of a batch -----------------------------------------------------------------------------------------


def test_layout_by_hand():
    """[CLS] prompt source [SEP] target [SEP] written out for one example of each skill, with every mask."""
    collator = Collator(WORDS, PROMPT)
    batch = collator.batch([(PAIR, [A, B], [C, D, E]), (NO_SOURCE, (), [A]), (CONTINUE, [A], [B, C])])
    assert batch.input_ids.tolist() == [
        [CLS, PARAPHRASE, COLON, A, B, SEP, C, D, E, SEP],
        [CLS, SEP, A, SEP, PAD, PAD, PAD, PAD, PAD, PAD],
        [CLS, CONTINUED, COLON, A, SEP, B, C, SEP, PAD, PAD],
    ]
    assert (
        batch.source_length.tolist() == [6, 2, 5]
        and batch.prompt_length.tolist() == [2, 0, 2]
        and batch.target_length.tolist() == [3, 1, 2]
    )

    def drawn(mask) -> list[str]:
        return ["".join(".x"[int(value)] for value in row) for row in mask]

    assert drawn(batch.valid) == ["xxxxxxxxxx", "xxxx......", "xxxxxxxx.."]
    assert drawn(batch.target_mask) == ["......xxx.", "..x.......", ".....xx..."]
    assert drawn(batch.copyable) == ["...xx.....", "..........", "...x......"]
    assert drawn(batch.is_target_segment) == ["......xxxx", "..xxxxxxxx", ".....xxxxx"]
    assert batch.source_ids().tolist() == [
        [CLS, PARAPHRASE, COLON, A, B, SEP],
        [CLS, SEP] + [PAD] * 4,
        [CLS, CONTINUED, COLON, A, SEP, PAD],
    ]
    assert (batch.pad_id, batch.mask_id, len(batch)) == (PAD, MASK, 3) and batch.input_ids.dtype == torch.int64


def by_hand(data: EncodedPairs, collator: Collator, index: int, skill: int, cut: float):
    """(skill, source, target) of one example, written out: the slow twin of ``gather``."""
    target = data.target(index)
    if skill == PAIR:
        return PAIR, data.source(index), target
    if skill == CONTINUE:
        starts = [
            place for place in range(1, len(target)) if not collator.tokenizer.tokens[target[place]].startswith("##")
        ]
        if starts:
            place = starts[int(cut * len(starts))]
            return CONTINUE, target[:place], target[place:]
    return NO_SOURCE, (), target


def rows_of(collator: Collator, examples) -> list[tuple[list[int], int, int, int]]:
    """[CLS] prompt source [SEP] target [SEP] as lists, with the three lengths."""
    tokenizer, rows = collator.tokenizer, []
    for skill, source, target in examples:
        first = [tokenizer.cls_id, *collator.prompts[skill], *source, tokenizer.sep_id]
        rows.append(([*first, *target, tokenizer.sep_id], len(first), len(collator.prompts[skill]), len(target)))
    return rows


def unpadded(batch: Batch) -> list[tuple[list[int], int, int, int]]:
    lengths = [values.tolist() for values in (batch.source_length, batch.prompt_length, batch.target_length)]
    assert bool((batch.input_ids[~batch.valid] == batch.pad_id).all())
    return [(row[mask].tolist(), *numbers) for row, mask, *numbers in zip(batch.input_ids, batch.valid, *lengths)]


@pytest.mark.parametrize("seed", range(20))
def test_gather_and_batch_are_the_slow_way_made_fast(seed):
    """Random examples of random skills and cuts come out as the lists written by hand, through both ways into a
    batch.
    """
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(["a", "b", "ae", "aee", "c"], size=rng.integers(1, 9))) for _ in range(60)]
    texts[::7] = ["aee"] * len(texts[::7])
    pairs = [
        Pair(None if rng.random() < 0.2 else "" if rng.random() < 0.2 else texts[rng.integers(60)], text)
        for text in texts
    ]
    data, collator = (
        encode_pairs(pairs, WORDS, DataConfig(), "" if seed % 3 == 0 else PROMPT),
        Collator(WORDS, "" if seed % 3 == 0 else PROMPT),
    )
    indices, cuts = rng.integers(len(data), size=rng.integers(1, 40)), rng.random(40, dtype=np.float32)
    cuts[::5] = np.nextafter(np.float32(1), np.float32(0))
    skills = rng.integers(3, size=len(indices)).astype(np.int8)
    examples = [by_hand(data, collator, *of) for of in zip(indices, skills, cuts)]
    expected = rows_of(collator, examples)
    batch = collator.gather(data, indices, skills, cuts[: len(indices)])
    assert unpadded(batch) == expected and unpadded(collator.batch(examples)) == expected
    assert batch.input_ids.shape[1] == max(len(row) for row, *_ in expected) and batch.input_ids.dtype == torch.int64


def test_continue_cuts_at_word_boundaries_only():
    """Prefix and rest are the whole target; neither is empty, and the rest never begins inside a word."""
    data, collator = many(100)
    every = np.arange(len(data))
    for cut in (0.0, 0.3, 0.7, 0.999999):
        batch = collator.gather(data, every, np.full(len(data), CONTINUE), np.full(len(data), cut))
        for index, (row, source, prompt, target) in enumerate(unpadded(batch)):
            prefix, rest = row[1 + prompt : source - 1], row[source:-1]
            assert len(prefix) and len(rest) == target and [*prefix, *rest] == data.target(index).tolist()
            assert not tiny_tokenizer().continuation[rest[0]]


def test_continue_reaches_every_boundary():
    """The cut runs over all word boundaries of a target; a single word cannot be continued and is written without a
    source.
    """
    collator, data = (
        Collator(WORDS, PROMPT),
        encode_pairs([Pair("a", "ae b ce d"), Pair("a", "aee")], WORDS, DataConfig(), PROMPT),
    )
    assert data.target(0).tolist() == [A, E, B, C, E, D]
    batch = collator.gather(data, np.array([0, 0, 0, 1]), np.full(4, CONTINUE), np.array([0.0, 0.34, 0.67, 0.5]))
    assert (batch.source_length - batch.prompt_length - 2).tolist() == [
        2,
        3,
        5,
        0,
    ] and batch.prompt_length.tolist() == [2, 2, 2, 0]
    assert batch.input_ids[3].tolist()[:6] == [CLS, SEP, A, E, E, SEP]


# ---- epochs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, batch_size", [(700, 32), (700, 7), (10, 64), (1, 1), (64, 64)])
def test_every_example_once_per_epoch(size, batch_size):
    """An epoch's batches are a permutation of the examples: the last partial batch is kept, a batch may be larger than
    the data.
    """
    data, collator = many(size)
    epoch = EpochBatches(data, collator, DataConfig(), batch_size, seed=1, epoch=0)
    batches = [epoch.indices(number) for number in range(len(epoch))]
    assert sorted(index for batch in batches for index in batch) == list(range(size))
    assert len(epoch) == -(-size // batch_size) and sum(len(epoch[number]) for number in range(len(epoch))) == size
    assert max(map(len, batches)) <= batch_size


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


@pytest.mark.parametrize("shares, limit", [((0.0, 0.0), 0.02), ((0.1, 0.1), 0.11), ((0.5, 0.5), 0.06)])
def test_padding_is_rare(shares, limit):
    """Rows of like length share a batch; those without a source need some padding, for no batch may hold one skill
    only.
    """
    config = DataConfig(source_dropout=shares[0], continue_share=shares[1])
    data, collator = many()
    batches = [batch for epoch in range(2) for batch in EpochBatches(data, collator, config, 32, 0, epoch)]
    places, padding = sum(batch.valid.numel() for batch in batches), sum(int((~batch.valid).sum()) for batch in batches)
    assert padding / places < limit


def test_padding_of_the_sample_task():
    """On the bundled pairs, with the default shares, less than 8 % of the places are padding."""
    config = DataConfig()
    data, collator = (
        encode_pairs(grammar_pairs("train", 24_000)[::3], tiny_tokenizer(), config, PROMPT),
        Collator(tiny_tokenizer(), PROMPT),
    )
    batches = list(EpochBatches(data, collator, config, 64, 0, 0))
    places, padding = sum(batch.valid.numel() for batch in batches), sum(int((~batch.valid).sum()) for batch in batches)
    assert len(data) == 8_000 and padding / places < 0.08


def test_skills_are_mixed_within_batches():
    """Every whole batch holds pairs and others; short and long batches differ in their shares, but the long ones have
    others too.
    """
    data, collator = many(2_000)
    epoch = EpochBatches(data, collator, DataConfig(source_dropout=0.2, continue_share=0.2), 50, 0, 0)
    batches = [epoch.indices(number) for number in range(len(epoch))]
    shares = np.array([(epoch.skills[batch] == PAIR).mean() for batch in batches])
    assert shares.min() > 0.2 and shares.max() < 1
    assert all(
        set(epoch.skills[batch]) >= {PAIR, NO_SOURCE} or set(epoch.skills[batch]) >= {PAIR, CONTINUE}
        for batch in batches
    )


def test_rows_of_a_batch_are_not_sorted():
    """The order within a batch has nothing to do with length or skill: times are spread evenly over the rows."""
    data, collator = many(2_000)
    epoch = EpochBatches(data, collator, DataConfig(), 64, 0, 0)
    places = np.arange(64)
    lengths = [data.target_lengths[batch] for batch in map(epoch.indices, range(len(epoch))) if len(batch) == 64]
    correlations = [np.corrcoef(places, row)[0, 1] for row in lengths]
    assert abs(np.mean(correlations)) < 4 / 8 / len(lengths) ** 0.5


@pytest.mark.parametrize("tokens, batch_size", [(128, 1000), (400, 64), (2000, 16), (10_000, 10_000)])
def test_tokens_per_batch(tokens, batch_size):
    """Rows x width stays within the limit, rows within batch_size; every example once; the limit is used; seed and
    epoch decide.
    """
    config = DataConfig(max_length=96, max_target_length=40, tokens_per_batch=tokens)
    data, collator = many(500, config)
    one, two = (EpochBatches(data, collator, config, batch_size, 3, epoch) for epoch in (0, 1))
    assert sorted(index for number in range(len(one)) for index in one.indices(number)) == list(range(500))
    sizes = [batch.input_ids.numel() for batch in one]
    assert max(sizes) <= tokens and max(map(len, one)) <= batch_size
    if tokens <= 400:
        assert np.mean(sizes) > 0.7 * tokens
    again = EpochBatches(data, collator, config, batch_size, 3, 0)
    assert all(map(same, one, again)) and len(again) == len(one)
    assert not all(
        np.array_equal(one.indices(number), two.indices(number)) for number in range(min(len(one), len(two)))
    )


def test_share_of_continued_texts():
    """text_continue_share divides plain texts between continuing and writing without a source, and leaves pairs
    alone.
    """
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
    skills = EpochBatches(
        data, Collator(tiny_tokenizer(), PROMPT), DataConfig(source_dropout=0.0, continue_share=0.0), 32, 0, 0
    ).skills
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
    """Validation batches: all examples once, sorted by length, the same every time; a limit takes an even spread; texts
    go without source.
    """
    data, collator = many(100)
    batches = fixed_batches(data, collator, 16)
    assert all(map(same, batches, fixed_batches(data, collator, 16)))
    targets = sorted(
        tuple(row[mask].tolist()) for batch in batches for row, mask in zip(batch.input_ids, batch.target_mask)
    )
    assert targets == sorted(tuple(data.target(index).tolist()) for index in range(len(data)))
    lengths = [length for batch in batches for length in (batch.source_length + batch.target_length).tolist()]
    assert lengths == sorted(lengths)
    assert (
        sum(map(len, fixed_batches(data, collator, 16, limit=10))) == 10
        and sum(map(len, fixed_batches(data, collator, 16, limit=1000))) == 100
    )
    texts = encode_pairs(
        [Pair(None, "how can i cook ?"), Pair("why ?", "what ?")], tiny_tokenizer(), DataConfig(), PROMPT
    )
    batch = fixed_batches(texts, collator)[0]
    assert sorted(zip(batch.prompt_length.tolist(), batch.source_length.tolist())) == [
        (0, 2),
        (2, 4 + len(tiny_tokenizer().encode("why ?"))),
    ]
