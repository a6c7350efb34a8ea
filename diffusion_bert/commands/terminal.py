"""Lines for people: wrapped at words on a terminal, whole in a pipe or a log, written out at once."""

from __future__ import annotations

import shutil
import sys
import textwrap

NARROWEST = 20


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


def wrapped(text: str, width: int, hang: int | None = None) -> str:
    """Every line of a text broken at spaces, never in a word; what is broken off is indented by ``hang`` columns more
    than its line, or (None) to where the second column of a line such as "Model   tiny" begins.
    """
    lines = []
    for line in text.split("\n"):
        if "\x1b" in line or len(line) <= width:
            lines.append(line)
            continue
        start = len(line) - len(line.lstrip(" "))
        gap = line.find("  ", start)
        column = len(line) - len(line[gap:].lstrip(" ")) if start < gap < start + 24 else start + 2
        indent = " " * min(column if hang is None else start + hang, width // 2)
        lines += textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
        ) or [""]
    return "\n".join(lines)


def fitted(text: str, hang: int | None = None) -> str:
    """The text as it is to be written on stdout: wrapped on a terminal."""
    return wrapped(text, terminal_width(), hang) if is_terminal() else text


def say(text: str = "", hang: int | None = None, file=None) -> None:
    """Print at once, wrapped on a terminal."""
    if file is None:
        print(fitted(text, hang), flush=True)
    else:
        print(wrapped(text, terminal_width(), hang) if is_terminal(file) else text, file=file, flush=True)


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
