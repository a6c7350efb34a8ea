"""The evaluation: its tables and files, its floors, and a score that has to be earned."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest

from diffusion_bert.commands import evaluate as evaluate_command
from diffusion_bert.config.schema import EVALUATION_PARTS
from diffusion_bert.evaluation.measures import measured
from diffusion_bert.evaluation.score import benchmark_score
from diffusion_bert.model.checkpoint import save_checkpoint
from diffusion_bert.text.metrics import mbr_select, metric_text
from tests.helpers.models import save_bert, save_gpt
from tests.helpers.scripts import new_trainer, run

FAST = ("--num_steps", "4", "--device", "cpu", "--known_words", "false")  # finishing a word may take more calls


def evaluate(checkpoint: Path, *argv):
    """(printed text, evaluation.json strictly parsed, folder)."""
    result = run("evaluate_trained_model", "--checkpoint", checkpoint, *FAST, *argv)
    assert result.code == 0, result.err
    folder = Path(argv[argv.index("--output_dir") + 1]) if "--output_dir" in argv else checkpoint.parent

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return result.out, json.loads((folder / "evaluation.json").read_text(), parse_constant=refuse), folder


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """A file for --examples."""
    path = tmp_path_factory.mktemp("sentences") / "mine.txt"
    path.write_text("How can I learn to cook?\nThe museum is open on Friday.\n")
    return path


@pytest.fixture(scope="module")
def alone(trained, tmp_path_factory, sentences):
    """best_model.pt copied alone to another folder and evaluated there, with MBR and own sentences: (text, json,
    folder).
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    checkpoint = shutil.copy(trained / "best_model.pt", folder / "copied.pt")
    return evaluate(Path(checkpoint), "--mbr", "3", "--examples", sentences, "--max_samples", "12")


