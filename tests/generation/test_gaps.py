"""Gaps of unknown length: which lengths are tried, how they compare, and what stands in them."""

import itertools
import random
import re

import pytest
import torch

from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.generation.canvas import CONTINUATION, NEW_WORD, NO_SIGN
from diffusion_bert.generation.filling import Filler
from diffusion_bert.generation.gaps import TRIED, best_lengths, gap_score, length_evidence
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.generation.infilling import mask_text, tokenize_masked
from diffusion_bert.generation.ranking import Piece
from diffusion_bert.text.masks import with_masks
from tests.helpers.canvases import collator_of
from tests.helpers.models import refusal, tiny_model

FAST = SamplingConfig(num_steps=2, num_samples=2, best_of=1, max_gap=4, rank_by="revealed")


def generator(attention: str = "isolated", **options) -> DiffusionTextGenerator:
    return DiffusionTextGenerator(tiny_model(attention), SamplingConfig(**{**vars(FAST), **options}))


def masked(text: str, lengths=(), **options):
    model = tiny_model()
    return mask_text(text, model.tokenizer, model.schedule, random.Random(0), gap_lengths=lengths, **options)


# ---- what a gap is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", ["[mask*]", "<mask*>", "[Mask*]", "<MASK*>", "[ MASK* ]", "[mask *]", "<mask * >"])
def test_spellings(typed):
    """They all mean [MASK*]; a star elsewhere is a star."""
    assert with_masks(f"a {typed}, [mask], <mask>* and [*mask] mask*") == "a [MASK*], [MASK], [MASK]* and [*mask] mask*"
    g = generator()
    assert g.fill_masks(f"Where is {typed} now?") == g.fill_masks("Where is [MASK*] now?")
    assert g.masked_parts(f"A {typed}") == [("A [MASK*]", True)]


@pytest.mark.parametrize(
    ("text", "lengths"),
    [("Where is [MASK*] now?", (3,)), ("[MASK*][MASK*]", (2, 1)), ("A [MASK] and [MASK*], [MASK*]!", (1, 4))],
)
def test_places(text, lengths):
    """A gap has as many places as it is told, [MASK] one; the first has its offsets, the others are empty."""
    tokenizer = tiny_model().tokenizer
    ids, spans = tokenize_masked(text, tokenizer, lengths)
    assert ids.count(tokenizer.mask_id) == sum(lengths) + text.count("[MASK]")
    assert tokenize_masked(text, tokenizer)[0].count(tokenizer.mask_id) == len(lengths) + text.count("[MASK]")
    wanted = [(found[0], size) for found, size in zip(re.finditer(r"\[MASK\*\]", text), lengths)]
    for place, (typed, size) in zip([m.start() for m in re.finditer(r"\[MASK\*\]", text)], wanted):
        first = spans.index((place, place + len(typed)))
        assert spans[first + 1 : first + size] == [(place + len(typed),) * 2] * (size - 1)


def test_constraints():
    """A gap begins a word, or goes on with the one it is glued to, and has no mark at its ends unless allowed."""
    mask_id = tiny_model().tokenizer.mask_id

    def kinds(text: str, length: int, **options) -> list[int]:
        canvas = masked(text, (length,), **options).canvas
        return [kind for kind, index in zip(canvas.constraints, canvas.words) if index == mask_id]

    assert kinds("A [MASK*] here", 1) == [NEW_WORD + NO_SIGN]
    assert kinds("A [MASK*] here", 3) == [NEW_WORD + NO_SIGN, 0, NO_SIGN]
    assert kinds("un[MASK*]", 2) == [CONTINUATION + NO_SIGN, NO_SIGN]
    assert kinds("A [MASK*] here", 3, allow_punctuation=True) == [NEW_WORD, 0, 0]


# ---- which lengths are tried ---------------------------------------------------------------------------------------


def search(limits, value):
    """best_lengths for one text with a given value of lengths, and what was asked."""
    asked = []

    def score(tried):
        asked.extend(lengths for _, lengths in tried)
        return [value(lengths) for _, lengths in tried]

    return best_lengths([limits], score)[0], asked


