"""Second thoughts: words are rewritten and left out only where the text gets likelier and repeats nothing new."""

import dataclasses

import pytest
import torch

from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.data.skills import NO_SOURCE, PAIR
from diffusion_bert.generation.canvas import CONTINUATION, NO_SIGN, WORD, Canvas, Decoded, blank_canvas
from diffusion_bert.generation.decoding import decode
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.generation.leave_one_out import leave_one_out, text_score
from diffusion_bert.generation.revising import (
    Draft,
    hidden_word,
    leave_out_worst,
    may_replace,
    repeats_in_a_row,
    rewrite_worst,
    words_of,
    worst_word,
)
from tests.helpers.canvases import collator_of
from tests.helpers.models import grammar_pairs, tiny_model

MODEL = tiny_model()
TOKENIZER = MODEL.tokenizer


def draft(text: str, source: str = "where is the morning ?", scores: list[float] | None = None) -> Draft:
    """A finished text with these scores (default: all sure)."""
    ids = TOKENIZER.encode(text)
    canvas = blank_canvas(PAIR, TOKENIZER.encode(source), len(ids), TOKENIZER.mask_id)
    return Draft(canvas, ids, 1, torch.tensor(scores or [-0.1] * len(ids), dtype=torch.float64))


def test_words_are_whole_and_no_signs():
    """All pieces of a word go together; punctuation and what stands at an apostrophe are left alone."""
    ids = TOKENIZER.encode("xylo , it's me")
    names = [TOKENIZER.tokens[index] for index in ids]
    words = words_of(draft("xylo , it's me"), TOKENIZER)
    first = names.index(",")
    assert first > 1 and words == [list(range(first)), [len(ids) - 1]]


def test_the_worst_word_is_unsure_and_untried():
    """Least mean score first; none is left when all are sure or tried."""
    one = draft("where is the morning", scores=[-3.0, -0.1, -5.0, -0.5])
    assert worst_word(one, TOKENIZER) == [2]
    one.tried.add((2,))
    assert worst_word(one, TOKENIZER) == [0]
    one.tried.add((0,))
    assert worst_word(one, TOKENIZER) is None


def test_hidden_word():
    """Only the places of the word are open, for a word; a place that continued a typed word goes on doing so."""
    one = draft("where is the morning")
    canvas = hidden_word(one, [2, 3], MODEL)
    assert canvas.words == [*one.ids[:2], TOKENIZER.mask_id, TOKENIZER.mask_id]
    assert canvas.constraints[2:] == [WORD, NO_SIGN] and 0 < canvas.tau < 1
    glued = dataclasses.replace(one, canvas=Canvas(NO_SOURCE, [], one.canvas.words, 1.0, [CONTINUATION] * 4))
    assert hidden_word(glued, [1], MODEL).constraints[1] == CONTINUATION | NO_SIGN


@pytest.mark.parametrize(
    ("text", "repeated"),
    [("the the morning", 1), ("the morning the morning", 1), ("is the morning is", 0), ("what \" \" \"", 0),
     ("my plan is good my plan is good", 1), ("morning , morning", 0)],
)  # fmt: skip
def test_repeats_in_a_row(text, repeated):
    """Words and phrases that stand twice in a row are found, marks are not."""
    assert len(repeats_in_a_row(TOKENIZER.encode(text), TOKENIZER)) == repeated


def test_no_repetition_is_ever_made():
    """A rewrite that doubles a word or a phrase, or gives the source again, is refused whatever its score."""
    one = draft("the morning is good", source="where is the morning")
    assert not may_replace(one, TOKENIZER.encode("the the is good"), TOKENIZER)
    assert not may_replace(one, TOKENIZER.encode("the morning the morning"), TOKENIZER)
    assert not may_replace(one, TOKENIZER.encode("where is the morning"), TOKENIZER)
    assert may_replace(one, TOKENIZER.encode("the morning was good"), TOKENIZER)
    doubled = draft("the the morning")
    assert may_replace(doubled, TOKENIZER.encode("the the plan"), TOKENIZER)  # it was there before


