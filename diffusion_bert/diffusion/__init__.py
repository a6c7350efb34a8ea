"""The mathematics: noise schedules, the forward and reverse process, and the KL between them, exactly.

It never sees a network, a vocabulary or a file: everything works on ids, times and probabilities.
"""

from .process import AbsorbingDiffusion, KlTerms
from .random_numbers import RandomNumbers, keyed_uniform, row_keys
from .schedule import NoiseSchedule
from .times import T_EVAL, sample_times
from .word_frequency import count_tokens, informativeness

__all__ = [
    "T_EVAL",
    "AbsorbingDiffusion",
    "KlTerms",
    "NoiseSchedule",
    "RandomNumbers",
    "count_tokens",
    "informativeness",
    "keyed_uniform",
    "row_keys",
    "sample_times",
]
