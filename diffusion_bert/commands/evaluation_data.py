"""What a checkpoint is evaluated on."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError


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
    """The pairs to evaluate on: those of ``all_pairs``, or a seeded sample of them."""
    from ..data.splits import take_sample

    return take_sample(all_pairs(config, split, data_dir, test_file, notes, task), max_samples, seed)


def all_pairs(
    config, split: str, data_dir: str | None, test_file: str | None, notes: list[str], task: str | None = None
):
    """The rows of a file, or of a split of the checkpoint's data (of one ``task``)."""
    import dataclasses

    from ..data.skills import Skills
    from ..data.sources import read_pairs
    from ..data.splits import load_pairs, one_task

    if test_file:
        return read_pairs(test_file, config.data, notes)
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
    notes += [note for note in splits.notes if split == "test" or "stands in for it" not in note]
    return splits.valid if split == "valid" else splits.test


def from_grammar(pairs) -> bool:
    """Whether all these pairs are sentences of the bundled grammar."""
    from ..data.grammar import Grammar

    grammar = Grammar.load()
    return all(pair.source is not None and grammar.parse(pair.source) is not None for pair in pairs)
