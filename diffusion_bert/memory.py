"""A habit of the C library that costs time: blocks of more than 32 MiB go back to the system when they are freed, and every page of the next one
has to be cleared again. A training step or a denoiser call makes and frees several such blocks (logits, gradients of the word table)."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM, MMAP = -1, -3  # names of the two limits in glibc's malloc.h
OWN_LIMIT = 32 * 2**20  # where glibc's own, growing limit ends
NO_LIMIT = 2**30


def keep_freed_memory(keep: bool = True) -> bool:
    """Let this process keep freed blocks for its next step (``keep`` False: give them back, now and later). Returns whether it can.

    Peak memory stays what it is; memory once used is only given back at the end of the process. Saves some 5 % of a training step
    (docs/performance.md). A user's own MALLOC_MMAP_THRESHOLD_ or MALLOC_TRIM_THRESHOLD_ is left alone.
    """
    if not sys.platform.startswith("linux") or {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & set(os.environ):
        return False
    try:
        library = ctypes.CDLL(None)
        limit = NO_LIMIT if keep else OWN_LIMIT
        done = bool(library.mallopt(MMAP, limit)) and bool(library.mallopt(TRIM, 2 * limit - 1))
        if not keep:
            library.malloc_trim(0)
        return done
    except (OSError, AttributeError):  # another C library, such as musl
        return False
