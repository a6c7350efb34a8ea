"""What is shown on a terminal of 80 and of 50 columns: lines that fit, no word broken, commands that can be copied."""

import re
import shlex
from pathlib import Path

import pytest

from diffusion_bert.commands import terminal
from diffusion_bert.commands.cli import guarded, training_parser
from diffusion_bert.commands.evaluation_flags import evaluation_parser
from diffusion_bert.commands.interactive import talking_parser
from diffusion_bert.commands.progress import Progress
from diffusion_bert.commands.questions import ask_settings
from diffusion_bert.commands.terminal import SEPARATORS, Stream, columns_of, say_command, wrapped
from diffusion_bert.errors import UserError

widths = pytest.mark.parametrize("width", [80, 50])
LONG_RUN = "runs/small_wiki_alignment_lr0.0007_seed42_T128_lambda0.1_001"


@pytest.fixture
def screen(monkeypatch, width):
    """Stdout and stderr are a terminal of this width."""
    monkeypatch.setattr(terminal, "is_terminal", lambda stream=None: True)
    monkeypatch.setenv("COLUMNS", str(width))


def assert_fits(text: str, width: int, whole: str) -> None:
    """No line is wider than the terminal, but for a single word that is; together they are the words of ``whole``."""
    for line in text.splitlines():
        assert len(line) < width or len(line.split()) <= 2, line
    assert text.split() == whole.split()


@widths
@pytest.mark.parametrize("label", ["Next:  ", "       ", "To restart from scratch with a larger model instead:  "])
@pytest.mark.parametrize(
    "command",
    [
        "python continue_training.py --auto",
        f"python evaluate_trained_model.py --checkpoint {LONG_RUN}/best_model.pt",
        "python run_conditional_training.py --task_name qqp --data_dir data/qqp --model_name_or_path mini --epochs 10",
        f"python continue_training.py --resume --model_dir '{LONG_RUN.replace('_', ' ')}'",
    ],
)
def test_commands_can_be_copied(screen, capsys, width, label, command):
    """What a shell makes of the lines behind the label is the command, however they are broken."""
    say_command(label, command)
    out = capsys.readouterr().out
    assert shlex.split(out.replace("\\\n", "")) == [*label.split(), *shlex.split(command)]
    if "'" not in command:
        assert all(len(line) < width or len(line.split()) <= 2 for line in out.splitlines())


@widths
def test_errors_break_between_words(screen, capsys, width):
    """An error on a terminal; in a pipe it is one line."""
    message = "--word_freq_lambda is 0.9: expected at most 0.318 with this schedule, so that no word is clean too late"

    def refuse(argv):
        raise UserError(message)

    assert guarded(refuse, []) == 2
    assert_fits(capsys.readouterr().err, width, f"error: {message}")


@widths
def test_questions_break_between_words(screen, capsys, width, monkeypatch, tmp_path):
    """With the default at the end."""
    monkeypatch.chdir(tmp_path)
    Path(LONG_RUN).mkdir(parents=True)
    asked = []
    monkeypatch.setattr("builtins.input", lambda prompt: [asked.append(capsys.readouterr().out + prompt), ""][1])
    ask_settings(["data_dir", "word_freq_lambda", "output_dir"], {"data_dir": LONG_RUN, "word_freq_lambda": 0.1})
    assert len(asked) == 3
    assert all(len(line) <= width for question in asked for line in question.splitlines()), asked
    assert "".join(asked[0].split()).endswith(f"[{LONG_RUN}]:")


def test_no_absurd_figures(monkeypatch):
    """No pace from less than a second, no time left when all is done; then plain numbers."""
    clock = [100.0]
    monkeypatch.setattr("diffusion_bert.commands.progress.time.monotonic", lambda: clock[0])
    bar = Progress("generation")
    clock[0] += 0.001
    assert bar.pace(1.0, 500) == "" and bar.left(1.0) == "" and bar.left(0.0) == ""
    clock[0] += 49.999
    assert (bar.pace(0.5, 500), bar.left(0.5)) == ("5.00 a second", "0:50 left")
    assert bar.pace(0.5, 100_000) == "1,000 a second"


LONG_LINES = [
    f"The newest run, {LONG_RUN}/best_model.pt",
    f"Parent  {LONG_RUN}/best_model.pt, not evaluated yet (--auto evaluates it)",
    f"Run     /home/somebody/{LONG_RUN}/{LONG_RUN}",
    f"{LONG_RUN}/best_model.pt (qqp, 0.6M parameters). Type help for the commands, quit to leave.",
    f"        (passed over: {LONG_RUN}, interrupted at step 41; python continue_training.py --resume goes on)",
    "  1. " + "東京の博物館はどこにありますか" * 6,
    "  1. Where is 東京の博物館はどこにありますか and the " + "ａｂｃ" * 30,
    "x" * 200,
    "(written first \x1b[38;5;63m##\x1b[0m\x1b[38;5;32m##\x1b[0m written last; dim: what is still hidden in the text)",
]


@widths
@pytest.mark.parametrize("text", LONG_LINES)
def test_nothing_is_wider_than_the_screen(width, text):
    """A path or name that is wider than the screen is broken behind a separator, text without spaces anywhere; nothing
    is lost, and no other word is broken.
    """
    lines = wrapped(text, width - 1).split("\n")
    assert all(columns_of(line) < width for line in lines), lines
    assert "".join("".join(lines).split()) == "".join(text.split())
    short = {word for word in text.split() if columns_of(word) < width // 2}
    assert short <= set(" ".join(lines).split()), lines
    if LONG_RUN in text:
        ends = [line[-1] for line in lines[:-1] if line.split()[-1] not in text.split()]
        assert set(ends) <= set(SEPARATORS), lines


@widths
@pytest.mark.parametrize("text", [*LONG_LINES[-4:-1], "Where is the museum of " + "supercalifragilistic" * 6])
def test_a_stream_is_no_wider_than_the_screen(screen, capsys, width, text):
    """The same for a line that comes stretch by stretch."""
    for stretches in ([text], re.findall(r"\S+\s*", text)):
        line = Stream()
        for stretch in stretches:
            line.write(stretch)
        assert line.end()
        out = capsys.readouterr().out
        assert "".join(out.split()) == "".join(text.split())
        assert all(columns_of(shown) < width for shown in out.splitlines()), out


@widths
@pytest.mark.parametrize(
    "parser",
    [lambda: training_parser("Train.", ("quick_demo",)), evaluation_parser, talking_parser],
    ids=["training", "evaluation", "talking"],
)
def test_help_breaks_between_words(monkeypatch, width, parser):
    """Every word of the help at 200 columns is whole at this width."""
    texts = {}
    for columns in (200, width):
        monkeypatch.setenv("COLUMNS", str(columns))
        texts[columns] = parser().format_help()
    words = set(texts[200].split())
    assert [word for word in texts[width].split() if word not in words] == []
    assert all(len(line) <= width or re.match(r" +(\[?--)?\S+( \S+)?$", line) for line in texts[width].splitlines())