@pytest.mark.parametrize(("after", "kept"), [(-0.2, True), (-9.0, False)])
def test_a_rewrite_is_kept_where_the_score_rises(after, kept):
    """The new word comes in only with a better score; either way the word is not tried again."""
    drafts = [draft("where is the morning", scores=[-0.1, -0.1, -4.0, -0.1])]
    old, new = list(drafts[0].ids), TOKENIZER.encode("where is plan morning")

    def scored(canvases, texts):
        return [torch.full((len(text),), after, dtype=torch.float64) for text in texts]

    assert rewrite_worst(drafts, MODEL, scored, lambda canvases: [Decoded(new, 1, 0.0)], None) == 1
    assert drafts[0].ids == (new if kept else old) and drafts[0].tried == {(2,)}
    assert rewrite_worst(drafts, MODEL, scored, lambda canvases: [Decoded(new, 1, 0.0)], None) == kept - kept * (
        after > -0.69
    )


def test_two_candidates_do_not_become_one():
    """A rewrite that another candidate of the same source already is, is not taken."""
    drafts = [draft("where is my morning", scores=[-0.1, -0.1, -4.0, -0.1]), draft("where is the morning")]
    written = [Decoded(drafts[1].ids, 1, 0.0)]
    rewrite_worst(drafts, MODEL, lambda c, texts: [torch.zeros(len(text)) for text in texts], lambda c: written, None)
    assert drafts[0].ids == TOKENIZER.encode("where is my morning")


@pytest.mark.parametrize(("gain", "kept"), [(1.0, True), (0.05, False)])
def test_a_word_is_left_out_where_the_rest_is_clearly_likelier(gain, kept):
    """Of the unlikely words the one without which the mean score is best; a text of few words stays."""
    scores = [-0.1, -0.1, -3.0, -0.1, -0.1]
    drafts = [draft("where is the good morning", scores=scores), draft("the good morning", scores=[-5.0] * 3)]
    mean = sum(scores) / len(scores)

    def scored(canvases, texts):
        return [torch.full((len(text),), mean + gain, dtype=torch.float64) for text in texts]

    leave_out_worst(drafts, TOKENIZER, scored, None)
    expected = "where is good morning" if kept else "where is the good morning"
    assert drafts[0].ids == TOKENIZER.encode(expected) and drafts[1].ids == TOKENIZER.encode("the good morning")
    assert len(drafts[0].canvas.words) == len(drafts[0].ids)


@pytest.mark.parametrize("attention", ["isolated", "full"])
def test_scores_never_fall(attention):
    """With a model: what was revised is at least as likely as what was sampled, given words stay, and the samplers'
    own words are the same with and without.
    """
    model = tiny_model(attention)
    encode, mask = model.tokenizer.encode, model.tokenizer.mask_id
    canvases = [blank_canvas(PAIR, encode(pair.source), 8, mask) for pair in grammar_pairs()[:6]]
    given = encode("where is the good morning ?")
    canvases += [Canvas(NO_SOURCE, [], [given[0], mask, *given[2:]], 0.2)]
    collator = collator_of(model)
    options = SamplingConfig(num_steps=3, temperature=1.0)
    before = decode(model, canvases, options, collator)
    after = decode(model, canvases, dataclasses.replace(options, revise=3), collator)
    scores = [
        leave_one_out(model, canvases, [output.ids for output in outputs], collator) for outputs in (before, after)
    ]
    assert all(text_score(new, 0.0) >= text_score(old, 0.0) - 1e-6 for old, new in zip(*scores))
    assert any(one.ids != two.ids for one, two in zip(before, after))
    assert [index for place, index in enumerate(after[-1].ids) if place != 1] == [given[0], *given[2:]]
    signs = [[bool(model.tokenizer.signs[index]) for index in output.ids] for output in after]
    assert all(not new or old for one, two in zip(before, signs) for old, new in zip(
        [bool(model.tokenizer.signs[index]) for index in one.ids], two))  # fmt: skip


@pytest.mark.parametrize("skill", ["paraphrase_text", "complete_text", "fill_masks"])
@pytest.mark.parametrize(
    "options", [{"revise": 2}, {"shorten": True, "rank_by": "leave_one_out"}, {"revise": 1, "shorten": True}]
)
def test_every_skill_with_a_trace(skill, options):
    """All skills take the options; the last frame of the trace is the first candidate."""
    traces = []
    generator = DiffusionTextGenerator(MODEL, SamplingConfig(num_steps=3))
    for text in ("How can I learn to cook?", "How [MASK] I learn to [MASK]?"):
        found = getattr(generator, skill)(text, on_trace=traces.append, **options)
        assert found and traces[-1].text == found[0]
        *_, (_, cells) = traces[-1].frames()
        assert "".join(cell.text for cell in cells) == found[0]
