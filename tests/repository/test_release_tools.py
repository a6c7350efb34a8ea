"""What the released model is made and measured with: the data folder and the masked words."""

import lzma
import random

import pytest
import torch

from benchmarks.quality import masked_words
from benchmarks.quality.masked_words import masked_text, top_one, wilson
from diffusion_bert.config.run_config import RunConfig
from diffusion_bert.data.splits import load_pairs
from diffusion_bert.model.checkpoint import save_checkpoint
from tests.helpers.models import grammar_pairs, new_model, refusal
from tests.helpers.scripts import run, write_data
from tools.release_data import is_plain, main, sentences

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


def test_the_data_folder(tmp_path):
    """A folder for each task that the preset's command reads: different sentences, held-out ones from their own file,
    drawn pairs in order.
    """
    (tmp_path / "a.txt").write_text(f"{PARAGRAPH}\n\n{PARAGRAPH}\n")
    (tmp_path / "b.txt.xz").write_bytes(lzma.compress(b"All of the other halls are open as well. It is."))
    assert sentences([tmp_path / "a.txt"]) == [PARAGRAPH[:48]]
    qqp, replies = write_data(tmp_path / "qqp"), write_data(tmp_path / "replies")
    flags = [
        "--text",
        tmp_path / "a.txt",
        "--held_out_text",
        tmp_path / "b.txt.xz",
        "--qqp",
        qqp,
        "--CC",
        replies,
        "--replies",
        "10",
    ]
    done = run("tools.release_data", tmp_path / "data", *flags)
    assert done.code in (None, 0) and "text/train.txt: 1 rows" in done.out, done.err
    assert (tmp_path / "data/text/valid.txt").read_text() == "All of the other halls are open as well.\n"
    before, after = (
        (folder / "train.jsonl").read_text().splitlines() for folder in (replies, tmp_path / "data" / "CC")
    )
    assert len(after) == 10 and [line for line in before if line in set(after)] == after
    assert (tmp_path / "data/qqp/train.jsonl").read_text() == (qqp / "train.jsonl").read_text()
    splits = load_pairs(RunConfig.from_flat({"task_name": "qqp,CC,text", "data_dir": str(tmp_path / "data")}).data)
    assert len(splits.train) == len((qqp / "train.jsonl").read_text().splitlines()) + 10 + 1


def test_refusals_of_the_data_folder(tmp_path):
    """Missing or broken texts, and a folder that holds something already: nothing is written."""
    folder = str(write_data(tmp_path / "qqp"))
    (tmp_path / "broken.txt.xz").write_bytes(b"no archive")
    (tmp_path / "cut.txt.xz").write_bytes(lzma.compress(PARAGRAPH.encode())[:-8])
    (tmp_path / "good.txt").write_text(PARAGRAPH)

    def flags(text: str) -> list[str]:
        return [
            "--text",
            str(tmp_path / text),
            "--held_out_text",
            str(tmp_path / "good.txt"),
            "--qqp",
            folder,
            "--CC",
            folder,
        ]

    for text in ("none.txt", "broken.txt.xz", "cut.txt.xz"):
        assert text in refusal(main, [str(tmp_path / "data"), *flags(text)])
    assert not (tmp_path / "data").exists()
    before = (tmp_path / "qqp" / "train.jsonl").read_bytes()
    assert "nothing is overwritten" in refusal(main, [str(tmp_path), *flags("good.txt")])
    assert (tmp_path / "qqp" / "train.jsonl").read_bytes() == before and not (tmp_path / "CC").exists()


def test_masked_words(tmp_path):
    """A model that always says one word is right where that word was masked, and as often as the floor if it is the
    most common.
    """
    model = new_model()
    texts = [
        pair.target
        for pair in grammar_pairs()[:20]
        if len(model.tokenizer.encode(pair.target)) <= model.denoiser.max_target_length
    ]
    most_common = int(model.token_counts.argmax())
    with torch.no_grad():
        model.denoiser.mlm.cls.predictions.bias[most_common] = 1e4
    used, places, right, floor = top_one(model, [*texts, "word " * 99], 1.0)
    written = [index for text in texts for index in model.tokenizer.encode(text)]
    assert used == len(texts) and places == len(written) and right == floor == written.count(most_common) > 0
    save_checkpoint(tmp_path / "model.pt", model)
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    done = run("benchmarks.quality.masked_words", tmp_path / "model.pt", tmp_path / "texts.txt", "--share", "1")
    assert done.code in (None, 0) and f"| model | {places} | {100 * right / places:.1f}" in done.out, done.err
    assert "above 0" in refusal(
        masked_words.main, [str(tmp_path / "model.pt"), str(tmp_path / "texts.txt"), "--share", "0"]
    )


def test_masked_text_and_interval():
    """The share is kept, at least one place; the interval is Wilson's (10 of 20: 29.9 to 70.1)."""
    assert masked_text([5] * 20, 0.15, 1, random.Random(0)).count(1) == 3 and masked_text(
        [5], 0.15, 1, random.Random(0)
    ) == [1]
    assert [round(value, 1) for value in wilson(10, 20)] == [29.9, 70.1]
