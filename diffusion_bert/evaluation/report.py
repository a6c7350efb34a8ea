"""Results as text, Markdown and pictures."""

from __future__ import annotations

from collections.abc import Sequence

from .parts import Evaluation
from .score import FEW_PAIRS

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


def table(rows: dict[str, dict], intervals: Sequence[str] | None = None) -> str:
    """A Markdown table of metric rows; empty columns are left out. ``intervals``: the columns that show theirs
    (default: all).
    """
    used = [(key, title) for key, title in COLUMNS if any(key in row for row in rows.values())]
    lines = ["| | " + " | ".join(title for _, title in used) + " |", "|---" * (len(used) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(cell(key, row, intervals) for key, _ in used) + " |")
    return "\n".join(lines)


def cell(key: str, row: dict, intervals: Sequence[str] | None) -> str:
    """One number of a metric row as text, with its interval if that is wanted; empty where there is none."""
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
            "## Reconstruction\nAccuracy on the corrupted places only, without a source; floor: always the most common"
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
    """Points, verdict, level, formula, and what the next level needs; of few pairs that they mean little instead."""
    score = result.score
    if result.pairs < FEW_PAIRS:
        pairs = "1 pair" if result.pairs == 1 else f"{result.pairs} pairs"
        first = f"{score.points:.1f} of 100 from {pairs}: means little, and no verdict; take {FEW_PAIRS} pairs or more"
        return "\n".join([first, f"  {score.formula()}"])
    lines = [f"{score.points:.1f} of 100: {score.verdict}, level {score.level}", f"  {score.formula()}"]
    lines += [f"  missing for {text}" for text in score.missing]
    return "\n".join(lines)


# ---- pictures ------------------------------------------------------------------------------------------------------
