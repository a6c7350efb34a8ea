"""continue_training.py: which parent, which preset by which verdict, what the child keeps and what is new."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
import yaml

from diffusion_bert.commands.child_settings import child_config, inherited, task_for
from diffusion_bert.commands.verdicts import restart_command
from diffusion_bert.config.paths import latest_checkpoint
from diffusion_bert.data.skills import Skills
from diffusion_bert.errors import UserError
from diffusion_bert.model.checkpoint import load_checkpoint, save_checkpoint
from diffusion_bert.model.payload import read_payload
from tests.helpers.models import new_model
from tests.helpers.scripts import read_records, run, write_data

QUICK = ("--device", "cpu", "--max_steps", "2")


def only_child(output: Path) -> Path:
    """The one run directory in a folder."""
    (child,) = output.iterdir()
    return child


def write_verdict(run_directory: Path, verdict: str, checkpoint: str = "best_model.pt") -> Path:
    """An evaluation.json as evaluate_trained_model.py leaves it, as far as --auto reads it."""
    path = run_directory / "evaluation.json"
    path.write_text(
        json.dumps(
            {
                "checkpoint": f"{run_directory}/{checkpoint}",
                "split": "test",
                "pairs": 200,
                "score": {"verdict": verdict},
            }
        )
    )
    return path


@pytest.mark.parametrize(
    ("verdict", "preset", "epochs", "num_steps"),
    [("Good", "fine_tuning", 3, 16), ("Fair", "quality_boost", 5, 64), ("Poor", "deep_training_continue", 8, 128)],
)
def test_auto_follows_the_verdict(own_run, tmp_path, verdict, preset, epochs, num_steps):
    """Good -> fine_tuning, Fair -> quality_boost (5 epochs, 64 steps), Poor -> deep_training_continue (8 and 128) and
    the way to start over.
    """
    write_verdict(own_run, verdict)
    result = run("continue_training", "--auto", "--model_dir", own_run, "--output_dir", tmp_path / "out", *QUICK)
    assert result.code == 0, result.err
    what = f"Verdict {verdict} by 200 pairs of test ({own_run / 'evaluation.json'}), so: --preset {preset}"
    assert what in result.out and "evaluating" not in result.out
    assert ("python run_conditional_training.py --task_name" in result.out) == (verdict == "Poor")
    config = yaml.safe_load((only_child(tmp_path / "out") / "config.yaml").read_text())
    assert (config["epochs"], config["num_steps"]) == (epochs, num_steps)


@pytest.fixture
def twelve_are_enough(monkeypatch):
    """Verdicts are trusted from twelve pairs on, which is what the small run has for validation."""
    monkeypatch.setattr("diffusion_bert.commands.verdicts.TRUSTED_PAIRS", 12)


@pytest.mark.parametrize("report", [None, "of the whole test split", "of a test file"])
def test_auto_without_enough_pairs_for_a_verdict(own_run, tmp_path, report):
    """Fewer than 200 pairs decide nothing, whatever a report of them says: no evaluation, the middle way, one line."""
    if report is not None:
        path = write_verdict(own_run, "Good")
        of = {"pairs": 14, "whole_split": True} if "split" in report else {"pairs": 900, "split": "mine.jsonl"}
        path.write_text(json.dumps(json.loads(path.read_text()) | of))
    result = run("continue_training", "--auto", "--model_dir", own_run, "--output_dir", tmp_path / "out", *QUICK)
    assert result.code == 0 and "valuating" not in result.out, result.err
    line = "No verdict: 12 pairs for validation, 200 are needed for one; so the middle way: --preset quality_boost\n"
    assert line in result.out and "(preset quality_boost)" in result.out
    assert (own_run / "evaluation.json").exists() == (report is not None)


def test_auto_refuses_plain_texts(trained_on_text, tmp_path):
    """They have no score, and no verdict, however many there are."""
    result = run("continue_training", "--auto", "--model_dir", trained_on_text, "--output_dir", tmp_path / "out")
    assert result.code == 2 and "choose --preset yourself" in result.err and not (tmp_path / "out").exists()


def test_auto_evaluates_first_when_need_be(own_run, tmp_path, twelve_are_enough):
    """Without an evaluation it makes one, says so, and keeps it; a second --auto uses that one."""
    result = run("continue_training", "--auto", "--model_dir", own_run, "--output_dir", tmp_path / "out", *QUICK)
    assert result.code == 0, result.err
    assert "evaluating 500 pairs first" in result.out and "Verdict Poor by 12 pairs of valid" in result.out
    assert json.loads((own_run / "evaluation.json").read_text())["score"]["verdict"] == "Poor"
    again = run("continue_training", "--auto", "--model_dir", own_run, "--output_dir", tmp_path / "out", *QUICK)
    assert again.code == 0 and "evaluating" not in again.out and "Verdict Poor by 12 pairs of valid" in again.out


def test_auto_with_data_of_its_own(own_run, data_dir, tmp_path, twelve_are_enough):
    """A checkpoint that does not know where its data lies is evaluated on the --data_dir that was given; an evaluation
    without a score stays as it is, and the new one lies beside it.
    """
    checkpoint = own_run / "best_model.pt"
    model = load_checkpoint(checkpoint)
    for name in ("data_dir", "train_file", "valid_file", "test_file"):
        setattr(model.config.data, name, None)
    model.config.data.task_name, model.skills = "CC", Skills.of("CC")
    save_checkpoint(checkpoint, model)
    (own_run / "evaluation.json").write_text(kept := json.dumps({"checkpoint": "best_model.pt", "score": None}))
    flags = ["--auto", "--checkpoint", checkpoint, "--data_dir", data_dir, "--output_dir", tmp_path / "out", *QUICK]
    result = run("continue_training", *flags)
    assert (
        result.code == 0 and "evaluating 500 pairs first" in result.out and "_CC_" in only_child(tmp_path / "out").name
    ), result.err
    assert (own_run / "evaluation.json").read_text() == kept
    assert json.loads((own_run / "evaluation_auto" / "evaluation.json").read_text())["score"]["verdict"] == "Poor"


def test_the_restart_command_can_be_typed():
    """Every setting of the data as text, switches too."""
    settings = {"model_name_or_path": "tiny", "task_name": "custom", "train_file": "my mails.jsonl", "symmetric": True}
    command = restart_command(settings)
    assert (
        "--train_file 'my mails.jsonl'" in command
        and "--symmetric True" in command
        and "--model_name_or_path mini" in command
    )


@pytest.mark.parametrize(
    "spoil",
    ["older", "another checkpoint", "not json", "a list", "no score", "199 pairs", "a test file", "no pairs said"],
)
def test_auto_trusts_only_a_fresh_evaluation(own_run, tmp_path, monkeypatch, spoil):
    """An evaluation older than the checkpoint, of another file, unreadable, of few pairs or other data does not
    count.
    """
    from diffusion_bert.commands import evaluate
    from diffusion_bert.commands.verdicts import choose_by_verdict

    path = write_verdict(own_run, "Good", "other.pt" if spoil == "another checkpoint" else "best_model.pt")
    if spoil == "older":
        os.utime(path, (1, 1))
    elif spoil in ("not json", "a list"):
        path.write_text("{" if spoil == "not json" else "[1]")
    elif spoil == "no score":
        path.write_text(json.dumps({"checkpoint": "best_model.pt", "score": None}))
    changes = {"199 pairs": {"pairs": 199}, "a test file": {"split": "mine.jsonl"}, "no pairs said": {"pairs": None}}
    if spoil in changes:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes[spoil]))

    class Fresh:
        pairs, split = 200, "valid"

        class score:  # noqa: N801
            verdict = "Poor"

    monkeypatch.setattr(evaluate, "evaluate_checkpoint", lambda *_, **__: Fresh)
    folder = write_data(tmp_path / "data", train=4, valid=200, test=4)
    assert choose_by_verdict(own_run / "best_model.pt", "cpu", data_dir=str(folder)) == "deep_training_continue"


def test_child_begins_where_the_parent_ended(trained, tmp_path):
    """On the fixed yardstick the child's first validation NELBO is the parent's best (within 2 %), in a new run
    directory that names the parent.
    """
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    result = run(
        "continue_training",
        "--model_dir",
        trained,
        "--preset",
        "quality_boost",
        "--output_dir",
        tmp_path / "out",
        *QUICK,
    )
    assert result.code == 0, result.err
    child = only_child(tmp_path / "out")
    best = min(record["valid_nelbo"] for record in read_records(trained) if record["kind"] == "validation")
    assert read_records(child)[0]["valid_nelbo"] == pytest.approx(best, rel=0.02)
    parent = str(trained / "best_model.pt")
    assert (
        read_payload(child / "best_model.pt")["parent"]
        == parent
        == json.loads((child / "training_results.json").read_text())["parent"]
    )
    assert f"Parent  {parent}" in result.out
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


def test_other_data_keeps_what_belongs_to_the_weights(trained, tmp_path):
    """--train_file replaces the data; tokenizer, architecture, informativeness table and prompt stay, and the unknown
    share is told.
    """
    own = tmp_path / "mine.csv"
    own.write_text(
        "src,trg\n"
        + "".join(
            f"What is the {word} of a 東京 {number}?,Tell me the {word} of a 東京 {number}.\n"
            for number, word in enumerate(["name", "age", "size", "cost"] * 5)
        )
    )
    result = run(
        "continue_training",
        "--model_dir",
        trained,
        "--train_file",
        own,
        "--preset",
        "fine_tuning",
        "--output_dir",
        tmp_path / "out",
        *QUICK,
    )
    assert result.code == 0, result.err
    parent, child = read_payload(trained / "best_model.pt"), read_payload(only_child(tmp_path / "out") / "last.pt")
    assert child["tokenizer"] == parent["tokenizer"] and child["architecture"] == parent["architecture"]
    assert torch.equal(child["informativeness"], parent["informativeness"]) and torch.equal(
        child["token_counts"], parent["token_counts"]
    )
    assert (
        child["config"]["train_file"] == str(own)
        and child["config"]["data_dir"] is None
        and child["config"]["task_name"] == "custom"
    )
    share = float(result.out.split(" % of the words in this data are unknown")[0].split()[-1])
    assert 1 < share < 50
    assert "held out for validation" in result.out


def test_settings_in_order(trained, tmp_path):
    """Parent's settings < preset < flags; how long and how far the parent was trained is not inherited."""
    parent = trained / "best_model.pt"
    config = child_config(parent, {})
    assert (
        config.training.batch_size,
        config.model.vocab_size,
        config.data.max_target_length,
        config.training.seed,
    ) == (16, 500, 44, 3)
    assert config.training.epochs == 3  # the default, not the parent's 4
    config = child_config(parent, {"preset": "quality_boost"})
    assert (config.training.epochs, config.diffusion.num_steps, config.training.lr_factor) == (5, 64, 0.5)
    assert config.training.lr == inherited(parent)["lr"]
    config = child_config(parent, {"preset": "fine_tuning", "lr": 1e-4})
    assert (config.training.lr, config.training.lr_factor) == (1e-4, 1.0)
    config = child_config(parent, {"preset": "quality_boost", "epochs": 1, "num_steps": 7, "word_freq_lambda": 0.0})
    assert (config.training.epochs, config.diffusion.num_steps, config.diffusion.word_freq_lambda) == (1, 7, 0.0)


