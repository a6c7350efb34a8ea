"""From sources and canvases (ids) to finished targets (ids): batching, source cache, lengths, constraints. No strings
here.

A canvas is a target in which the places to be written hold [MASK]. Many canvases may share a source; it is encoded
once.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .config.schema import SamplingConfig
from .data.batch import Batch
from .data.batching import Collator
from .data.skills import CONTINUE, NO_SOURCE, is_pair
from .errors import UserError
from .machine.memory import give_back_freed_memory
from .model.diffusion_model import DiffusionModel
from .model.heads import Guess
from .samplers import SAMPLERS, SamplerOptions
from .steering import FREE, NEW_WORD, Denoise, repetition_rules
from .tracing import Tracer

FORGETFUL = ("confidence", "entropy")  # samplers that reveal something in every row at every call: nothing to remember
RELATIVE_LENGTHS = {"short": 2 / 3, "same": 1.0, "long": 4 / 3}  # of the source


@dataclass
class Canvas:
    """One target to finish. ``tau`` is the time it starts at, ``constraints`` one of FREE / NEW_WORD / CONTINUATION per
    place, ``log_length`` log p(length | source) where the length was the model's choice.
    """

    skill: int
    source: Sequence[int]
    words: list[int]
    tau: float = 1.0
    constraints: list[int] | None = None
    log_length: float = 0.0


@dataclass
class Decoded:
    """A finished target, the denoiser calls it took part in, and its score for ranking: the mean log-probability of its
    words as they were revealed and of its length.
    """

    ids: list[int]
    nfe: int
    score: float


def blank_canvas(skill: int, source: Sequence[int], length: int, mask_id: int, log_length: float = 0.0) -> Canvas:
    """A target of [MASK]s; its first piece begins a word."""
    return Canvas(skill, source, [mask_id] * length, 1.0, [NEW_WORD] + [FREE] * (length - 1), log_length)


@torch.no_grad()
def length_log_probs(
    model: DiffusionModel, examples: Sequence[tuple[int, Sequence[int]]], collator: Collator, batch_size: int = 64
) -> Tensor:
    """log p(length | source) [n, max_target_length] for (skill, source) pairs; column j stands for length j + 1.
    Lengths that would not fit into max_length get no probability.
    """
    limit = model.config.data.max_length
    rows = []
    for start in range(0, len(examples), batch_size):
        batch = collator.batch([(skill, source, [0]) for skill, source in examples[start : start + batch_size]]).to(
            model.device
        )
        logits = model.denoiser.length_logits(model.denoiser.encode_source(batch).states).float()
        lengths = torch.arange(1, logits.shape[1] + 1, device=logits.device)
        too_long = batch.source_length[:, None] + lengths + 1 > limit
        rows.append(torch.log_softmax(logits.masked_fill(too_long, float("-inf")), dim=-1).cpu())
    return torch.cat(rows)


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
    changes nothing. The same seed, canvases and batch size give the same words.
    """
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
    shared = {f.name: getattr(options, f.name) for f in dataclasses.fields(SamplerOptions) if hasattr(options, f.name)}
    for number, start in enumerate(range(0, len(order), options.batch_size)):
        if number:
            give_back_freed_memory()  # every batch has its own widths
        chosen = order[start : start + options.batch_size]
        group = [canvases[index] for index in chosen]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        x_t, denoise = prepare(
            model, group, collator, time_correction, options.guidance_scale, options.sampler not in FORGETFUL
        )
        tau = torch.tensor([canvas.tau for canvas in group], dtype=torch.float64, device=x_t.device)
        settings = SamplerOptions(**shared, steps=options.num_steps, repeats=_rules(model, group, options.no_repeat))
        mask_id = model.tokenizer.mask_id
        ask, callback = (denoise, None) if tracer is None else tracer.listen(chosen, x_t, mask_id, denoise)
        output = SAMPLERS[options.sampler](ask, x_t, model.schedule, mask_id, tau, settings, generator, callback)
        ids, nfe, log_prob = output.x_0.tolist(), denoise.nfe.tolist(), output.log_prob.tolist()
        for row, index in enumerate(chosen):
            length = len(canvases[index].words)
            results[index] = Decoded(
                ids[row][:length], nfe[row], (log_prob[row] + canvases[index].log_length) / (length + 1)
            )
        if progress is not None:
            progress(len(chosen))
    return results


@torch.no_grad()
def prepare(
    model: DiffusionModel,
    group: Sequence[Canvas],
    collator: Collator,
    time_correction: bool = True,
    guidance_scale: float = 0.0,
    remember: bool = False,
) -> tuple[Tensor, Denoise]:
    """The canvas tensor x_t [B, T] of a group (words, [SEP], padding) and its ``denoise``, for the options see
    steering.Denoise.

    Guidance is for pairs: a text that is filled or continued has no source to be guided by.
    """
    tokenizer, device = model.tokenizer, model.device
    width = max(len(canvas.words) for canvas in group) + 1
    x_t = torch.full((len(group), width), tokenizer.pad_id)
    constraints = torch.full((len(group), width), FREE)
    for row, canvas in enumerate(group):
        x_t[row, : len(canvas.words)] = torch.tensor(canvas.words)
        x_t[row, len(canvas.words)] = tokenizer.sep_id
        if canvas.constraints is not None:
            constraints[row, : len(canvas.words)] = torch.tensor(canvas.constraints)
    guided = torch.tensor([is_pair(canvas.skill) for canvas in group], device=device)
    known = list(group)
    if guidance_scale and bool(guided.any()):
        known += [dataclasses.replace(canvas, skill=NO_SOURCE, source=[]) for canvas in group]
    lengths = torch.tensor([len(canvas.words) for canvas in known], device=device)
    predict = _cached_predictor if model.denoiser.keeps_source else _full_predictor
    network = _remembering(model, predict(model, known, collator, lengths), x_t.new_zeros(len(known), width))
    corrected = time_correction and model.config.diffusion.time_correction
    return x_t.to(device), Denoise(model, network, constraints.to(device), corrected, guidance_scale, guided, remember)


