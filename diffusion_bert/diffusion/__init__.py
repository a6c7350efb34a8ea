"""The mathematics: noise schedules, the forward and reverse process, and the KL between them, exactly.

It never sees a network, a vocabulary or a file: everything works on ids, times and probabilities.
"""

from .process import AbsorbingDiffusion, KlTerms
from .random_numbers import RandomNumbers, keyed_uniform, row_keys
from .schedule import NoiseSchedule
from .word_frequency import count_tokens, informativeness

__all__ = [
    "AbsorbingDiffusion",
    "KlTerms",
    "NoiseSchedule",
    "RandomNumbers",
    "count_tokens",
    "informativeness",
    "keyed_uniform",
    "row_keys",
]
