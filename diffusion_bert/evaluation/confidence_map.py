"""How one text is written, step by step: followed through the sampler, and drawn as a picture of shaded places."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ..config.tasks import TASKS
from ..data.skills import CONTINUE
from ..errors import UserError
from ..generation.ranking import ranking_score
from ..generation.tracing import Tracer, align
from .figures import new_figure, save_figure

LIGHT, STRONG, DARK, FAINT, NEW = "#f6f9fd", "#7db3ea", "#15202b", "#66717d", "#d9741a"


@dataclass
class WrittenText:
    """One text with the way it was written.

    words: the text in pieces, one per place. revealed: per place the step (from 1 on) in which its word came to stay.
    confidence: [steps][places] largest probability of any word when the model last looked at the place.
    """

    source: str
    text: str
    words: list[str]
    revealed: list[int]
    confidence: list[list[float]]
    sampler: str


def follow(generator, text: str, steps: int | None = None) -> WrittenText:
    """Write the other sentence of ``text`` (or, by a model of plain texts, its continuation) and keep the likeliest
    candidate's way.

    steps: instead of the generator's ``num_steps``.
    Raises:
        UserError: the text is empty or too long.
    """
    generator.check_text(text)
    knows_pairs = generator.model.knows_pairs
    if knows_pairs and len(generator.source_parts(text, whole=True)) > 1:
        raise UserError("the text is too long for one source of this model: take a single sentence")
    source = generator.tokenizer.encode(text) if knows_pairs else generator.complete_source(text)
    options = dataclasses.replace(generator.options, num_steps=steps or generator.options.num_steps)
    tracer = Tracer(confidence=True)
    skill = generator.model.skills.number(generator.task, options.style) if knows_pairs else CONTINUE
    example, count = (skill, source), options.num_samples * options.best_of
    (outputs,) = generator.generate_ids([example], options, [count], options.seed, tracer=tracer)
    texts = [generator.sentence(output.ids, text) for output in outputs]
    reversible = TASKS[generator.task].reversible
    scores = [ranking_score(new, output.score, text, reversible) for new, output in zip(texts, outputs)]
    number = max(range(count), key=scores.__getitem__)
    history, ids = tracer.histories[number], outputs[number].ids
    parts = {place: part for part, place in align(texts[number], ids, generator.tokenizer) if place is not None}
    words = [parts.get(place, generator.tokenizer.surface(index)) for place, index in enumerate(ids)]
    last = {place: step for step, place, _ in history.changes}
    confidence = [row[: len(ids)] for row in history.confidence[: max(last.values())]]
    return WrittenText(
        text, texts[number], words, [last[place] for place in range(len(ids))], confidence, options.sampler
    )


def plot_confidence(written: WrittenText, path: Path) -> None:
    """The picture: a row per step from top to bottom; new words are bold, hidden places bare, so that every row reads
    as the text so far.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.patches import Rectangle

    shades = LinearSegmentedColormap.from_list("confidence", [LIGHT, STRONG])
    widths = [max(2.0, len(word)) + 1.1 for word in written.words]
    lefts = [sum(widths[:place]) for place in range(len(widths))]
    rows = len(written.confidence)
    figure, axes = new_figure(1, 1, (max(7.0, 0.135 * sum(widths) + 1.6), 0.40 * rows + 1.5))
    axis = axes[0, 0]
    axis.grid(False)
    for row, confidence in enumerate(written.confidence):
        for place, (left, width) in enumerate(zip(lefts, widths)):
            step = written.revealed[place]
            color = "white" if step < row + 1 else shades(min(1.0, confidence[place]))
            frame = (
                {"edgecolor": NEW, "lw": 1.6, "zorder": 3} if step == row + 1 else {"edgecolor": "#d5dde6", "lw": 0.6}
            )
            axis.add_patch(Rectangle((left, row), width - 0.12, 0.92, facecolor=color, **frame))
            if step <= row + 1:
                new = step == row + 1
                look = {"color": DARK if new else FAINT, "weight": "bold" if new else "normal"}
                # $ would begin a formula
                word = written.words[place].replace("$", r"\$")
                axis.text(
                    left + width / 2 - 0.06, row + 0.47, word, ha="center", va="center", size=11, zorder=4, **look
                )
    axis.set(xlim=(0, sum(widths)), ylim=(rows, 0), xticks=[], ylabel=f"step ({written.sampler})")
    axis.set_xlabel("bold in an orange frame: written in this step", size=10, color=DARK)
    axis.set_yticks([row + 0.46 for row in range(rows)], [str(row + 1) for row in range(rows)])
    axis.tick_params(length=0, labelsize=11)
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.yaxis.label.set_size(11)
    axis.set_title(shortened(written.source).replace("$", r"\$"), loc="left", size=12, color=DARK, pad=10)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), shades), ax=axis, fraction=0.025, pad=0.015, aspect=25)
    bar.set_label("probability of the likeliest word", size=10, color=DARK)
    bar.outline.set_visible(False)
    save_figure(figure, path)


def shortened(text: str, most: int = 110) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 3].rstrip()}..."