def _rules(model: DiffusionModel, group: Sequence[Canvas], mode: str):
    """The rules on repetition for a group; between the words a user typed only what stands side by side is minded."""
    written = [canvas.skill != NO_SOURCE for canvas in group]
    before = [canvas.source[-1] if canvas.skill == CONTINUE and len(canvas.source) else -1 for canvas in group]
    return repetition_rules(model, mode, [canvas.source for canvas in group], written, before)


def _remembering(model: DiffusionModel, log_mu_of, x_t: Tensor):
    """For self-conditioning: hand every call what the call before expected at the places that are masked still. Nothing
    else is known: in a first call, or at a place that has been masked again, the guess is zeros.
    """
    if model.denoiser.self_conditioning is None:
        return log_mu_of
    width = model.denoiser.bert_config.hidden_size
    expected = model.denoiser.length_head.weight.new_zeros(*x_t.shape, width)  # [B, T, D], by row of the whole group

    def with_guess(canvas: Tensor, tau: Tensor, active: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        log_mu = log_mu_of(canvas, tau, active, rows, columns, expected[active[rows], columns])
        expected[active] = 0.0
        expected[active[rows], columns] = model.denoiser.expected_embedding(log_mu).to(expected.dtype)
        return log_mu

    return with_guess


def _cached_predictor(model: DiffusionModel, group: Sequence[Canvas], collator: Collator, lengths: Tensor):
    """log mu from the encoded sources: each distinct source is encoded once for all steps, candidates and lengths."""
    distinct = list(dict.fromkeys((canvas.skill, tuple(canvas.source)) for canvas in group))
    batch = collator.batch([(skill, source, [0]) for skill, source in distinct]).to(model.device)
    encoded = model.denoiser.encode_source(batch)
    copyable = batch.copyable[:, : encoded.input_ids.shape[1]]
    number = {source: index for index, source in enumerate(distinct)}
    index = torch.tensor([number[canvas.skill, tuple(canvas.source)] for canvas in group], device=model.device)
    kept: dict = {}  # the sources of the rows of the last call: they change only when a row is finished

    def log_mu_of(
        canvas: Tensor, tau: Tensor, active: Tensor, rows: Tensor, columns: Tensor, guess: Tensor | None = None
    ) -> Tensor:
        if "active" not in kept or not torch.equal(kept["active"], active):
            kept.update(active=active, source=encoded.select(index[active]), copyable=copyable[index[active]])
        source = kept["source"]
        states = model.denoiser.target_states(
            source, canvas, lengths[active], tau, None if guess is None else Guess(rows, columns, guess)
        )
        return model.denoiser.word_log_probs(states, (rows, columns), source.states, source.input_ids, kept["copyable"])

    return log_mu_of


def _full_predictor(model: DiffusionModel, group: Sequence[Canvas], collator: Collator, lengths: Tensor):
    """log mu from whole sequences: with full attention the source depends on the target, so nothing can be kept."""
    whole = collator.batch([(canvas.skill, canvas.source, canvas.words) for canvas in group]).to(model.device)

    def log_mu_of(
        canvas: Tensor, tau: Tensor, active: Tensor, rows: Tensor, columns: Tensor, guess: Tensor | None = None
    ) -> Tensor:
        part = Batch(
            whole.input_ids[active],
            whole.source_length[active],
            whole.prompt_length[active],
            lengths[active],
            whole.pad_id,
            whole.mask_id,
        )
        x_t = part.input_ids.clone()
        x_t[part.target_mask] = canvas[torch.arange(canvas.shape[1], device=canvas.device) < lengths[active][:, None]]
        return model.denoiser(part, x_t, tau, guess)[0]

    return log_mu_of


def spread_lengths(log_probs: Tensor, count: int, beam: int) -> list[int]:
    """Lengths for ``count`` candidates of one source: the ``beam`` likeliest in turn, best first. log_probs
    [max_target_length].
    """
    best = [int(index) + 1 for index in log_probs.topk(min(beam, int(log_probs.isfinite().sum()))).indices]
    return [best[number % len(best)] for number in range(count)]


def drawn_lengths(log_probs: Tensor, count: int, beam: int, temperature: float, rng: random.Random) -> list[int]:
    """``count`` independent draws from p(length | source)^(1 / temperature) among the ``beam`` likeliest. log_probs
    [max_target_length].
    """
    best = log_probs.double().topk(min(beam, int(log_probs.isfinite().sum())))
    if temperature == 0:
        return [int(best.indices[0]) + 1] * count
    shares = torch.softmax(best.values / temperature, dim=-1)
    return rng.choices((best.indices + 1).tolist(), shares.tolist(), k=count)


def requested_length(length: str, source_length: int, limit: int) -> int:
    """Word pieces that the option ``length`` asks for, beside a source of ``source_length``; refused beyond
    ``limit``.
    """
    relative = RELATIVE_LENGTHS.get(length)
    pieces = int(length) if relative is None else max(1, round(relative * source_length))
    if pieces > limit:
        asked = f"length is {length}" + (f", here {pieces} word pieces" if relative else "")
        raise UserError(f"{asked}: expected at most {limit} for this model and this text; ask for less")
    return pieces
