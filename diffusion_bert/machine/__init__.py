"""What the computer gives: devices, memory, several processes, files written whole, and the Hugging Face hub.

It never knows a model, a batch or a setting of training; torch is loaded inside its functions only.
"""

from .device import pick_device
from .hub import from_cache_or_hub, local_copy, require_hub
from .memory import give_back_freed_memory, keep_freed_memory
from .precision import Precision, decide_precision
from .processes import Processes, join, process_count, process_rank
from .seeds import number_of, occurrences, seed_of
from .storage import to_plain, versions, write_atomically

__all__ = [
    "Precision",
    "Processes",
    "decide_precision",
    "from_cache_or_hub",
    "give_back_freed_memory",
    "join",
    "keep_freed_memory",
    "local_copy",
    "number_of",
    "occurrences",
    "pick_device",
    "process_count",
    "process_rank",
    "require_hub",
    "seed_of",
    "to_plain",
    "versions",
    "write_atomically",
]
