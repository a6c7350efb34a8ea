"""Rows of a Hugging Face dataset, from the hub or a local folder, with the checks that files get."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError, nearest
from ..machine.hub import require_hub
from .cache import fingerprint
from .pairs import Pair
from .reading import SOURCE_NAMES, STYLE_NAMES, TARGET_NAMES, ReadReport, checked_pair

VALIDATION_NAMES = ("validation", "valid", "dev", "val")


def load_splits(name: str, configuration: str | None, what: str, advice: str):
    """All splits of a dataset; a local folder needs no network.

    Raises:
        UserError: no network (within seconds), no such dataset, or one that needs a loading script.
    """
    if not Path(name).exists():
        require_hub(what, advice)
    import datasets

    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, configuration)
    except Exception as error:  # the library lets errors of several network libraries through
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"cannot load {name} ({type(error).__name__}: {reason}); {advice}") from None
    finally:
        if not bars:
            datasets.enable_progress_bars()


class HubRows:
    """One split as pairs, with the checks that files get.

    Args:
        split: a ``datasets.Dataset``.
        name: what messages call it.
        source_column, target_column: None looks for src or source, trg or target; without any such source column the
            rows are plain texts.
    """

    def __init__(self, split, name: str, source_column: str | None, target_column: str | None):
        self.name = name
        self.source = _find(
            split.column_names, source_column, SOURCE_NAMES, name, "source_column", target_column is not None
        )
        self.target = _find(split.column_names, target_column, TARGET_NAMES, name, "target_column")
        self.style = next(
            (
                column
                for column in split.column_names
                if column.lower() in STYLE_NAMES and column not in (self.source, self.target)
            ),
            None,
        )
        self.split = split.select_columns(
            [column for column in dict.fromkeys((self.source, self.target, self.style)) if column]
        )

    @property
    def size(self) -> int:
        """The size of the columns in bytes."""
        return self.split.data.nbytes

    @property
    def fingerprint(self) -> str:
        """A digest of columns and content; the library's own is not asked, since it may stay the same when the content
        changes.
        """
        digest = hashlib.sha256()
        for table in self.split.with_format("arrow").iter(batch_size=10_000):
            for batch in table.to_batches():
                digest.update(batch.serialize())
        return fingerprint(self.source, self.target, self.style, digest.digest())

    def stream(self, report: ReadReport) -> Iterator[Pair]:
        """The pairs; malformed rows are left out and reported."""
        usable, number = False, 0
        for rows in self.split.iter(batch_size=1000):
            for index, target in enumerate(rows[self.target]):
                number += 1
                # a text without a source passes the same checks as a pair with an empty one
                style = rows[self.style][index] if self.style and self.source else None
                pair = checked_pair(rows[self.source][index] if self.source else "", target, report, number, style)
                if pair is not None:
                    usable = True
                    yield pair if self.source else Pair(None, pair.target)
        if not usable:
            hint = f"; first problem: {report.bad_rows[0]}" if report.bad_rows else ""
            raise UserError(f"{self.name} holds no usable row{hint}: expected at least one")


def _find(
    columns: list[str], wanted: str | None, usual: tuple[str, ...], name: str, option: str, may_lack: bool = False
) -> str | None:
    folded = {column.lower(): column for column in reversed(columns)} | {column: column for column in columns}
    names = usual if wanted is None else (wanted, wanted.lower())
    found = next((folded[column] for column in names if column in folded), wanted)
    if found is None and may_lack:
        return None
    if found not in columns:
        what = (
            f"no column '{wanted}'{nearest(wanted, columns)}"
            if wanted is not None
            else f"no column {' or '.join(usual)}"
        )
        raise UserError(f"{name} has {what}: its columns are {', '.join(columns)[:200]}; name one with --{option}")
    return found
