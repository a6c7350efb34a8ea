"""What the model writes for every source of an evaluation: chunk by chunk, by one process or several."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from ..config.schema import SamplingConfig
from ..data.pairs import Pair
from ..data.skills import PAIR
from ..generation.generator import DiffusionTextGenerator
from ..machine.memory import give_back_freed_memory
from ..machine.processes import Processes
from ..text import metrics
from ..text.metrics import metric_text
from .journal import Journal
from .outputs import SAMPLES, Outputs, Written

Progress = Callable[[str, int, int], None]  # (what, done, total)
CHUNK = 128  # sources written together: enough to fill batches of similar lengths, few enough to lose when killed


def write_outputs(
    generator: DiffusionTextGenerator,
    pairs: Sequence[Pair],
    mbr: int,
    notes: list[str],
    progress: Progress,
    journal: Journal | None = None,
    processes: Processes | None = None,
) -> Outputs:
    """Greedy texts of the likeliest lengths and max(3, mbr) samples for every source, in order.

    A source the model cannot take gets an empty output, and a note. What is random is made of the seed, the source and
    its number, so an evaluation that goes on, or that several processes share, writes what one would. ``journal`` holds
    the chunks that this process has written before.
    """
    journal, processes = journal or Journal(), processes or Processes()
    writer = ChunkWriter(generator, pairs, mbr)
    if writer.too_long:
        notes.append(f"{writer.too_long} sources are longer than {writer.room} word pieces: scored as empty output")
    own = range(0, len(pairs), CHUNK)[processes.rank :: processes.size]
    total, done = sum(len(pairs[first : first + CHUNK]) for first in own), len(journal.records)
    left = own[-(-done // CHUNK) :]
    for first in left:
        records, seconds = writer.write(first)
        journal.append(records, seconds)
        give_back_freed_memory()  # the next chunk has other widths
        done += len(records)
        progress("generation", done, total)
    everyone = processes.gather_objects((journal.records, journal.seconds))
    chunks: list[list[dict]] = []
    for number in range(-(-len(pairs) // CHUNK)):
        records, start = everyone[number % processes.size][0], number // processes.size * CHUNK
        chunks.append(records[start : start + CHUNK])
    seconds = {name: sum(spent.get(name, 0.0) for _, spent in everyone) for name in ("greedy", "samples")}
    return outputs_of([record for chunk in chunks for record in chunk], seconds)


class ChunkWriter:
    """Writes for the sources of one chunk; arguments as in ``write_outputs``."""

    def __init__(self, generator: DiffusionTextGenerator, pairs: Sequence[Pair], mbr: int):
        self.generator, self.pairs, self.mbr = generator, pairs, mbr
        self.encoded = generator.tokenizer.encode_many([pair.source for pair in pairs])
        self.skills = [generator.skill_of(pair, generator.options.style) for pair in pairs]
        longest = max((len(generator.collator.prompts[skill]) for skill in {*self.skills, PAIR}), default=0)
        # the hard limit, with a few places left for a target: the protocol scores whole sources, it does not split them
        # into sentences
        self.room = generator.model.config.data.max_length - 3 - longest - 8
        self.too_long = sum(len(ids) > self.room for ids in self.encoded)

    def write(self, first: int) -> tuple[list[dict], dict[str, float]]:
        """The records of the chunk that begins at source ``first``, and the seconds they took."""
        options = self.generator.options
        greedy = dataclasses.replace(options, temperature=0.0)
        start = time.monotonic()
        written = self._texts(first, greedy, options.length_beam)
        middle = time.monotonic()
        samples = self._texts(first, options, max(SAMPLES, self.mbr), independent=True)
        seconds = {"greedy": middle - start, "samples": time.monotonic() - middle}
        choices = None
        if self.mbr >= 2:
            choices = [metrics.mbr_select([metric_text(text) for text in row[: self.mbr]]) for row in samples.texts]
        return Outputs(written, samples, choices).records(self.pairs[first : first + CHUNK]), seconds

    def _texts(self, first: int, options: SamplingConfig, count: int, independent: bool = False) -> Written:
        chunk = range(first, min(first + CHUNK, len(self.pairs)))
        fitting = [index for index in chunk if len(self.encoded[index]) <= self.room]
        examples = [(self.skills[index], self.encoded[index]) for index in fitting]
        counts = [count] * len(examples)
        decoded = (
            self.generator.generate_ids(
                examples, options, counts, options.seed, independent=independent, numbers=fitting
            )
            if examples
            else []
        )
        texts: list[list[str]] = [[""] * count for _ in chunk]
        scores, calls = [[0.0] * count for _ in chunk], [[0] * count for _ in chunk]
        for index, outputs in zip(fitting, decoded):
            place = index - first
            texts[place] = [self.generator.sentence(output.ids, self.pairs[index].source) for output in outputs]
            scores[place], calls[place] = [output.score for output in outputs], [output.nfe for output in outputs]
        return Written(texts, scores, calls, 0.0)


def outputs_of(records: Sequence[dict], seconds: dict[str, float]) -> Outputs:
    """The outputs that these records hold; ``seconds`` in all for the greedy texts and for the samples."""

    def written(texts: str, scores: str, calls: str, spent: float) -> Written:
        columns = [[record[name] for record in records] for name in (texts, scores, calls)]
        return Written(*columns, spent / max(1, sum(map(len, columns[0]))))

    choices = [record["choice"] for record in records]
    return Outputs(
        written("by_length", "by_length_scores", "by_length_calls", seconds["greedy"]),
        written("candidates", "scores", "calls", seconds["samples"]),
        None if not choices or choices[0] is None else choices,
    )
