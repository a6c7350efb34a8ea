"""What an evaluation says while it runs, and the journal by which a stopped one goes on."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

INTERVAL = 30.0  # seconds between two lines of progress in a log


def first_line(checkpoint: Path, count: int, split: str, max_samples: int | None, seed: int) -> str:
    """What is evaluated on what."""
    chosen = "" if max_samples is None else f", a random sample by seed {seed} (--max_samples {max_samples:,})"
    return f"Evaluating {checkpoint} on {count:,} examples of {split}{chosen}"


def progress_lines():
    """A callable (part, done, total): a bar per part on a terminal, else a plain line on stderr now and then."""
    return _bars() if sys.stderr.isatty() else _lines()


def _bars():
    from tqdm import tqdm

    bars: dict[str, tqdm] = {}

    def progress(part: str, done: int, total: int) -> None:
        if part not in bars:
            bars[part] = tqdm(total=total, desc=part, unit="source", dynamic_ncols=True)
        bar = bars[part]
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return progress


def _lines(clock=time.monotonic):
    begun, said = {}, {"at": clock()}

    def progress(part: str, done: int, total: int) -> None:
        now = clock()
        start, first = begun.setdefault(part, (said["at"], 0))
        if now - said["at"] < INTERVAL:
            return
        said["at"] = now
        rate = (done - first) / max(now - start, 1e-9)
        left = (total - done) / max(rate, 1e-9) / 60
        print(
            f"{part}: {done:,} of {total:,}, {rate:.2f} a second, {left:.0f} minutes left", file=sys.stderr, flush=True
        )

    return progress


def early_figures(part: str, result) -> None:
    """One line as soon as a short part is done; the tables come at the end."""
    if part == "reconstruction" and result.reconstruction:
        shares = ", ".join(f"{row['accuracy']:.1f} % at {percent} %" for percent, row in result.reconstruction.items())
        print(f"Restored words by corruption: {shares}", flush=True)
    if part == "nelbo" and result.nelbo:
        print(f"NELBO {result.nelbo['nelbo_per_token']:.4f} nats per word piece", flush=True)


def journal_of(generator, pairs, mbr: int, folder: Path, processes):
    """The journal in the folder of the report: generations.jsonl, or with several processes a part of it for each. None
    for plain texts.
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
        "share": [processes.rank, processes.size],
        **options,
        "versions": versions(),
    }
    name = "generations.jsonl" if processes.size == 1 else f"generations.{processes.rank}.jsonl"
    return Journal(folder / name, job, writing.CHUNK)


def end_journal(journal, processes) -> None:
    """The report is written: the next evaluation begins anew, and the parts of several processes go."""
    if journal is not None:
        processes.broadcast()  # not before the first process has written the whole
        journal.finish() if processes.size == 1 else journal.discard()
