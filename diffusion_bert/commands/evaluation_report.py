"""What an evaluation shows on the terminal, and the files it leaves."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from ..config.paths import quoted, script, shown
from ..config.schema import MAP_STEPS
from ..errors import UserError
from .terminal import counted, draw_table, is_terminal, say, say_command, terminal_width

OUTPUT_FILES = ("{}.json", "{}.md", "{}.png", "{}.jsonl", "{}.png")
MAP, GENERATIONS, EVALUATION = "confidence_map", "generations", "evaluation"
NARROWEST_CELL = 7


def report_stem(
    folder: Path, checkpoint: Path, parts: Sequence[str], pairs: int, test_file: str | None, task: str | None
) -> str:
    """What the names of a report's files begin with, after "evaluation": the test file or the task that is measured;
    where a fuller report of the same checkpoint lies under that name, also the ``parts`` or the number of ``pairs``.
    """
    measured = Path(test_file).stem if test_file else task
    stem = EVALUATION if measured is None else f"{EVALUATION}_{re.sub('[^A-Za-z0-9.-]+', '-', measured)}"
    try:
        report = folder / f"{stem}.json"
        before = json.loads(report.read_text(encoding="utf-8"))
        if report.stat().st_mtime < checkpoint.stat().st_mtime or Path(before["checkpoint"]).name != checkpoint.name:
            return stem
        names = {"reconstruction": "reconstruction", "generation": "rows", "nelbo": "nelbo"}
        parts_before = [part for part, name in names.items() if before.get(name)]
        if set(parts) < set(parts_before):
            return "_".join([stem, *parts])
        fuller = list(parts) == parts_before and before["pairs"] > pairs
        return f"{stem}_{pairs}_pairs" if fuller else stem
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return stem


def report_files(folder: Path, stem: str) -> list[Path]:
    """Where the files of a report lie: JSON, Markdown, picture, texts and the map of one of them."""
    suffix = stem.removeprefix(EVALUATION)
    names = (stem, stem, stem, GENERATIONS + suffix, MAP + suffix)
    return [folder / pattern.format(name) for pattern, name in zip(OUTPUT_FILES, names)]


def write_report(
    result, checkpoint: Path, folder: Path, generator, stem: str = EVALUATION, of_what: dict | None = None
) -> list[Path]:
    """JSON, Markdown, picture, and (if anything was generated) every text that was and how one was written; the files
    written. ``of_what`` goes into the JSON: more about the data.
    """
    from ..evaluation.confidence_map import follow, plot_confidence
    from ..evaluation.figures import plot_evaluation
    from ..evaluation.report import markdown
    from ..machine.storage import to_plain, write_atomically

    paths = report_files(folder, stem)
    plain = {**result.to_dict(), "checkpoint": str(checkpoint), **(of_what or {})}
    write_atomically(paths[0], lambda file: file.write((json.dumps(to_plain(plain), indent=2) + "\n").encode()))
    write_atomically(
        paths[1], lambda file: file.write(markdown(result, f"Evaluation of {checkpoint}", str(checkpoint)).encode())
    )
    plot_evaluation(result, paths[2])
    if not result.generations:
        return paths[:3]
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in result.generations)
    write_atomically(paths[3], lambda file: file.write(lines.encode()))
    for example in result.examples:
        with contextlib.suppress(UserError):  # too long to be one source
            plot_confidence(follow(generator, example["source"], MAP_STEPS), paths[4])
            return paths
    return paths[:4]


def show(result, checkpoint: Path, paths: list[Path], quiet: bool, knows_data: bool) -> None:
    """Print what matters; with ``quiet`` only the score. ``knows_data``: the checkpoint says where the data is that
    it may train on.
    """
    from ..evaluation.report import nelbo_sentence, score_lines

    if not quiet:
        of = f"{counted(result.pairs, 'example')} of {result.split}"
        say(f"\nCheckpoint {shown(checkpoint)}, task {result.task}, {of}")
        for note in result.notes:
            say(f"  {note}")
        _show_reconstruction(result)
        _show_generation(result)
        if result.nelbo:
            say(nelbo_sentence(result.nelbo))
    if result.score:
        say(f"\nScore: {score_lines(result)}", 4)
    say(f"\nReport in {shown(paths[0].parent)}: {', '.join(path.name for path in paths)}")
    if not quiet:
        say_command("Next:  ", _next_command(result, checkpoint, knows_data))


def _show_reconstruction(result) -> None:
    if result.reconstruction:
        say("\nReconstruction (accuracy on corrupted places, no source)")
    for percent, row in result.reconstruction.items():
        say(f"  {percent} % corrupted: {row['accuracy']:.1f} % restored (most common word piece: {row['floor']:.1f} %)")
        for example in row["examples"][:1]:
            say(f"      {example['corrupted']}\n   -> {example['restored']}", 3)


def _show_generation(result) -> None:
    from ..evaluation.report import LEGEND, judged_sentence, plain_table

    if not result.rows:
        return
    say("\nConditional generation")
    if is_terminal():
        _draw_metrics(result.rows)
    else:
        say(plain_table(result.rows))
    say(LEGEND)
    if judged := judged_sentence(result.rows):
        say(judged)
    if "two_frames" in result.rows["one sample"]:
        say(
            f"valid %: paraphrases by the grammar; {result.rows['one sample']['two_frames']:.1f} % of the"
            " sources get two different frames in three samples"
        )
    for example in result.examples[:3]:
        say(f"  source     {example['source']}\n  model      {example['output']}")
        for sample in example["samples"]:
            say(f"  sample     {sample}")
        say(f"  reference  {example['reference']}\n")


def _draw_metrics(rows: dict[str, dict]) -> None:
    """The metrics that matter most downwards and the systems across, on a terminal; so many systems side by side as
    there is room.
    """
    from ..evaluation.report import cell, main_columns

    room = max(1, (terminal_width() - 12) // (NARROWEST_CELL + 4))
    systems = list(rows)
    for start in range(0, len(systems), room):
        chosen = systems[start : start + room]
        lines = [[title, *(cell(key, rows[name], ()) for name in chosen)] for key, title in main_columns(rows)]
        draw_table(["", *chosen], lines)


def _next_command(result, checkpoint: Path, knows_data: bool) -> str:
    from ..evaluation.score import says_little

    if result.score is None or says_little(result.pairs) or result.score.verdict == "Good":
        return f"{script('interactive_generation')} --checkpoint {quoted(checkpoint)}"
    given = f" --checkpoint {quoted(checkpoint)} --auto{'' if knows_data else ' --data_dir DIR'}"
    return script("continue_training") + given
