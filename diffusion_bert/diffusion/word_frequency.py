"""From a corpus to the informativeness h_v of every token type: how rare, hence how telling, is it?

    f_v = log(1 + count_v) / max_w log(1 + count_w)
    m   = sum_v count_v f_v / sum_v count_v                 (the mean f of a running word)
    h_v = (m - f_v) / max_w |m - f_w|                       (rare = informative = positive, max |h| = 1)

After DiffusionBERT (arXiv 2211.15029, section 4.2), but as one fixed table per token type instead of a value re-centred
per sentence.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def count_tokens(sequences: Iterable, vocab_size: int) -> Tensor:
    """Occurrences of every token id, [V] int64, over sequences of ids (lists or integer arrays); counted some at a
    time, to bound the memory.
    """
    counts = np.zeros(vocab_size, dtype=np.int64)
    some: list[np.ndarray] = []
    size = 0
    for ids in sequences:
        some.append(np.asarray(ids, dtype=np.int64))
        size += len(some[-1])
        if size > 1_000_000:
            counts += np.bincount(np.concatenate(some), minlength=vocab_size)
            some, size = [], 0
    if some:
        counts += np.bincount(np.concatenate(some), minlength=vocab_size)
    return torch.from_numpy(counts)


def informativeness(counts: Tensor, special_ids: Iterable[int] = ()) -> Tensor:
    """h_v for every token id, [V] float64 in [-1, 1].

    Unseen ids count 0 and take part in the maximum (they are the rarest). Special ids get h = 0 and have no say, and h
    = 0 everywhere when there is nothing to tell apart (no counts, or all equal).
    """
    counts = counts.to(torch.float64).clone()
    ordinary = torch.ones(len(counts), dtype=torch.bool)
    ordinary[list(special_ids)] = False
    counts[~ordinary] = 0
    total = counts.sum()
    h = torch.zeros_like(counts)
    if total == 0:
        return h
    log_counts = torch.log1p(counts)
    f = log_counts / log_counts.max()
    gap = (counts * f).sum() / total - f
    gap[~ordinary] = 0
    largest = gap.abs().max()
    # below rounding error the words do not differ
    return gap / largest if largest > 1e-12 else h
