"""The results file of benchmarks/quality/ablation.py, which several processes may share, and the tables made from
it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diffusion_bert.text import metrics

COLUMNS = {
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU",
    "overlap": "overlap",
    "dist1": "dist-1",
    "repetition": "repeats",
    "valid": "valid %",
}


def read_results(path: Path) -> dict[str, dict]:
    """Finished rows by key; a line cut off by a crash is dropped."""
    records = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
            records[record["key"]] = record
        except (ValueError, KeyError, TypeError):
            continue
    return records


def append_result(path: Path, record: dict) -> None:
    """One more line; after a half line, on a line of its own."""
    whole = not path.is_file() or not path.stat().st_size or path.read_bytes().endswith(b"\n")
    with open(path, "a", encoding="utf-8") as file:
        file.write(("" if whole else "\n") + json.dumps(record) + "\n")


@contextlib.contextmanager
def claimed(results: Path, key: str) -> Iterator[bool]:
    """Whether this process may train the row ``key``; False while another process does. The system's lock on a file: it
    ends with its process, and where there are no such locks everyone may.
    """
    path = results.with_name(f"{results.name}.{key}.claim")
    with open(path, "w", encoding="utf-8") as file:
        with contextlib.suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)  # who opened it meanwhile reads the results after locking, and finds the row


def paired(ours: list[dict], base: list[dict], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(differences, words): a score of ours minus that of the base for each pair of sentences that both have written,
    averaged over the seeds first, and the words of its target; records of the same seeds in the same order.
    """
    differences, words = [], {}
    for one, two in zip(ours, base):
        first, second = (dict(zip(record["pairs"], record["examples"][name])) for record in (one, two))
        differences.append({index: value - second[index] for index, value in first.items() if index in second})
        words |= dict(zip(two["pairs"], two["examples"]["words"]))
    common = sorted(set.intersection(*map(set, differences)))
    means = np.array([np.mean([values[index] for values in differences]) for index in common])
    return means, np.array([words[index] for index in common], dtype=float)


def difference(ours: list[dict], base: list[dict], name: str) -> str:
    """Mean paired difference of a score with its interval over the sentences; for ``nats`` per word of the targets."""
    values, words = paired(ours, base, name)
    if name != "nats":
        low, high = metrics.bootstrap_interval(list(values))
        return f"{values.mean():+.2f} ({low:+.2f} to {high:+.2f})"
    draws = np.random.default_rng(0).integers(len(words), size=(1000, len(words)))
    low, high = np.percentile(values[draws].sum(1) / words[draws].sum(1), [2.5, 97.5])
    return f"{values.sum() / words.sum():+.3f} ({low:+.3f} to {high:+.3f})"


def table(title: str, rows: list[tuple[str, list[dict]]]) -> str:
    """Markdown of one group: (name, one record per seed) each; the first row is the baseline. A NELBO of several seeds
    is followed by each.
    """
    shown = [name for name in COLUMNS if all(name in record["examples"] for _, records in rows for record in records)]
    head = ["row", "seeds", "steps", "NELBO", "diff. per word", "ROUGE-L diff.", *(COLUMNS[name] for name in shown)]
    lines = [f"**{title}**", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    base = {record["seed"]: record for record in rows[0][1]}
    for number, (name, records) in enumerate(rows):
        own = [record for record in records if record["seed"] in base]
        others = [base[record["seed"]] for record in own]
        each = f" ({', '.join(format(record['nelbo'], '.3f') for record in records)})" if len(records) > 1 else ""
        cells = [
            name,
            str(len(records)),
            f"{np.mean([r['steps'] for r in records]):,.0f}",
            f"{np.mean([r['nelbo'] for r in records]):.3f}{each}",
        ]
        cells += [difference(own, others, "nats"), difference(own, others, "rouge_l")] if number and own else ["", ""]
        cells += [f"{np.mean([np.mean(record['examples'][score]) for record in records]):.2f}" for score in shown]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
