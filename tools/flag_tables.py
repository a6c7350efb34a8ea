"""Write the flag tables of the docs from the settings themselves, so that no page can differ from --help.

    python -m tools.flag_tables

A table stands between the lines ``<!-- flags of NAME -->`` and ``<!-- end of flags -->``; NAME is a dataclass of
diffusion_bert/config/schema.py, or ``evaluation`` for the flags that only evaluate_trained_model.py has. All else on a
page stays as it is. tests/repository/test_readme.py fails when a table is stale.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import textwrap
from pathlib import Path

from diffusion_bert.commands.cli import Parser, guarded
from diffusion_bert.commands.evaluate import evaluation_parser
from diffusion_bert.config import schema

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("docs/training.md", "docs/generation.md", "docs/evaluation.md")
PLACE = re.compile(r"(<!-- flags of (\w+) -->\n).*?(<!-- end of flags -->)", re.DOTALL)
WIDTH = 120


def main(argv=None) -> int:
    """Rewrite every page; say which ones have changed."""
    Parser(__doc__.splitlines()[0]).parse(sys.argv[1:] if argv is None else argv)
    for name in PAGES:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = rewritten(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
        print(f"{name}: {'rewritten' if after != before else 'up to date'}")
    return 0


def rewritten(text: str) -> str:
    """A page with its tables as the settings are now."""
    return PLACE.sub(lambda match: f"{match[1]}\n{flag_table(match[2])}\n\n{match[3]}", text)


def flag_table(name: str) -> str:
    """The Markdown table of one group of flags, no line over 120 characters: long meanings go on in rows below."""
    rows = evaluation_flags() if name == "evaluation" else settings_of(getattr(schema, name))
    lines = ["| flag | default | meaning |", "|---|---|---|"]
    for flag, default, meaning in rows:
        start = f"| `--{flag}` | {default} | "
        first, *rest = textwrap.wrap(meaning.replace("|", "\\|"), WIDTH - len(start) - 2)
        lines.append(f"{start}{first} |")
        lines += [f"| | | {line} |" for line in textwrap.wrap(" ".join(rest), WIDTH - 8)]
    return "\n".join(lines)


def settings_of(section: type) -> list[tuple[str, str, str]]:
    """(flag, default, meaning) of every field of a dataclass of settings."""
    rows = []
    for field in dataclasses.fields(section):
        default = field.default
        shown = str(default).lower() if default is None or isinstance(default, bool) else str(default)
        choices = field.metadata["choices"] or ()
        named = all(re.search(rf"\b{re.escape(choice)}\b", field.metadata["help"]) for choice in choices)
        rows.append((field.name, shown, field.metadata["help"] + ("" if named else f"; one of {', '.join(choices)}")))
    return rows


def evaluation_flags() -> list[tuple[str, str, str]]:
    """(flag, default, meaning) of the flags that say what is evaluated."""
    (group,) = (group for group in evaluation_parser()._action_groups if group.title == "what to evaluate")
    rows = []
    for action in group._group_actions:
        meaning, _, default = action.help.partition(" (default: ")
        short = len(default) < 12  # a longer one explains itself better behind the meaning
        rows.append((action.dest, default.removesuffix(")") if short else "", meaning if short else action.help))
    return rows


if __name__ == "__main__":
    sys.exit(guarded(main))
