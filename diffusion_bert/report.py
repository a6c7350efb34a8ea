"""Results as text, Markdown and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .evaluation import Evaluation
from .machine.storage import write_atomically

COLUMNS = (
    ("bleu", "BLEU"),
    ("rouge_l", "ROUGE-L"),
    ("bertscore", "BERTScore"),
    ("dist1", "dist-1"),
    ("self_bleu", "self-BLEU"),
    ("div4", "div-4"),
    ("overlap", "overlap"),
    ("ibleu", "iBLEU"),
    ("repetition", "repeats"),
    ("length_ratio", "length"),
    ("nfe", "calls"),
    ("seconds", "s/text"),
    ("valid", "valid %"),
)
CONVENTION = (
    "DiffuSeq protocol: lower-cased BERT text with full clean-up, mean NLTK sentence BLEU (method 4), ROUGE-L F, in"
    " percent, with 95 % bootstrap intervals; overlap: BLEU of the output against the source; iBLEU: 0.8 BLEU - 0.2"
    " overlap; self-BLEU and div-4: over three independent samples; repeats: words equal to their left neighbour;"
    " length: output / reference; calls: denoiser calls per text. Rows - model: temperature 0 at each length of the"
    " beam, the likeliest kept; likeliest length: temperature 0, one length; one sample: length (of the beam) and words"
    " drawn at the temperature of the settings; copy, unigram: floors."
)
# dark on opaque white: legible on paper and on a dark screen
INK, MAIN, SECOND, QUIET = "#2b3440", "#2f7fd3", "#e08a1e", "#9a9a9a"


def table(rows: dict[str, dict], intervals: Sequence[str] | None = None) -> str:
    """A Markdown table of metric rows; empty columns are left out. ``intervals``: the columns that show theirs
    (default: all).
    """
    used = [(key, title) for key, title in COLUMNS if any(key in row for row in rows.values())]
    lines = ["| | " + " | ".join(title for _, title in used) + " |", "|---" * (len(used) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(_cell(key, row, intervals) for key, _ in used) + " |")
    return "\n".join(lines)


def _cell(key: str, row: dict, intervals: Sequence[str] | None) -> str:
    if key not in row:
        return ""
    digits = {"length_ratio": 2, "seconds": 3, "repetition": 2}.get(key, 1 if key not in ("bleu", "rouge_l") else 2)
    text = f"{row[key]:.{digits}f}"
    if f"{key}_interval" in row and (intervals is None or key in intervals):
        low, high = (f"{end:.{min(digits, 1) if key != 'length_ratio' else 2}f}" for end in row[f"{key}_interval"])
        text += f" ({low} to {high})" if "-" in low + high else f" ({low}-{high})"
    return text


def markdown(result: Evaluation, heading: str) -> str:
    """The whole evaluation as Markdown."""
    parts = [f"# {heading}", f"Task {result.task}, {result.pairs:,} examples."]
    parts += ["Settings: " + settings_line(result)]
    parts += [f"- {note}" for note in result.notes]
    if result.reconstruction:
        parts.append(
            "## Reconstruction\nAccuracy on the corrupted places only, without a source; floor: always the commonest"
            " word piece."
        )
        lines = ["| corruption | accuracy | floor | places |", "|---|---|---|---|"]
        lines += [
            f"| {key} % | {row['accuracy']:.1f} % | {row['floor']:.1f} % | {row['places']:,} |"
            for key, row in result.reconstruction.items()
        ]
        parts.append("\n".join(lines))
        for key, row in result.reconstruction.items():
            for example in row["examples"]:
                parts.append(f"{key} %: {example['corrupted']}\n\n-> {example['restored']}\n\n= {example['original']}")
    if result.rows:
        parts.append(f"## Conditional generation\n{CONVENTION}\n\n{table(result.rows)}")
        for example in result.examples[:10]:
            lines = [
                f"- source: {example['source']}",
                f"  - reference: {example['reference']}",
                f"  - model: {example['output']}",
            ]
            parts.append("\n".join(lines + [f"  - sample: {sample}" for sample in example["samples"]]))
    if result.nelbo:
        parts.append(f"## NELBO\n{nelbo_lines(result.nelbo)}")
    if result.score:
        parts.append(f"## Score\n{score_lines(result)}")
    return "\n\n".join(parts) + "\n"


def settings_line(result: Evaluation) -> str:
    """Split, sampling settings and versions: what it takes to repeat the numbers."""
    values = {"split": result.split, **result.settings, **result.versions}
    return ", ".join(f"{name} {value}" for name, value in values.items())


def nelbo_lines(nelbo: dict[str, float]) -> str:
    """The terms per word piece and per word."""
    rows = ["| nats | reveal | stay | length | NELBO | perplexity bound |", "|---|---|---|---|---|---|"]
    for unit, name in (("token", "word piece"), ("word", "word")):
        values = [f"{nelbo[f'{term}_per_{unit}']:.3f}" for term in ("reveal", "stay", "length", "nelbo")]
        rows.append(f"| per {name} | " + " | ".join(values) + f" | {nelbo[f'perplexity_bound_per_{unit}']:,.2f} |")
    return "\n".join(rows)


def score_lines(result: Evaluation) -> str:
    """Points, verdict, level, formula, and what the next level needs."""
    score = result.score
    lines = [f"{score.points:.1f} of 100: {score.verdict}, level {score.level}", f"  {score.formula()}"]
    lines += [f"  missing for {text}" for text in score.missing]
    return "\n".join(lines)


# ---- pictures ------------------------------------------------------------------------------------------------------


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


def plot_evaluation(result: Evaluation, path: Path) -> None:
    """Reconstruction against its floor, and the metrics of every row side by side."""
    figure, axes = new_figure(1, 2, (11, 4))
    left, right = axes[0]
    keys = list(result.reconstruction)
    left.bar(
        [index - 0.2 for index in range(len(keys))],
        [result.reconstruction[key]["accuracy"] for key in keys],
        0.4,
        color=MAIN,
        label="model",
    )
    left.bar(
        [index + 0.2 for index in range(len(keys))],
        [result.reconstruction[key]["floor"] for key in keys],
        0.4,
        color=QUIET,
        label="commonest word piece",
    )
    left.set_xticks(range(len(keys)), [f"{key} %" for key in keys])
    left.set(title="Reconstruction", xlabel="corrupted", ylabel="accuracy on corrupted places, %", ylim=(0, 100))
    left.legend(frameon=False)
    shown = [("bleu", "BLEU"), ("rouge_l", "ROUGE-L"), ("overlap", "overlap"), ("ibleu", "iBLEU")]
    colors = [MAIN, SECOND, "#4ba36b", "#8f6bb8", QUIET, "#c9c9c9"]
    width = 0.8 / max(1, len(result.rows))
    for number, (name, row) in enumerate(result.rows.items()):
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
    if result.rows:
        right.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
