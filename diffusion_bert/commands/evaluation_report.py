"""What an evaluation shows on the terminal, and the files it leaves."""

from __future__ import annotations

import contextlib
import json
import shlex
from pathlib import Path

from ..config.schema import MAP_STEPS
from ..errors import UserError

OUTPUT_FILES = ("evaluation.json", "evaluation.md", "evaluation.png", "generations.jsonl", "confidence_map.png")


def write_report(result, checkpoint: Path, folder: Path, generator) -> list[Path]:
    """JSON, Markdown, picture, and (if anything was generated) every text that was and how one was written; the files
    written.
    """
    from ..evaluation.confidence_map import follow, plot_confidence
    from ..evaluation.figures import plot_evaluation
    from ..evaluation.report import markdown
    from ..machine.storage import to_plain, write_atomically

    paths = [folder / name for name in OUTPUT_FILES]
    plain = {**result.to_dict(), "checkpoint": str(checkpoint)}
    write_atomically(paths[0], lambda file: file.write((json.dumps(to_plain(plain), indent=2) + "\n").encode()))
    write_atomically(
        paths[1], lambda file: file.write(markdown(result, f"Evaluation of {checkpoint}", str(checkpoint)).encode())
    )
    plot_evaluation(result.reconstruction, result.rows, paths[2])
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
    from ..evaluation.report import LEGEND, judged_sentence, nelbo_sentence, plain_table, score_lines

    if not quiet:
        print(f"\nCheckpoint {checkpoint}, task {result.task}, {result.pairs:,} examples of {result.split}")
        for note in result.notes:
            print(f"  {note}")
        if result.reconstruction:
            print("\nReconstruction (accuracy on corrupted places, no source)")
        for percent, row in result.reconstruction.items():
            print(
                f"  {percent} % corrupted: {row['accuracy']:.1f} % restored (most common word piece:"
                f" {row['floor']:.1f} %)"
            )
            for example in row["examples"][:1]:
                print(f"      {example['corrupted']}\n   -> {example['restored']}")
        if result.rows:
            print(f"\nConditional generation\n{plain_table(result.rows)}\n{LEGEND}")
            if judged := judged_sentence(result.rows):
                print(judged)
            if "two_frames" in result.rows["one sample"]:
                print(
                    f"valid %: paraphrases by the grammar; {result.rows['one sample']['two_frames']:.1f} % of the"
                    " sources get two different frames in three samples"
                )
            for example in result.examples[:3]:
                print(f"  source     {example['source']}\n  model      {example['output']}")
                print("\n".join(f"  sample     {sample}" for sample in example["samples"]))
                print(f"  reference  {example['reference']}\n")
        if result.nelbo:
            print(nelbo_sentence(result.nelbo))
    if result.score:
        print(f"\nScore: {score_lines(result)}")
    print(f"\nReport: {', '.join(map(str, paths))}")
    if not quiet:
        print(f"Next:  {_next_command(result, checkpoint, knows_data)}")


def _next_command(result, checkpoint: Path, knows_data: bool) -> str:
    if result.score is None or result.score.verdict == "Good":
        return f"python interactive_generation.py --checkpoint {shlex.quote(str(checkpoint))}"
    return (
        f"python continue_training.py --checkpoint {shlex.quote(str(checkpoint))}"
        f" --auto{'' if knows_data else ' --data_dir DIR'}"
    )