@pytest.mark.parametrize("best", [1, 2, 5, 8])
def test_one_gap_is_tried_at_every_length(best):
    """All lengths once, the best first."""
    ranked, asked = search((1, 8, 8), lambda lengths: -abs(lengths[0] - best))
    assert sorted(asked) == [(n,) for n in range(1, 9)] and ranked[0] == (best,) and len(ranked) == 8


@pytest.mark.parametrize("best", list(itertools.product((1, 4, 8), repeat=3)))
def test_several_gaps(best):
    """Where the gaps do not hang together the best of all combinations is found, by far fewer trials."""
    ranked, asked = search((3, 8, 24), lambda lengths: -sum(abs(a - b) ** 1.5 for a, b in zip(lengths, best)))
    assert ranked[0] == best and len(asked) == len(set(asked)) <= 1 + 3 * 7 + TRIED < 8**3


@pytest.mark.parametrize(("gaps", "longest", "room"), [(1, 8, 1), (2, 3, 4), (3, 4, 3), (3, 4, 7), (12, 8, 30)])
def test_no_more_pieces_than_there_is_room_for(gaps, longest, room):
    """Every trial fits; the number of trials grows with the number of gaps, not with the product of lengths."""
    ranked, asked = search((gaps, longest, room), lambda lengths: sum(lengths))
    assert all(sum(lengths) <= room and min(lengths) >= 1 and max(lengths) <= longest for lengths in asked)
    assert len(asked) <= 1 + gaps * (longest - 1) + TRIED and ranked


# ---- how lengths compare -------------------------------------------------------------------------------------------


def test_the_score_favours_no_length():
    """A sum falls with every piece, a mean rises where later pieces follow from the first; the score does neither when
    a first piece costs 3 nats and each further one what pieces cost on average (1.8).
    """
    sums = [-(3 + 1.8 * more) for more in range(8)]
    scores = [gap_score(value, n, -1.0) for n, value in enumerate(sums, 1)]
    means = [value / n for n, value in enumerate(sums, 1)]
    spread = [max(values) - min(values) for values in (scores, means, sums)]
    assert sums[0] == max(sums) and means[-1] == max(means) and spread == sorted(spread)
    assert gap_score(-4.0, 2, -1.0) > gap_score(-5.0, 2, -1.0) and gap_score(-4.0, 2, -1.0) > gap_score(-4.0, 2, -2.0)


@torch.no_grad()
def test_the_evidence_is_about_the_given_pieces():
    """The mean log-probability of each near given piece, hidden together with the gap, by a pass of the whole model."""
    model = tiny_model()
    canvases = [masked("Where is [MASK*] today in the old open museum?", (n,)).canvas for n in (1, 3)]
    found = length_evidence(model, canvases, collator_of(model))
    for canvas, value in zip(canvases, found):
        holes = [place for place, index in enumerate(canvas.words) if index == model.tokenizer.mask_id]
        near = [p for p in range(len(canvas.words)) if 0 < min(abs(p - hole) for hole in holes) <= 3]
        assert len(near) == 5
        logs = []
        for place in near:
            same = not model.tokenizer.repeatable[canvas.words[place]]
            words = [
                model.tokenizer.mask_id if p == place or (same and index == canvas.words[place]) else index
                for p, index in enumerate(canvas.words)
            ]
            batch = collator_of(model).batch([(canvas.skill, [], words)])
            share = torch.tensor([words.count(model.tokenizer.mask_id) / len(words)], dtype=torch.float64)
            log_mu = model.denoiser(batch, batch.input_ids, model.schedule.tau(share))[0]
            row = [p for p, index in enumerate(words) if index == model.tokenizer.mask_id].index(place)
            logs.append(float(log_mu[row, canvas.words[place]]))
        assert value == pytest.approx(sum(logs) / len(logs), abs=1e-4)
    assert length_evidence(model, [masked("[MASK*]", (2,), allow_punctuation=True).canvas], collator_of(model)) == [0.0]


