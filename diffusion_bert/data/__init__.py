"""From rows of text to batches of ids: reading, splits, tokenizer, encoding, caching on disk, and batches.

It never runs a network. Skills are numbers that say what an example teaches; pairs and plain texts are read from
files, a hub dataset or the bundled grammar.
"""

from .batch import Batch
from .batching import Collator, EpochBatches, fixed_batches
from .cache import Cache
from .encoded import EncodedMix, EncodedPairs
from .encoding import encode_pairs, encode_tasks
from .grammar import Grammar
from .mapped_pairs import MappedPairs
from .pairs import MixedPairs, Pair, StyledPair
from .reading import read_file, stream_file
from .skills import CONTINUE, NO_SOURCE, PAIR, Skills, is_pair
from .sources import Splits
from .splits import load_pairs
from .tokenizer import TextTokenizer

__all__ = [
    "CONTINUE",
    "NO_SOURCE",
    "PAIR",
    "Batch",
    "Cache",
    "Collator",
    "EncodedMix",
    "EncodedPairs",
    "EpochBatches",
    "Grammar",
    "MappedPairs",
    "MixedPairs",
    "Pair",
    "Skills",
    "Splits",
    "StyledPair",
    "TextTokenizer",
    "encode_pairs",
    "encode_tasks",
    "fixed_batches",
    "is_pair",
    "load_pairs",
    "read_file",
    "stream_file",
]
