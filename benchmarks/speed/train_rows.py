"""The table of benchmarks/speed/train_step.py: a row of named figures for each variant."""

from __future__ import annotations

import statistics

from benchmarks.common import ratio
from benchmarks.speed.train_variants import COUNTERPART, NAMES


def rows_of(variants, options, seconds, flops, peak, memory) -> dict[str, dict]:
    """The table: a row of named figures for each variant."""
    base = "ours" if "ours" in variants else variants[0]
    rows = {}
    for name in variants:
        median, used = statistics.median(seconds[name]), memory[name]
        rows[name] = {
            "step": NAMES[name],
            "ms": round(1000 * median, 1),
            "ours is faster by (quartiles)": ratio(seconds[name], seconds[base]),
            "targets/s": round(options.batch_size / median, 1),
            "matrix GFLOP": round(flops[name] / 1e9, 1),
            "% of the matrix peak": round(100 * flops[name] / median / peak),
            "peak MB": "" if used is None else round(used / 2**20),
            "times ours": "" if used is None else round(used / memory[base], 2),
        }
    return rows


def beside_checkouts(variants, seconds) -> list[str]:
    """What the checkouts say about our few lines for the same losses."""
    return [
        f"\n{NAMES[name]}: {statistics.median(seconds[name]) / statistics.median(seconds[ours]):.2f} times the time of"
        f" our few lines for it ({NAMES[ours]})"
        for name, counterparts in COUNTERPART.items()
        for ours in counterparts
        if name in variants and ours in variants
    ]
