"""Data mapped from the cache: the same rows, splits and word pieces as in memory, never stale, and never a reason to
fail.
"""

import json
import pickle

import numpy as np
import pytest

from diffusion_bert.config.schema import DataConfig
from diffusion_bert.data import mapped_pairs
from diffusion_bert.data.batching import Collator, EpochBatches
from diffusion_bert.data.cache import Cache
from diffusion_bert.data.encoding import encode_pairs
from diffusion_bert.data.mapped_pairs import MappedPairs, row_hash
from diffusion_bert.data.pairs import Pair
from diffusion_bert.data.sources import read_pairs
from diffusion_bert.data.splits import load_pairs
from tests.helpers.models import grammar_pairs, refusal, tiny_tokenizer

ROWS = [
    *grammar_pairs("train", 90),
    Pair("", "no source"),
    Pair("\U0001f600 h\xe9", "\u65e5\u672c"),
    *grammar_pairs("train", 30),
]


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Settings that map everything, in small blocks; in memory with cache_above_mb=64."""
    monkeypatch.setattr(mapped_pairs, "BLOCK", 7)
    monkeypatch.setattr("diffusion_bert.data.encoding.BLOCK", 11)

    def make(rows=ROWS, name="t.jsonl", **settings) -> DataConfig:
        path = tmp_path / name
        if name.endswith(".txt"):
            path.write_text("".join(row.target + "\n" for row in rows))
        elif rows is not None:
            path.write_text("".join(json.dumps({"src": row.source, "trg": row.target}) + "\n" for row in rows))
        return DataConfig(
            **{
                "task_name": "custom",
                "train_file": str(path),
                "cache_above_mb": 0,
                "cache_dir": str(tmp_path / "cache"),
                **settings,
            }
        )

    return make


def plain(splits):
    return [list(part) for part in (splits.train, splits.valid, splits.test)], splits.notes


@pytest.mark.parametrize(
    "settings",
    [{}, {"max_samples": 40}, {"symmetric": True}, {"max_samples": 41, "symmetric": True}, {"name": "t.txt"}],
)
@pytest.mark.parametrize("seed", [0, 5])
def test_mapped_is_as_in_memory(config, settings, seed):
    """Hold-out, sample, both directions and notes: everything is the same by way of the cache, cold and warm."""
    mapped = config(**settings)
    memory = config(**settings, cache_above_mb=64)
    expected, cold, warm = load_pairs(memory, seed), load_pairs(mapped, seed), load_pairs(mapped, seed)
    assert isinstance(cold.train, MappedPairs) and isinstance(expected.train, list)
    assert plain(cold) == plain(warm) == plain(expected)
    one, two, three = (
        encode_pairs(splits.train, tiny_tokenizer(), DataConfig(max_length=30), "reply:")
        for splits in (expected, cold, warm)
    )
    for encoded in (two, three):
        assert encoded.notes == one.notes and len(encoded) == len(one)
        for name in ("ids", "offsets", "has_source", "kept"):
            assert (
                np.array_equal(getattr(encoded, name), getattr(one, name))
                and getattr(encoded, name).dtype == getattr(one, name).dtype
            )


def test_a_sequence_like_a_list(config):
    """Length, places, slices, iteration, selection, turning and a round trip through another process's pickle."""
    pairs = read_pairs(config().train_file, config(), [])
    assert (
        len(pairs) == len(ROWS)
        and list(pairs) == ROWS
        and pairs[3] == ROWS[3]
        and pairs[-1] == ROWS[-1]
        and pairs[5:30] == ROWS[5:30]
    )
    chosen = pairs.take(np.array([90, 3, 3]))
    assert (
        list(chosen) == [ROWS[90], ROWS[3], ROWS[3]]
        and list(chosen.turned()) == [Pair(ROWS[3].target, ROWS[3].source)] * 2
    )
    again = pickle.loads(pickle.dumps(chosen + chosen.turned()))
    assert list(again) == [*chosen, *chosen.turned()]
    assert (
        len(
            {pairs.fingerprint, chosen.fingerprint, again.fingerprint, pairs.take(np.arange(len(ROWS) - 1)).fingerprint}
        )
        == 4
    )
    with pytest.raises(IndexError):
        pairs[len(ROWS)]
    hashes = [row_hash(pair) for pair in (*ROWS[:90], Pair(None, "a"), Pair("", "a"), Pair("a", ""), Pair("a", "a"))]
    assert len(set(hashes)) == len(set(ROWS[:90])) + 4 and pairs.hashes.tolist()[:90] == hashes[:90]


