"""Second thoughts about finished targets: rank them as a reader would, rewrite their worst words, leave one out.

What counts is ``leave_one_out``; a change is kept only where it raises that score and repeats nothing new.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..config.schema import SamplingConfig
from ..data.batching import Collator
from ..data.skills import NO_SOURCE, is_pair
from ..data.tokenizer import TextTokenizer
from ..model.diffusion_model import DiffusionModel
from .canvas import CONTINUATION, FREE, NO_SIGN, WORD, Canvas, Decoded
from .leave_one_out import leave_one_out, text_score
from .noisy_channel import channel_scores
from .tracing import Tracer

SURE = math.log(0.5)  # a likelier word is the model's first choice already
UNLIKELY = math.log(0.1)  # a word below it may be one too many
CLEARLY = 0.1  # nats per piece by which a shorter text must be better
TRIED_SHORTER = 2  # words of a text without which it is tried
APOSTROPHES = {"'", "\u2019"}
FEWEST_WORDS = 4  # of a text that is shortened
LONGEST_REPEAT = 4  # pieces of a phrase that may not be written twice in a row

Write = Callable[[Sequence[Canvas]], list[Decoded]]


@dataclasses.dataclass
class Draft:
    """A finished target with its leave-one-out scores; ``tried`` are the words that did not get better."""

    canvas: Canvas
    ids: list[int]
    nfe: int
    scores: Tensor
    tried: set[tuple[int, ...]] = dataclasses.field(default_factory=set)

    @property
    def score(self) -> float:
        return text_score(self.scores, self.canvas.log_length)


def refined(
    model: DiffusionModel,
    canvases: Sequence[Canvas],
    decoded: Sequence[Decoded],
    options: SamplingConfig,
    collator: Collator,
    write: Write,
    tracer: Tracer | None = None,
) -> list[Decoded]:
    """The decoded targets after what ``options`` ask for: ``revise``, ``shorten``, and the score by ``rank_by``.

    ``write`` finishes canvases by the model's first choice; it rewrites the words. ``tracer`` is told of every change.
    """

    def scored(canvases: Sequence[Canvas], texts: Sequence[list[int]]) -> list[Tensor]:
        return leave_one_out(model, canvases, texts, collator, options.batch_size)

    scores = scored(canvases, [output.ids for output in decoded])
    drafts = [Draft(c, output.ids, output.nfe + calls_of(s), s) for c, output, s in zip(canvases, decoded, scores)]
    for _ in range(options.revise):
        if not rewrite_worst(drafts, model, scored, write, tracer):
            break
    if options.shorten:
        leave_out_worst(drafts, model.tokenizer, scored, tracer)
    ranked = [output.score for output in decoded]
    if options.rank_by != "revealed":
        ranked = [draft.score for draft in drafts]
    if options.rank_by == "noisy_channel":
        ids, now = [draft.ids for draft in drafts], [draft.canvas for draft in drafts]
        more, calls = channel_scores(model, now, ids, collator, options.batch_size)
        ranked = [score + other for score, other in zip(ranked, more)]
        for draft, count in zip(drafts, calls):
            draft.nfe += count
    return [Decoded(draft.ids, draft.nfe, score) for draft, score in zip(drafts, ranked)]


def rewrite_worst(drafts: list[Draft], model: DiffusionModel, scored, write: Write, tracer: Tracer | None) -> int:
    """Rewrite the worst word of each draft that has not been tried; how many drafts had one."""
    tokenizer = model.tokenizer
    chosen = [(number, word) for number, draft in enumerate(drafts) if (word := worst_word(draft, tokenizer))]
    if not chosen:
        return 0
    written = write([hidden_word(drafts[number], word, model) for number, word in chosen])
    changed = []
    for (number, word), output in zip(chosen, written):
        draft = drafts[number]
        draft.tried.add(tuple(word))
        draft.nfe += output.nfe
        if output.ids != draft.ids and may_replace(draft, output.ids, tokenizer):
            changed.append((number, word, output.ids))
    scores = scored([drafts[number].canvas for number, *_ in changed], [ids for *_, ids in changed])
    for (number, word, ids), after in zip(changed, scores):
        draft = drafts[number]
        draft.nfe += calls_of(after)
        better = text_score(after, draft.canvas.log_length) > draft.score + 1e-6
        if better and not any(is_same(other, draft, ids) for other in drafts):
            draft.ids, draft.scores = ids, after
            if tracer is not None:
                tracer.rewritten(number, word, [ids[place] for place in word], tokenizer.mask_id)
    return len(chosen)


def leave_out_worst(drafts: list[Draft], tokenizer: TextTokenizer, scored, tracer: Tracer | None) -> None:
    """Each draft without one of its unlikely words, where its mean score per piece is clearly better so."""
    shorter: list[tuple[int, list[int], Canvas, list[int]]] = []
    for number, draft in enumerate(drafts):
        words = words_of(draft, tokenizer)
        if draft.canvas.skill == NO_SOURCE or len(words) < FEWEST_WORDS or bool(draft.scores.isnan().any()):
            continue
        unlikely = sorted((float(draft.scores[word].mean()), word) for word in words)
        for score, word in unlikely[:TRIED_SHORTER]:
            ids = [index for place, index in enumerate(draft.ids) if place not in word]
            if score < UNLIKELY and may_replace(draft, ids, tokenizer):
                kinds = [FREE] * len(ids)
                canvas = dataclasses.replace(draft.canvas, words=[tokenizer.mask_id] * len(ids), constraints=kinds)
                shorter.append((number, word, canvas, ids))
    scores = scored([canvas for *_, canvas, _ in shorter], [ids for *_, ids in shorter])
    best: dict[int, tuple[float, int]] = {}
    before = {number: float(drafts[number].scores.mean()) + CLEARLY for number, *_ in shorter}
    for index, ((number, *_), after) in enumerate(zip(shorter, scores)):
        drafts[number].nfe += calls_of(after)
        if float(after.mean()) > max(before[number], best.get(number, (-math.inf, 0))[0]):
            best[number] = float(after.mean()), index
    for number, (_, index) in best.items():
        _, word, canvas, ids = shorter[index]
        if any(is_same(other, drafts[number], ids) for other in drafts):
            continue
        drafts[number] = dataclasses.replace(drafts[number], canvas=canvas, ids=ids, scores=scores[index])
        if tracer is not None:
            tracer.left_out(number, word)


def calls_of(scores: Tensor) -> int:
    """Denoiser calls that the leave-one-out scores of a text cost: one for each of its places."""
    return int((~scores.isnan()).sum())


def words_of(draft: Draft, tokenizer: TextTokenizer) -> list[list[int]]:
    """The places of each word that was written, all its pieces together; no punctuation marks, nor what stands at an
    apostrophe: a contraction is no place for another word.
    """
    words: list[list[int]] = []
    before = -2
    surfaces = [tokenizer.surface(index) for index in draft.ids]
    for place, index in enumerate(draft.ids):
        contracted = {*surfaces[max(0, place - 1) : place], *surfaces[place + 1 : place + 2]} & APOSTROPHES
        if contracted or draft.canvas.words[place] != tokenizer.mask_id or bool(tokenizer.signs[index]):
            continue
        if bool(tokenizer.continuation[index]) and before == place - 1 and words:
            words[-1].append(place)
        else:
            words.append([place])
        before = place
    return words


def worst_word(draft: Draft, tokenizer: TextTokenizer) -> list[int] | None:
    """The written word of least mean score that is unsure and has not been tried."""
    words = [word for word in words_of(draft, tokenizer) if tuple(word) not in draft.tried]
    scores = [float(draft.scores[word].mean()) for word in words]
    return words[scores.index(min(scores))] if scores and min(scores) < SURE else None


def hidden_word(draft: Draft, word: list[int], model: DiffusionModel) -> Canvas:
    """The draft with the places of one word to be written again, by no punctuation mark."""
    words, kinds = list(draft.ids), [FREE] * len(draft.ids)
    given = draft.canvas.constraints or kinds
    for place in word:
        words[place] = model.tokenizer.mask_id
        kinds[place] = NO_SIGN if place > word[0] else given[place] | NO_SIGN if given[place] & CONTINUATION else WORD
    tau = float(model.schedule.tau(torch.tensor(len(word) / len(words), dtype=torch.float64)))
    return dataclasses.replace(draft.canvas, words=words, constraints=kinds, tau=tau)


def may_replace(draft: Draft, ids: list[int], tokenizer: TextTokenizer) -> bool:
    """Whether a text may take a draft's place: it is not the source again and repeats nothing that was not repeated."""
    if is_pair(draft.canvas.skill) and tuple(ids) == tuple(draft.canvas.source):
        return False
    return not (repeats_in_a_row(ids, tokenizer) - repeats_in_a_row(draft.ids, tokenizer))


def is_same(other: Draft, draft: Draft, ids: Sequence[int]) -> bool:
    """Whether another draft of the same text already says ``ids``: the candidates of a text should stay distinct."""
    one, two = other.canvas, draft.canvas
    return other.ids == ids and (one.text, one.skill, one.source) == (two.text, two.skill, two.source)


def repeats_in_a_row(ids: Sequence[int], tokenizer: TextTokenizer) -> set[tuple[int, ...]]:
    """Phrases of up to ``LONGEST_REPEAT`` pieces that stand twice in a row; punctuation alone does not count."""
    found = set()
    for size in range(1, LONGEST_REPEAT + 1):
        for start in range(len(ids) - 2 * size + 1):
            phrase = tuple(ids[start : start + size])
            if phrase == tuple(ids[start + size : start + 2 * size]) and not all(
                map(tokenizer.repeatable.__getitem__, phrase)
            ):
                found.add(phrase)
    return found
