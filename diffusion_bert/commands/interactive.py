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
from ..config.tasks import FILE_COMMANDS
from ..errors import UserError, nearest
from ..machine.hub import local_copy
from ..machine.streams import forgiving
from .cli import Parser
from .evaluate import untrained_remark
from .keyboard import Patience, line_editing
from .output_files import file_is_done
from .terminal import is_terminal, say
from .text_files import check_paths


def talking_parser() -> Parser:
    """The flags of talking and of work on files."""
    parser = Parser("Talk to a checkpoint: fill, para, complete, mask. Or let it work on a file of texts.")
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
        help="texts to work on instead of talking: .txt, or .jsonl/.csv/.tsv with src; - is stdin",
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
    parser.add_settings(SamplingConfig)
    parser.add_settings(DisplayConfig)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, load, talk or work on a file."""
    parser = talking_parser()
    given = parser.parse(sys.argv[1:] if argv is None else argv)
    job = {name: given.pop(name, None) for name in ("input_file", "output_file", "command", "overwrite")}
    _check_job(job, given)
    checkpoint = given.pop("checkpoint", None)
    options, display = build(SamplingConfig, given, "--"), build(DisplayConfig, given, "--")
    path = checkpoint_file(local_copy(checkpoint))
    out = sys.stdout if job["input_file"] is None else sys.stderr
    # the line begins before anything slow is loaded, and ends when it is
    print(
        f"{'' if checkpoint is not None else origin(path)}{shown(path)}",
        end="\n" if is_terminal(out) else " ",
        file=out,
        flush=True,
    )
    from ..generation.generator import DiffusionTextGenerator

    generator = DiffusionTextGenerator.from_checkpoint(path, **vars(options))
    line = described(path, generator.model)
    if job["input_file"] is None:
        say(f"{line}. Type help for the commands, quit to leave.")
        for remark in passed_over(path) if checkpoint is None else []:
            say(remark)
        return _talk(generator, display)
    say(f"{line}.", file=sys.stderr)
    from .file_work import work_on_file

    done = work_on_file(
        generator,
        job["command"] or "para",
        job["input_file"],
        job["output_file"],
        {"weights_sha256": generator.model.weights_sha256},
        bool(job["overwrite"]),
    )
    if job["output_file"] != "-":
        file_is_done(Path(job["output_file"]))
    parts = [f"{done.entries:,} {'entry' if done.entries == 1 else 'entries'}"] + (
        [f"{min(done.found, done.entries):,} of them were there"] if done.found else []
    )
    parts += (
        [f"{len(done.problems):,} without an answer, the first: entry {done.problems[0][0]}"] if done.problems else []
    )
    print(f"{job['output_file']}: {', '.join(parts)}", file=sys.stderr)
    return 0


def _check_job(job: dict, given: dict) -> None:
    """Refuse flags of file work that do not fit; an output of one answer each asks for one."""
    if job["command"] is not None and job["command"] not in FILE_COMMANDS:
        raise UserError(
            f"--command is '{job['command']}': expected one of"
            f" {', '.join(FILE_COMMANDS)}{nearest(job['command'], FILE_COMMANDS)}"
        )
    if job["input_file"] is None:
        for name in ("output_file", "command", "overwrite"):
            if job[name] is not None:
                raise UserError(f"--{name} without --input_file: say which texts are meant (- for stdin)")
        return
    check_paths(job["input_file"], job["output_file"])
    if (
        job["output_file"] != "-"
        and Path(job["output_file"]).suffix.lower() == ".txt"
        and given.setdefault("num_samples", 1) > 1
    ):
        raise UserError(
            f"--num_samples {given['num_samples']} with a .txt output, which holds one answer each: take .jsonl or .csv"
        )


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
    repl = Repl(generator, say, display, show if supports_colour(sys.stdout) else None)
    with line_editing(repl) if sys.stdin.isatty() else contextlib.nullcontext(), Patience() as patience:
        repl.run(read)
    return 0
