"""``evaluate_trained_model.py``: measure a checkpoint and write the report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..config.fields import build
from ..config.paths import checkpoint_file, origin, report_folder
from ..config.schema import EVALUATION_PARTS, SamplingConfig
from ..errors import UserError, nearest
from .cli import Parser, whole_number
from .evaluation_progress import early_figures, end_journal, first_line, journal_of, progress_lines
from .evaluation_report import show, write_report


def evaluation_parser() -> Parser:
    """The flags of an evaluation."""
    parser = Parser(
        "Evaluate a checkpoint: reconstruction, conditional generation beside its floors, NELBO terms, score."
    )
    what = parser.add_argument_group("what to evaluate")
    what.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="checkpoint file (default: the newest best_model.pt below runs/, else one that came with the program)",
    )
    what.add_argument("--task_name", metavar="NAME", help="which task of a checkpoint of several (default: its first)")
    what.add_argument("--split", metavar="valid|test", help="which split of the checkpoint's data (default: test)")
    what.add_argument(
        "--data_dir",
        metavar="DIR",
        help=(
            "where the checkpoint's data is now: a folder as training took it (of several tasks: with one for each,"
            " or that of the task alone)"
        ),
    )
    what.add_argument("--test_file", metavar="FILE", help="evaluate on this file instead (.jsonl, .csv, .tsv or .txt)")
    what.add_argument(
        "--examples",
        metavar="FILE",
        help="sentences for the reconstruction part, one per line, instead of held-out targets",
    )
    what.add_argument(
        "--max_samples",
        type=whole_number,
        metavar="N",
        help="evaluate a random sample of this many rows (default: all)",
    )
    what.add_argument(
        "--mbr",
        type=whole_number,
        metavar="N",
        help="also choose the best of N samples by minimum Bayes risk (default: off)",
    )
    what.add_argument(
        "--parts",
        type=_parts,
        metavar="NAMES",
        help=f"some of {','.join(EVALUATION_PARTS)}, with commas (default: all; the score needs the first two)",
    )
    what.add_argument(
        "--bertscore",
        metavar="MODEL",
        help="add BERTScore by this model, a directory or hub id (microsoft/deberta-xlarge-mnli)",
    )
    what.add_argument(
        "--output_dir",
        metavar="DIR",
        help=(
            "where the report goes (default: beside the checkpoint; of one that came with the program:"
            " runs/evaluation_NAME)"
        ),
    )
    parser.add_settings(SamplingConfig, leave_out=("num_samples", "best_of"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and evaluate."""
    given = evaluation_parser().parse(sys.argv[1:] if argv is None else argv)
    if given.get("split", "test") not in ("valid", "test"):
        raise UserError(f"split is '{given['split']}': expected valid or test")
    named = given.pop("checkpoint", None)
    checkpoint = checkpoint_file(named)
    if named is None:
        print(f"{origin(checkpoint)}{checkpoint}")
    evaluate_checkpoint(checkpoint, **given)
    return 0


