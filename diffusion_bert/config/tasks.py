"""The tasks a model can be trained on, with the prompt that chooses each."""

from __future__ import annotations

from dataclasses import dataclass

CONTINUE_PROMPT = "continue:"


@dataclass(frozen=True)
class Task:
    """One task. ``prompt`` chooses the skill, T5 style; ``product`` is what the REPL says it writes, by the command
    ``command``.

    ``hub`` is (dataset, configuration, source column, target column) on the Hugging Face hub, where it can be had
    without a loading script. ``reversible``: the source is as good a target. ``whole``: its product answers a text as a
    whole, not each of its sentences. A task without a prompt has plain texts instead of pairs.
    """

    name: str
    prompt: str
    product: str
    hub: tuple[str, str, str, str] | None = None
    reversible: bool = False
    command: str = "para"
    whole: bool = False


TASKS = {
    task.name: task
    for task in (
        Task("sample", "paraphrase:", "a paraphrase", reversible=True),
        Task(
            "qqp", "paraphrase:", "a paraphrase", hub=("nyu-mll/glue", "qqp", "question1", "question2"), reversible=True
        ),
        Task("QT", "question:", "a question about it", command="question", whole=True),
        Task("wiki_alignment", "simplify:", "a simpler version", command="simplify"),
        Task("CC", "reply:", "a reply to it", command="reply", whole=True),
        Task("custom", "paraphrase:", "a new version", reversible=True),
        Task("text", "", "nothing: it has only seen plain texts"),
    )
}
# what can be done to a whole file of texts: the commands of the tasks, of which a checkpoint has some, and those that
# every one has
FILE_COMMANDS = (*dict.fromkeys(task.command for task in TASKS.values()), "fill", "mask", "complete", "score", "fix")
ONE_ANSWER = ("score", "fix")  # those that give one answer to a text, however many candidates others write
PROMPTS = tuple(dict.fromkeys([task.prompt for task in TASKS.values() if task.prompt] + [CONTINUE_PROMPT]))


def task_names(task_name: str) -> list[str]:
    """The tasks of the setting ``task_name``, which may name several with commas."""
    return task_name.split(",")
