"""One file of texts by several processes, as ``torchrun`` starts them: each writes a part, the first one joins them."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..errors import UserError
from ..generation.generator import DiffusionTextGenerator
from ..machine.processes import Processes
from ..machine.storage import write_atomically
from .file_work import Entries, Summary, command_of, job_of, work_on_file
from .output_files import begin_note, check_same, discard, file_is_done
from .shards import Shard
from .text_files import count_rows, digest_and_size


def work_together(
    generator: DiffusionTextGenerator,
    command: str,
    input_file: str,
    output_file: str,
    made_with: dict,
    overwrite: bool,
    processes: Processes,
) -> Summary:
    """``work_on_file`` by all processes: the same output to the byte, and the summary of the whole in each of them.

    Process p writes NAME.p.ENDING beside the output, where a stopped one goes on; the first process joins the parts
    into the output, which holds nothing or all.

    Raises:
        UserError: as ``work_on_file``; also where one process alone has begun the output.
    """
    whole = Path(output_file)
    entries = Entries(command_of(generator, command), whole.suffix.lower())
    job, _ = job_of(generator, command, input_file, made_with)
    part = whole.with_name(f"{whole.stem}.{processes.rank}{whole.suffix}")
    shard = Shard(processes.rank + 1, processes.size)
    done = None
    if not overwrite:
        done = processes.on_main(lambda: _complete(whole, job, input_file, entries))
    if done is None:
        own = work_on_file(
            generator, command, input_file, str(part), made_with, overwrite, shard, quiet=not processes.is_main
        )
        everyone = processes.gather_objects(own)
        problems = [problem for summary in everyone for problem in summary.problems]
        done = Summary(*(sum(getattr(one, name) for one in everyone) for name in ("entries", "found")), problems)
        processes.on_main(lambda: _join(whole, job, processes.size))
    discard(part, {**job, "shard": str(shard)})
    return done


def _complete(whole: Path, job: dict, input_file: str, entries: Entries) -> Summary | None:
    """The summary of an output that is there already, whole and made by the same job; None where there is none."""
    if not whole.is_file() or not whole.stat().st_size:
        return None
    check_same(whole, job, from_stdin=False)
    rows = count_rows(Path(input_file))
    lines = digest_and_size(whole)[1] - bool(entries.header())
    if lines != rows:
        raise UserError(
            f"{whole} was begun by one process and holds {max(0, lines):,} of {rows:,} entries: go on without torchrun,"
            " or give --overwrite to begin again"
        )
    return Summary(rows, rows)


def _join(whole: Path, job: dict, count: int) -> None:
    def write(file) -> None:
        for rank in range(count):
            with open(whole.with_name(f"{whole.stem}.{rank}{whole.suffix}"), "rb") as part:
                shutil.copyfileobj(part, file)

    begin_note(whole, job)
    write_atomically(whole, write)
    file_is_done(whole)
