"""The command loop: one line in, a few candidates out. It reads and writes strings only, so that any input and output
will do.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable
from typing import get_type_hints

from ..config.schema import DisplayConfig, SamplingConfig
from ..config.tasks import TASKS
from ..errors import UserError, nearest
from ..generation.generator import DiffusionTextGenerator
from ..generation.tracing import Trace
from ..machine.seeds import seed_of
from .cli import converter
from .command_table import text_commands
from .repl_help import help_lines
from .terminal import Stream
from .text_commands import TextCommand

PROMPT = "Enter command: "
# option -> (the settings it belongs to, its field)
OPTIONS = {
    f.name: (section, f)
    for section in (SamplingConfig, DisplayConfig)
    for f in dataclasses.fields(section)
    if f.name != "device"
}
SETTABLE = tuple(OPTIONS)
ALL_SKILLS = tuple(dict.fromkeys(task.command for task in TASKS.values()))
LEAVE = ("quit", "exit", "bye", "q")
FAREWELLS = ("", "now", "please", "bye", "()", ";", ".", "!")  # what may stand behind quit
AROUND_COMMANDS = re.compile(r"^[/:\\]|(\(\)|[.:;!])+$")  # /help, :q, quit(), fill:
ASSIGNED = r"-{0,2}([\w-]+)\s*(?:[=:]\s*|\s)(?:to\s+)?"  # temperature = 0.5, num-samples: 2, --seed 3, length to 12
CLOSE = 0.75  # how like a command the first of several words must be to be taken for it


class Repl:
    """Commands for one generator.

    Args:
        write: gets each line of output.
        display: whether and how traces are shown.
        show_trace: shows (trace, label) on a terminal; False when it could not. Without it a trace is lines of text.
        stream: begins a line to which the first candidate is written sentence by sentence; without it all come at once.
    """

    def __init__(
        self,
        generator: DiffusionTextGenerator,
        write: Callable[[str], None] = print,
        display: DisplayConfig | None = None,
        show_trace: Callable[[Trace, str], bool] | None = None,
        stream: Callable[[str], Stream] | None = None,
    ):
        self.generator = generator
        self.write = write
        self.display = display or DisplayConfig()
        self.show_trace, self.stream = show_trace, stream
        self.managing = {"set": self._set, "show": self._show, "help": self._help}
        self.offered: str | None = None  # a line that y would do
        self.requests = 0

    @property
    def texts(self) -> dict[str, TextCommand]:
        """The commands that take texts, by name."""
        return text_commands(self.generator)

    @property
    def commands(self) -> tuple[str, ...]:
        """The names of all commands."""
        return (*self.texts, *self.managing)

    def run(self, read: Callable[[], str]) -> None:
        """Until quit or the end of input. ``read`` gives the next line or raises EOFError; Ctrl-C gives up the current
        line only.
        """
        while True:
            try:
                line = read()
            except EOFError:
                self.write("")
                return
            except KeyboardInterrupt:
                self.write("")
                continue
            try:
                if not self.handle(line):
                    return
            except KeyboardInterrupt:
                self.write("\ninterrupted; quit leaves")

    def handle(self, line: str) -> bool:
        """Work on one line; False means leave. A mistake costs a line of explanation, nothing else."""
        offered, self.offered = self.offered, None
        if offered is not None and line.strip().lower() in ("y", "yes"):
            line = offered
        command, rest = (*line.split(maxsplit=1), "", "")[:2]
        command = AROUND_COMMANDS.sub("", command.lower()) or command
        if not command:
            return True
        if command in LEAVE and rest.strip().lower() in FAREWELLS:
            return False
        if command not in self.commands:
            self._explain(command, line)
            return True
        try:
            if command in self.managing:
                self.managing[command](rest.strip())
            else:
                self.texts[command].respond(self, rest.strip())
        except UserError as error:
            self.write(str(error))
        return True

    def _explain(self, command: str, line: str) -> None:
        """Say why a line is no command; where it is clear what was meant, offer that, to be taken by y."""
        words = line.split()
        setting = re.fullmatch(rf"\s*{ASSIGNED}(\S+)\s*", line)
        known = [*self.commands, "quit"]
        if command in ALL_SKILLS:
            tasks = ", ".join(self.generator.model.skills.tasks)
            self.write(f"this checkpoint (task {tasks}) has not learned to {command}; help lists what it can")
        elif setting and option_name(setting[1]) in OPTIONS:
            self._offer(f"set {option_name(setting[1])} {setting[2]}")
        elif command in LEAVE or len(words) > 1 and not difflib.get_close_matches(command, known, n=1, cutoff=CLOSE):
            self._offer(f"para {line.strip()}")
        else:
            self.write(f"unknown command '{command[:40]}'{nearest(command[:40], known)}; help lists the commands")

    def _offer(self, line: str) -> None:
        """Ask whether this was meant; y on the next line does it."""
        self.offered = line
        shown = line if len(line) <= 70 else line[:67] + "..."
        self.write(f"{shown.removesuffix('?')}? (y does it, help lists the commands)")

    def completions(self, start: str, line: str) -> list[str]:
        """What a word that begins so may become: a command, or after set an option."""
        words = line.split()
        if words[:1] == ["set"] and (len(words) == 2 if start else len(words) == 1):
            return [f"{name} " for name in SETTABLE if name.startswith(start)]
        return (
            [f"{name} " for name in [*self.commands, "quit"] if name.startswith(start)]
            if line.lstrip() == start
            else []
        )

    # ---- commands ---------------------------------------------------------------------------------------------------

    def next_seed(self) -> int:
        """The seed of a request: every one has its own, so that asking twice gives something new."""
        self.requests += 1
        return seed_of(self.generator.options.seed, self.requests - 1) % 2**32

    def _values(self, name: str):
        """The settings that hold an option."""
        return self.generator.options if OPTIONS[name][0] is SamplingConfig else self.display

    def _set(self, rest: str) -> None:
        assigned = re.fullmatch(rf"{ASSIGNED}(.*)", rest, flags=re.S)
        name, value = assigned.groups() if assigned else (rest, "")
        name = option_name(name)
        if not name:
            for known, (_, f) in OPTIONS.items():
                choices = f" ({', '.join(f.metadata['choices'])})" if f.metadata["choices"] else ""
                self.write(
                    f"  {f'{known} = {typed(getattr(self._values(known), known))}':<26} {f.metadata['help']}{choices}"
                )
            return
        if name not in OPTIONS:
            raise UserError(
                f"unknown option '{name[:40]}'{nearest(name[:40], OPTIONS)}; expected one of {', '.join(OPTIONS)}"
            )
        section, f = OPTIONS[name]
        if not value.strip():
            raise UserError(f"set {name} needs a value; now it is {typed(getattr(self._values(name), name))}")
        checked = converter(f, get_type_hints(section)[name])(value.strip())
        if name == "style" and checked is not None:
            self._check_style(checked)
        setattr(self._values(name), name, checked)
        self.requests = 0 if name == "seed" else self.requests
        self.write(f"{name} = {typed(getattr(self._values(name), name))}")

    def _check_style(self, style: str) -> None:
        """Refuse a style that no task of the checkpoint has."""
        skills = self.generator.model.skills
        known = list(dict.fromkeys(name for styles in skills.all_styles().values() for name in styles))
        name = " ".join(style.lower().split())
        if not known:
            skills.number(None, style)
        elif name not in known:
            raise UserError(f"style is '{style}': this checkpoint knows {', '.join(known)}{nearest(name, known)}")

    def _show(self, rest: str) -> None:
        model = self.generator.model
        self.write(
            f"model: {model.config.model.model_name_or_path}, task {', '.join(model.skills.tasks)}, "
            f"{model.parameter_count / 1e6:.1f}M parameters, on {model.device}"
        )
        for name in SETTABLE:
            self.write(f"  {name} = {typed(getattr(self._values(name), name))}")

    def _help(self, rest: str) -> None:
        for line in help_lines(self.generator.model, self.texts, SETTABLE):
            self.write(line)


def option_name(typed_name: str) -> str:
    """The name of an option as it may be typed: --num-samples, Temperature."""
    return typed_name.lower().strip("-").replace("-", "_")


def typed(value) -> str:
    """A value as it can be typed."""
    return {True: "on", False: "off", None: "none"}[value] if value is None or isinstance(value, bool) else str(value)
