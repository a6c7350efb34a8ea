"""Flags, presets and questions: what the user types becomes settings, or one line that helps."""

import dataclasses
import re
import tempfile
from pathlib import Path

import pytest
import yaml

from diffusion_bert.commands import cli, train, training_run
from diffusion_bert.commands.cli import guarded, settings_of, training_parser
from diffusion_bert.commands.evaluation_flags import evaluation_parser
from diffusion_bert.commands.flag_names import OTHER_NAMES, meant
from diffusion_bert.commands.interactive import talking_parser
from diffusion_bert.commands.questions import ask, ask_settings, choose
from diffusion_bert.config.fields import option
from diffusion_bert.config.presets import load_preset
from diffusion_bert.config.run_config import TRAINING_SECTIONS, RunConfig
from diffusion_bert.errors import UserError
from tests.helpers.scripts import SMALL, run


def parsed(*argv: str) -> dict:
    """What the training parser keeps of a command line."""
    return training_parser("test", train.PRESETS).parse(argv)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--from_scratch", "false"], {"from_scratch": False}),
        (["--from_scratch"], {"from_scratch": True}),
        (["--from_scratch", "--epochs", "2"], {"from_scratch": True, "epochs": 2}),
        (["--copy_head", "no"], {"copy_head": False}),
        (["--copy_head=YES"], {"copy_head": True}),
        (["--time_correction", "0"], {"time_correction": False}),
        (["--lr", "5e-4"], {"lr": 5e-4}),
        (["--lr", "1"], {"lr": 1.0}),
        (["--max_steps", "none"], {"max_steps": None}),
        (["--data_dir", "a b"], {"data_dir": "a b"}),
        ([], {}),
    ],
)
def test_flags_have_types(argv, expected):
    """Booleans are real booleans with or without a value, numbers are numbers, none is none; what was not given is
    absent.
    """
    values = parsed(*argv)
    assert values == expected and all(type(values[name]) is type(value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--epoch", "3"], "unknown argument '--epoch'; did you mean '--epochs'?"),
        (["--epochs_=3"], "did you mean '--epochs'?"),
        (["--learning-rate", "3"], "did you mean '--lr'?"),
        (["--num-steps", "3"], "did you mean '--num_steps'?"),
        (["--bs=3"], "did you mean '--batch_size'?"),
        (["--wd", "3"], "did you mean '--weight_decay'?"),
        (["--cuda"], "did you mean '--device'?"),
        (["--fp16"], "did you mean '--precision'?"),
        (["--lambda", "0.1"], "did you mean '--word_freq_lambda'?"),
        (["--warmup_steps", "9"], "did you mean '--warmup_ratio'?"),
        (["--out", "x"], "did you mean '--output_dir'?"),
        (["\u2014epochs", "3"], "did you mean '--epochs'?"),
        (["--resume"], "continue_training.py has '--resume'"),
        (["--resume_from_checkpoint", "x"], "continue_training.py has '--resume'"),
        (["--word_freq_lamda", "0.1"], "did you mean '--word_freq_lambda'?"),
        (["--copy_head", "maybe"], "copy_head is 'maybe': expected true or false"),
        (["--epochs", "1.5"], "epochs is '1.5': expected a whole number"),
        (["--epochs"], "--epochs"),
        (["stray"], "unknown argument 'stray'"),
        (["--schedule", "cosin"], "expected one of mutual, cosine; did you mean 'cosine'?"),
        (["--bat", "3"], "unknown argument '--bat'"),
    ],
)
def test_wrong_flags_are_refused(argv, words):
    """Unknown flags name the nearest one; abbreviations are not guessed."""
    with pytest.raises(UserError) as refusal:
        parsed(*argv)
    assert words in str(refusal.value)


def test_home_folders():
    """A shell leaves the ~ of --data_dir=~/mine as it is; so does a YAML file."""
    home = str(Path.home())
    assert parsed("--data_dir=~/mine", "--config=~/a.yaml") == {"data_dir": f"{home}/mine", "config": f"{home}/a.yaml"}
    assert RunConfig.from_flat({"data_dir": "~/mine"}).data.data_dir == f"{home}/mine"


