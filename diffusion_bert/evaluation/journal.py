"""generations.jsonl as it grows: one line per source, appended in whole chunks, so that a killed evaluation goes on
where it was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..machine.storage import append_safely, to_plain, write_atomically


class Journal:
    """The records of an evaluation, in memory and, if there is a ``path``, on the disk as well.

    Beside the file lies NAME.job.json while the evaluation runs: what the texts depend on, and the seconds spent. The
    records of the same job are taken over; those of another are started over.

    Args:
        path: the .jsonl file, or None.
        job: what the texts depend on, in plain types.
        chunk: records are appended so many at a time (the last time fewer), and only whole chunks are taken over.
    """

    def __init__(self, path: Path | None = None, job: dict | None = None, chunk: int = 1):
        self.path, self.job = path, json.loads(json.dumps(to_plain(job or {})))
        self.records: list[dict] = []
        self.seconds: dict[str, float] = {}
        self.remark = ""  # what became of a file that was there
        if path is not None:
            self.note = path.with_name(f"{path.name}.job.json")
            self._take_over(chunk)

    def append(self, records: Sequence[dict], seconds: dict[str, float]) -> None:
        """One chunk more, on the disk before this returns; ``seconds`` it took, by the way of writing."""
        self.records += records
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value
        if self.path is None:
            return
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        append_safely(self.path, lines, "free some space, then the same command goes on")
        self._write_note()

    def finish(self) -> None:
        """The evaluation is complete: the next one starts over."""
        if self.path is not None:
            self.note.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the file, whose records are elsewhere now."""
        if self.path is not None:
            self.finish()
            self.path.unlink(missing_ok=True)

    def _take_over(self, chunk: int) -> None:
        try:
            before = json.loads(self.note.read_text(encoding="utf-8"))
            job, seconds = before["job"], before["seconds"]
        except (OSError, ValueError, KeyError, TypeError):
            job = seconds = None
        if job == self.job and self.path.is_file():
            records = self._whole_records()
            self.records, self.seconds = records[: len(records) - len(records) % chunk], seconds
            self.remark = f"going on after {len(self.records):,} sources of {self.path}" if self.records else ""
        elif job is not None and self.path.is_file():
            names = [name for name in self.job if job.get(name) != self.job[name]] if isinstance(job, dict) else []
            self.remark = f"{self.path} was begun with another {', '.join(names) or 'job'}: started over"
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in self.records)
        write_atomically(self.path, lambda file: file.write(text.encode()))
        self._write_note()

    def _whole_records(self) -> list[dict]:
        records = []
        for line in self.path.read_bytes().split(b"\n")[:-1]:  # what follows the last line's end was cut off
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def _write_note(self) -> None:
        text = json.dumps({"job": self.job, "seconds": self.seconds}, indent=2) + "\n"
        write_atomically(self.note, lambda file: file.write(text.encode()))
