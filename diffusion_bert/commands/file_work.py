"""``interactive_generation.py --input_file``: answers for a file of texts, in chunks, to be continued where it was
stopped.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..config.schema import SamplingConfig
from ..errors import UserError
from ..generation.generator import DiffusionTextGenerator
from ..machine.memory import give_back_freed_memory
from ..machine.seeds import RANDOM_NUMBERS
from .command_table import text_commands
from .output_files import open_output
from .progress import shown_progress, tell_entries
from .shards import Shard
from .text_commands import TextCommand
from .text_files import (
    Row,
    count_rows,
    csv_line,
    digest_and_size,
    header_line,
    json_line,
    stream_rows,
    text_line,
    whole_lines,
)

MOST_COMPLAINTS = 20  # bad rows that are reported one by one
# (rows, their numbers) -> per row its answer, or as a string why there is none
Work = Callable[[Sequence[Row], Sequence[int]], list[Any]]


@dataclass
class Summary:
    """What was done: entries in the output, those that were there before, and the bad ones among the new."""

    entries: int = 0
    found: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)


class Entries(NamedTuple):
    """How the answers of a command become the lines of an output."""

    command: TextCommand
    kind: str  # .jsonl, .csv or .txt

    def header(self) -> bytes:
        """The line before the entries."""
        return header_line(self.kind, self.command.columns)

    def line(self, row: Row, answer: Any) -> bytes:
        """The entry of a row; an answer that is a string says why there is none."""
        answer = None if isinstance(answer, str) else answer
        if self.kind == ".jsonl":
            return json_line(self.command.record(row, answer))
        return (
            csv_line(self.command.cells(row, answer)) if self.kind == ".csv" else text_line(self.command.line(answer))
        )


def work_on_file(
    generator: DiffusionTextGenerator,
    command: str,
    input_file: str,
    output_file: str,
    made_with: dict,
    overwrite: bool = False,
    shard: Shard | None = None,
    quiet: bool = False,
) -> Summary:
    """Answer all rows of ``input_file`` by ``command`` and write them, in order, to ``output_file`` ("-": stdin,
    stdout).

    A run that was killed continues after the last whole line. What is random in an answer is made of the seed, the text
    and the number of its row, and texts are denoised in chunks that always begin at the same rows, so a continued
    output equals an uninterrupted one, byte for byte.

    Args:
        made_with: what else the answers depend on (the checkpoint); kept beside the output as NAME.job.json and
            compared before continuing.
        shard: answer the rows of this part of the file only; the parts one after the other are what one call makes of
            the whole file (the first one alone has the header of a table).
        quiet: show no progress.
    Raises:
        UserError: no such command for this checkpoint, the output holds something else, or every text of the first
            chunk is refused.
    """
    size, chosen = chunk_size(generator.options), command_of(generator, command)
    work = worker(chosen, size)
    job, total = job_of(generator, command, input_file, made_with)
    kind = ".jsonl" if output_file == "-" else Path(output_file).suffix.lower()
    part = None
    if shard is not None:
        part = shard.rows(count_rows(Path(input_file)), size)
        job["shard"], total = str(shard), len(part)
    with contextlib.ExitStack() as stack:
        source = sys.stdin.buffer if input_file == "-" else stack.enter_context(open(input_file, "rb"))
        target = (
            sys.stdout.buffer
            if output_file == "-"
            else stack.enter_context(open_output(Path(output_file), job, input_file == "-", overwrite))
        )
        on_progress = tell_entries if quiet else stack.enter_context(shown_progress(command, total))
        rows = stream_rows(source, ".txt" if input_file == "-" else Path(input_file).suffix.lower(), chosen.pairs)
        entries = Entries(chosen, kind)
        if part is None:
            return transform(rows, target, entries, size, work, on_progress)
        rows, with_header = islice(rows, part.start, part.stop), shard.number == 1
        return transform(rows, target, entries, size, work, on_progress, part.start, with_header)


def chunk_size(options: SamplingConfig) -> int:
    """How many rows are denoised together."""
    return max(1, 2 * options.batch_size // (options.num_samples * options.best_of))


def job_of(
    generator: DiffusionTextGenerator, command: str, input_file: str, made_with: dict
) -> tuple[dict, int | None]:
    """What the answers depend on, and about how many rows there are (unknown for stdin)."""
    options = {name: value for name, value in vars(generator.options).items() if name != "device"}
    job = {
        "command": command,
        "chunk": chunk_size(generator.options),
        "random_numbers": RANDOM_NUMBERS,
        **made_with,
        **options,
    }
    if input_file == "-":
        return job, None
    job["input_sha256"], lines = digest_and_size(Path(input_file))
    return job, lines - (Path(input_file).suffix.lower() in (".csv", ".tsv"))


def transform(
    rows: Iterator[Row],
    target: BinaryIO,
    entries: Entries,
    size: int,
    work: Work,
    on_progress: Callable[[int, str], None] = lambda entry, problem: None,
    first: int = 0,
    with_header: bool = True,
) -> Summary:
    """Rows -> entries of ``target``, after those that are there, in chunks of ``size`` that reach the disk one after
    the other.

    Args:
        on_progress: called with (0, "") for each entry, and with (number, problem) for the first bad ones.
        first: number of the first row within its file.
        with_header: whether a table begins with its header.
    """
    summary = Summary()
    resumable = target.seekable() and target.readable()
    if resumable:
        summary.found = whole_lines(target)
    # written with the first entries: unreadable input shall leave nothing behind
    start, header = first, entries.header() if with_header else b""
    if summary.found:
        summary.found, header = summary.found - bool(header), b""
    while chunk := list(islice(rows, size)):
        new = range(max(first, start + summary.found), first + len(chunk))  # those not yet written
        if new:
            good = [index for index, row in enumerate(chunk) if not row.problem]
            answers = dict(zip(good, work([chunk[index] for index in good], [first + index for index in good])))
            outputs = [answers.get(index, row.problem) for index, row in enumerate(chunk)]
            for number in new:
                if isinstance(outputs[number - first], str):
                    summary.problems.append((number + 1, outputs[number - first]))
                    if len(summary.problems) <= MOST_COMPLAINTS:
                        on_progress(*summary.problems[-1])
            lines = [entries.line(chunk[n - first], outputs[n - first]) for n in new]
            target.write(header + b"".join(lines))
            header = b""
            target.flush()
            if resumable:
                os.fsync(target.fileno())
        first += len(chunk)
        for _ in chunk:
            on_progress(0, "")
    target.write(header)
    summary.entries = first - start
    return summary


def command_of(generator: DiffusionTextGenerator, name: str) -> TextCommand:
    """The command of that name; refused where the checkpoint has none."""
    commands = text_commands(generator)
    if name not in commands:
        raise UserError(f"--command is '{name}': this checkpoint has {', '.join(commands)}")
    return commands[name]


def worker(command: TextCommand, size: int) -> Work:
    """The work of a command on a chunk of ``size`` rows. A text that cannot be worked on costs nobody else anything."""

    def work(rows: Sequence[Row], numbers: Sequence[int]) -> list[Any]:
        outputs: list[Any] = [_problem(command, row) for row in rows]
        good = [index for index, problem in enumerate(outputs) if not problem]
        try:
            answers = command.answers([rows[index] for index in good], [numbers[index] for index in good])
        except UserError as error:  # an option that some of the texts forbid: one by one
            answers = [_alone(command, rows[index], numbers[index]) for index in good]
            if numbers[0] < size and all(answer == str(error) for answer in answers):
                raise
        for index, answer in zip(good, answers):
            outputs[index] = answer
        give_back_freed_memory()  # the next chunk has other widths
        return outputs

    return work


def _problem(command: TextCommand, row: Row) -> str:
    try:
        command.check(row)
    except UserError as error:
        return str(error)
    return ""


def _alone(command: TextCommand, row: Row, number: int) -> Any:
    try:
        return command.answers([row], [number])[0]
    except UserError as error:
        return str(error)