@pytest.mark.parametrize("typed", ["~/mine.jsonl", "'~/mine.jsonl'", '"{home}/mine.jsonl"', "{home}/mine.jsonl"])
def test_a_path_as_it_is_dropped_into_a_menu(tmp_path, monkeypatch, typed):
    """With quotes around it, or from the home folder on."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.jsonl").touch()
    monkeypatch.setattr("builtins.input", lambda prompt: typed.format(home=tmp_path))
    assert ask_settings(["train_file"], {}) == {"train_file": f"{tmp_path}/mine.jsonl"}


@pytest.mark.parametrize("flag", sorted({name for names in OTHER_NAMES.values() for name in names}))
def test_names_of_other_programs(flag):
    """Every one of them is answered by a flag that some script has, and none of them is a flag."""
    parsers = {"training": training_parser("test", ()), "talking": talking_parser(), "evaluation": evaluation_parser()}
    flags = [{text for action in parser._actions for text in action.option_strings} for parser in parsers.values()]
    named = [match for known in flags if (match := re.search(r"'(--\w+)'\?", meant(f"--{flag}", list(known))))]
    elsewhere = meant(f"--{flag}", []) != ""
    assert named or elsewhere
    assert all(any(match[1] in known for known in flags) for match in named)


def test_every_setting_is_a_flag():
    """Flags, preset keys and fields are the same names; every flag has a help line with its default."""
    fields = {f.name for section in TRAINING_SECTIONS for f in dataclasses.fields(section)}
    actions = {action.dest: action for action in training_parser("test", ())._actions}
    assert fields <= set(actions) and {"preset", "config", "version", "help"} == set(actions) - fields
    assert all("(default: " in actions[name].help for name in fields)


def test_preset_under_flags():
    """A preset gives the base, flags override it, everything else is the default."""
    base = load_preset("quick_demo")
    settings = settings_of(parsed("--preset", "quick_demo", "--epochs", "1", "--lr", "0.01"))
    assert settings == {**base, "epochs": 1, "lr": 0.01}
    assert RunConfig.from_flat(settings).diffusion.num_steps == base["num_steps"]


def test_config_of_a_run_rebuilds_its_settings(trained):
    """--config with a run's config.yaml gives the same settings again, and flags override it."""
    path = trained / "config.yaml"
    rebuilt = RunConfig.from_flat(settings_of(parsed("--config", str(path))))
    assert rebuilt.to_flat() == yaml.safe_load(path.read_text())
    assert all(rebuilt.to_flat()[name] == value for name, value in SMALL.items())
    assert RunConfig.from_flat(settings_of(parsed("--config", str(path), "--seed", "9"))).training.seed == 9


def test_own_file_means_custom_task():
    """--train_file without --task_name is the custom task; with it, the named one."""
    assert settings_of({"train_file": "a.txt"})["task_name"] == "custom"
    assert settings_of({"train_file": "a.txt", "task_name": "qqp"})["task_name"] == "qqp"


def test_preset_and_config_exclude_each_other():
    """One base, not two."""
    with pytest.raises(UserError, match="expected one of them"):
        settings_of({"preset": "quick_demo", "config": "x.yaml"})


def test_a_config_may_have_any_name(tmp_path):
    """--config is a path, with or without an ending; --preset is a name, and an empty one is refused."""
    (tmp_path / "mine").write_text("epochs: 7\n")
    assert settings_of({"config": str(tmp_path / "mine")}) == {"epochs": 7}
    with pytest.raises(UserError, match="no preset ''"):
        settings_of({"preset": ""})


@pytest.fixture
def answers(monkeypatch):
    """Feed lines to input(); the end of the list is the end of input."""

    def feed(*lines):
        rest = iter(lines)

        def fake(question=""):
            try:
                return next(rest)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("builtins.input", fake)

    return feed


def test_menu_quick_demo(answers, capsys):
    """1, or just Enter, is the quick demo; nonsense is asked again."""
    for lines in (["1"], [""], ["quick", "9", "0", "-1", "1"]):
        answers(*lines)
        assert train.ask_for_settings() == load_preset("quick_demo")
    assert "'quick' is none of 1 to 4" in capsys.readouterr().out


