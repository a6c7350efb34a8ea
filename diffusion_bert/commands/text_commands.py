"""What can be done to a text, in the command loop and to a file of texts alike: the commands that write.

A command checks a text, answers many at once, and knows how its answers look on a screen and in a file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..config.schema import DisplayConfig
from ..config.tasks import TASKS
from ..data.skills import commands_of
from ..errors import UserError
from ..generation.generator import DiffusionTextGenerator
from ..generation.tracing import Trace
from ..text.english import strip_enclosing_quotes
from .live import plain_lines, printable
from .terminal import Stream
from .text_files import Row


class Loop(Protocol):
    """What a command needs of the command loop it is typed in."""

    generator: DiffusionTextGenerator
    display: DisplayConfig
    write: Callable[[str], None]
    show_trace: Callable[[Trace, str], bool] | None
    stream: Callable[[str], Stream] | None

    def next_seed(self) -> int:
        """Every request has a seed of its own."""


class TextCommand(ABC):
    """A row of the command table.

    name, usage, help: as the loop's help shows them. example: a text for it.
    """

    pairs = False  # whether a row of a file may have a target

    def __init__(self, generator: DiffusionTextGenerator, name: str, usage: str, help: str, example: str):
        self.generator = generator
        self.name, self.usage, self.help, self.example = name, usage, help, example

    # ---- texts ------------------------------------------------------------------------------------------------------

    def row(self, typed: str) -> Row:
        """What was typed behind the command, as a row of a file would be; refused where there is nothing."""
        text = strip_enclosing_quotes(typed)
        if not text.strip():
            raise UserError(f"{self.name} needs a text, for example: {self.name} {self.example}")
        return Row(text)

    @abstractmethod
    def check(self, row: Row) -> None:
        """Refuse a text that the command cannot work on."""

    @abstractmethod
    def answers(self, rows: Sequence[Row], numbers: Sequence[int]) -> list[Any]:
        """An answer for each of some rows, worked on together; ``numbers``: their places in the file."""

    # ---- the loop ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def respond(self, loop: Loop, typed: str) -> None:
        """Answer a line of the command loop."""

    # ---- files ------------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """The columns of a table of answers; the first ones are those of the row."""

    @abstractmethod
    def record(self, row: Row, answer: Any | None) -> dict[str, Any]:
        """An entry of a .jsonl; ``answer`` is None where a row has none."""

    @abstractmethod
    def cells(self, row: Row, answer: Any | None) -> list[str]:
        """An entry of a .csv, in the order of the columns."""

    @abstractmethod
    def line(self, answer: Any | None) -> str:
        """An entry of a .txt."""


class WritingCommand(TextCommand):
    """A command whose answers are candidates.

    write: texts and options -> a list of candidates for each. fits: refuses a text. streams: whether ``write`` tells of
    each sentence as it is finished.
    """

    def __init__(
        self,
        generator: DiffusionTextGenerator,
        name: str,
        help: str,
        example: str,
        write: Callable[..., list[list[str]]],
        fits: Callable[[str], object],
        streams: bool = True,
    ):
        super().__init__(generator, name, "<text>", help, example)
        self.write, self.fits, self.streams = write, fits, streams

    def check(self, row: Row) -> None:
        self.generator.check_text(row.text)
        self.fits(row.text)

    def answers(self, rows: Sequence[Row], numbers: Sequence[int]) -> list[list[str]]:
        return self.write([row.text for row in rows], numbers=numbers)

    def respond(self, loop: Loop, typed: str) -> None:
        """Write the candidates for a text, the first one with its trace if that is wanted, or as it comes."""
        row = self.row(typed)
        self.check(row)
        for remark in para_remarks(self.generator) if self.name == "para" else []:
            loop.write(remark)
        traces: list[Trace] = []
        on_trace = traces.append if loop.display.trace else None
        streams = self.streams and loop.stream is not None and not loop.display.trace
        line = loop.stream("  1. ") if streams else None
        on_part = {"on_part": line.write} if streams else {}
        try:
            candidates = self.write(row.text, seed=loop.next_seed(), on_trace=on_trace, **on_part)
        finally:
            streamed = streams and line.end()
        shown = streamed or bool(traces) and show(loop, traces[0])
        for number, candidate in enumerate(candidates, 1):
            if not (shown and number == 1):
                loop.write(f"  {number}. {candidate}")
        options = self.generator.options
        if len(candidates) < options.num_samples and options.top_k == 1:
            loop.write(f"({len(candidates)} of {options.num_samples}: top_k 1 leaves little to choose from)")

    @property
    def columns(self) -> list[str]:
        return ["source", *(f"output_{number}" for number in range(1, self.generator.options.num_samples + 1))]

    def record(self, row: Row, answer: list[str] | None) -> dict[str, Any]:
        return {"source": row.text, "outputs": list(answer or [])}

    def cells(self, row: Row, answer: list[str] | None) -> list[str]:
        outputs = list(answer or [])
        return [row.text, *outputs, *[""] * (self.generator.options.num_samples - len(outputs))]

    def line(self, answer: list[str] | None) -> str:
        return answer[0] if answer else ""


def para_remarks(generator: DiffusionTextGenerator) -> list[str]:
    """What para writes where it is not a paraphrase."""
    task = TASKS[commands_of(generator.model.skills)["para"]]
    if not generator.model.knows_pairs:
        return ["(this checkpoint was trained on plain texts: it has not learned to rewrite; try fill or complete)"]
    if task.prompt != "paraphrase:":
        return [f"(this checkpoint was trained on {task.name}: para writes {task.product})"]
    return []


def show(loop: Loop, trace: Trace) -> bool:
    """Show how the first candidate was written; True when it is itself on the terminal now."""
    if loop.show_trace is not None:
        try:
            return loop.show_trace(trace, "  1. ") and printable(trace.text) == trace.text
        except KeyboardInterrupt:
            return False  # enough of it: on with the answers
    for line in plain_lines(trace):
        loop.write(line)
    return False
