"""``interactive_generation.py``: the command loop on a terminal or a pipe, or one command for a whole file."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ..config.fields import build
from ..config.paths import checkpoint_file, origin, passed_over, shown, state_remark
from ..config.schema import DisplayConfig, SamplingConfig
from ..config.tasks import FILE_COMMANDS, ONE_ANSWER
from ..errors import UserError, nearest
from ..machine.hub import local_copy
from ..machine.processes import Processes, join, own_device, process_count, process_rank, shutdown
from ..machine.streams import forgiving
from .cli import Parser
from .evaluate import untrained_remark
from .keyboard import Patience, line_editing
from .output_files import file_is_done
from .shards import shard_of
from .terminal import Stream, fitted, is_terminal, say
from .text_files import check_paths


def talking_parser() -> Parser:
    """The flags of talking and of work on files."""
    parser = Parser("Talk to a checkpoint: fill, para, complete, mask, score, fix. Or let it work on a file of texts.")
    what = parser.add_argument_group("model")
    what.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="checkpoint file, run directory, folder of a model, or hub id (default: the newest best_model.pt below"
        " runs/, else one that came with the program)",
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--input_file",
        metavar="FILE",
        help="texts to work on instead of talking: .txt, or .jsonl/.csv/.tsv with src (score: and trg); - is stdin",
    )
    files.add_argument(
        "--output_file",
        metavar="FILE",
        help="where the answers go, in order: .jsonl, .csv or .txt (one answer each); - is stdout",
    )
    files.add_argument("--command", metavar="|".join(FILE_COMMANDS), help="what to do with each text (default: para)")
    files.add_argument(
        "--overwrite", action="store_true", help="begin the output again; without it a stopped run is continued"
    )
    files.add_argument(
        "--shard",
        metavar="k/n",
        help="answer only the k-th of n parts of --input_file; the n outputs one after the other are the whole",
    )
    parser.add_settings(SamplingConfig)
    parser.add_settings(DisplayConfig)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, load, talk or work on a file."""
    parser = talking_parser()
    given = parser.parse(sys.argv[1:] if argv is None else argv)
    job = {name: given.pop(name, None) for name in ("input_file", "output_file", "command", "overwrite", "shard")}
    _check_job(job, given)
    checkpoint = given.pop("checkpoint", None)
    options, display = build(SamplingConfig, given, "--"), build(DisplayConfig, given, "--")
    path = checkpoint_file(local_copy(checkpoint))
    out = sys.stdout if job["input_file"] is None else sys.stderr
    is_main = process_rank() == 0
    # the line begins before anything slow is loaded, and ends when it is
    if is_main:
        print(
            fitted(f"{'' if checkpoint is not None else origin(path)}{shown(path)}"),
            end="\n" if is_terminal(out) else " ",
            file=out,
            flush=True,
        )
    processes = join(options.device)
    options.device = own_device(options.device)
    from ..generation.generator import DiffusionTextGenerator

    generator = DiffusionTextGenerator.from_checkpoint(path, **vars(options))
    line = described(path, generator.model)
    if job["input_file"] is None:
        say(f"{line}. Type help for the commands, quit to leave.")
        for remark in passed_over(path) if checkpoint is None else []:
            say(remark)
        return _talk(generator, display)
    if is_main:
        say(f"{line}.", file=sys.stderr)
    summary = _answer_file(generator, job, processes)
    if is_main:
        say(f"{job['output_file']}: {summary}", file=sys.stderr)
    shutdown()
    return 0


