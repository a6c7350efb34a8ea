"""From sources and canvases (ids) to finished targets (ids): batching, source cache, lengths, constraints. No strings
here.

A canvas is a target in which the places to be written hold [MASK]. Many canvases may share a source; it is encoded
once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ..config.schema import SamplingConfig
from ..data.batching import Collator
from ..data.lexicon import Lexicon, words_of
from ..data.skills import NO_SOURCE, is_continuing, is_pair
from ..diffusion.random_numbers import row_keys
from ..errors import UserError
from ..machine.memory import give_back_freed_memory
from ..machine.seeds import seed_of
from ..model.diffusion_model import DiffusionModel
from ..samplers import SAMPLERS, Repeats, SamplerOptions, Spelling
from .canvas import CONTINUATION, FREE, NEW_WORD, Canvas, Decoded
from .denoise import guided_denoiser, vocabulary_flags
from .numbering import named
from .revising import refined
from .tracing import Tracer

# Samplers that reveal something in every row at every call: there is no answer to remember.
FORGETFUL = ("confidence", "entropy")
# of log mu [N, V] on a CPU: 256 MB, of which a sampler has two or three at once (docs/performance.md)
LARGEST_TABLE = 2**26


@torch.no_grad()
def decode(
    model: DiffusionModel,
    canvases: Sequence[Canvas],
    options: SamplingConfig,
    collator: Collator,
    seed: int = 0,
    time_correction: bool = True,
    progress: Callable[[int], None] | None = None,
    tracer: Tracer | None = None,
) -> list[Decoded]:
    """Finish all canvases, in batches of similar length; results in the given order.

    ``progress`` is called with the number of canvases finished by each batch; ``tracer`` follows every step, which
    changes nothing. What is written on a canvas depends on the seed and the canvas, not on the others nor on the size
    of the batches (but for the last bit of sums: docs/generation.md). What the options ask for beyond the sampler
    (rank_by, revise, shorten) is done to the finished targets.
    """
    canvases = named(canvases)
    guided = options.guidance_scale > 0 and any(is_pair(canvas.skill) for canvas in canvases)
    if guided and model.config.data.source_dropout == 0:
        raise UserError(
            "guidance_scale needs a model that was also trained without sources: this one had --source_dropout 0; set"
            " it to 0"
        )
    order = sorted(
        range(len(canvases)), key=lambda index: (len(canvases[index].words) + len(canvases[index].source), index)
    )
    results: list[Decoded | None] = [None] * len(canvases)
    for number, chosen in enumerate(batches_of(model, canvases, order, options.batch_size, guided)):
        if number:
            give_back_freed_memory()  # every batch has its own widths
        run = Run(model, options, collator, seed, time_correction)
        for index, output in zip(chosen, run.finish([canvases[index] for index in chosen], chosen, tracer)):
            results[index] = output
        if progress is not None:
            progress(len(chosen))
    if options.rank_by != "revealed" or options.revise or options.shorten:
        rewriting = dataclasses.replace(
            options,
            rank_by="revealed",
            revise=0,
            shorten=False,
            temperature=0.0,
            no_repeat="content",
            guidance_scale=0.0,
        )
        write = partial(decode, model, options=rewriting, collator=collator, seed=seed, time_correction=False)
        return refined(model, canvases, results, options, collator, write, tracer)
    return results


def batches_of(
    model: DiffusionModel, canvases: Sequence[Canvas], order: Sequence[int], batch_size: int, guided: bool = False
) -> Iterator[list[int]]:
    """``order`` cut into batches of at most ``batch_size`` canvases and, on a CPU, of no more places to be written than
    one table of ``LARGEST_TABLE`` numbers holds (half as many with guidance, which asks twice): so memory stays bounded
    however long the texts are.
    """
    numbers = model.denoiser.bert_config.vocab_size * (1 + guided)
    most = LARGEST_TABLE // numbers if model.device.type == "cpu" else math.inf
    batch: list[int] = []
    places = 0
    for index in order:
        own = canvases[index].words.count(model.tokenizer.mask_id)
        if batch and (len(batch) == batch_size or places + own > most):
            yield batch
            batch, places = [], 0
        batch.append(index)
        places += own
    if batch:
        yield batch


@dataclass
class Run:
    """How the canvases of one batch are finished."""

    model: DiffusionModel
    options: SamplingConfig
    collator: Collator
    seed: int
    time_correction: bool

    def finish(
        self, group: Sequence[Canvas], numbers: Sequence[int] = (), tracer: Tracer | None = None, again: bool = False
    ) -> list[Decoded]:
        """The finished targets of a group; ``tracer`` knows them by ``numbers``. An unknown word that is left
        (samplers/spelling.py) is written ``again``, in whole pieces.
        """
        model, options, mask_id = self.model, self.options, self.model.tokenizer.mask_id
        x_t, denoise = guided_denoiser(
            model, group, self.collator, self.time_correction, options.guidance_scale, options.sampler not in FORGETFUL
        )
        tau = torch.tensor([canvas.tau for canvas in group], dtype=torch.float64, device=x_t.device)
        schedule = model.schedule.on_host()  # the sampler decides there
        names = [f.name for f in dataclasses.fields(SamplerOptions) if hasattr(options, f.name)]
        settings = SamplerOptions(
            **{name: getattr(options, name) for name in names},
            steps=options.num_steps,
            repeats=rules_of_group(model, group, options.no_repeat),
            spelling=spelling_of_group(model, group) if options.known_words else None,
        )
        texts, candidates = [canvas.text for canvas in group], [canvas.candidate for canvas in group]
        keys = row_keys(seed_of(int(again), self.seed), texts, candidates)
        ask, callback = (denoise, None) if tracer is None else tracer.listen(numbers, x_t, mask_id, denoise)
        output = SAMPLERS[options.sampler](ask, x_t, schedule, mask_id, tau, settings, keys, callback)
        ids, nfe, log_prob = output.x_0.tolist(), denoise.nfe.tolist(), output.log_prob.tolist()
        results = []
        for row, canvas in enumerate(group):
            size = len(canvas.words)
            results.append(Decoded(ids[row][:size], nfe[row], (log_prob[row] + canvas.log_length) / (size + 1)))
        if settings.spelling is not None and not again:
            unknown = settings.spelling.unknown_places(output.x_0, x_t == mask_id, mask_id).tolist()
            self._spell(group, results, unknown, numbers, tracer)
        return results

    def _spell(self, group, results: list[Decoded], unknown: list[list[bool]], numbers, tracer: Tracer | None) -> None:
        """Write the ``unknown`` places [B, T] of results again, each by a whole piece; their scores stay."""
        rows, canvases = [], []
        for row, (canvas, output) in enumerate(zip(group, results)):
            words, kinds = list(output.ids), list(canvas.constraints or [FREE] * len(output.ids))
            places = [place for place, kind in enumerate(kinds) if unknown[row][place] and not kind & CONTINUATION]
            for place in places:
                words[place], kinds[place] = self.model.tokenizer.mask_id, kinds[place] | NEW_WORD
            if places:
                tau = float(self.model.schedule.tau(torch.tensor(len(places) / len(words), dtype=torch.float64)))
                rows.append((row, places))
                canvases.append(dataclasses.replace(canvas, words=words, constraints=kinds, tau=tau))
        for (row, places), output in zip(rows, self.finish(canvases, again=True) if canvases else ()):
            results[row] = Decoded(output.ids, results[row].nfe + output.nfe, results[row].score)
            if tracer is not None:
                written = [output.ids[place] for place in places]
                tracer.rewritten(numbers[row], places, written, self.model.tokenizer.mask_id)


def spelling_of_group(model: DiffusionModel, group: Sequence[Canvas]) -> Spelling:
    """The rules on words for a group of canvases: known are those of the training targets, and for each canvas those of
    its source and of its given words.
    """
    continuation = vocabulary_flags(model, model.tokenizer.continuation, "cpu")
    flags = continuation.tolist()
    words = [frozenset(words_of(canvas.source, flags) + words_of(canvas.words, flags)) for canvas in group]
    own = {few: Lexicon(few) for few in set(words)}
    return Spelling(model.known_words, [own[few] for few in words], continuation)


def rules_of_group(model: DiffusionModel, group: Sequence[Canvas], mode: str) -> Repeats | None:
    """The rules on repetition for a group of canvases. Between words that a user typed only neighbours count."""
    written = [canvas.skill != NO_SOURCE for canvas in group]
    before = [canvas.source[-1] if is_continuing(canvas.skill) and len(canvas.source) else -1 for canvas in group]
    return repetition_rules(model, mode, [canvas.source for canvas in group], written, before)


def repetition_rules(
    model: DiffusionModel,
    mode: str,
    sources: Sequence[Sequence[int]],
    counted: Sequence[bool],
    before: Sequence[int],
    device: torch.device | str = "cpu",
) -> Repeats | None:
    """``Repeats`` for rows with these sources, or None when ``mode`` is off.

    counted: rows whose content words are counted too when ``mode`` is content: pieces that begin a word and are rarer
    than average (informativeness above 0). before: the word piece before the first place, or -1. device: where the
    canvas is.
    """
    if mode == "off":
        return None
    width = max(2, *map(len, sources)) if sources else 2
    ids = torch.tensor([[*source, *[-1] * (width - len(source))] for source in sources], device=device)
    content = vocabulary_flags(model, ~model.tokenizer.continuation, device)
    table = model.schedule.informativeness
    content &= torch.zeros_like(content) if table is None else table.to(device) > 0
    return Repeats(
        source_ids=ids,
        repeatable=vocabulary_flags(model, model.tokenizer.repeatable, device),
        content=content,
        counted=torch.tensor([bool(flag) and mode == "content" for flag in counted], device=device),
        before=torch.tensor(list(before), device=device),
    )
