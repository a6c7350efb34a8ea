"""``interactive_generation.py --input_file``: answers for a file of texts, in chunks, to be continued where it was
stopped.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from ..data.skills import commands_of
from ..errors import UserError
from ..generation.generator import DiffusionTextGenerator
from ..machine.memory import give_back_freed_memory
from ..machine.seeds import seed_of
from .output_files import open_output
from .progress import Progress
from .text_files import Row, digest_and_size, entry_line, header_line, stream_rows, whole_lines

MOST_COMPLAINTS = 20  # bad rows that are reported one by one
# (texts, number of the first one) -> per text its outputs, or why there are none
Work = Callable[[Sequence[str], int], list["list[str] | str"]]


@dataclass
class Summary:
    """What was done: entries in the output, those that were there before, and the bad ones among the new."""

    entries: int = 0
    found: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)


def work_on_file(
    generator: DiffusionTextGenerator,
    command: str,
    input_file: str,
    output_file: str,
    made_with: dict,
    overwrite: bool = False,
) -> Summary:
    """Answer all rows of ``input_file`` by ``command`` and write them, in order, to ``output_file`` ("-": stdin,
    stdout).

    A run that was killed continues after the last whole line. Texts are denoised in chunks that always begin at the
    same row numbers, with a seed made of that number, so a continued output equals an uninterrupted one, byte for byte.

    Args:
        made_with: what else the answers depend on (the checkpoint); kept beside the output as NAME.job.json and
            compared before continuing.
    Raises:
        UserError: no such command for this checkpoint, the output holds something else, or every text of the first
            chunk is refused.
    """
    options, work = generator.options, worker(generator, command)
    kind = ".jsonl" if output_file == "-" else Path(output_file).suffix.lower()
    size = max(1, 2 * options.batch_size // (options.num_samples * options.best_of))
    job = {
        "command": command,
        "chunk": size,
        **made_with,
        **{name: value for name, value in vars(options).items() if name != "device"},
    }
    total = None
    if input_file != "-":
        job["input_sha256"], total = digest_and_size(Path(input_file))
        total -= Path(input_file).suffix.lower() in (".csv", ".tsv")
    with contextlib.ExitStack() as stack:
        source = sys.stdin.buffer if input_file == "-" else stack.enter_context(open(input_file, "rb"))
        target = (
            sys.stdout.buffer
            if output_file == "-"
            else stack.enter_context(open_output(Path(output_file), job, input_file == "-", overwrite))
        )
        bar, done = Progress(command), 0
        stack.callback(bar.close)

        def on_progress(entry: int, problem: str) -> None:
            nonlocal done
            if entry:
                bar.write(f"entry {entry}: {problem}", file=sys.stderr)
            else:
                done += 1
                if total is None:
                    bar.update(0.0, f"{done:,} texts")
                else:
                    share = done / max(1, total)
                    bar.update(share, f"{done:,} of {total:,}", bar.left(share))

        rows = stream_rows(source, ".txt" if input_file == "-" else Path(input_file).suffix.lower())
        return transform(rows, target, kind, options.num_samples, size, work, on_progress)


def transform(
    rows: Iterator[Row],
    target: BinaryIO,
    kind: str,
    count: int,
    size: int,
    work: Work,
    on_progress: Callable[[int, str], None] = lambda entry, problem: None,
) -> Summary:
    """Rows -> entries of ``target``, after those that are there, in chunks of ``size`` that reach the disk one after
    the other.

    on_progress: called with (0, "") for each entry, and with (number, problem) for the first bad ones.
    """
    summary = Summary()
    resumable = target.seekable() and target.readable()
    if resumable:
        summary.found = whole_lines(target)
    # written with the first entries: unreadable input shall leave nothing behind
    first, header = (0, header_line(kind, count))
    if summary.found:
        summary.found, header = summary.found - bool(header), b""
    while chunk := list(islice(rows, size)):
        new = range(max(first, summary.found), first + len(chunk))  # those not yet written
        if new:
            good = [index for index, row in enumerate(chunk) if not row.problem]
            answers = dict(zip(good, work([chunk[index].text for index in good], first)))
            outputs = [answers.get(index, row.problem) for index, row in enumerate(chunk)]
            for number in new:
                if isinstance(outputs[number - first], str):
                    summary.problems.append((number + 1, outputs[number - first]))
                    if len(summary.problems) <= MOST_COMPLAINTS:
                        on_progress(*summary.problems[-1])
            lines = [
                entry_line(
                    kind,
                    chunk[n - first].text,
                    outputs[n - first] if isinstance(outputs[n - first], list) else [],
                    count,
                )
                for n in new
            ]
            target.write(header + b"".join(lines))
            header = b""
            target.flush()
            if resumable:
                os.fsync(target.fileno())
        first += len(chunk)
        for _ in chunk:
            on_progress(0, "")
    target.write(header)
    summary.entries = first
    return summary


def worker(generator: DiffusionTextGenerator, command: str) -> Work:
    """The work of a command on a chunk. A text that cannot be worked on costs nobody else anything."""
    works = {
        name: (partial(generator.rewrite, task=task), generator.source_parts)
        for name, task in commands_of(generator.model.skills).items()
    }
    works |= {
        "fill": (generator.fill_masks, generator.fill_parts),
        "mask": (generator.fill_masks, generator.masked_parts),
        "complete": (generator.complete_text, generator.complete_source),
    }
    if command not in works:
        raise UserError(f"--command is '{command}': this checkpoint has {', '.join(works)}")
    write, check = works[command]

    def work(texts: Sequence[str], first: int) -> list[list[str] | str]:
        outputs: list[list[str] | str] = [_problem(text, generator.check_text, check) for text in texts]
        good = [index for index, problem in enumerate(outputs) if not problem]
        try:
            written = write([texts[index] for index in good], seed=seed_of(generator.options.seed, first) % 2**32)
        except UserError as error:  # an option that some of the texts forbid: one by one
            written = [
                _alone(write, texts[index], seed_of(generator.options.seed, first + index) % 2**32) for index in good
            ]
            if first == 0 and all(answer == str(error) for answer in written):
                raise
        for index, answer in zip(good, written):
            outputs[index] = answer
        give_back_freed_memory()  # the next chunk has other widths
        return outputs

    return work


def _problem(text: str, *checks) -> str:
    try:
        for check in checks:
            check(text)
    except UserError as error:
        return str(error)
    return ""


def _alone(write, text: str, seed: int) -> list[str] | str:
    try:
        return write(text, seed=seed)
    except UserError as error:
        return str(error)
