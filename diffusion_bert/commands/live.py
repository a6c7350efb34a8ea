"""The writing of a text shown on a terminal: one line that is redrawn at every step, or plain lines where a terminal
cannot do that.
"""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Callable, Sequence

from ..generation.tracing import GIVEN, HIDDEN, Cell, Trace
from .terminal import columns, columns_of

# early to late; even steps of hue at middling lightness, legible on black and on white
RAMP = (63, 32, 37, 35, 71, 106, 172, 208)
DIM, RESET = "\x1b[2m", "\x1b[0m"
CLEAR_LINE, CLEAR_BELOW = "\x1b[K", "\x1b[J"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def supports_colour(stream) -> bool:
    """Whether a stream takes colours and cursor movements: a terminal, and NO_COLOR (no-color.org) is not set."""
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def legend() -> str:
    """The colours of the steps, from the first to the last."""
    return "".join(f"\x1b[38;5;{code}m##{RESET}" for code in RAMP)


def plain_lines(trace: Trace) -> list[str]:
    """One line per step in which something was written; the last ends with the text."""
    return [
        f"  {f'step {step}':<10}{printable(''.join(cell.text for cell in cells))}" for step, cells in trace.frames()
    ]


def animate(
    trace: Trace, label: str, stream, size: tuple[int, int], delay: float, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Draw all frames behind ``label``, each with a single write; the last one stays. Further lines of a frame begin
    below the text, not below the label. False, and nothing is drawn, where it would not fit.

    size: (columns, lines) of the terminal. delay: seconds per frame.
    """
    steps = max((step for step, _, _ in trace.changes), default=1)
    frames = [wrap([Cell(label, GIVEN), *cells], size[0] - 1, columns_of(label)) for _, cells in trace.frames()]
    if size[0] < 12 or max(map(len, frames)) >= size[1]:
        return False
    above = 0  # lines over the one the cursor is in
    try:
        for number, lines in enumerate(frames):
            up = f"\x1b[{above}A" if above else ""
            body = f"{CLEAR_LINE}\n".join(paint(line, steps) for line in lines)
            stream.write(f"{HIDE_CURSOR}{up}\r{body}{CLEAR_LINE}{CLEAR_BELOW if len(lines) <= above else ''}")
            stream.flush()
            above = len(lines) - 1
            if number + 1 < len(frames):
                sleep(delay)
    finally:
        stream.write(f"{RESET}{SHOW_CURSOR}\n")
        stream.flush()
    return True


def paint(cells: Sequence[Cell], steps: int) -> str:
    """The cells in the colours of their steps (1 to ``steps``); what was given stays plain, what is hidden is dim."""
    painted = []
    for text, step in cells:
        if step == GIVEN:
            painted.append(text)
        else:
            code = DIM if step == HIDDEN else f"\x1b[38;5;{RAMP[(step - 1) * (len(RAMP) - 1) // max(1, steps - 1)]}m"
            painted.append(f"{code}{text}{RESET}")
    return "".join(painted)


def wrap(cells: Sequence[Cell], width: int, hang: int = 0) -> list[list[Cell]]:
    """Lines of at most ``width`` columns, broken before a word where one begins in the line, else anywhere; all but the
    first are indented by ``hang`` columns, or by half the width where that is less.
    """
    letters = [(letter, cell.step) for cell in cells for letter in printable(cell.text)]
    indent = [(" ", GIVEN)] * min(hang, width // 2)
    lines, line, used, space, begin = [], [], 0, -1, 0
    for letter, step in letters:
        while len(line) > begin and used + columns(letter) > width:
            cut = space + 1 if space >= begin else len(line)
            lines.append(line[:cut])
            line, begin = [*indent, *line[cut:]], len(indent)
            used, space = sum(columns(kept) for kept, _ in line), -1
        if letter == " ":
            space = len(line)
        line.append((letter, step))
        used += columns(letter)
    lines.append(line)
    return [_merge(line) for line in lines]


def _merge(letters: Sequence[tuple[str, int]]) -> list[Cell]:
    """Neighbours of the same step in one cell."""
    cells: list[Cell] = []
    for letter, step in letters:
        if cells and cells[-1].step == step:
            cells[-1] = Cell(cells[-1].text + letter, step)
        else:
            cells.append(Cell(letter, step))
    return cells


def printable(text: str) -> str:
    """Without what would move the cursor: control characters become spaces."""
    return "".join(" " if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter for letter in text)
