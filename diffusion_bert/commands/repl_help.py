"""The words with which the command loop explains itself."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.tasks import TASKS
from ..text.english import MASK

HELP = """Commands
{skills}
  fill <text>           mask about a third of the words and rewrite them (or fill the [MASK]s, if there are any)
  mask <text>           fill the [MASK]s of the text; [MASK*] stands for some words, however many
  complete <text>       go on with the text
  set <option> <value>  change an option ({options})
  set                   what each option does, and its value
  show                  the options and the model
  help                  this text
  quit, exit, Ctrl-D    leave
A word of advice: repetition or nonsense - lower the temperature or top_p; dull - raise them; \
slow - lower num_steps or best_of."""


def help_lines(model, tasks: dict[str, str], options: Sequence[str]) -> list[str]:
    """All commands; ``tasks``: those of the checkpoint's tasks, with the task of each."""
    task = tasks["para"]
    skills = [
        f"  {'para <text>':<21} say it again: {TASKS[task].product}"
        + ("" if model.knows_pairs else " (not learned: it saw plain texts only)")
    ]
    for command, other in tasks.items():
        if command != "para":
            same = "the same as para for this checkpoint: " if other == task else ""
            skills.append(f"  {f'{command} <text>':<21} {same}{TASKS[other].product}")
    for name, styles in model.skills.all_styles().items():
        skills.append(f"  {'set style <name>':<21} style of {name}: {', '.join(styles)}, none")
    return HELP.format(skills="\n".join(skills), options=", ".join(options)).splitlines()


EXAMPLES = {
    "question": "The Nile flows through eleven countries.",
    "simplify": "The feline reclined upon the rug.",
    "reply": "I have not slept well for days.",
    "para": "How can I learn to cook?",
    "fill": "The weather is nice today.",
    "mask": f"The weather is {MASK} today.",
    "complete": "The best way to learn is",
}