def _answer_file(generator, job: dict, processes: Processes) -> str:
    """Let the generator answer a file; what was done, in words."""
    from .file_work import work_on_file
    from .joint_file_work import work_together

    made_with = {"weights_sha256": generator.model.weights_sha256}
    what = (generator, job["command"] or "para", job["input_file"], job["output_file"], made_with)
    with Patience():
        if processes.size > 1:
            done = work_together(*what, bool(job["overwrite"]), processes)
        else:
            done = work_on_file(*what, bool(job["overwrite"]), job["shard"])
    if processes.size == 1 and job["output_file"] != "-":
        file_is_done(Path(job["output_file"]))
    entries = f"{done.entries:,} {'entry' if done.entries == 1 else 'entries'}"
    parts = [entries + (f" of shard {job['shard']}" if job["shard"] else "")]
    parts += [f"{min(done.found, done.entries):,} of them were there"] if done.found else []
    parts += (
        [f"{len(done.problems):,} without an answer, the first: entry {done.problems[0][0]}"] if done.problems else []
    )
    return ", ".join(parts)


def _check_job(job: dict, given: dict) -> None:
    """Refuse flags of file work that do not fit; an output of one answer each asks for one."""
    if job["command"] is not None and job["command"] not in FILE_COMMANDS:
        raise UserError(
            f"--command is '{job['command']}': expected one of"
            f" {', '.join(FILE_COMMANDS)}{nearest(job['command'], FILE_COMMANDS)}"
        )
    if job["input_file"] is None:
        for name in ("output_file", "command", "overwrite", "shard"):
            if job[name] is not None:
                raise UserError(f"--{name} without --input_file: say which texts are meant (- for stdin)")
        if process_count() > 1:
            raise UserError("several processes cannot share one command loop: give --input_file and --output_file")
        return
    check_paths(job["input_file"], job["output_file"])
    _check_sharing(job)
    if (
        job["output_file"] != "-"
        and Path(job["output_file"]).suffix.lower() == ".txt"
        and job["command"] not in ONE_ANSWER
        and given.setdefault("num_samples", 1) > 1
    ):
        raise UserError(
            f"--num_samples {given['num_samples']} with a .txt output, which holds one answer each: take .jsonl or .csv"
        )


def _check_sharing(job: dict) -> None:
    """Refuse a share of what has no known length, or in two ways at once; the shard as it was meant."""
    if job["shard"] is not None:
        job["shard"] = shard_of(job["shard"])
        if job["input_file"] == "-":
            raise UserError(f"--shard {job['shard']} of stdin, whose length nobody knows: give --input_file a file")
    if process_count() > 1:
        if job["shard"] is not None:
            raise UserError("--shard under torchrun, whose processes share the file already: leave one of them out")
        if "-" in (job["input_file"], job["output_file"]):
            raise UserError("several processes cannot share stdin or stdout: give --input_file and --output_file files")


def described(path: Path, model) -> str:
    """What is to be known of the checkpoint that speaks, in brackets."""
    note = model.config.data.license_note
    parts = [", ".join(model.skills.tasks) + f", {model.parameter_count / 1e6:.1f}M parameters"]
    parts += [remark for remark in (state_remark(path), untrained_remark(model)) if remark]
    parts += [" ".join(note.split())] if note else []
    return f"({'; '.join(parts)})"


def _talk(generator, display: DisplayConfig) -> int:
    """The command loop until quit or the end of the input."""
    from .live import animate, legend, supports_colour
    from .repl import PROMPT, Repl

    def read() -> str:
        patience.restart()
        line = input(PROMPT)
        if not sys.stdin.isatty():
            print(line)  # so that a piped session reads like one on a terminal
        return line

    explained: list[bool] = []

    def show(trace, label: str) -> bool:
        if not explained:
            print(f"(written first {legend()} written last; dim: still hidden)")
        explained.append(True)
        size = shutil.get_terminal_size()
        return animate(trace, label, sys.stdout, (size.columns, size.lines), display.trace_delay / 1000)

    forgiving(sys.stdin)
    repl = Repl(generator, say, display, show if supports_colour(sys.stdout) else None, Stream)
    with line_editing(repl) if sys.stdin.isatty() else contextlib.nullcontext(), Patience() as patience:
        repl.run(read)
    return 0
