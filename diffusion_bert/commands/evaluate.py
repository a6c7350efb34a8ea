"""``evaluate_trained_model.py``: measure a checkpoint and write the report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..config.fields import build
from ..config.paths import (
    bundled_test_set,
    checkpoint_file,
    is_bundled,
    origin,
    passed_over,
    report_folder,
    shown,
    state_remark,
)
from ..config.schema import EVALUATION_PARTS, SamplingConfig
from ..errors import UserError, nearest
from ..machine.hub import local_copy
from .evaluation_data import chosen_pairs, from_grammar
from .evaluation_flags import JUDGES, SAMPLER_ALONE, evaluation_parser
from .evaluation_progress import early_figures, end_journal, first_line, journal_of, progress_bars
from .evaluation_report import report_files, report_stem, show, write_report
from .terminal import say


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and evaluate."""
    given = evaluation_parser().parse(sys.argv[1:] if argv is None else argv)
    if given.get("split", "test") not in ("valid", "test"):
        raise UserError(f"split is '{given['split']}': expected valid or test")
    named = given.pop("checkpoint", None)
    checkpoint = checkpoint_file(local_copy(named))
    if named is None:
        say(f"{origin(checkpoint)}{shown(checkpoint)}")
        for line in passed_over(checkpoint):
            say(line)
    if state := state_remark(checkpoint):
        say(f"({state})")
    evaluate_checkpoint(checkpoint, **given)
    return 0


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
    output_dir: str | None = None,
    quiet: bool = False,
    **models_and_sampling,
):
    """Evaluate one checkpoint, print the tables and write the report; returns the ``Evaluation``.
    ``models_and_sampling``: some of JUDGES, and sampling options.
    """
    from ..data.reading import read_file
    from ..evaluation.parts import evaluate
    from ..generation.generator import DiffusionTextGenerator
    from ..machine.processes import join, own_device
    from ..machine.storage import versions

    options = build(SamplingConfig, SAMPLER_ALONE | models_and_sampling, "--")
    processes = join(options.device)
    tell = say if processes.is_main and not quiet else lambda line: None
    tell("Loading the model and its data ...")
    options = {**vars(options), "device": own_device(options.device)}
    generator = DiffusionTextGenerator.from_checkpoint(checkpoint, **options)
    model, notes = generator.model, []
    judges = judges_of(models_and_sampling, model.device)
    generator.task = name = _chosen_task(model, task_name, generator.options.style)
    ours = data_dir is None and test_file is None and is_bundled(checkpoint) and not _knows_data(model)
    if ours and bundled_test_set() is not None:
        test_file, examples = _bundled_test_set(notes, examples)
    pairs = chosen_pairs(model.config, split, data_dir, test_file, max_samples, generator.options.seed, notes, name)
    sentences = [pair.target for pair in read_file(examples).pairs] if examples else None
    done = [part for part in parts if part != "generation" or any(pair.source is not None for pair in pairs)]
    folder = _folder_for(output_dir, checkpoint)
    stem = report_stem(folder, checkpoint, done, len(pairs), test_file, None if name == model.skills.first else name)
    measured = split if test_file is None else shown(test_file)
    tell(first_line(checkpoint, len(pairs), measured, max_samples, generator.options.seed))
    place = report_files(folder, stem)[3]
    journal = journal_of(generator, pairs, mbr, place, processes) if "generation" in done else None
    if journal and journal.remark:
        tell(journal.remark)
    task, progress = _anchored_task(model, name, pairs, ours), progress_bars() if processes.is_main else None
    result = evaluate(
        generator, pairs, mbr, sentences, progress, task, parts, judges, journal, processes, early_figures(tell)
    )
    result.split, result.versions = measured, versions()
    result.notes[:0] = _licence_and_age(model) + notes
    if processes.is_main:
        paths = write_report(result, checkpoint, folder, generator, stem, {"data_dir": data_dir})
        show(result, checkpoint, paths, quiet, _knows_data(model))
    end_journal(journal, processes)
    return result


def judges_of(models: dict, device) -> list:
    """The judges that ``models`` names, by the keys of JUDGES."""
    from ..evaluation import BertScorer, FluencyJudge, MeaningJudge

    kinds = dict(zip(JUDGES, (BertScorer, FluencyJudge, MeaningJudge), strict=True))
    return [kind(models[key], device) for key, kind in kinds.items() if models.get(key)]


def _anchored_task(model, name: str, pairs, ours: bool) -> str:
    """The task whose anchor the score takes. It belongs to the task's own data, and the grammar of the sample knows no
    other sentences than its own: anything else, and ``ours``, is ``custom``.
    """
    data = model.config.data
    own_data = ours or data.train_file or data.dataset_name or (name == "sample" and not from_grammar(pairs))
    return "custom" if own_data else name


def _licence_and_age(model) -> list[str]:
    """What is to be known of a checkpoint before its figures."""
    licence = model.config.data.license_note
    return [
        *([f"licence of the training data: {licence}"] if licence else []),
        *filter(None, [untrained_remark(model)]),
    ]


def _chosen_task(model, task_name: str | None, style: str | None) -> str:
    """The task that is meant; refused where the model does not know it, or not in that style."""
    name, tasks = task_name or model.skills.first, model.skills.tasks
    if name not in tasks:
        raise UserError(f"task_name is '{name}': this checkpoint knows {', '.join(tasks)}{nearest(name, tasks)}")
    if style is not None:
        model.skills.number(name, style)
    return name


def _knows_data(model) -> bool:
    """Whether a checkpoint says where its data is."""
    data = model.config.data
    return bool(data.data_dir or data.train_file or data.dataset_name) or data.task_name == "sample"


def _bundled_test_set(notes: list[str], examples: str | None) -> tuple[str, str]:
    """The test file and sentences that came with the program, with a note."""
    pairs, sentences = bundled_test_set()
    notes.append(
        "the data of this checkpoint did not come with it: measured on a small held-out set of our own writing"
        f" ({shown(pairs)}); --test_file or --data_dir takes other data"
    )
    return str(pairs), examples or str(sentences)


def untrained_remark(model) -> str:
    """What is to be known of a checkpoint that was saved before the first step, or nothing."""
    if model.metrics.get("step", 1) != 0:
        return ""
    what = "is its parent as it was" if model.parent else "has learned nothing yet"
    return f"this checkpoint was saved at step 0: it {what}"


def _folder_for(output_dir: str | None, checkpoint: Path) -> Path:
    """Where the report goes; made if need be."""
    folder = Path(output_dir) if output_dir else report_folder(checkpoint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}; choose another --output_dir") from None
    return folder
