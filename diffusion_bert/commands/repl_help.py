"""The words with which the command loop explains itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .text_commands import TextCommand

HELP = """Commands
{texts}
{styles}  set <option> <value>  change an option ({options})
  set                   what each option does, and its value
  show                  the options and the model
  help                  this text
  quit, exit, Ctrl-D    leave
A word of advice: repetition or nonsense - lower the temperature or top_p; dull - raise them; \
slow - lower num_steps or best_of."""


def help_lines(model, commands: Mapping[str, TextCommand], options: Sequence[str]) -> list[str]:
    """All commands that take texts, then the styles and what manages the loop."""
    texts = [f"  {f'{name} {command.usage}':<21} {command.help}" for name, command in commands.items()]
    styles = [
        f"  {'set style <name>':<21} style of {name}: {', '.join(styles)}, none\n"
        for name, styles in model.skills.all_styles().items()
    ]
    return HELP.format(texts="\n".join(texts), styles="".join(styles), options=", ".join(options)).splitlines()