def _parts(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in EVALUATION_PARTS:
            raise argparse.ArgumentTypeError(
                f"'{name}' is none of {', '.join(EVALUATION_PARTS)}{nearest(name, EVALUATION_PARTS)}"
            )
    return tuple(name for name in EVALUATION_PARTS if name in names)


def evaluate_checkpoint(
    checkpoint: Path,
    task_name: str | None = None,
    split: str = "test",
    data_dir: str | None = None,
    test_file: str | None = None,
    examples: str | None = None,
    max_samples: int | None = None,
    mbr: int = 1,
    parts: Sequence[str] = EVALUATION_PARTS,
    bertscore: str | None = None,
    output_dir: str | None = None,
    quiet: bool = False,
    **sampling,
):
    """Evaluate one checkpoint, print the tables and write the report; returns the ``Evaluation``."""
    from ..data.reading import read_file
    from ..evaluation.bertscore import BertScorer
    from ..evaluation.parts import evaluate
    from ..generation.generator import DiffusionTextGenerator
    from ..machine.processes import join, own_device
    from ..machine.storage import versions

    options = build(SamplingConfig, sampling, "--")
    processes = join(options.device)
    generator = DiffusionTextGenerator.from_checkpoint(
        checkpoint, **{**vars(options), "device": own_device(options.device)}
    )
    model = generator.model
    scorer = BertScorer(bertscore, model.device) if bertscore else None
    notes: list[str] = []
    name = task_name or model.skills.first
    if name not in model.skills.tasks:
        raise UserError(
            f"task_name is '{name}': this checkpoint knows"
            f" {', '.join(model.skills.tasks)}{nearest(name, model.skills.tasks)}"
        )
    if options.style is not None:
        model.skills.number(name, options.style)  # refuses one that the model does not know
    pairs = chosen_pairs(model.config, split, data_dir, test_file, max_samples, options.seed, notes, name)
    sentences = [pair.target for pair in read_file(examples).pairs] if examples else None
    folder = report_place(Path(output_dir) if output_dir else report_folder(checkpoint))
    generator.task = name
    quiet, shown = quiet or not processes.is_main, split if test_file is None else str(test_file)
    if not quiet:
        print(first_line(checkpoint, len(pairs), shown, max_samples, options.seed), flush=True)
    journal = journal_of(generator, pairs, mbr, folder, processes) if "generation" in parts else None
    if journal and journal.remark and not quiet:
        print(journal.remark, flush=True)
    task, listener = anchored_task(model, name, pairs), (lambda part, result: None) if quiet else early_figures
    progress = progress_lines() if processes.is_main else None
    result = evaluate(generator, pairs, mbr, sentences, progress, task, parts, scorer, journal, processes, listener)
    if note := model.config.data.license_note:
        notes.insert(0, f"licence of the training data: {note}")
    result.notes[:0] = notes
    result.split, result.versions = shown, versions()
    if processes.is_main:
        show(result, checkpoint, write_report(result, checkpoint, folder, generator), quiet, knows_data(model.config))
    end_journal(journal, processes)
    return result


def knows_data(config) -> bool:
    """Whether the settings of a checkpoint say where data for it is."""
    data = config.data
    return bool(data.data_dir or data.train_file or data.dataset_name) or data.task_name == "sample"


def report_place(folder: Path) -> Path:
    """The folder of the report, made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}; choose another --output_dir") from None
    return folder


def anchored_task(model, name: str, pairs) -> str:
    """The task whose anchor the score takes. It belongs to the task's own data, and the grammar of the sample knows no
    other sentences than its own: anything else is ``custom``.
    """
    data = model.config.data
    own_data = data.train_file or data.dataset_name or (name == "sample" and not from_grammar(pairs))
    return "custom" if own_data else name


def chosen_pairs(
    config,
    split: str,
    data_dir: str | None,
    test_file: str | None,
    max_samples: int | None,
    seed: int,
    notes: list[str],
    task: str | None = None,
):
    """The pairs to evaluate on: a file, or a split of the checkpoint's data (of one ``task``); all rows or a seeded
    sample.
    """
    import dataclasses

    from ..data.skills import Skills
    from ..data.sources import read_pairs
    from ..data.splits import load_pairs, one_task, take_sample

    if test_file:
        return take_sample(read_pairs(test_file, config.data, notes), max_samples, seed)
    data = dataclasses.replace(config.data, max_samples=None)
    if data_dir:
        data = dataclasses.replace(
            data, data_dir=data_dir, train_file=None, valid_file=None, test_file=None, dataset_name=None
        )
    if "," in data.task_name:
        task = task or Skills.of(data.task_name).first
        alone = data_dir and not (Path(data_dir) / task).is_dir()  # the folder of this task itself
        data = dataclasses.replace(one_task(data, task), **({"data_dir": data_dir} if alone else {}))
    try:
        splits = load_pairs(data, config.training.seed)
    except UserError as error:
        if data.data_dir or data.train_file or data.dataset_name:
            raise
        raise UserError(
            f"this checkpoint does not say where its data lies ({error}): give --test_file FILE or --data_dir DIR"
        ) from None
    notes += splits.notes
    return take_sample(splits.valid if split == "valid" else splits.test, max_samples, seed)


def from_grammar(pairs) -> bool:
    """Whether all these pairs are sentences of the bundled grammar."""
    from ..data.grammar import Grammar

    grammar = Grammar.load()
    return all(pair.source is not None and grammar.parse(pair.source) is not None for pair in pairs)
