"""Strings in, strings out: English spacing, capitals, sentences, and the metrics of generated text.

It never sees an id of a vocabulary, a tensor or a file.
"""

from .casing import sentence_case
from .english import MASK, detokenize, split_sentences, strip_enclosing_quotes, unencodable
from .metrics import metric_text

__all__ = [
    "MASK",
    "detokenize",
    "metric_text",
    "sentence_case",
    "split_sentences",
    "strip_enclosing_quotes",
    "unencodable",
]
