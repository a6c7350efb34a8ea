"""What a model can be asked to write: the tasks with their prompts, and the styles of a prompt.

A skill is a number that every example carries: NO_SOURCE and CONTINUE belong to every model, PAIR and all after
CONTINUE are prompts of its own. Plain texts may have styles too, such as their origin: continuing in one of them counts
down from -1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config.tasks import CONTINUE_PROMPT, TASKS, task_names
from ..errors import UserError, nearest

if TYPE_CHECKING:
    import numpy as np

PAIR, NO_SOURCE, CONTINUE = 0, 1, 2  # skills of an example; further prompts count on from 3
MOST_STYLES = 100


def is_continuing(skill):
    """Whether a skill, or each of an array, continues a text."""
    return (skill == CONTINUE) | (skill < 0)


def is_pair(skill):
    """Whether a skill, or each of an array, is a prompt with a source."""
    return (skill == PAIR) | (skill > CONTINUE)


def styled_prompt(prompt: str, style: str | None) -> str:
    """``paraphrase:`` with style formal is ``paraphrase formal:``, which costs as many word pieces as the style has."""
    return prompt if style is None else f"{prompt.removesuffix(':')} {style}:"


@dataclass(frozen=True)
class Skill:
    """One prompt: a task's own, or that of one of its styles."""

    task: str
    style: str | None
    prompt: str

    @property
    def continues(self) -> bool:
        """Whether it continues plain texts of a style."""
        return self.style is not None and not TASKS[self.task].prompt


@dataclass(frozen=True)
class Skills:
    """All prompts of a model, in the order of their numbers; ``tasks`` are its tasks in order, those of plain texts
    included.
    """

    tasks: tuple[str, ...]
    table: tuple[Skill, ...]

    @classmethod
    def of(cls, task_name: str, styles: Mapping[str, Sequence[str]] | None = None) -> Skills:
        """The plain prompts of the tasks, in order, then those of their styles.

        Raises:
            UserError: more than MOST_STYLES styles of a task.
        """
        tasks = tuple(task_names(task_name))
        with_pairs = [name for name in tasks if TASKS[name].prompt] or list(tasks[:1])
        table = [Skill(name, None, TASKS[name].prompt) for name in with_pairs]
        for name in tasks:
            known = list((styles or {}).get(name, ()))
            if len(known) > MOST_STYLES:
                raise UserError(
                    f"column style of task {name} has {len(known):,} different values: expected at most {MOST_STYLES}"
                    " names of styles"
                )
            table += [
                Skill(name, style, styled_prompt(TASKS[name].prompt or CONTINUE_PROMPT, style)) for style in known
            ]
        return cls(tasks, tuple(table))

    @classmethod
    def from_plain(cls, task_name: str, table: Sequence[Sequence] | None) -> Skills:
        """What ``plain`` made; None stands for the prompts of the tasks alone.

        Raises:
            ValueError: nothing of the kind.
        """
        if table is None:
            return cls.of(task_name)
        rows = tuple(Skill(*row) for row in table)
        tasks = tuple(task_names(task_name))
        sound = all(
            isinstance(row.prompt, str) and row.task in tasks and isinstance(row.style, str | None) for row in rows
        )
        if not rows or not sound:
            raise ValueError("no table of skills")
        return cls(tasks, rows)

    def plain(self) -> list[list]:
        """The table as lists of plain values."""
        return [[skill.task, skill.style, skill.prompt] for skill in self.table]

    @property
    def prompts(self) -> list[str]:
        """The prompts of pairs, in the order of their numbers."""
        return [skill.prompt for skill in self.table if not skill.continues]

    @property
    def continuing_prompts(self) -> list[str]:
        """The prompts for continuing a text in a style, from -1 down."""
        return [skill.prompt for skill in self.table if skill.continues]

    @property
    def first(self) -> str:
        """The first task with pairs: the one that is meant when none is named."""
        return self.table[0].task

    def styles(self, task: str) -> list[str]:
        """The styles that the model knows for a task."""
        return [skill.style for skill in self.table if skill.task == task and skill.style is not None]

    def all_styles(self) -> dict[str, list[str]]:
        """The styles of every task that has some."""
        return {task: styles for task in self.tasks if (styles := self.styles(task))}

    def number(self, task: str | None = None, style: str | None = None) -> int:
        """The skill that writes ``task`` (default: the first) in ``style``.

        Raises:
            UserError: a task or a style that the model does not know.
        """
        task = self.first if task is None else task
        known = list(dict.fromkeys(skill.task for skill in self.table if not skill.continues))
        if task not in known:
            raise UserError(f"task is '{task}': this checkpoint knows {', '.join(known)}{nearest(task, known)}")
        style = " ".join(style.lower().split()) if style is not None else None
        pairs = [skill for skill in self.table if not skill.continues]
        for index, skill in enumerate(pairs):
            if (skill.task, skill.style) == (task, style):
                return index if index == 0 else CONTINUE + index
        styles = self.styles(task)
        if not styles:
            raise UserError(
                f"style is '{style}' but this checkpoint knows no styles for {task}: leave it out, or train with a"
                " column style"
            )
        raise UserError(
            f"style is '{style}': for {task} this checkpoint knows {', '.join(styles)}{nearest(style, styles)}"
        )

    def is_reversible(self, number: int) -> bool:
        """Whether the source of the skill ``number`` is as good a target: a paraphrase, but no reply."""
        pairs = [skill for skill in self.table if not skill.continues]
        return TASKS[pairs[number if number == PAIR else number - CONTINUE].task].reversible

    def continuing(self, style: str | None = None) -> int:
        """The skill that continues a text, in ``style`` if plain texts have one of that name, else CONTINUE."""
        style = None if style is None else " ".join(style.lower().split())
        styles = [skill.style for skill in self.table if skill.continues]
        return -1 - styles.index(style) if style in styles else CONTINUE

    def prompts_of(self, task: str) -> list[str]:
        """The prompts of a task and its styles; the empty one for plain texts."""
        return [skill.prompt for skill in self.table if skill.task == task] or [""]

    def row_skills(self, task: str, names: Sequence[str], styles: np.ndarray) -> np.ndarray:
        """The skill of each row [n] from the number of its style in ``names`` [n], -1 for none; styles that the model
        does not know count as none.
        """
        import numpy as np  # --help lists the tasks, and must be instant

        known = self.styles(task)
        number = self.number if TASKS[task].prompt else lambda task, style=None: self.continuing(style)
        plain = number(task)
        numbers = [number(task, name) if name in known else plain for name in names]
        return np.array([*numbers, plain], dtype=np.int16)[styles]


def commands_of(skills: Skills) -> dict[str, str]:
    """The REPL commands that a model has, with the task of each: para, simplify, question, reply.

    ``para`` is always there: the first paraphrasing task, or else the first task at all.
    """
    commands: dict[str, str] = {}
    for skill in skills.table:
        commands.setdefault(TASKS[skill.task].command, skill.task)
    commands.setdefault("para", skills.first)
    return commands