@pytest.mark.parametrize(("choice", "preset"), [("2", "fast_training"), ("3", "deep_training")])
def test_menu_asks_where_the_data_is(answers, tmp_path, capsys, choice, preset):
    """Tasks that need data ask for their folder, again where there is none of that name."""
    answers(choice, "some/folder", str(tmp_path))
    assert train.ask_for_settings() == {**load_preset(preset), "data_dir": str(tmp_path)}
    assert "data_dir is 'some/folder'" in capsys.readouterr().out


def test_menu_custom(answers, capsys):
    """Custom asks for each value, shows the default, and asks again until it is legal."""
    answers("4", "", "", "", "mini", "0", "500", "", "0.5", *[""] * 7)
    settings = train.ask_for_settings()
    RunConfig.from_flat({name: value for name, value in settings.items() if name != "word_freq_lambda"})
    assert settings["model_name_or_path"] == "mini" and settings["max_samples"] == 500 and "data_dir" not in settings
    assert "max_samples is 0: expected at least 1" in capsys.readouterr().out


def test_menu_custom_with_own_file(answers, tmp_path):
    """An own file with the default task is the custom task."""
    (tmp_path / "mine.txt").touch()
    answers("4", "", "", str(tmp_path / "mine.txt"), *[""] * 20)
    assert train.ask_for_settings()["task_name"] == "custom"


def test_no_answer_is_one_line(tmp_path, monkeypatch):
    """The menu without a terminal and without input: one line that names the flags."""
    monkeypatch.chdir(tmp_path)
    result = run("run_conditional_training", stdin="")
    assert result.code == 2 and result.err.count("\n") == 1 and "--preset" in result.err and "Quick Demo" in result.out


def test_ask_helpers(answers):
    """An empty answer is the default; choose counts from 0."""
    answers("", " x ", "2")
    assert ask("?", "d") == "d" and ask("?") == "x" and choose("t", [("a", ""), ("b", "")]) == 1
    answers("")
    assert ask_settings(["max_minutes"], {}) == {"max_minutes": None}


def test_guarded_exit_codes(capsys):
    """A user's mistake is one line and 2, Ctrl-C is 130, no code is 0; a bug is not hidden."""

    def raising(error):
        def command(argv):
            raise error

        return command

    assert guarded(lambda argv: None, []) == 0 and guarded(lambda argv: 7, []) == 7
    assert guarded(raising(UserError("two\nlines")), []) == 2 and capsys.readouterr().err == "error: two lines\n"
    assert guarded(raising(KeyboardInterrupt()), []) == 130
    with pytest.raises(ZeroDivisionError):
        guarded(raising(ZeroDivisionError()), [])


def test_help_may_hold_a_percent_sign():
    """argparse reads % in a help line as a format: ours are escaped."""

    @dataclasses.dataclass
    class Section:
        """a group"""

        share: float = option(0.5, "50 % of %(all)s")

    parser = cli.Parser("test")
    parser.add_settings(Section)
    assert "50 % of %(all)s (default: 0.5)" in parser.format_help()


def test_dry_run_leaves_nothing(data_dir, tmp_path, monkeypatch):
    """--dry_run goes through data, model, training, demonstration, validation and test, and leaves no file anywhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    result = run(
        "run_conditional_training", "--dry_run", "--data_dir", data_dir, "--vocab_size", "500", "--device", "cpu"
    )
    assert result.code == 0, result.err
    for words in (
        "Data    custom: 64 examples",
        "Model   tiny",
        "validation NELBO",
        "% noise",
        "Trained 3 steps",
        "Test NELBO",
        "Dry run complete",
    ):
        assert words in result.out, words
    assert [path.name for path in tmp_path.rglob("*")] == ["temporary"]


def test_dry_run_cleans_up_after_a_failure(data_dir, tmp_path, monkeypatch):
    """Nothing stays either when a stage fails."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def broken(*_):
        raise UserError("broken")

    monkeypatch.setattr(training_run, "finish", broken)
    result = run(
        "run_conditional_training",
        "--dry_run",
        "--data_dir",
        data_dir,
        "--vocab_size",
        "500",
        "--device",
        "cpu",
        "--output_dir",
        tmp_path / "out",
    )
    assert result.code == 2 and list(tmp_path.iterdir()) == []
