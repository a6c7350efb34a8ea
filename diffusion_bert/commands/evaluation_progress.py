"""What an evaluation says while it runs, and the journal by which a stopped one goes on."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..config.paths import shown
from ..machine.seeds import RANDOM_NUMBERS
from .progress import Progress
from .terminal import counted


def first_line(checkpoint: Path, count: int, split: str, max_samples: int | None, seed: int) -> str:
    """What is evaluated on what."""
    chosen = "" if max_samples is None else f", a random sample by seed {seed} (--max_samples {max_samples:,})"
    return f"Evaluating {shown(checkpoint)} on {counted(count, 'example')} of {split}{chosen}"


def progress_bars():
    """A callable (part, done, total) that shows how far each part is: count, time left, rate."""
    running: dict[str, Progress] = {}

    def progress(part: str, done: int, total: int) -> None:
        share = done / max(1, total)
        if part not in running:
            running[part] = Progress(part, begins_at=share if done < total else 0.0)
        bar = running[part]
        bar.update(share, f"{done:,} of {total:,}", bar.left(share), bar.pace(share, total))
        if done >= total:
            bar.close()

    return progress


def early_figures(tell):
    """A callable (part, result) that tells one line as soon as a short part is done; the tables come at the end."""

    def listener(part: str, result) -> None:
        if part == "reconstruction" and result.reconstruction:
            rows = result.reconstruction.items()
            shares = ", ".join(f"{row['accuracy']:.1f} % at {percent} %" for percent, row in rows)
            tell(f"Restored words by corruption: {shares}")
        if part == "nelbo" and result.nelbo:
            tell(f"NELBO {result.nelbo['nelbo_per_token']:.4f} nats per word piece")

    return listener


def journal_of(generator, pairs, mbr: int, path: Path, processes):
    """The journal at ``path``, where all texts go, or with several processes a part of it for each. None for plain
    texts.
    """
    if all(pair.source is None for pair in pairs):
        return None
    from ..evaluation import writing
    from ..evaluation.journal import Journal
    from ..machine.storage import versions

    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(repr((pair.source, pair.target, pair.style)).encode())
    options = {name: value for name, value in vars(generator.options).items() if name != "device"}
    job = {
        "weights": generator.model.weights_sha256,
        "task": generator.task,
        "pairs": digest.hexdigest(),
        "mbr": mbr,
        "chunk": writing.CHUNK,
        "random_numbers": RANDOM_NUMBERS,
        "share": [processes.rank, processes.size],
        **options,
        "versions": versions(),
    }
    if processes.size > 1:
        path = path.with_name(f"{path.stem}.{processes.rank}{path.suffix}")
    return Journal(path, job, writing.CHUNK)


def end_journal(journal, processes) -> None:
    """The report is written: the next evaluation starts over, and the parts of several processes go."""
    if journal is not None:
        processes.broadcast()  # not before the first process has written the whole
        journal.finish() if processes.size == 1 else journal.discard()
