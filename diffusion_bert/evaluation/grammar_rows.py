"""What the grammar of the bundled task says: which outputs are valid paraphrases, and a floor that looks pairs up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from ..data.grammar import Grammar, words_of
from ..data.pairs import Pair
from .judges import Judge
from .measures import measured
from .outputs import SAMPLES, Outputs


def add_grammar_rows(
    rows: dict[str, dict], pairs: Sequence[Pair], outputs: Outputs, judges: Sequence[Judge] = ()
) -> None:
    """For the bundled task the grammar itself says what is a valid paraphrase: same meaning, every filler kept, another
    frame.
    """
    grammar = Grammar.load()
    sources = [pair.source for pair in pairs]

    def share(texts: Sequence[str]) -> float:
        return 100 * float(np.mean([grammar.is_paraphrase(source, text) for source, text in zip(sources, texts)]))

    nearest = NearestPair(grammar.pairs("train"))
    looked_up = [nearest.paraphrase(source) for source in sources]
    rows["nearest training pair"] = measured(sources, [pair.target for pair in pairs], looked_up, judges)
    frames = [
        {parsed.frame for text in texts[:SAMPLES] if (parsed := grammar.parse(text))} for texts in outputs.samples.texts
    ]
    rows["model"]["valid"] = share(outputs.best)
    rows["likeliest length"]["valid"] = share([texts[0] for texts in outputs.greedy.texts])
    two_frames = 100 * float(np.mean([len(seen) >= 2 for seen in frames]))
    rows["one sample"] |= {"valid": share([texts[0] for texts in outputs.samples.texts]), "two_frames": two_frames}
    for name in rows:
        if name.startswith("MBR"):
            rows[name]["valid"] = share(outputs.chosen)
    rows["copy"]["valid"] = share(sources)
    rows["nearest training pair"]["valid"] = share(looked_up)


class NearestPair:
    """The lookup baseline: answers with the target of the training pair whose source shares the most words.

    It reads as a fluent paraphrase and is wrong in at least one filler by construction of the splits; a model has to
    beat it by far.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Raises ValueError without a pair."""
        self._targets: list[str] = []
        self._sizes: list[int] = []  # distinct words of each source
        self._rows_with: dict[str, list[int]] = {}  # word -> rows whose source has it
        for row, (source, target) in enumerate(pairs):
            words = words_of(source)
            self._targets.append(target)
            self._sizes.append(len(words))
            for word in words:
                self._rows_with.setdefault(word, []).append(row)
        if not self._targets:
            raise ValueError("NearestPair needs at least one pair, got none")

    def paraphrase(self, source: str) -> str:
        """Return the target of the pair whose source has the highest Jaccard overlap of words with `source`; the first
        of equals.
        """
        words = words_of(source)
        shared = Counter(chain.from_iterable(self._rows_with.get(word, ()) for word in words))
        best = max(
            shared, key=lambda row: (shared[row] / (len(words) + self._sizes[row] - shared[row]), -row), default=0
        )
        return self._targets[best]
