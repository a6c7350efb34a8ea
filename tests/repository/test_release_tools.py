"""The data folder that a released model is made with."""

import json
import lzma
import random
from collections import Counter
from pathlib import Path

import pytest

import tools.release_data
from diffusion_bert.config.presets import load_preset, load_settings
from diffusion_bert.config.run_config import RunConfig
from diffusion_bert.data.splits import load_pairs
from tests.helpers.models import refusal
from tests.helpers.scripts import run, write_data
from tools.mixture import Source, is_plain
from tools.release_data import main, read_recipe

PARAGRAPH = (
    "The museum opened its doors to the public again. In 1999 the roof fell in. Mr. Smith then painted all of the old"
    " walls! Visit it."
)


@pytest.mark.parametrize(
    ("sentence", "plain"),
    [
        ("The museum opened its doors to the public again.", True),
        ("They often met in Paris, where the King lived.", True),
        ("They met in Paris, where King Louis of France lived.", False),  # names
        ("In 1999 the roof of the museum fell in.", False),
        ("The museum is closed.", False),  # short
        ("the museum opened its doors to the public.", False),
        ("The word museum (from Greek) is rather old.", False),
        ("The museum opened its doors to the public", False),
    ],
)
def test_plain_sentences(sentence, plain):
    """Whole sentences of plain letters with few names."""
    assert is_plain(sentence) == plain


