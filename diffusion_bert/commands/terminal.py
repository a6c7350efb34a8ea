"""Lines for people: wrapped at words on a terminal, whole in a pipe or a log, written out at once."""

from __future__ import annotations

import math
import re
import shutil
import sys
import textwrap
import unicodedata

NARROWEST, WIDEST_FIRST, NO_BREAK = 20, 30, "\xa0"  # columns of a terminal, of the first of two columns
SEPARATORS = "/\\_-.,;:=&?"  # behind which a path or a name that is wider than a line is broken
_ESCAPE = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")


def is_terminal(stream=None) -> bool:
    """Whether a stream (default: stdout) is a terminal."""
    stream = sys.stdout if stream is None else stream
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def in_notebook() -> bool:
    """Whether this is a notebook: its output is no terminal, but goes back to the beginning of a line as one does."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


def terminal_width() -> int:
    """Columns that may be written to: one less than there are, as a full last column makes some terminals wrap."""
    return max(NARROWEST, shutil.get_terminal_size().columns - 1)


def columns(letter: str) -> int:
    """How many columns of a terminal a character takes."""
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1


def columns_of(text: str) -> int:
    """How many columns of a terminal a line takes, without its colours."""
    return sum(map(columns, _ESCAPE.sub("", text)))


def wrapped(text: str, width: int, hang: int | None = None) -> str:
    """Every line of a text broken at spaces; what is broken off is indented by ``hang`` columns more than its line, or
    (None) to where the second column of a line such as "Model   tiny" begins. A word that is wider than a line is
    broken behind a separator of paths and names, or between wide letters; nothing is lost.
    """
    lines = []
    for line in text.split("\n"):
        if columns_of(line) <= width:
            lines.append(line)
            continue
        start = len(line) - len(line.lstrip(" "))
        gap = line.find("  ", start)
        column = len(line) - len(line[gap:].lstrip(" ")) if start < gap < start + WIDEST_FIRST else start + 2
        indent = " " * min(column if hang is None else start + hang, width // 2)
        whole = line.expandtabs().replace(" %", f"{NO_BREAK}%")  # a number and its sign stay together
        lines += _broken(whole, width, indent)
    return "\n".join(lines).replace(f"{NO_BREAK}%", " %")


def _broken(line: str, width: int, indent: str) -> list[str]:
    """The lines of at most ``width`` columns that a line becomes."""
    lines, current = [], ""
    for part in re.findall(" *[^ ]+", line):
        word = part.lstrip(" ")
        if columns_of(current + part) <= width:
            current += part
        elif current.strip() and columns_of(indent + word) <= width:
            lines.append(current)
            current = indent + word
        else:
            before = current + part[: len(part) - len(word)]
            room = max(0, width - columns_of(before))
            first, *rest = pieces(word, room, width - len(indent), bool(current.strip()))
            *whole, current = [*([before + first] if first else [current]), *(indent + piece for piece in rest)]
            lines += [text for text in whole if text.strip()]
    return [*lines, current]


def pieces(word: str, first: int, room: int, may_wait: bool) -> list[str]:
    """A word in pieces: the first one ``first`` columns wide at most, the others ``room``. With ``may_wait`` the first
    is empty rather than cut where there is no separator.
    """
    found = []
    while columns_of(word) > (first if not found else room):
        cut = _cut(word, room if found else first, may_wait and not found)
        found.append(word[:cut])
        word = word[cut:]
    return [*found, word]


def _cut(word: str, room: int, only_at_separators: bool) -> int:
    """Behind how many letters a word is best cut so that they take at most ``room`` columns, and at least one letter;
    with ``only_at_separators`` maybe none.
    """
    used = best = hard = 0
    for place, letter in enumerate(word):
        wide = columns(letter) == 2 or place and columns(word[place - 1]) == 2
        if place and columns(letter) and used <= room:
            hard = place
            best = place if word[place - 1] in SEPARATORS or wide else best
        used += columns(letter)
        if used > room:
            break
    return best or (0 if only_at_separators else max(1, hard))


def fitted(text: str, hang: int | None = None) -> str:
    """The text as it is to be written on stdout: wrapped on a terminal."""
    return wrapped(text, terminal_width(), hang) if is_terminal() else text


def say(text: str = "", hang: int | None = None, file=None) -> None:
    """Print at once, wrapped on a terminal."""
    if file is None:
        print(fitted(text, hang), flush=True)
    else:
        print(wrapped(text, terminal_width(), hang) if is_terminal(file) else text, file=file, flush=True)


def say_command(label: str, command: str) -> None:
    """Print a command that is to be typed behind a label. Where a terminal has no room for it, it goes on in the next
    line behind a backslash, so that a shell takes what is copied.
    """
    room = terminal_width() - len(" \\")
    if not is_terminal() or len(label + command) <= terminal_width() or "'" in command:  # quotes may hold spaces
        print(f"{label}{command}", flush=True)
        return
    indent = " " * (len(label) if len(label) <= room // 4 else 4)
    first = label if len(label) <= room // 4 else f"{fitted(label.rstrip())}\n{indent}"
    lines = textwrap.wrap(command, room - len(indent), break_long_words=False, break_on_hyphens=False)
    print(first + f" \\\n{indent}".join(lines), flush=True)


class Stream:
    """A line that is written stretch by stretch, at once, and wrapped like ``say`` on a terminal. It begins with
    ``start``; every stretch ends with a whole word, or with a sign that is glued to the word behind it.
    """

    def __init__(self, start: str = "", file=None):
        self.file = sys.stdout if file is None else file
        self.width = terminal_width() if is_terminal(self.file) else math.inf
        self.column, self.hang = 0, "\n" + " " * (2 + len(start) - len(start.lstrip()))
        self.begun, self.space, self.glued = False, start, ""  # both wait for the word behind them

    def write(self, text: str) -> None:
        """Add a stretch."""
        for part in filter(None, re.split(r"(\s+)", text)):
            if part.isspace():
                self._word("")
                self.space += part
            elif any(map(str.isalnum, part)):
                self._word(part)
            else:
                self.glued += part

    def _word(self, word: str) -> None:
        word, self.glued = self.glued + word, ""
        if not word:
            return
        breaks = self.begun and "\n" not in self.space and self.space
        if breaks and self.column + columns_of(self.space + word) > self.width:
            self.space = self.hang
        _, new_line, before = self.space.rpartition("\n")
        start, room = columns_of(before) + (0 if new_line else self.column), len(self.hang) - 1
        if self.width < math.inf:
            word = self.hang.join(pieces(word, self.width - start, self.width - room, self.begun))
        print(end=self.space + word, flush=True, file=self.file)
        _, new_line, line = (self.space + word).rpartition("\n")
        self.column = columns_of(line) + (0 if new_line else self.column)
        self.begun, self.space = True, ""

    def end(self) -> bool:
        """End the line; whether there was one."""
        self._word("")
        if self.begun:
            print(self.space, flush=True, file=self.file)
        return self.begun


def counted(number: int, noun: str) -> str:
    """1 row, 2 rows."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def draw_table(head: list[str], rows: list[list[str]]) -> None:
    """A table of numbers on a terminal: the first column to the left, the others to the right, nothing cut in a
    word.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=terminal_width(), highlight=False, soft_wrap=False).print(table)
