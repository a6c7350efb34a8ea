"""Datasets by name: a local folder through the real loading code; every refusal one line."""

import json
import time

import pytest

from diffusion_bert.config.run_config import RunConfig
from diffusion_bert.config.schema import DataConfig
from diffusion_bert.data.mapped_pairs import MappedPairs
from diffusion_bert.data.pairs import Pair
from diffusion_bert.data.splits import load_pairs
from tests.helpers.models import refusal

ROWS = [{"question": f"q {number}", "rewrite": f"r {number}", "other": number} for number in range(60)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A dataset folder as people have them; the library's own cache is in the test's folder."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    root = tmp_path / "mine"
    root.mkdir()

    def write(name: str = "train.jsonl", rows=ROWS) -> str:
        if name.endswith(".parquet"):
            import datasets

            datasets.Dataset.from_list(rows).to_parquet(root / name)
        else:
            (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(root)

    return write


def config(name: str, **settings) -> DataConfig:
    return DataConfig(
        **{
            "task_name": "custom",
            "dataset_name": name,
            "source_column": "question",
            "target_column": "rewrite",
            **settings,
        }
    )


def pairs(rows) -> list[Pair]:
    return [Pair(row["question"], row["rewrite"]) for row in rows]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_columns_of_a_local_dataset(folder, ending):
    """The named columns become pairs; the split called validation validates, and test tests."""
    folder(f"train.{ending}", ROWS[:40])
    folder(f"validation.{ending}", ROWS[40:50])
    splits = load_pairs(config(folder(f"test.{ending}", ROWS[50:])))
    assert (splits.train, splits.valid, splits.test, splits.notes) == (
        pairs(ROWS[:40]),
        pairs(ROWS[40:50]),
        pairs(ROWS[50:]),
        [],
    )


def test_hold_out_mapping_and_edits(folder, tmp_path):
    """With a training split alone rows are held out; by way of the cache all is the same, and an edit is seen."""
    name = folder()
    expected = load_pairs(config(name), seed=3)
    assert len(expected.valid) == 3 and sorted(expected.train + expected.valid) == sorted(pairs(ROWS))
    for _ in range(2):
        mapped = load_pairs(config(name, cache_above_mb=0, cache_dir=str(tmp_path / "cache")), seed=3)
        assert isinstance(mapped.train, MappedPairs)
        assert (list(mapped.train), mapped.valid, mapped.notes) == (expected.train, expected.valid, expected.notes)
    folder(rows=[{**row, "rewrite": row["rewrite"].upper()} for row in ROWS])
    edited = load_pairs(config(name, cache_above_mb=0, cache_dir=str(tmp_path / "cache")), seed=3)
    assert edited.train[0].target.startswith("R ")


def test_usual_names_and_plain_texts(folder):
    """src and trg need no options; a target column alone gives texts without a source."""
    name = folder(rows=[{"src": row["question"], "trg": row["rewrite"]} for row in ROWS])
    assert load_pairs(config(name, source_column=None, target_column=None)).train[0].source is not None
    folder(rows=[{"text": row["rewrite"]} for row in ROWS])
    texts = load_pairs(config(name, source_column=None, target_column="text"))
    assert {pair.source for pair in texts.train} == {None} and texts.train[0].target.startswith("r ")


def test_a_column_of_styles(folder):
    """Styles are read as in files: small letters, none where the cell is empty."""
    name = folder(rows=[{**row, "tone": ("Formal", None, " ")[number % 3]} for number, row in enumerate(ROWS)])
    splits = load_pairs(config(name))
    styles = [pair.style for pair in [*splits.train, *splits.valid]]
    assert styles.count("formal") == 20 and styles.count(None) == 40


def test_unknown_columns_are_named_with_the_known(folder):
    """A mistyped column, and a dataset without the usual ones: the line lists what there is."""
    name = folder()
    message = refusal(load_pairs, config(name, source_column="qestion"))
    assert (
        "'qestion'; did you mean 'question'?" in message
        and "question, rewrite, other" in message
        and "--source_column" in message
    )
    assert "--target_column" in refusal(load_pairs, config(name, target_column=None))
    assert "no column src or source" in refusal(load_pairs, config(name, source_column=None, target_column=None))


def test_bad_rows(folder):
    """Missing and empty values are counted by split and row; too many stop; none usable is refused."""
    name = folder(
        rows=[
            *ROWS[:5],
            {"question": None, "rewrite": "x", "other": 0},
            {"question": "x", "rewrite": " ", "other": 0},
            *ROWS[5:],
        ]
    )
    notes = load_pairs(config(name)).notes
    assert notes[0].startswith("2 malformed rows") and f"{name}/train, row 6: src is missing" in notes[0]
    assert "--max_bad_rows 1" in refusal(load_pairs, config(name, max_bad_rows=1))
    assert "got" in refusal(load_pairs, config(name, target_column="other")) or "int" in refusal(
        load_pairs, config(name, target_column="other")
    )


def test_what_cannot_be_loaded(folder, tmp_path):
    """An empty folder and a damaged file give one line with advice; without a network a hub name is refused within five
    seconds.
    """
    (tmp_path / "empty").mkdir()
    assert "--dataset_name" in refusal(load_pairs, config(str(tmp_path / "empty")))
    name = folder()
    (tmp_path / "mine" / "train.jsonl").write_text("{\n")
    assert "--dataset_name" in refusal(load_pairs, config(name))
    start = time.monotonic()
    message = refusal(load_pairs, config("no-such-owner/no-such-dataset"))
    assert "no-such-owner/no-such-dataset" in message and "--train_file" in message and time.monotonic() - start < 5


@pytest.mark.parametrize("split", ["validation", "test", "dev"])
def test_a_single_split_trains_and_is_held_out_from(folder, split):
    """A dataset whose only split has another name than train is trained on, and validated on rows held out of it."""
    splits = load_pairs(config(folder(f"{split}.jsonl")))
    assert len(splits.train) == 57 and len(splits.valid) == 3 and not set(splits.train) & set(splits.valid)


def test_no_training_split(folder):
    """Several splits without train: they are listed."""
    folder("validation.jsonl", ROWS[:5])
    assert "test" in refusal(load_pairs, config(folder("test.jsonl", ROWS[5:])))


@pytest.mark.parametrize(
    "settings",
    [
        {"dataset_name": "a", "data_dir": "b"},
        {"dataset_name": "a", "train_file": "b.txt"},
        {"source_column": "a"},
        {"dataset_config": "a"},
    ],
)
def test_settings_that_contradict(settings):
    """One source of data, and columns only where a dataset is named."""
    assert "--dataset_name" in refusal(RunConfig.from_flat, settings)
