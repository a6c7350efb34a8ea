"""glibc returns freed blocks of more than 32 MiB to the system, and every page of the next one has to be cleared
again, which costs time. A training step or a denoiser call makes and frees several such blocks (logits, gradients of
the word table).
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

TRIM, MMAP = -1, -3  # names of the two limits in glibc's malloc.h
OWN_LIMIT = 32 * 2**20  # where glibc's own, growing limit ends
NO_LIMIT = 2**30


def keep_freed_memory(keep: bool = True) -> bool:
    """Let this process keep freed blocks for its next step (``keep`` False: give them back, now and later). Returns
    whether it can.

    Saves some 5 % of a training step (docs/performance.md). Memory once used is given back at the end of the process,
    or by ``give_back_freed_memory``: blocks of ever new sizes leave gaps, and without that the process would grow. A
    user's own MALLOC_MMAP_THRESHOLD_ or MALLOC_TRIM_THRESHOLD_ is left alone.
    """
    if (library := _glibc()) is None:
        return False
    limit = NO_LIMIT if keep else OWN_LIMIT
    done = bool(library.mallopt(MMAP, limit)) and bool(library.mallopt(TRIM, 2 * limit - 1))
    if not keep:
        library.malloc_trim(0)
    return done


def give_back_freed_memory() -> None:
    """Return what is free now to the system: between pieces of work of different sizes."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc and its limits are ours to set."""
    if not sys.platform.startswith("linux") or {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & set(os.environ):
        return None
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim else None
    except (OSError, AttributeError):  # another C library, such as musl
        return None