def test_report_files(alone):
    """JSON, Markdown, two pictures and all generated texts lie beside the checkpoint, and nothing else."""
    _, _, folder = alone
    names = {"evaluation.json", "evaluation.md", "evaluation.png", "generations.jsonl", "confidence_map.png"}
    assert {path.name for path in folder.iterdir()} == {"copied.pt", *names}
    assert (folder / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    text = (folder / "evaluation.md").read_text()
    for heading in (
        "## Reconstruction",
        "## All metrics",
        "## NELBO",
        "**Score ",
        "## How the score comes about",
        "| copy |",
        "| unigram |",
        "| MBR 3 |",
    ):
        assert heading in text, heading


def test_report_can_be_repeated(alone):
    """The JSON holds what a repetition needs: settings with the seed, versions, checkpoint, split."""
    _, report, folder = alone
    assert report["settings"]["seed"] == 0 and report["settings"]["num_steps"] == 4 and report["settings"]["mbr"] == 3
    assert {"torch", "transformers", "python", "diffusion_bert"} <= set(report["versions"])
    assert report["checkpoint"] == str(folder / "copied.pt") and report["split"] == "test" and report["pairs"] == 12


def test_rows(alone):
    """Model, one sample, MBR and the floors stand in one table, each with all metrics; the model's NFE is the number of
    calls per text.
    """
    rows = alone[1]["rows"]
    assert set(rows) == {"model", "likeliest length", "one sample", "MBR 3", "copy", "unigram", "nearest training pair"}
    for name, row in rows.items():
        assert {"bleu", "rouge_l", "dist1", "overlap", "ibleu", "repetition", "length_ratio", "bleu_interval"} <= set(
            row
        ), name
        assert row["ibleu"] == pytest.approx(0.8 * row["bleu"] - 0.2 * row["overlap"])
        low, high = row["bleu_interval"]
        assert 0 <= low <= row["bleu"] <= high <= 100
        for metric in ("bleu", "rouge_l", "dist1", "overlap", "ibleu", "repetition", "length_ratio"):
            low, high = row[f"{metric}_interval"]
            assert low - 1e-9 <= row[metric] <= high + 1e-9, (name, metric)
    assert {"self_bleu", "div4", "valid", "two_frames"} <= set(rows["one sample"]) and not {"self_bleu", "div4"} & set(
        rows["model"]
    )
    assert (
        0 < rows["likeliest length"]["nfe"] <= 4
        and rows["likeliest length"]["nfe"] < rows["model"]["nfe"] <= 5 * 4
        and rows["MBR 3"]["nfe"] == pytest.approx(3 * rows["one sample"]["nfe"])
    )


def test_generations_are_all_there_and_in_order(alone, data_dir):
    """generations.jsonl: per source its reference, every candidate with its calls, and the one MBR chose; in the order
    of the report.
    """
    _, report, folder = alone
    records = [json.loads(line) for line in (folder / "generations.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["source"] for record in records] == [example["source"] for example in report["examples"]] and len(
        records
    ) == 12
    pairs = {row["src"]: row["trg"] for row in map(json.loads, (data_dir / "test.jsonl").read_text().splitlines())}
    for record, example in zip(records, report["examples"]):
        assert (
            record["reference"] == pairs[record["source"]]
            and record["output"] == example["output"]
            and record["output"] in record["by_length"]
        )
        assert (
            len(record["candidates"]) == len(record["calls"]) == 3
            and record["chosen"] == record["candidates"][record["choice"]]
        )
        assert record["choice"] == mbr_select([metric_text(text) for text in record["candidates"]])
        assert all(1 <= calls <= 4 for calls in (*record["calls"], *record["by_length_calls"]))
    calls = [number for record in records for number in record["calls"]]
    assert report["rows"]["one sample"]["nfe"] == pytest.approx(sum(calls) / len(calls))
    row = measured(*([record[name] for record in records] for name in ("source", "reference", "chosen")))
    assert row == {name: pytest.approx(report["rows"]["MBR 3"][name]) for name in row}


def test_parts(own_run):
    """--parts does these and no others; without reconstruction there is no score, and nothing fails for it."""
    out, report, folder = evaluate(own_run / "best_model.pt", "--parts", "nelbo", "--max_samples", "4")
    assert (
        report["rows"] == {} == report["reconstruction"]
        and report["score"] is None
        and report["nelbo"]["nelbo_per_token"] > 0
    )
    assert not (folder / "generations.jsonl").exists() and "Conditional" not in out and "Reconstruction" not in out
    _, report, folder = evaluate(own_run / "best_model.pt", "--parts", "generation", "--max_samples", "4")
    assert (
        report["nelbo"] == {}
        and report["score"] is None
        and (folder / "generations.jsonl").is_file()
        and "unigram" in report["rows"]
    )
    refused = run("evaluate_trained_model", "--checkpoint", own_run / "best_model.pt", "--parts", "generation,nelbow")
    assert refused.code == 2 and "'nelbow' is none of" in refused.err and "did you mean 'nelbo'?" in refused.err
    assert evaluate_command.EVALUATION_PARTS == EVALUATION_PARTS


def test_bertscore_column(own_run, tmp_path):
    """--bertscore adds a column to every row, and its model stands in the settings."""
    save_bert(tmp_path / "bert")
    flags = ("--parts", "generation", "--max_samples", "3", "--bertscore", tmp_path / "bert", "--length_beam", "1")
    _, report, _ = evaluate(own_run / "best_model.pt", *flags)
    assert (
        all(0 < row["bertscore"] <= 100 for row in report["rows"].values())
        and "layer 2" in report["settings"]["bertscore"]
    )


def test_judges_of_fluency_and_meaning(own_run, tmp_path):
    """Both columns in every row, a row for the references, a sentence on the terminal and in the report."""
    save_gpt(tmp_path / "gpt")
    save_bert(tmp_path / "bert")
    flags = ("--parts", "generation", "--max_samples", "3", "--length_beam", "1")
    flags += ("--fluency_model", tmp_path / "gpt", "--meaning_model", tmp_path / "bert")
    out, report, folder = evaluate(own_run / "best_model.pt", *flags)
    assert all({"fluency", "perplexity", "meaning"} <= set(row) for row in report["rows"].values())
    assert "bleu" not in report["rows"]["reference"] and report["rows"]["copy"]["meaning"] == pytest.approx(1, abs=1e-5)
    assert report["settings"]["fluency"] == str(tmp_path / "gpt")
    assert "perplexity per token: outputs" in out and "meaning kept: outputs" in out
    assert "perplexity per token: outputs" in (folder / "evaluation.md").read_text()


def test_copy_floor(alone):
    """Copying the source overlaps with it by 100 %, and iBLEU punishes that: it is no valid paraphrase by the
    grammar.
    """
    copy = alone[1]["rows"]["copy"]
    assert copy["overlap"] == pytest.approx(100) and copy["ibleu"] < 5 and copy["valid"] == 0


def test_own_sentences_for_the_reconstruction(alone):
    """--examples replaces the held-out sentences of part 1; 20, 50 and 80 % are corrupted, accuracy counts these places
    only.
    """
    parts = alone[1]["reconstruction"]
    assert list(parts) == ["20", "50", "80"]
    assert parts["20"]["places"] < parts["50"]["places"] < parts["80"]["places"]
    for row in parts.values():
        assert 0 <= row["accuracy"] <= 100 and 0 <= row["floor"] <= 100
        assert {example["original"] for example in row["examples"]} == {
            "How can I learn to cook?",
            "The museum is open on Friday.",
        }
        assert all("____" in example["corrupted"] and "____" not in example["restored"] for example in row["examples"])


def test_nelbo_terms(alone):
    """Terms per word piece and per word add up to the NELBO, on the yardstick T = 1000."""
    nelbo = alone[1]["nelbo"]
    for unit in ("token", "word"):
        total = sum(nelbo[f"{term}_per_{unit}"] for term in ("reveal", "stay", "length"))
        assert nelbo[f"nelbo_per_{unit}"] == pytest.approx(total)
        assert nelbo[f"perplexity_bound_per_{unit}"] == pytest.approx(math.exp(total))
    assert nelbo["T"] == 1000 and nelbo["nelbo_per_word"] * nelbo["words"] == pytest.approx(
        nelbo["nelbo_per_token"] * nelbo["tokens"]
    )


def test_printed_report(alone):
    """The shell shows examples, the table, the formula, the verdict and the next command."""
    out, report, _ = alone
    for words in (
        "Reconstruction",
        "\n  model  ",
        "ROUGE-L",
        "Score: ",
        "= 0.7 x",
        "means little",
        "interactive_generation.py --checkpoint",
        "source     ",
    ):
        assert words in out, words
    assert report["score"]["verdict"] == "Poor"


def test_evaluation_is_reproducible(alone, trained, tmp_path, sentences):
    """The same seed gives the same numbers and texts wherever the file lies; another seed other samples."""
    for seed in (0, 1):
        _, report, _ = evaluate(
            trained / "best_model.pt",
            "--mbr",
            "3",
            "--examples",
            sentences,
            "--max_samples",
            "12",
            "--output_dir",
            str(tmp_path / str(seed)),
            "--seed",
            seed,
        )
        same = [example["samples"] for example in report["examples"]] == [
            example["samples"] for example in alone[1]["examples"]
        ]
        assert same == (seed == 0)
    assert not (trained / "evaluation.json").exists()


def test_split_and_max_samples(own_run, tmp_path, data_dir):
    """--split valid reads the validation pairs, --max_samples draws from them."""
    _, report, _ = evaluate(own_run / "best_model.pt", "--split", "valid", "--max_samples", "3")
    valid = {json.loads(line)["src"] for line in (data_dir / "valid.jsonl").read_text().splitlines()}
    assert report["split"] == "valid" and report["pairs"] == 3
    assert {example["source"] for example in report["examples"]} <= valid and "MBR 3" not in report["rows"]


def test_own_test_file(own_run, tmp_path):
    """--test_file evaluates on that file instead; a source that is too long is scored as an empty output and noted,
    never cut.
    """
    own = tmp_path / "own.tsv"
    long = " ".join(["very"] * 120)
    own.write_text(f"src\ttrg\nHow do I cook?\tWhat is the way to cook?\n{long} long\tShort.\n")
    evaluate(own_run / "best_model.pt", "--max_samples", "2")
    before = (own_run / "evaluation.json").read_bytes()
    evaluate(own_run / "best_model.pt", "--test_file", own)
    report = json.loads((own_run / "evaluation_own.json").read_text())
    assert (own_run / "evaluation.json").read_bytes() == before and (own_run / "generations_own.jsonl").is_file()
    assert report["pairs"] == 2 and report["split"] == str(own)
    assert report["examples"][1]["output"] == "" and any("1 sources are longer" in note for note in report["notes"])


def test_a_model_of_plain_texts(trained_on_text, tmp_path):
    """Trained on .txt there is no pair to generate: reconstruction and NELBO, no score, and the report says so."""
    out, report, _ = evaluate(trained_on_text / "best_model.pt", "--output_dir", str(tmp_path / "out"))
    assert report["rows"] == {} and report["score"] is None and "no score" in out
    assert report["reconstruction"]["50"]["places"] > 0 and report["nelbo"]["nelbo_per_token"] > 0
    assert "interactive_generation.py" in out


def test_an_untrained_model_is_poor(data_dir, tmp_path):
    """Fresh weights: Poor, no level."""
    trainer = new_trainer(data_dir, tmp_path / "runs")
    save_checkpoint(trainer.run.best, trainer.model)
    _, report, _ = evaluate(trainer.run.best, "--max_samples", "10")
    assert (
        report["score"]["verdict"] == "Poor" and report["score"]["level"] == "none" and report["score"]["points"] < 20
    )


def test_floors_posing_as_the_model_are_poor(alone):
    """Copying the source or drawing frequent words, scored as if they were the model and with perfect reconstruction,
    are Poor.
    """
    report = alone[1]
    perfect = {key: {"accuracy": 100.0, "floor": 0.0} for key in ("20", "50", "80")}
    for name in ("copy", "unigram"):
        posing = {**report["rows"], "model": report["rows"][name], "one sample": {"div4": 100.0}}
        for task in ("sample", "qqp", "CC", "custom"):
            score = benchmark_score(task, posing, perfect, 100.0, 20.0)
            assert score.verdict == "Poor" and score.generation == 0


def test_measure_at_its_limits():
    """The reference itself scores 100, an empty output 0, and case or accents do not count."""
    source, reference = ["How do I cook rice at home?"], ["What is the way to cook rice?"]
    assert measured(source, reference, ["WHAT is the way to cóok rice?"])["bleu"] == pytest.approx(100)
    empty = measured(source, reference, [""])
    assert empty["bleu"] == 0 and empty["overlap"] == 0 and math.isfinite(empty["ibleu"])


def test_to_dict_is_plain(trained, data_dir):
    """An Evaluation as a dictionary is what JSON can hold."""
    from diffusion_bert.evaluation.parts import Evaluation

    plain = Evaluation("sample", 1, generations=[{"source": "s"}]).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert {*plain, "generations"} == {f.name for f in dataclasses.fields(Evaluation)}