def test_the_parents_data_goes_altogether(trained, tmp_path):
    """A new task or folder does not mix with the parent's files or sample size."""
    config = child_config(trained / "best_model.pt", {"data_dir": "elsewhere"})
    assert (config.data.data_dir, config.data.train_file, config.data.max_samples) == ("elsewhere", None, None)
    config = child_config(trained / "best_model.pt", {"task_name": "CC", "data_dir": "elsewhere"})
    assert config.data.task_name == "CC"


def test_the_task_of_data_without_a_name(tmp_path):
    """Other data keeps the parent's task; of several all, where the folder holds them, else the first with pairs; what
    was named stays. Both directions are a matter of the data, too.
    """
    (tmp_path / "all" / "CC").mkdir(parents=True)
    parts = {"data_dir": str(tmp_path / "all")}, {"data_dir": str(tmp_path)}, {"train_file": "a.jsonl"}
    expected = {
        "QT": ["QT"] * 3,
        "text,CC,qqp": ["text,CC,qqp", "CC", "CC"],
        "text": ["text", "text", "custom"],
        "sample": ["custom"] * 3,
    }
    for parents, tasks in expected.items():
        assert [task_for(data, parents) for data in parts] == tasks, parents
    model = new_model(task_name="qqp", symmetric=True)
    save_checkpoint(tmp_path / "parent.pt", model)
    config = child_config(tmp_path / "parent.pt", {"train_file": "mine.jsonl"}).data
    assert (config.task_name, config.symmetric) == ("qqp", False)
    assert (
        child_config(tmp_path / "parent.pt", {"train_file": "mine.jsonl", "task_name": "custom"}).data.task_name
        == "custom"
    )
    assert child_config(tmp_path / "parent.pt", {"epochs": 1}).data.symmetric


