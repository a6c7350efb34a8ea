"""Questions on a terminal or a pipe: a line, a menu, settings one by one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

from ..config.schema import DataConfig, DiffusionConfig, ModelConfig, TrainingConfig
from ..errors import UserError
from ..machine.processes import process_count
from ..text.english import strip_enclosing_quotes
from .cli import converter
from .terminal import fitted, say

PATHS = ("data_dir", "train_file")  # asked for again where nothing is there


def ask(question: str, default: str = "") -> str:
    """One line from the terminal (or the pipe); an empty answer is the default."""
    if process_count() > 1:
        raise UserError("several processes cannot share one menu: give --preset NAME or flags")
    *above, last = fitted(f"{question}{f' [{default}]' if default else ''}:").split("\n")
    try:
        for line in above:
            print(line)
        answer = input(f"{last} ").strip()
    except EOFError:
        raise UserError("no answer: the input has ended; give --preset NAME or flags, or run in a terminal") from None
    return answer or default


def choose(title: str, choices: Sequence[tuple[str, str]]) -> int:
    """A numbered menu; the index of the choice. Asks again on nonsense."""
    say(title)
    for number, (name, what) in enumerate(choices, 1):
        say(f"  {number}  {name:<14} {what}", 18)
    while True:
        answer = ask(f"Your choice (1-{len(choices)})", "1")
        if answer.isdigit() and 1 <= int(answer) <= len(choices):
            return int(answer) - 1
        say(f"'{answer}' is none of 1 to {len(choices)}")


def ask_settings(names: Sequence[str], current: dict[str, Any]) -> dict[str, Any]:
    """Ask for some settings one by one, with the present values as defaults; asks again until a value is legal."""
    fields = {
        f.name: (f, get_type_hints(section)[f.name])
        for section in (ModelConfig, DataConfig, DiffusionConfig, TrainingConfig)
        for f in dataclasses.fields(section)
    }
    answers: dict[str, Any] = {}
    for name in names:
        f, hint = fields[name]
        default = current.get(name, f.default)
        while True:
            text = ask(f"  {name} - {f.metadata['help']}", "none" if default is None else str(default))
            if name in PATHS:
                text = os.path.expanduser(strip_enclosing_quotes(text))
            try:
                value = converter(f, hint)(text)
                if name in PATHS and value is not None and not Path(value).exists():
                    raise UserError(f"{name} is '{value}': there is nothing of that name; none leaves it out")
                answers[name] = value
                break
            except UserError as error:
                say(f"  {error}")
    return answers