def test_scores_are_those_of_the_whole_text():
    """What a gap is worth does not depend on how finished texts are ranked beside other lengths: revealed words or
    leave-one-out scores, per open place.
    """
    for rank_by in ("revealed", "leave_one_out", "noisy_channel"):
        g = generator(rank_by=rank_by, temperature=0.0)
        filler = Filler(g, [Piece("Where is [MASK*] today?"), Piece("Where is [MASK] today?")], g.options)
        drafts = [(n, filler.masked(n, random.Random(0), lengths)) for n, lengths in ((0, (1,)), (1, ()))]
        (ids, score), (same, plain) = filler.finish(drafts, g.options, 0)
        canvas = drafts[0][1].canvas
        evidence = length_evidence(g.model, [canvas], g.collator)[0]
        divisor = len(canvas.words) if rank_by == "revealed" else 1
        assert ids == same and score == pytest.approx(
            gap_score(plain * (divisor + 1), 1, evidence, divisor == 1), abs=1e-5
        )


# ---- texts with gaps -----------------------------------------------------------------------------------------------

TEXTS = [
    "Where is [MASK*] today?",
    "[MASK*]",
    "I LIKE  [MASK*], and \u2014 [MASK*]",
    "The [MASK] is [MASK*] to the [MASK].",
    "[MASK*] [MASK*] [MASK*]",
    "un[MASK*] [MASK][MASK*]",
    "  (The [MASK*])  ",
]


@pytest.mark.parametrize("attention", ["isolated", "full"])
@pytest.mark.parametrize("text", TEXTS)
def test_everything_else_comes_back(attention, text):
    """Something stands in every gap and [MASK], all else as it was typed; candidates differ."""
    found = generator(attention).fill_masks(text)
    pattern = "(.+)".join(re.escape(part) for part in re.split(r"\[MASK\*?\]", text))
    assert len(set(found)) == 2
    for filled in found:
        assert re.fullmatch(pattern, filled, re.DOTALL) and "MASK" not in filled and "##" not in filled


def test_gaps_have_different_lengths():
    """One to max_gap pieces: with many candidates several lengths are used, with max_gap 1 only one."""
    g, before = generator(num_samples=12, temperature=2.0, length_beam=4), "Where is "
    sizes = {len(g.tokenizer.encode(t[len(before) : -1])) for t in g.fill_masks(before + "[MASK*]?")}
    assert len(sizes) > 1 and max(sizes) <= 4
    assert {len(t.split()) for t in g.fill_masks(before + "[MASK*]?", max_gap=1)} == {3}


def test_gaps_do_not_depend_on_the_company():
    """A text gets the same answer alone and among others."""
    g = generator(temperature=1.0, num_samples=1)
    together = g.fill_masks(["How are you?", *TEXTS])
    assert together[1:] == [g.fill_masks(text) for text in TEXTS]


def test_gaps_in_long_texts():
    """A text in which the gaps may not have their full length is worked on sentence by sentence; a single sentence
    leaves the gap what room there is; one without room for a piece is refused. Nothing is cut.
    """
    g = generator(max_gap=8)
    limit = g.target_limit()
    words = " ".join(["how"] * (limit - 3))
    two = f"{words}. And [MASK*] now?"
    assert [part for part, has_work in g.fill_parts(two, 8) if has_work] == ["And [MASK*] now?"]
    assert all(text.startswith(f"{words}. And ") and text.endswith(" now?") for text in g.fill_masks(two))
    full = " ".join(["how"] * (limit - 1)) + " [MASK*]"
    for text in g.fill_masks(full):
        assert len(text.split()) == limit
    message = refusal(g.fill_masks, "how " + full)
    assert f"{limit + 1} word pieces is too long" in message and str(limit) in message


def test_traces_of_gaps():
    """The trace of the first candidate ends as its text."""
    traces = []
    found = generator().fill_masks("Where is [MASK*], and [MASK]?", on_trace=traces.append)
    assert traces[0].text == found[0] and len(list(traces[0].frames())) > 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_gap": 0}, "at least 1"),
        ({"max_gap": "many"}, "whole number"),
        ({"max_gaps": 3}, "did you mean 'max_gap'"),
    ],
)
def test_refusals(options, expected):
    """A gap without a piece, no number, another name."""
    assert expected in refusal(generator().fill_masks, "A [MASK*]", **options)


def test_mask_needs_a_hole():
    """The command mask says how both kinds are written."""
    message = refusal(generator().masked_parts, "No hole.")
    assert "no [MASK] in the text" in message and "[MASK*]" in message