def test_an_edited_file_is_never_served_stale(config):
    """A change of one letter that leaves size and name alone, another limit for bad rows, another tokenizer setting:
    all are seen.
    """
    before = load_pairs(config(), 0)
    changed = [ROWS[0]._replace(target="X" + ROWS[0].target[1:]), *ROWS[1:]]
    after = load_pairs(config(changed), 0)
    assert changed[0] in [*after.train, *after.valid] and changed[0] not in [*before.train, *before.valid]
    wide, narrow = (
        encode_pairs(after.train, tiny_tokenizer(), DataConfig(max_length=length), "reply:") for length in (128, 30)
    )
    assert len(narrow) < len(wide)


def test_bad_rows_are_told_again(config, tmp_path):
    """The notes on malformed rows come with the cached rows, under the present path; a lower limit still stops."""
    settings = config()
    with open(settings.train_file, "a") as file:
        file.write("{\n")
    cold, warm = load_pairs(settings).notes, load_pairs(settings).notes
    assert cold == warm and f"{settings.train_file}, line {len(ROWS) + 1}: not JSON" in cold[0]
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes((tmp_path / "t.jsonl").read_bytes())
    assert f"{moved}, line {len(ROWS) + 1}" in load_pairs(config(None, name="moved.jsonl")).notes[0]
    assert "--max_bad_rows 0" in refusal(load_pairs, config(None, max_bad_rows=0))


@pytest.mark.parametrize(
    "content, expected", [("", "no usable row"), ('{"a": 1}\n', "src is missing"), ("\xff", "not UTF-8")]
)
def test_refusals_stay(config, tmp_path, content, expected):
    """Hopeless files are refused as ever and leave nothing in the cache."""
    (tmp_path / "bad.jsonl").write_bytes(content.encode("latin-1") + b"\n")
    assert expected in refusal(load_pairs, config(None, name="bad.jsonl"))
    assert not (tmp_path / "cache").exists() or list((tmp_path / "cache").iterdir()) == []


def test_without_a_writable_cache(config, tmp_path):
    """Memory is used instead, with a note."""
    (tmp_path / "file").write_text("")
    splits = load_pairs(config(cache_dir=str(tmp_path / "file")), 0)
    expected = load_pairs(config(cache_above_mb=64), 0)
    assert isinstance(splits.train, list) and splits.train == expected.train
    assert "held in memory" in splits.notes[0] and splits.notes[1:] == expected.notes
    mapped = load_pairs(config(), 0)
    encoded = encode_pairs(mapped.train, tiny_tokenizer(), config(cache_dir=str(tmp_path / "file")), "reply:")
    assert "held in memory" in encoded.notes[0] and len(encoded) == len(mapped.train)


def test_small_data_needs_no_cache(config, tmp_path):
    """Below the threshold nothing is written."""
    load_pairs(config(cache_above_mb=64))
    assert not (tmp_path / "cache").exists()


def test_processes_change_nothing(config, tmp_path):
    """Tokenised by two processes or by this one: the same arrays."""
    pairs = load_pairs(config(), 0).train
    one = encode_pairs(pairs, tiny_tokenizer(), config(), "reply:")
    two = encode_pairs(
        pairs, tiny_tokenizer(), config(cache_dir=str(tmp_path / "other"), preprocessing_num_workers=2), "reply:"
    )
    assert len(list((tmp_path / "other").glob("ids-*"))) == 1
    for name in ("ids", "offsets", "has_source", "kept"):
        assert np.array_equal(getattr(one, name), getattr(two, name))


def test_batches_of_mapped_data(config):
    """Batches come out the same from mapped and from plain arrays."""
    epochs = []
    for settings in (config(), config(cache_above_mb=64)):
        data = encode_pairs(load_pairs(settings, 0).train, tiny_tokenizer(), settings, "reply:")
        epochs.append(EpochBatches(data, Collator(tiny_tokenizer(), "reply:"), settings, 16, 1, 0))
    assert all(one.input_ids.tolist() == two.input_ids.tolist() for one, two in zip(*epochs)) and len(epochs[0]) > 4


def test_cache_is_the_users(config, monkeypatch, tmp_path):
    """Without cache_dir the entries lie below $XDG_CACHE_HOME."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load_pairs(config(cache_dir=None))
    assert len(list(Cache().folder.glob("rows-*"))) == 1 and Cache().folder.parent == tmp_path / "xdg"