@pytest.mark.parametrize(
    "key",
    [
        "model_name_or_path: mini",
        "copy_head: false",
        "attention: full",
        "timestep: prefix",
        "max_target_length: 12",
        "dropout: 0.3",
    ],
)
def test_a_preset_may_not_change_what_belongs_to_the_weights(trained, tmp_path, key):
    """A preset that sets architecture, vocabulary or the size of the length head is refused, and named."""
    path = tmp_path / "mine.yaml"
    path.write_text(f"epochs: 1\n{key}\n")
    with pytest.raises(UserError, match=key.split(":")[0]):
        child_config(trained / "best_model.pt", {"preset": str(path)})


def test_longer_sequences_than_positions_are_refused(trained, tmp_path):
    """--max_length beyond the parent's positions is one line before training, not a crash in it."""
    result = run(
        "continue_training", "--model_dir", trained, "--max_length", "5000", "--output_dir", tmp_path / "out", *QUICK
    )
    assert result.code == 2 and "max_length" in result.err and result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_new_noise_takes_effect(trained, tmp_path):
    """A child with another schedule and lambda is trained and saved with these."""
    argv = (
        "--model_dir",
        trained,
        "--schedule",
        "cosine",
        "--word_freq_lambda",
        "0.3",
        "--output_dir",
        tmp_path / "out",
        *QUICK,
    )
    assert run("continue_training", *argv).code == 0
    schedule = load_checkpoint(only_child(tmp_path / "out") / "best_model.pt").schedule
    assert (schedule.name, schedule.word_freq_lambda) == ("cosine", 0.3)


