"""The pictures: curves of a training, bars of an evaluation, in one look for all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..machine.storage import write_atomically
from .score import says_little

# dark on opaque white: legible on paper and on a dark screen
INK, MAIN, SECOND, QUIET = "#2b3440", "#2f7fd3", "#e08a1e", "#9a9a9a"


def new_figure(rows: int, columns: int, size: tuple[float, float]):
    """(figure, axes [rows, columns]) in the colours of this project."""
    import matplotlib
    from matplotlib.figure import Figure

    # a figure of its own, without pyplot: a notebook keeps the backend that it has, and nothing need be closed
    with matplotlib.rc_context(
        {"axes.edgecolor": INK, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}
    ):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


def save_figure(figure, path: Path) -> None:
    """Write it on white, as an SVG (the same bytes every time) if the name ends so and otherwise as a PNG."""
    import matplotlib

    vector = path.suffix.lower() == ".svg"
    kind = {"format": "svg", "metadata": {"Date": None}} if vector else {"format": "png", "dpi": 130}
    with matplotlib.rc_context({"svg.hashsalt": path.name}):
        write_atomically(path, lambda file: figure.savefig(file, facecolor="white", **kind))


def plot_curves(records: Sequence[dict], path: Path) -> None:
    """Training loss, validation NELBO with its terms, learning rate and speed against the step."""
    train = [record for record in records if record["kind"] == "train"]
    valid = [record for record in records if record["kind"] == "validation"]
    figure, axes = new_figure(2, 2, (10, 6.5))
    steps = [record["step"] for record in train]
    axes[0, 0].plot(steps, [record["cross_entropy"] for record in train], color=MAIN, lw=1)
    axes[0, 0].set(title="Training: cross-entropy on masked places", xlabel="step", ylabel="nats per place")
    terms = (
        ("valid_nelbo", "NELBO, their sum", MAIN, "o-"),
        ("valid_reveal", "reveal: which word", SECOND, "s--"),
        ("valid_stay", "stay: still masked", "#4ba36b", "D-."),
        ("valid_length", "length of the text", QUIET, "^:"),
    )
    for name, label, color, style in terms:
        points = [(record["step"], record[name]) for record in valid if name in record]
        if points:
            axes[0, 1].plot(*zip(*points), style, color=color, ms=4, label=label)
    axes[0, 1].set(
        title="Validation NELBO on 1000 steps, as for every run,\nwhatever its num_steps; with fixed noise",
        xlabel="step",
        ylabel="nats per word piece",
    )
    if valid:
        axes[0, 1].legend(frameon=False)
    axes[1, 0].plot(steps, [record["lr"] for record in train], color=SECOND)
    axes[1, 0].set(title="Learning rate", xlabel="step")
    axes[1, 1].plot(steps, [record["tokens_per_second"] for record in train], color=MAIN, lw=1)
    axes[1, 1].set(title="Speed", xlabel="step", ylabel="target word pieces per second")
    axes[1, 1].set_ylim(bottom=0)
    save_figure(figure, path)


def plot_evaluation(result, path: Path) -> None:
    """The reconstruction of an ``Evaluation`` against its floor, and the metrics of every row side by side with their
    intervals, under a line with score and verdict. Copying the source has no bar in "overlap": its 100 is the measure.
    """
    figure, axes = new_figure(1, 2, (11, 4.3))
    left, right = axes[0]
    keys = list(result.reconstruction)
    for shift, name, color, label in (
        (-0.2, "accuracy", MAIN, "model"),
        (0.2, "floor", QUIET, "most common word piece"),
    ):
        heights = [result.reconstruction[key][name] for key in keys]
        left.bar([index + shift for index in range(len(keys))], heights, 0.4, color=color, label=label)
    left.set_xticks(range(len(keys)), [f"{key} %" for key in keys])
    left.set(title="Reconstruction", xlabel="corrupted", ylabel="accuracy on corrupted places, %", ylim=(0, 100))
    left.legend(frameon=False)
    _draw_systems(right, result.rows)
    figure.suptitle(_headline(result))
    save_figure(figure, path)


def _headline(result) -> str:
    """Task and number of pairs; score and verdict, where there are enough pairs for one."""
    text = f"Task {result.task}, {result.pairs:,} pairs"
    if result.score is None:
        return text
    few = says_little(result.pairs)
    verdict = "few pairs: means little" if few else f"{result.score.verdict}, level {result.score.level}"
    return f"{text}: score {result.score.points:.1f} of 100 ({verdict})"


def _draw_systems(axis, systems: dict[str, dict]) -> None:
    shown = [("bleu", "BLEU"), ("rouge_l", "ROUGE-L"), ("overlap", "overlap"), ("ibleu", "iBLEU")]
    colors = [MAIN, SECOND, "#4ba36b", "#8f6bb8", QUIET, "#c9c9c9"]
    compared = {name: row for name, row in systems.items() if "bleu" in row}  # the references are the measure itself
    width = 0.8 / max(1, len(compared))
    for number, (name, row) in enumerate(compared.items()):
        drawn = [(index, key) for index, (key, _) in enumerate(shown) if (name, key) != ("copy", "overlap")]
        heights = [row[key] for _, key in drawn]
        ends = [row.get(f"{key}_interval", (row[key], row[key])) for _, key in drawn]
        errors = [
            [max(0.0, height - low) for height, (low, _) in zip(heights, ends)],
            [max(0.0, high - height) for height, (_, high) in zip(heights, ends)],
        ]
        places = [index + (number + 0.5) * width - 0.4 for index, _ in drawn]
        axis.bar(places, heights, width, color=colors[number % len(colors)], label=name, yerr=errors, ecolor=INK)
    axis.set_xticks(range(len(shown)), [title for _, title in shown])
    axis.set(title="Conditional generation (lines: 95 % intervals; copying has overlap 100)")
    axis.title.set_fontsize(9)
    axis.axhline(0, color=INK, lw=0.8)
    if systems:
        axis.legend(frameon=False, fontsize=8)
