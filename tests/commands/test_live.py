"""Drawing on a terminal: what a small terminal emulator shows after each write."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_bert.commands.live import (
    CLEAR_BELOW,
    CLEAR_LINE,
    RAMP,
    animate,
    columns,
    plain_lines,
    printable,
    supports_colour,
    wrap,
)
from diffusion_bert.commands.terminal import wrapped
from diffusion_bert.generation.tracing import GIVEN, HIDDEN, Cell, Trace

ESCAPE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])")


class Screen(io.StringIO):
    """A terminal that knows what ``animate`` uses; ``shots`` is what it showed after each write."""

    def __init__(self, terminal: bool = True):
        super().__init__()
        self.lines, self.row, self.column, self.shots, self.raw, self.terminal = ["$ para"], 1, 0, [], [], terminal
        self.lines.append("")

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.raw.append(text)
        position = 0
        while position < len(text):
            if match := ESCAPE.match(text, position):
                self._obey(*match.groups())
                position = match.end()
                continue
            self._put(text[position])
            position += 1
        self.shots.append([line.rstrip() for line in self.lines])

    def _obey(self, number, letter):
        if letter == "A":
            self.row -= int(number)
            assert self.row >= 1, "the cursor left what is ours"
        elif letter == "K":
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif letter == "J":
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
        else:
            assert letter in "mhl"

    def _put(self, letter):
        if letter == "\r":
            self.column = 0
        elif letter == "\n":
            self.row, self.column = self.row + 1, 0
            self.lines += [""] * (self.row - len(self.lines) + 1)
        else:
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + letter + line[self.column + 1 :]
            self.column += 1


WORDS = [
    "How",
    "can",
    "you",
    "bake",
    "some",
    "very",
    "good",
    "bread",
    "at",
    "home",
    "within",
    "two",
    "or",
    "three",
    "weeks",
]
PARTS = [part for number, word in enumerate(WORDS) for part in ((" ", None), (word, number))][1:]
TRACE = Trace(
    PARTS,
    [(1, 4, "some"), (1, 2, "me"), (2, 2, None)]
    + [(3 + number % 5, number, word) for number, word in enumerate(WORDS) if number != 4],
)
TRACE.changes.sort(key=lambda change: change[0])


@pytest.mark.parametrize("width", [12, 20, 33, 80, 200])
def test_every_frame_replaces_the_one_before(width):
    """Whatever the width: each write leaves one whole frame, over what stood there before, and the last one is the
    text.
    """
    screen, naps = Screen(), []
    assert animate(TRACE, "  1. ", screen, (width, 24), 0.06, naps.append)
    frames = ["".join(cell.text for cell in cells) for _, cells in TRACE.frames()]
    shots = screen.shots[: len(frames)]
    assert len(screen.raw) == len(frames) + 1 and naps == [0.06] * (len(frames) - 1)
    for shot, frame in zip(shots, frames):
        assert shot[0] == "$ para" and all(len(line) < width for line in shot)
        assert "".join(shot[1:]).replace(" ", "") == f"1.{frame}".replace(" ", "")
    assert screen.shots[-1][-1] == "" and " ".join(" ".join(screen.shots[-1][1:]).split()) == f"1. {TRACE.text}"
    assert all(write.count("\r") == 1 for write in screen.raw[:-1])


@pytest.mark.parametrize("width", [20, 50, 80])
@pytest.mark.parametrize("label", ["  1. ", "  10. "])
def test_further_lines_begin_below_the_text(width, label):
    """Of every step: the lines below the first are indented by the width of the label, and no word is broken."""
    screen, words = Screen(), 2 * WORDS
    parts = [part for number, word in enumerate(words) for part in ((" ", None), (word, number))][1:]
    trace = Trace(parts, [(1 + number, number, word) for number, word in enumerate(words)])
    assert animate(trace, label, screen, (width, 24), 0, lambda seconds: None)
    several = [shot[1:] for shot in screen.shots if len([line for line in shot[1:] if line]) > 1]
    assert several
    for first, *others in several:
        assert first.startswith(label)
        for line in filter(None, others):
            assert line.startswith(" " * len(label)) and line[len(label)] != " ", line
    shown = " ".join(screen.shots[-1][1:]).split()
    assert shown == [label.strip(), *words]


def test_colours_tell_the_step():
    """A word keeps the colour of its step; early and late steps have the two ends of the ramp; what is hidden is dim;
    the end resets.
    """
    screen = Screen()
    animate(TRACE, "  1. ", screen, (200, 24), 0, lambda seconds: None)
    last = screen.raw[-2]
    assert f"\x1b[38;5;{RAMP[0]}msome\x1b[0m" in last and f"\x1b[38;5;{RAMP[-1]}m" in last and "\x1b[2m" not in last
    assert "\x1b[2m_" in screen.raw[0] and "\x1b[38" not in screen.raw[0]
    assert screen.raw[-1].startswith("\x1b[0m\x1b[?25h")


def test_interrupted(monkeypatch):
    """Ctrl-C in the middle leaves a terminal with its colours and cursor as they were."""

    def interrupt(seconds):
        raise KeyboardInterrupt

    screen = Screen()
    with pytest.raises(KeyboardInterrupt):
        animate(TRACE, "  1. ", screen, (80, 24), 1, interrupt)
    assert screen.raw[-1] == "\x1b[0m\x1b[?25h\n"


@pytest.mark.parametrize("size", [(8, 24), (20, 3)])
def test_what_does_not_fit_is_not_drawn(size):
    """A terminal too narrow, or too low for the text: nothing is written."""
    screen = Screen()
    assert animate(TRACE, "  1. ", screen, size, 0) is False and not screen.raw


def test_where_to_draw(monkeypatch):
    """Terminals only; not with NO_COLOR, nor on a dumb one. An empty NO_COLOR counts as none."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert (
        supports_colour(Screen()) and not supports_colour(Screen(terminal=False)) and not supports_colour(io.StringIO())
    )
    monkeypatch.setenv("NO_COLOR", "")
    assert supports_colour(Screen())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not supports_colour(Screen())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not supports_colour(Screen())


def test_plain_lines():
    """One line per step in which something changed, without escape codes; the last ends with the text."""
    lines = plain_lines(TRACE)
    assert [int(line.split()[1]) for line in lines] == [0, 1, 2, 3, 4, 5, 6, 7] and lines[-1].endswith(TRACE.text)
    assert not any("\x1b" in line for line in lines) and len(set(map(len, lines))) <= 2
    broken = wrapped(lines[-1], 49).split("\n")
    assert len(broken) > 1 and all(line.startswith(" " * 12) and line[12] != " " for line in broken[1:])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=12), st.sampled_from([GIVEN, HIDDEN, 1, 2])), max_size=12), st.integers(2, 40)
)
def test_wrapping_loses_nothing(cells, width):
    """Any text in any width: lines are never wider, and together they hold every character but those that would move
    the cursor.
    """
    lines = wrap([Cell(*cell) for cell in cells], width)
    assert all(sum(columns(letter) for cell in line for letter in cell.text) <= width for line in lines)
    assert "".join(cell.text for line in lines for cell in line) == printable("".join(text for text, _ in cells))
    assert not set("".join(cell.text for line in lines for cell in line)) & {"\n", "\r", "\x1b", "\t", "\x07"}


def test_columns():
    """Wide characters take two columns, combining ones none."""
    assert [columns(letter) for letter in "a東\u0301é"] == [1, 2, 0, 1] and CLEAR_LINE != CLEAR_BELOW