def test_newest_run_is_the_default(own_run, tmp_path, monkeypatch):
    """Without --checkpoint and --model_dir the newest best_model.pt below runs/ is the parent; the child lands there
    too.
    """
    monkeypatch.chdir(tmp_path)
    older = Path(shutil.copytree(own_run, tmp_path / "runs" / "older"))
    newer = Path(shutil.copytree(own_run, tmp_path / "runs" / "newer"))
    os.utime(older / "best_model.pt", (1_000, 1_000))
    assert latest_checkpoint() == Path("runs/newer/best_model.pt")
    result = run("continue_training", "--preset", "fine_tuning", "--output_dir", "runs", *QUICK)
    assert result.code == 0 and "Parent  runs/newer/best_model.pt" in result.out
    assert len(list((tmp_path / "runs").iterdir())) == 3 and newer.is_dir()


def test_the_menu(own_run, tmp_path):
    """Without settings it asks: 1 to 3 are the presets, 4 asks for the main settings with the parent's as defaults."""
    result = run("continue_training", "--model_dir", own_run, stdin="7\n")
    assert result.code == 2 and "'7' is none of 1 to 4" in result.out and "no answer" in result.err
    from diffusion_bert.commands import continue_training as command

    with pytest.MonkeyPatch.context() as patch:
        answers = iter(["4", "", "", "", "", "9", "1", "", "zero", "0", "4", "", "", "cpu", str(tmp_path / "out")])
        patch.setattr("builtins.input", lambda _: next(answers))
        assert command.ask_for_settings(own_run / "best_model.pt") == {
            "num_steps": 9,
            "epochs": 1,
            "batch_size": 4,
            "output_dir": str(tmp_path / "out"),
        }


def test_dry_run_of_a_child_leaves_nothing(own_run, tmp_path, monkeypatch, twelve_are_enough):
    """continue_training.py --dry_run goes through all stages and leaves the parent's folder and everything else as it
    was.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    before = sorted(tmp_path.rglob("*"))
    for choice in (("--preset", "fine_tuning"), ("--auto",)):
        result = run("continue_training", "--model_dir", own_run, *choice, "--dry_run", "--device", "cpu")
        assert result.code == 0 and "Dry run complete" in result.out, result.err
        assert sorted(tmp_path.rglob("*")) == before
