"""The pictures: curves of a training, bars of an evaluation, in one look for all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..machine.storage import write_atomically

# dark on opaque white: legible on paper and on a dark screen
INK, MAIN, SECOND, QUIET = "#2b3440", "#2f7fd3", "#e08a1e", "#9a9a9a"


def new_figure(rows: int, columns: int, size: tuple[float, float]):
    """(figure, axes [rows, columns]) in the colours of this project."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(
        {"axes.edgecolor": INK, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}
    ):
        figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


def save_figure(figure, path: Path) -> None:
    """Write it on white, as an SVG (the same bytes every time) if the name ends so and otherwise as a PNG, and close
    the figure.
    """
    import matplotlib.pyplot as plt

    vector = path.suffix.lower() == ".svg"
    kind = {"format": "svg", "metadata": {"Date": None}} if vector else {"format": "png", "dpi": 130}
    try:
        with plt.rc_context({"svg.hashsalt": path.name}):
            write_atomically(path, lambda file: figure.savefig(file, facecolor="white", **kind))
    finally:
        plt.close(figure)


def plot_curves(records: Sequence[dict], path: Path) -> None:
    """Training loss, validation NELBO with its terms, learning rate and speed against the step."""
    train = [record for record in records if record["kind"] == "train"]
    valid = [record for record in records if record["kind"] == "validation"]
    figure, axes = new_figure(2, 2, (10, 6.5))
    steps = [record["step"] for record in train]
    axes[0, 0].plot(steps, [record["cross_entropy"] for record in train], color=MAIN, lw=1)
    axes[0, 0].set(title="Training: cross-entropy on masked places", xlabel="step", ylabel="nats per place")
    terms = (
        ("valid_nelbo", "NELBO", MAIN, "o-"),
        ("valid_reveal", "reveal", SECOND, "s--"),
        ("valid_stay", "stay", "#4ba36b", "D-."),
        ("valid_length", "length", QUIET, "^:"),
    )
    for name, label, color, style in terms:
        points = [(record["step"], record[name]) for record in valid if name in record]
        if points:
            axes[0, 1].plot(*zip(*points), style, color=color, ms=4, label=label)
    axes[0, 1].set(title="Validation NELBO (T = 1000, fixed noise)", xlabel="step", ylabel="nats per word piece")
    if valid:
        axes[0, 1].legend(frameon=False)
    axes[1, 0].plot(steps, [record["lr"] for record in train], color=SECOND)
    axes[1, 0].set(title="Learning rate", xlabel="step")
    axes[1, 1].plot(steps, [record["tokens_per_second"] for record in train], color=MAIN, lw=1)
    axes[1, 1].set(title="Speed", xlabel="step", ylabel="target word pieces per second")
    axes[1, 1].set_ylim(bottom=0)
    save_figure(figure, path)


def plot_evaluation(reconstruction: dict[str, dict], systems: dict[str, dict], path: Path) -> None:
    """Reconstruction against its floor, and the metrics of every row side by side."""
    figure, axes = new_figure(1, 2, (11, 4))
    left, right = axes[0]
    keys = list(reconstruction)
    left.bar(
        [index - 0.2 for index in range(len(keys))],
        [reconstruction[key]["accuracy"] for key in keys],
        0.4,
        color=MAIN,
        label="model",
    )
    left.bar(
        [index + 0.2 for index in range(len(keys))],
        [reconstruction[key]["floor"] for key in keys],
        0.4,
        color=QUIET,
        label="most common word piece",
    )
    left.set_xticks(range(len(keys)), [f"{key} %" for key in keys])
    left.set(title="Reconstruction", xlabel="corrupted", ylabel="accuracy on corrupted places, %", ylim=(0, 100))
    left.legend(frameon=False)
    shown = [("bleu", "BLEU"), ("rouge_l", "ROUGE-L"), ("overlap", "overlap"), ("ibleu", "iBLEU")]
    colors = [MAIN, SECOND, "#4ba36b", "#8f6bb8", QUIET, "#c9c9c9"]
    compared = {name: row for name, row in systems.items() if "bleu" in row}  # the references are the measure itself
    width = 0.8 / max(1, len(compared))
    for number, (name, row) in enumerate(compared.items()):
        right.bar(
            [index + (number + 0.5) * width - 0.4 for index in range(len(shown))],
            [row[key] for key, _ in shown],
            width,
            color=colors[number % len(colors)],
            label=name,
        )
    right.set_xticks(range(len(shown)), [title for _, title in shown])
    right.set(title="Conditional generation")
    right.axhline(0, color=INK, lw=0.8)
    if systems:
        right.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
