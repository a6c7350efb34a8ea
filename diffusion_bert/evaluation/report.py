"""Results as text for a terminal and as Markdown: the answer first, then what it rests on."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from .parts import Evaluation
from .score import FEW_PAIRS, says_little

COLUMNS = (
    ("bleu", "BLEU"),
    ("rouge_l", "ROUGE-L"),
    ("bertscore", "BERTScore"),
    ("fluency", "nats/token"),
    ("perplexity", "perplexity"),
    ("meaning", "meaning"),
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
DIGITS = {
    "length_ratio": 2,
    "seconds": 3,
    "repetition": 2,
    "fluency": 2,
    "meaning": 3,
}  # 2 for BLEU and ROUGE-L, else 1
SMALL = ("bleu", "bleu_interval", "rouge_l", "rouge_l_interval", "overlap", "ibleu", "valid")
LEGEND = """\
  model             temperature 0 at each length of the beam, the likeliest kept
  likeliest length  temperature 0, one length
  one sample        length and words drawn at --temperature
  copy, unigram     floors: the source itself, words drawn at random
  overlap           BLEU of the output against its source; iBLEU punishes it"""
CONVENTION = (
    "DiffuSeq protocol: lower-cased BERT text with full clean-up, mean NLTK sentence BLEU (method 4), ROUGE-L F, in"
    " percent, with 95 % bootstrap intervals; overlap: BLEU of the output against the source; iBLEU: 0.8 BLEU - 0.2"
    " overlap; self-BLEU and div-4: over three independent samples; repeats: words equal to their left neighbour;"
    " length: output / reference; calls: denoiser calls per text. Rows - model: temperature 0 at each length of the"
    " beam, the likeliest kept; likeliest length: temperature 0, one length; one sample: length (of the beam) and words"
    " drawn at the temperature of the settings; copy, unigram: floors. Judges, if asked for - nats/token and"
    " perplexity: of a causal language model (low is fluent; copy and reference are what people wrote); meaning: cosine"
    " of sentence vectors of source and output."
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
    digits = DIGITS.get(key, 1 if key not in ("bleu", "rouge_l") else 2)
    text = f"{row[key]:.{digits}f}"
    if f"{key}_interval" in row and (intervals is None or key in intervals):
        low, high = (f"{end:.{digits if key in DIGITS else min(digits, 1)}f}" for end in row[f"{key}_interval"])
        text += f" ({low} to {high})" if "-" in low + high else f" ({low}-{high})"
    return text


def main_columns(rows: dict[str, dict]) -> list[tuple[str, str]]:
    """Keys and titles of the five columns that matter most."""
    last = ("valid", "valid %") if any("valid" in row for row in rows.values()) else ("nfe", "calls")
    return [("bleu", "BLEU"), ("rouge_l", "ROUGE-L"), ("overlap", "overlap"), ("ibleu", "iBLEU"), last]


def plain_table(rows: dict[str, dict]) -> str:
    """The five columns that matter most, aligned for a terminal of 80 columns, without Markdown."""
    used = main_columns(rows)
    lines = [["", *(f"{title} (95 %)" if key == "rouge_l" else title for key, title in used)]]
    lines += [[name, *(cell(key, row, ("rouge_l",)) for key, _ in used)] for name, row in rows.items()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(used) + 1)]
    texts = [
        "  ".join([line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:]))])
        for line in lines
    ]
    return "\n".join(f"  {text.rstrip()}" for text in texts)


def judged_sentence(rows: dict[str, dict]) -> str:
    """What the judges say of the model, beside what they say of sources and references; empty without judges."""
    names = {"model": "outputs", "copy": "sources", "reference": "references"}
    parts = []
    for key, what, shown in (
        ("perplexity", "perplexity per token", names),
        ("meaning", "meaning kept", ("model", "reference")),
    ):
        cells = [f"{names[row]} {cell(key, rows[row], None)}" for row in shown if key in rows.get(row, {})]
        parts += [f"{what}: {', '.join(cells)}"] if cells else []
    return "\n".join(parts)


def markdown(result: Evaluation, heading: str, checkpoint: str = "") -> str:
    """The whole evaluation as Markdown: the answer, three examples, a small table, the pictures, then all else.

    ``checkpoint``: its path, as it is to be typed in the next command.
    """
    parts = [f"# {heading}", f"Task {result.task}, {result.pairs:,} examples of {result.split or 'a list'}."]
    parts += _answer(result, checkpoint)
    if result.examples:
        parts.append(f"## Three examples\n\n{_examples(result.examples[:3])}")
    parts += _in_short(result)
    if result.rows or result.reconstruction:
        parts.append("## Pictures\n\n![reconstruction and metrics beside their floors](evaluation.png)")
    if result.examples:
        parts.append(
            "How one text was written: a row is a step, orange words are written in it.\n\n"
            "![the steps of one text](confidence_map.png)"
        )
    return "\n\n".join(parts + _details(result)) + "\n"


def _answer(result: Evaluation, checkpoint: str) -> list[str]:
    """Score, verdict, level with what is missing, and the next command; without a score the reason for that."""
    score = result.score
    if score is None:
        return [f"- {note}" for note in result.notes]
    if says_little(result.pairs):
        return [f"**Score {score_lines(result).splitlines()[0]}.**"]
    lines = [f"**Score {score.points:.1f} of 100: {score.verdict}, level {score.level}.**"]
    lines.append("\n".join(f"- missing for {text}" for text in score.missing) or "- nothing is missing")
    name = shlex.quote(checkpoint) if checkpoint else "FILE"
    if score.verdict == "Good":
        lines.append(f"Next: put it to work, `python interactive_generation.py --checkpoint {name}`")
    else:
        lines.append(
            f"Next: train on, `python continue_training.py --checkpoint {name} --auto` (with `--data_dir DIR` where"
            " the training data is no longer at its place)"
        )
    return lines


def _examples(examples: Sequence[dict]) -> str:
    """A table of sources, what the model wrote, and the references."""
    lines = ["| source | model | reference |", "|---|---|---|"]
    for example in examples:
        cells = (example[name].replace("|", "\\|") for name in ("source", "output", "reference"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _in_short(result: Evaluation) -> list[str]:
    """The few numbers that say most: one line each for the masked words and the bound, four columns of the texts."""
    parts = []
    if result.rows:
        small = {name: {key: row[key] for key in SMALL if key in row} for name, row in result.rows.items()}
        parts.append(table(small))
        parts += [judged] if (judged := judged_sentence(result.rows).replace("\n", "; ")) else []
    if result.reconstruction:
        restored = ", ".join(f"{row['accuracy']:.1f} % at {key} %" for key, row in result.reconstruction.items())
        parts.append(f"Masked words restored (without a source): {restored} corruption.")
    if result.nelbo:
        parts.append(nelbo_sentence(result.nelbo))
    return ["## The numbers in short", *parts] if parts else []


def _details(result: Evaluation) -> list[str]:
    """All that was measured, and what it takes to repeat it."""
    parts = []
    if result.rows:
        parts.append(f"## All metrics\n\n{CONVENTION}\n\n{table(result.rows)}")
    if result.reconstruction:
        parts.append(
            "## Reconstruction\n\nAccuracy on the corrupted places only, without a source; floor: always the most"
            " common word piece."
        )
        lines = ["| corruption | accuracy | floor | places |", "|---|---|---|---|"]
        lines += [
            f"| {key} % | {row['accuracy']:.1f} % | {row['floor']:.1f} % | {row['places']:,} |"
            for key, row in result.reconstruction.items()
        ]
        parts.append("\n".join(lines))
        lines = [
            f"- {key} %: {example['corrupted']}\n  - model: {example['restored']}\n  - true: {example['original']}"
            for key, row in result.reconstruction.items()
            for example in row["examples"]
        ]
        parts.append("\n".join(lines))
    if result.nelbo:
        parts.append(f"## NELBO\n\n{nelbo_lines(result.nelbo)}")
    if result.score:
        formula = "\n".join(f"    {line}" for line in result.score.formula().splitlines())
        parts.append(f"## How the score comes about\n\n{formula}")
    if result.examples:
        lines = [
            f"- source: {example['source']}\n  - reference: {example['reference']}\n  - model: {example['output']}"
            + "".join(f"\n  - sample: {sample}" for sample in example["samples"])
            for example in result.examples[:10]
        ]
        parts.append("## More examples\n\n" + "\n".join(lines))
    if result.notes and result.score:
        parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in result.notes))
    if values := {**({"split": result.split} if result.split else {}), **result.settings, **result.versions}:
        rows = "\n".join(f"| {name} | {value} |" for name, value in values.items())
        parts.append(f"## Settings and versions\n\n| | |\n|---|---|\n{rows}")
    return parts


def nelbo_sentence(nelbo: dict[str, float]) -> str:
    """The bound and its terms in words of a terminal."""
    return (
        f"NELBO {nelbo['nelbo_per_token']:.3f} nats per word piece, {nelbo['nelbo_per_word']:.3f} per word\n"
        f"  per word: reveal {nelbo['reveal_per_word']:.3f}, stay {nelbo['stay_per_word']:.3f}, length"
        f" {nelbo['length_per_word']:.3f}; perplexity at most {nelbo['perplexity_bound_per_word']:,.1f}"
    )


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
    if says_little(result.pairs):
        pairs = "1 pair" if result.pairs == 1 else f"{result.pairs} pairs"
        first = f"{score.points:.1f} of 100 from {pairs}: means little, and no verdict; take {FEW_PAIRS} pairs or more"
        return "\n".join([first, f"  {score.formula()}"])
    lines = [f"{score.points:.1f} of 100: {score.verdict}, level {score.level}", f"  {score.formula()}"]
    lines += [f"  missing for {text}" for text in score.missing]
    return "\n".join(lines)
