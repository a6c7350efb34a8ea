"""What the four commands share: flags made from the settings' dataclasses, one-line errors. Nothing here imports
torch.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ..config.fields import check_value
from ..config.presets import load_preset, load_settings
from ..config.schema import DataConfig, DiffusionConfig, ModelConfig, TrainingConfig
from ..errors import UserError, nearest
from ..machine.processes import process_count, process_rank, should_print
from ..machine.streams import ReaderGone, forget_stdout, prepare_streams
from ..version import __version__
from .flag_names import meant
from .terminal import say, terminal_width

USER_ERROR = 2
NARROW, MOST_IN_USAGE = 70, 8  # columns, and options, of a help
# what a full, broken or read-only disk says, wherever it is met (printing into a file is one such place)
NOT_OUR_FAULT = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
)


SWITCH = {"true": True, "false": False, "on": True, "off": False, "yes": True, "no": False, "1": True, "0": False}


class Help(argparse.HelpFormatter):
    """A help whose lines break between words only, and whose usage does not name dozens of options that follow."""

    def __init__(self, prog: str, **settings):
        position = 24 if terminal_width() >= NARROW else 6
        super().__init__(prog, **{"max_help_position": position, "width": terminal_width(), **settings})

    def add_usage(self, usage, actions, groups, prefix=None) -> None:
        if usage is None and len(actions) > MOST_IN_USAGE:
            usage = " ".join(["%(prog)s [--option value] ...", *(a.metavar for a in actions if not a.option_strings)])
        super().add_usage(usage, actions, groups, prefix)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in self._split_lines(text, width - len(indent)))


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses in one line and keeps only what was really given."""

    def __init__(self, description: str, **settings):
        settings = {"formatter_class": Help, **settings}
        super().__init__(description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS, **settings)
        self.add_argument("--version", action="version", version=f"diffusion-bert {__version__}")

    def error(self, message: str):
        raise UserError(f"{message}; --help lists the options")

    def parse(self, argv: Sequence[str] | None) -> dict[str, Any]:
        """The given flags by name; flags that were not given are absent."""
        values, unknown = self.parse_known_args(argv)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            name = unknown[0].split("=")[0]
            hint = meant(name, flags) or nearest(name, flags)
            raise UserError(f"unknown argument '{unknown[0]}'{hint}; --help lists the options")
        # bash leaves the ~ of --data_dir=~/mine to us
        return {name: os.path.expanduser(value) if _is_home(value) else value for name, value in vars(values).items()}

    def add_settings(
        self, section: type, leave_out: Sequence[str] = (), defaults: dict[str, Any] | None = None
    ) -> None:
        """One flag per field of a dataclass, in a group named by its docstring."""
        group = self.add_argument_group(section.__doc__)
        hints = get_type_hints(section)
        for f in dataclasses.fields(section):
            if f.name in leave_out:
                continue
            kinds = [kind for kind in get_args(hints[f.name]) if kind is not type(None)] or [hints[f.name]]
            default = (defaults or {}).get(f.name, f.default)
            extra: dict[str, Any] = {"nargs": "?", "const": True} if kinds[0] is bool else {}
            metavar = (
                "|".join(f.metadata["choices"])
                if f.metadata["choices"]
                else {int: "N", float: "X", bool: "true|false", str: "TEXT"}[kinds[0]]
            )
            group.add_argument(
                f"--{f.name}",
                type=converter(f, hints[f.name], "--"),
                metavar=metavar,
                help=f.metadata["help"].replace("%", "%%") + " (default:"
                f" {'none' if default is None else str(default).lower() if default in (True, False) else default})",
                **extra,
            )


def _is_home(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("~")


def converter(f: dataclasses.Field, hint: Any, origin: str = "") -> Callable[[str], Any]:
    """Text -> checked value of a setting; ``origin`` opens the message of a refusal."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]

    def convert(text: str):
        kind = kinds[0] if kinds else hint
        if kinds and text.lower() == "none":
            return None
        value: Any = text
        if kind is bool:
            value = SWITCH.get(text.lower(), text)
        elif kind is int:
            try:
                value = int(text)
            except ValueError:
                pass
        return check_value(f, hint, value, origin)

    convert.__name__ = f.name
    return convert


def whole_number(text: str) -> int:
    """A whole number of at least 1, as the type of a flag."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 1")
    return value


def guarded(command: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Run a command: its own exit code, or 2 with one line on stderr for a user's mistake, 130 for Ctrl-C.

    Under torchrun only the first process writes to stdout, and of an error that several meet only one prints.
    """
    if process_count() > 1:
        # torch comments on every connection that another process closes
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if argv is None:
        prepare_streams()
    if process_rank() > 0:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        code = command(argv) or 0
        sys.stdout.flush()
        return code
    except (ReaderGone, BrokenPipeError):  # `... | head` ends quietly
        forget_stdout()
        return ReaderGone.code
    except UserError as error:
        code, message = USER_ERROR, f"error: {error}"
    except OSError as error:
        if error.errno not in NOT_OUR_FAULT:
            raise
        where = f": {error.filename}" if error.filename else ""
        code, message = USER_ERROR, f"error: {error.strerror}{where}; free some space or choose another folder"
    except KeyboardInterrupt:
        code, message = 128 + signal.SIGINT, "\ninterrupted"
    if should_print():
        say(message, 2, file=sys.stderr)
    if process_count() > 1:
        sys.stderr.flush()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)  # the others may hang in a sum that this process no longer joins; nothing here may wait for them
    return code


def training_parser(
    description: str, presets: Sequence[str], leave_out: Sequence[str] = (), with_model: bool = True
) -> Parser:
    """The parser of the two training scripts."""
    parser = Parser(description)
    start = parser.add_argument_group("settings from a file")
    start.add_argument("--preset", metavar="NAME", help=f"configs/NAME.yaml: {', '.join(presets)}; flags override it")
    if with_model:
        start.add_argument(
            "--config",
            metavar="FILE",
            help="a YAML file of settings, such as the config.yaml of a run; flags override it",
        )
        parser.add_settings(ModelConfig)
    parser.add_settings(DataConfig, leave_out)
    parser.add_settings(DiffusionConfig)
    parser.add_settings(TrainingConfig)
    return parser


def settings_of(given: dict[str, Any]) -> dict[str, Any]:
    """Preset or config file, overridden by the flags that were given."""
    preset, config = given.pop("preset", None), given.pop("config", None)
    if preset is not None and config is not None:
        raise UserError("--preset and --config both given: expected one of them")
    base = load_preset(preset) if preset is not None else load_settings(Path(config)) if config is not None else {}
    own_data = {"train_file", "data_dir", "dataset_name"} & set(given)
    if own_data and "task_name" not in given and base.get("task_name", "sample") == "sample":
        base["task_name"] = "custom"
    if {"train_file", "dataset_name"} & set(given):
        base.pop("license_note", None)  # it was about the preset's own data
    return {**base, **given}
