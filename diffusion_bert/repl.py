"""The command loop: one line in, a few candidates out. It reads and writes strings only, so that any input and output will do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import get_type_hints

from .cli import converter
from .config import SamplingConfig
from .errors import UserError, nearest
from .generation import DiffusionTextGenerator
from .text import MASK, strip_enclosing_quotes

PROMPT = "Enter command: "
SETTABLE = tuple(f.name for f in dataclasses.fields(SamplingConfig) if f.name != "device")
HELP = """Commands
  para <text>           say it anew: {product}
  fill <text>           mask about a third of the words and write them anew (or fill the [MASK]s, if there are any)
  mask <text>           fill the [MASK]s of the text
  complete <text>       go on with the text
  set <option> <value>  change an option ({options})
  show                  the options and the model
  help                  this text
  quit, exit, Ctrl-D    leave
A word of advice: repetition or nonsense - lower the temperature or top_p; dull - raise them; slow - lower num_steps or best_of."""


class Repl:
    """Commands for one generator; ``write`` gets each line of output."""

    def __init__(self, generator: DiffusionTextGenerator, write: Callable[[str], None] = print):
        self.generator = generator
        self.write = write
        self.draws = 0  # every request gets a seed of its own, so that asking twice gives something new

    def run(self, read: Callable[[], str]) -> None:
        """Until quit or the end of input. ``read`` gives the next line or raises EOFError; Ctrl-C gives up the current line only."""
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
        command, rest = (*line.split(maxsplit=1), "", "")[:2]
        command = command.lower()
        if not command:
            return True
        if command in ("quit", "exit"):
            return False
        known = {
            "para": self._para,
            "fill": self._fill,
            "mask": self._mask,
            "complete": self._complete,
            "set": self._set,
            "show": self._show,
            "help": self._help,
        }
        if command not in known:
            self.write(f"unknown command '{command[:40]}'{nearest(command[:40], [*known, 'quit'])}; help lists the commands")
            return True
        try:
            known[command](rest.strip())
        except UserError as error:
            self.write(str(error))
        return True

    # ---- commands -------------------------------------------------------------------------------------------------------------------

    def _para(self, rest: str) -> None:
        task = self.generator.model.task
        if not self.generator.model.knows_pairs:
            self.write("(this checkpoint was trained on plain texts: it has not learned to rewrite; try fill or complete)")
        elif task.prompt != "paraphrase:":
            self.write(f"(this checkpoint was trained on {task.name}: para writes {task.product})")
        self._generate(self.generator.paraphrase_text, rest, "para")

    def _fill(self, rest: str) -> None:
        self._generate(self.generator.fill_masks, rest, "fill")

    def _complete(self, rest: str) -> None:
        self._generate(self.generator.complete_text, rest, "complete")

    def _mask(self, rest: str) -> None:
        if rest and MASK not in rest:
            raise UserError(f"no {MASK} in the text: write {MASK} where a word is wanted, or use fill")
        self._generate(self.generator.fill_masks, rest, "mask")

    def _generate(self, work, rest: str, command: str) -> None:
        text = strip_enclosing_quotes(rest)
        if not text.strip():
            raise UserError(f"{command} needs a text, for example: {command} {_EXAMPLES[command]}")
        self.draws += 1
        seed = (self.generator.options.seed + 1_000_003 * (self.draws - 1)) % 2**32
        for number, candidate in enumerate(work(text, seed=seed), 1):
            self.write(f"  {number}. {candidate}")

    def _set(self, rest: str) -> None:
        name, value = (*rest.split(maxsplit=1), "", "")[:2]
        fields = {f.name: f for f in dataclasses.fields(SamplingConfig) if f.name in SETTABLE}
        if name not in fields:
            raise UserError(f"unknown option '{name[:40]}'{nearest(name[:40], fields)}; expected one of {', '.join(fields)}")
        if not value.strip():
            raise UserError(f"set {name} needs a value; now it is {getattr(self.generator.options, name)}")
        new = converter(fields[name], get_type_hints(SamplingConfig)[name])(value.strip())
        setattr(self.generator.options, name, new)
        self.draws = 0 if name == "seed" else self.draws
        self.write(f"{name} = {new}")

    def _show(self, rest: str) -> None:
        model = self.generator.model
        self.write(
            f"model: {model.config.model.model_name_or_path}, task {model.task.name}, "
            f"{model.parameter_count / 1e6:.1f}M parameters, on {model.device}"
        )
        for name in SETTABLE:
            self.write(f"  {name} = {getattr(self.generator.options, name)}")

    def _help(self, rest: str) -> None:
        for line in HELP.format(product=self.generator.model.task.product, options=", ".join(SETTABLE)).splitlines():
            self.write(line)


_EXAMPLES = {
    "para": "How can I learn to cook?",
    "fill": "The weather is nice today.",
    "mask": f"The weather is {MASK} today.",
    "complete": "The best way to learn is",
}
