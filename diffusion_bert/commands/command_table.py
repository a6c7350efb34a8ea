"""All commands that take texts: a row each. A new one is a row here, with its handler in a class of its own."""

from __future__ import annotations

from functools import partial

from ..config.tasks import TASKS
from ..data.skills import commands_of
from ..generation.generator import DiffusionTextGenerator
from ..text.english import MASK
from ..text.masks import GAP
from .reading_commands import FixCommand, ScoreCommand
from .text_commands import TextCommand, WritingCommand

_EXAMPLES = {  # of the commands of the tasks
    "para": "How can I learn to cook?",
    "question": "The Nile flows through eleven countries.",
    "simplify": "The feline reclined upon the rug.",
    "reply": "I have not slept well for days.",
}

_FILL = "mask about a third of the words and rewrite them (or fill the [MASK]s, if there are any)"
_MASK = f"fill the [MASK]s of the text; {GAP} stands for some words, however many"
_COMPLETE = "go on with the text"


def text_commands(generator: DiffusionTextGenerator) -> dict[str, TextCommand]:
    """The commands of a checkpoint by name, in the order of the help: those of its tasks, then those that every one
    has.
    """
    write, fill, more = WritingCommand, generator.fill_masks, generator.options.max_sentences > 1
    rows: list[TextCommand] = [
        write(generator, name, help, _EXAMPLES[name], partial(generator.rewrite, task=task), generator.source_parts)
        for name, task, help in task_rows(generator)
    ]
    continuable = partial(generator.complete_source, windowed=more)
    rows += [
        write(generator, "fill", _FILL, "The weather is nice today.", fill, generator.fill_parts, streams=False),
        write(generator, "mask", _MASK, f"The weather is {MASK} today.", fill, generator.masked_parts, streams=False),
        write(generator, "complete", _COMPLETE, "The best way to learn is", generator.complete_text, continuable),
        ScoreCommand(generator),
        FixCommand(generator),
    ]
    return {row.name: row for row in rows}


def task_rows(generator: DiffusionTextGenerator) -> list[tuple[str, str, str]]:
    """(command, task, help) of the tasks that a checkpoint has learned; para is the first."""
    tasks = commands_of(generator.model.skills)
    para = tasks["para"]
    learned = "" if generator.model.knows_pairs else " (not learned: it saw plain texts only)"
    rows = [("para", para, f"say it again: {TASKS[para].product}{learned}")]
    for command, task in tasks.items():
        if command != "para":
            same = "the same as para for this checkpoint: " if task == para else ""
            rows.append((command, task, f"{same}{TASKS[task].product}"))
    return rows
