"""Noisy-channel ranking: its terms, one by one, and when each is left out."""

import pytest
import torch

from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.data.skills import CONTINUE, NO_SOURCE, PAIR, Skills
from diffusion_bert.generation.canvas import Canvas, blank_canvas
from diffusion_bert.generation.decoding import decode
from diffusion_bert.generation.leave_one_out import leave_one_out
from diffusion_bert.generation.noisy_channel import WEIGHT, backward, channel_scores, without_source
from tests.helpers.canvases import collator_of
from tests.helpers.models import grammar_pairs, tiny_model

MODEL = tiny_model()
MASK = MODEL.tokenizer.mask_id
PAIRS = [(MODEL.tokenizer.encode(pair.source), MODEL.tokenizer.encode(pair.target)) for pair in grammar_pairs()[:4]]


def canvas_of(skill: int = PAIR, row: int = 0) -> Canvas:
    """An open canvas for one of the pairs."""
    source, target = PAIRS[row]
    return blank_canvas(skill, [] if skill == NO_SOURCE else source, len(target), MASK)


def test_terms_of_a_paraphrase():
    """Half the mean score of the text without a source and half that of the source beside the text, for each text."""
    canvases, texts = [canvas_of(row=row) for row in range(4)], [target for _, target in PAIRS]
    found, calls = channel_scores(MODEL, canvases, texts, collator_of(MODEL), batch_size=7)
    for (source, target), score, count in zip(PAIRS, found, calls):
        alone = leave_one_out(MODEL, [blank_canvas(NO_SOURCE, [], len(target), MASK)], [target], collator_of(MODEL))[0]
        back = leave_one_out(MODEL, [blank_canvas(PAIR, target, len(source), MASK)], [source], collator_of(MODEL))[0]
        assert score == pytest.approx(WEIGHT * float(alone.mean() + back.mean()), abs=1e-5)
        assert count == len(target) + len(source)


def test_a_continuation_is_read_behind_its_beginning():
    """Only the new places count; of a long beginning as much is read as a target has room for."""
    source, target = PAIRS[0]
    room = MODEL.config.data.max_target_length
    reading = without_source(MODEL, canvas_of(CONTINUE), target)
    assert reading.canvas.words == [*source, *[MASK] * len(target)][-room:] and reading.canvas.skill == NO_SOURCE
    long = blank_canvas(CONTINUE, source * 9, len(target), MASK)
    assert len(without_source(MODEL, long, target).text) == room
    assert backward(MODEL, canvas_of(CONTINUE), target) is None


def test_what_cannot_be_read_is_left_out(monkeypatch):
    """No second term for a text that had no source, or a model that never wrote without one; no third for a task of one
    direction, or a source too long to be a target.
    """
    _, target = PAIRS[0]
    assert without_source(MODEL, canvas_of(NO_SOURCE), target) is None
    assert backward(MODEL, canvas_of(NO_SOURCE), target) is None
    assert channel_scores(MODEL, [canvas_of(NO_SOURCE)], [target], collator_of(MODEL)) == ([0.0], [0])
    too_long = blank_canvas(PAIR, PAIRS[0][0] * 9, len(target), MASK)
    assert backward(MODEL, too_long, target) is None and without_source(MODEL, too_long, target) is not None
    monkeypatch.setattr(MODEL.config.data, "source_dropout", 0.0)
    assert without_source(MODEL, canvas_of(), target) is None


@pytest.mark.parametrize(
    ("tasks", "styles", "expected"),
    [
        ("qqp", {}, {PAIR: True}),
        ("CC", {}, {PAIR: False}),
        ("qqp,CC,text", {"qqp": ["formal"], "text": ["story"]}, {PAIR: True, CONTINUE + 1: False, CONTINUE + 2: True}),
        ("wiki_alignment,sample", {}, {PAIR: False, CONTINUE + 1: True}),
    ],
)
def test_reversible_skills(tasks, styles, expected):
    """A paraphrase can be turned round, in every style; a reply or a simpler version cannot."""
    skills = Skills.of(tasks, styles)
    assert {number: skills.is_reversible(number) for number in expected} == expected


@torch.no_grad()
def test_words_stay_and_scores_change():
    """The words of the candidates are those of the sampler; the score is the sum of the three; calls are counted."""
    canvases, collator = [canvas_of(row=row) for row in range(3)], collator_of(MODEL)
    plain, read, both = (
        decode(MODEL, canvases, SamplingConfig(num_steps=3, rank_by=how), collator)
        for how in ("revealed", "leave_one_out", "noisy_channel")
    )
    assert [output.ids for output in plain] == [output.ids for output in both]
    more, calls = channel_scores(MODEL, canvases, [output.ids for output in both], collator)
    for one, other, term, count in zip(read, both, more, calls):
        assert other.score == pytest.approx(one.score + term, abs=1e-5) and other.nfe == one.nfe + count
