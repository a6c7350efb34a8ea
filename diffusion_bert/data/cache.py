"""Large arrays on disk: written once under a fingerprint of what they were made from, memory-mapped ever after.

An entry is a folder with one raw file per array and ``entry.json``. It appears under its name only when it is whole,
its digests are checked whenever it is opened, and a damaged one is removed and made again. Of several processes that
want a new entry one makes it, and the others wait. Any entry, or the whole folder, may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FORMAT = 2  # raised when the files change their meaning
MAX_BYTES = 20e9  # beyond this the entries that were not used for longest are removed
INDEX = "entry.json"
_in_use: set[Path] = set()  # entries that this process has opened


class CacheUnwritable(Exception):
    """The cache folder cannot be written (it says why): work in memory instead."""


@dataclass
class Entry:
    """Memory-mapped, read-only arrays and some plain values."""

    folder: Path
    arrays: dict[str, np.ndarray]
    meta: dict


class EntryWriter:
    """Arrays that grow on disk."""

    def __init__(self, folder: Path):
        self.folder, self.files, self.types, self.digests = folder, {}, {}, {}

    def append(self, name: str, values: np.ndarray) -> None:
        """More values of the array ``name``; the first call decides its type."""
        if name not in self.files:
            self.files[name] = open(self.folder / f"{name}.bin", "wb")  # noqa: SIM115 (closed by finish or close)
            self.types[name], self.digests[name] = values.dtype, hashlib.sha256()
        values = np.ascontiguousarray(values, dtype=self.types[name])
        self.files[name].write(values)
        self.digests[name].update(values)

    def finish(self, meta: dict) -> None:
        """Flush everything to the disk and write the index."""
        arrays = {}
        for name, file in self.files.items():
            file.flush()
            os.fsync(file.fileno())
            arrays[name] = [self.types[name].str, file.tell(), self.digests[name].hexdigest()]
        self.close()
        (self.folder / INDEX).write_text(
            json.dumps({"format": FORMAT, "arrays": arrays, "meta": meta}), encoding="utf-8"
        )

    def close(self) -> None:
        for file in self.files.values():
            file.close()


class Cache:
    """A folder of entries.

    Args:
        folder: where; None is ``diffusion_bert`` in the user's cache folder ($XDG_CACHE_HOME, else ~/.cache).
    """

    def __init__(self, folder: str | Path | None = None):
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        self.folder = Path(folder or Path(base) / "diffusion_bert").expanduser()

    def get(self, name: str, build: Callable[[EntryWriter], dict]) -> Entry:
        """The entry ``name``; ``build`` writes its arrays and returns its plain values if it is not there yet, or
        damaged.

        Raises:
            CacheUnwritable: the folder cannot be written. Errors of ``build`` itself pass through, and leave nothing
                behind.
        """
        folder = self.folder / name
        entry = _open_if_whole(folder)
        if entry is None:
            with _one_at_a_time(self.folder / f".{name}.lock"):
                entry = _open_if_whole(folder) or self._make(name, build)  # made by another while this one waited?
            self.trim(keep=folder)
        return entry

    def _make(self, name: str, build: Callable[[EntryWriter], dict]) -> Entry:
        folder = self.folder / name
        temporary = self.folder / f".{name}.{uuid.uuid4().hex[:12]}.tmp"
        writer = None
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            writer = EntryWriter(temporary)
            writer.finish(build(writer))
            with contextlib.suppress(
                OSError
            ):  # another process was faster where there are no locks: its entry is as good
                os.rename(temporary, folder)
            return open_entry(folder)
        except OSError as error:
            raise CacheUnwritable(f"{self.folder}: {error.strerror or error}") from None
        finally:
            if writer is not None:
                writer.close()
            shutil.rmtree(temporary, ignore_errors=True)

    def trim(self, keep: Path | None = None, max_bytes: float | None = None) -> None:
        """Remove the entries that were not used for longest until the others fit (none that this process has opened:
        its workers will open them too), and what killed processes left a day ago.
        """
        with contextlib.suppress(OSError):
            entries = []
            for folder in self.folder.iterdir():
                with contextlib.suppress(OSError):
                    if (folder / INDEX).is_file() and not folder.name.startswith("."):
                        entries.append(
                            (
                                (folder / INDEX).stat().st_mtime,
                                sum(file.stat().st_size for file in folder.iterdir()),
                                folder,
                            )
                        )
                    elif folder.suffix == ".tmp" and folder.stat().st_mtime < time.time() - 86_400:
                        shutil.rmtree(folder, ignore_errors=True)
            total = sum(size for _, size, _ in entries)
            for _, size, folder in sorted(entries):
                if total > (MAX_BYTES if max_bytes is None else max_bytes) and folder != keep and folder not in _in_use:
                    shutil.rmtree(folder, ignore_errors=True)
                    total -= size


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Hold the lock of this name, which ends with its process; where there are no locks (a system, a file server)
    everyone goes on.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError, ImportError):
            import fcntl

            path.parent.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(open(path, "w"))
            # who still waits for it finds the entry, or makes it as well
            held.callback(lambda: path.unlink(missing_ok=True))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open_if_whole(folder: Path) -> Entry | None:
    """The entry, or None where there is none; a damaged one is removed."""
    try:
        return open_entry(folder)
    except ValueError:
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        pass  # not there
    return None


def open_entry(folder: Path) -> Entry:
    """Map the arrays of an entry and check their digests.

    Raises:
        OSError: no such entry.
        ValueError: damaged, or of another format.
    """
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise ValueError("another format")
        arrays = {}
        for name, (dtype, size, digest) in index["arrays"].items():
            path = folder / f"{name}.bin"
            if path.stat().st_size != size:
                raise ValueError("a file of another size")
            arrays[name] = np.memmap(path, dtype=dtype, mode="r").view(np.ndarray) if size else np.zeros(0, dtype=dtype)
            if hashlib.sha256(arrays[name]).hexdigest() != digest:
                raise ValueError("a file with other content")
        entry = Entry(folder, arrays, index["meta"])
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"damaged: {error}") from None
    with contextlib.suppress(OSError):
        os.utime(folder / INDEX)  # used now
    _in_use.add(folder)
    return entry


def fingerprint(*parts) -> str:
    """One digest of bytes, arrays and plain values."""
    digest = hashlib.sha256(str(FORMAT).encode())
    for part in parts:
        part = (
            np.ascontiguousarray(part)
            if isinstance(part, np.ndarray)
            else part
            if isinstance(part, bytes)
            else repr(part).encode()
        )
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:32]


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest() if hasattr(hashlib, "file_digest") else _digest_of(file)


def _digest_of(file) -> bytes:  # Python 3.10
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.digest()