def rows_of(path) -> list[dict]:
    """The rows of a .jsonl file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(path, pairs) -> None:
    """Pairs as rows of src and trg."""
    path.write_text("".join(json.dumps({"src": source, "trg": target}) + "\n" for source, target in pairs))


def test_the_data_folder(tmp_path):
    """A recipe of texts, packed texts and pairs becomes a folder for each task that training reads: different
    sentences, held-out ones that are no training rows, the drawn pairs in order, and the recipe that makes it again.
    """
    (tmp_path / "a.txt").write_text(f"{PARAGRAPH}\n\n{PARAGRAPH}\n")
    packed = b"All of the other halls are open as well. They left early. "
    (tmp_path / "b.txt.xz").write_bytes(lzma.compress(packed + PARAGRAPH.encode()))
    pairs, replies = write_data(tmp_path / "qqp"), write_data(tmp_path / "replies")
    sources = [
        "name=a licence=own task=text train=a.txt valid=b.txt.xz sentences=true",
        f"name=pairs licence='free, ours' task=qqp train={pairs}/train.jsonl valid={pairs}/valid.jsonl",
        "name=replies licence=own task=CC train=replies/train.jsonl valid=replies/valid.jsonl count=10",
    ]
    flags = [part for source in sources for part in ("--source", source)]
    done = run("tools.release_data", tmp_path / "data", "--from", tmp_path, *flags)
    assert done.code in (None, 0) and "| qqp | pairs |  | 96 | 100.0% | free, ours |" in done.out, done.err + done.out
    assert (tmp_path / "data/text/train.txt").read_text() == f"{PARAGRAPH[:48]}\n"
    assert (tmp_path / "data/text/valid.txt").read_text() == "All of the other halls are open as well.\n"
    before, after = rows_of(replies / "train.jsonl"), rows_of(tmp_path / "data/CC/train.jsonl")
    assert len(after) == 10 and [row for row in before if row in after] == after
    assert rows_of(tmp_path / "data/qqp/train.jsonl") == rows_of(pairs / "train.jsonl")
    assert done.out == (tmp_path / "data/SOURCES.md").read_text()
    splits = load_pairs(RunConfig.from_flat({"task_name": "qqp,CC,text", "data_dir": str(tmp_path / "data")}).data)
    assert len(splits.train) == 96 + 10 + 1
    again = run("tools.release_data", tmp_path / "again", "--recipe", tmp_path / "data/recipe.yaml", "--from", tmp_path)
    assert again.code in (None, 0), again.err
    for file in (tmp_path / "data").rglob("*.*"):
        assert (tmp_path / "again" / file.relative_to(tmp_path / "data")).read_bytes() == file.read_bytes()


def test_texts_with_an_origin(tmp_path):
    """A style makes rows of text and style; texts of another source keep none; pairs lend their sources as texts."""
    (tmp_path / "a.txt").write_text("A cat sat here.\nA dog ran.\n")
    write_rows(tmp_path / "pairs.jsonl", [("Where is the old cat?", "Here."), ("No.", "Yes.")])
    flags = ["--source", "name=a licence=own train=a.txt style=story", "--source"]
    flags += ["name=b licence=own train=pairs.jsonl fewest_words=3"]
    done = run("tools.release_data", tmp_path / "data", "--from", tmp_path, *flags)
    assert done.code in (None, 0), done.err
    assert rows_of(tmp_path / "data/text/train.jsonl") == [
        {"text": "A cat sat here.", "style": "story"},
        {"text": "A dog ran.", "style": "story"},
        {"text": "Where is the old cat?"},
    ]


def test_shares_of_a_task(tmp_path):
    """The sources with a share get it, by whole copies and a draw or by a draw alone; the others keep their rows."""
    files = {"whole": 120, "small": 11, "large": 500}
    for name, count in files.items():
        write_rows(tmp_path / f"{name}.jsonl", [(f"{name} one {n}", f"{name} two {n}") for n in range(count)])
    write_rows(tmp_path / "valid.jsonl", [("held out", "rows")])
    shares = {"whole": "", "small": "share=0.3", "large": "share=0.1"}
    flags = [
        part
        for name, share in shares.items()
        for part in ("--source", f"name={name} licence=own task=qqp train={name}.jsonl valid=valid.jsonl {share}")
    ]
    assert run("tools.release_data", tmp_path / "data", "--from", tmp_path, *flags).code in (None, 0)
    counts = Counter(row["src"].split()[0] for row in rows_of(tmp_path / "data/qqp/train.jsonl"))
    assert counts == {"whole": 120, "small": 60, "large": 20}  # 120 are the 60 % that the shares leave
    copies = Counter(row["src"] for row in rows_of(tmp_path / "data/qqp/train.jsonl") if row["src"].startswith("small"))
    assert set(copies.values()) == {5, 6} and len(copies) == 11


@pytest.mark.parametrize(
    ("key", "left"),
    [
        ("near_copies=0", ["b", "c", "d", "e"]),
        ("source_words=2", ["a", "b", "c", "d"]),
        ("fewest_words=3", ["a", "b"]),
        ("most_words=2", ["c", "d", "e"]),
        ("drop='ROBOT'", ["a", "c", "d", "e"]),
        ("same_target=1", ["a", "b", "c", "e"]),
    ],
)
def test_filters_of_pairs(tmp_path, key, left):
    """Each filter leaves out what it names, and nothing else."""
    rows = {
        "a": ("we met the old man there", "We met the old man there!"),
        "b": ("who are you then", "I am a robot."),
        "c": ("are you well", "I am."),
        "d": ("are you sure", "I am!"),
        "e": ("well", "Good day."),
    }
    write_rows(tmp_path / "pairs.jsonl", rows.values())
    write_rows(tmp_path / "valid.jsonl", [("where is the good old man", "I saw him there."), ("who is it", "Bob.")])
    source = f"name=a licence=own task=CC train=pairs.jsonl valid=valid.jsonl {key}"
    done = run("tools.release_data", tmp_path / "data", "--from", tmp_path, "--source", source)
    assert done.code in (None, 0), done.err
    kept = [tuple(row.values()) for row in rows_of(tmp_path / "data/CC/train.jsonl")]
    assert kept == [rows[name] for name in left]


def test_near_copies_keep_their_share():
    """Of many near copies the asked share is kept, and every other pair."""
    source = Source(name="a", licence="own", task="qqp", near_copies=0.2)
    rng = random.Random(0)
    kept = sum(source.passes({"src": "one two three", "trg": "One, two, three!"}, rng) for _ in range(2000))
    assert 0.17 < kept / 2000 < 0.23
    assert all(source.passes({"src": "one two three", "trg": "one two four"}, rng) for _ in range(100))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("licence=own train=a.txt", "no name"),
        ("name=a train=a.txt", "no licence"),
        ("name=a licence=own", "neither train nor valid"),
        ("name=a licence=own train=a.txt shar=0.3", "did you mean 'share'"),
        ("name=a licence=own train=a.txt share=2", "expected at most 1"),
        ("name=a licence=own train=a.txt share=1", "expected between 0 and 1"),
        ("name=a licence=own train=a.txt share=0.5", "at least one source without one"),
        ("name=a licence=own train=a.txt drop='('", "no regular expression"),
        ("name=a licence=own train=a.txt count=many", "expected a whole number"),
        ("name=a licence=own train=a.txt task=QQP", "expected one of"),
        ("name=a licence", "'licence' has no value"),
        ("name='a", "closing quotation"),
        ("name=a licence=own train=a.txt fewest_words=99", "no training rows"),
        ("name=a licence=own task=qqp train=a.txt", "line 1: expected"),
        ("name=a licence=own task=qqp train=a.jsonl", "no validation rows"),
        ("name=a licence=own train=none.txt", "none.txt"),
        ("name=a licence=own train=broken.txt.xz", "broken.txt.xz"),
        ("name=a licence=own train=cut.txt.xz", "cut.txt.xz"),
    ],
)
def test_refusals_of_sources(tmp_path, source, message):
    """One line that names the fault; nothing is written."""
    (tmp_path / "a.txt").write_text(PARAGRAPH)
    write_rows(tmp_path / "a.jsonl", [("Hello there", "Good day")])
    (tmp_path / "broken.txt.xz").write_bytes(b"no archive")
    (tmp_path / "cut.txt.xz").write_bytes(lzma.compress(PARAGRAPH.encode())[:-8])
    arguments = [str(tmp_path / "data"), "--from", str(tmp_path), "--source", source]
    assert message in refusal(main, arguments)
    assert not (tmp_path / "data").exists()


def test_refusals_of_recipes(tmp_path):
    """No sources, names given twice, recipes of another form, and a folder that holds something already."""
    (tmp_path / "a.txt").write_text(PARAGRAPH)
    source = ["--source", "name=a licence=own train=a.txt"]
    start = [str(tmp_path / "data"), "--from", str(tmp_path)]
    assert "no sources" in refusal(main, start)
    assert "called 'a'" in refusal(main, [*start, *source, *source])
    for text, message in (
        ("sources: 3", "expected a whole number 'seed' and a list 'sources'"),
        ("source: []", "found source"),
        ("sources: [a.txt]", "source 1 is 'a.txt': expected a table"),
    ):
        (tmp_path / "r.yaml").write_text(text)
        assert message in refusal(main, [*start, "--recipe", str(tmp_path / "r.yaml")])
    assert not (tmp_path / "data").exists()
    (tmp_path / "text").mkdir()
    (tmp_path / "text/train.txt").write_text("mine")
    assert "nothing is overwritten" in refusal(main, [str(tmp_path), "--from", str(tmp_path), *source])
    assert (tmp_path / "text/train.txt").read_text() == "mine" and not (tmp_path / "SOURCES.md").exists()


def test_the_recipe_of_the_preset():
    """The bundled recipe is sound, names a licence everywhere, and makes a third of the paraphrases statements; it is
    for the tasks of its preset.
    """
    path = Path(tools.release_data.__file__).with_name("recipes") / "everyday_english.yaml"
    sources = read_recipe(load_settings(path), [], path.name)
    statements = sum(source.share for source in sources if source.task == "qqp" and source.share)
    assert statements >= 0.35 and not any("imdb" in source.train.lower() for source in sources)
    assert {source.task for source in sources} == set(load_preset("everyday_english")["task_name"].split(","))
