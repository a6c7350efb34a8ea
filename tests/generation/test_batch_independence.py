"""A text is written alike in any company: alone, in small batches and in one large one, with every sampler.

In float64, where the sums of another batch width decide nothing; how often they do in float32: docs/generation.md.
"""

import copy
import dataclasses
import random

import pytest

from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.data.skills import NO_SOURCE, PAIR
from diffusion_bert.generation import decoding
from diffusion_bert.generation.canvas import Canvas, blank_canvas
from diffusion_bert.generation.decoding import decode
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.generation.numbering import candidates_of, named, numbers_of_examples, numbers_of_texts
from tests.helpers.canvases import collator_of, ids, mixed_canvases
from tests.helpers.models import grammar_pairs, new_model, refusal

TEXTS = 50
SIZES = (1, 7, 64)
WAYS = {
    "ancestral": {"sampler": "ancestral"},
    "first_hitting": {"sampler": "first_hitting"},
    "confidence": {"sampler": "confidence"},
    "entropy": {"sampler": "entropy"},
    "remask by confidence": {"sampler": "remask", "remask_cap": 0.3},
    "remask by ancestral": {"sampler": "remask", "remask_cap": 0.3, "remask_order": "ancestral"},
    "margin, few words": {"margin": True, "top_k": 5},
    "guidance, content repetition": {"guidance_scale": 0.5, "no_repeat": "content"},
    "reading": {"rank_by": "leave_one_out", "revise": 1, "shorten": True},
    "noisy channel": {"rank_by": "noisy_channel"},
}


def in_double(**settings):
    model = copy.deepcopy(new_model(source_dropout=0.1, **settings))
    model.denoiser.double()
    return model


@pytest.fixture(scope="module")
def model():
    return in_double()


def canvases_of(model) -> list[Canvas]:
    """Fifty canvases of all lengths and skills, some alike."""
    rng, blank = random.Random(0), []
    for pair in grammar_pairs()[: TEXTS - 14]:
        source = model.tokenizer.encode(pair.source)
        blank.append(blank_canvas(PAIR, source, rng.randint(1, 14), model.tokenizer.mask_id))
    return [*blank[:-4], *blank[:4], *mixed_canvases(model)]


@pytest.mark.parametrize("way", WAYS)
def test_batch_size_and_company_change_nothing(model, way):
    """Fifty canvases in batches of 1, 7 and 64, and in another order: the same ids, calls and (almost) scores; a dozen
    where finished texts are read, which is many more calls.
    """
    canvases, collator = canvases_of(model), collator_of(model)
    assert len(canvases) == TEXTS
    canvases = canvases[:: 4 if "rank_by" in WAYS[way] else 1]
    options = SamplingConfig(**{"num_steps": 4, "temperature": 1.0, "rank_by": "revealed", **WAYS[way]})
    one, some, all_at_once = (
        decode(model, canvases, dataclasses.replace(options, batch_size=size), collator, 5) for size in SIZES
    )
    assert ids(one) == ids(some) == ids(all_at_once)
    assert [output.nfe for output in one] == [output.nfe for output in some] == [output.nfe for output in all_at_once]
    assert [output.score for output in one] == pytest.approx([output.score for output in all_at_once])
    few = named(canvases)[10:2:-1]  # as they were, in other company
    assert ids(decode(model, few, options, collator, 5)) == ids(one)[10:2:-1]
    assert ids(decode(model, canvases, options, collator, 6)) != ids(one)


@pytest.mark.parametrize("settings", ({"attention": "full"}, {"self_conditioning": True}, {"timestep": "prefix"}))
def test_every_kind_of_model(settings):
    """With full attention, guesses handed on and a network that knows the time."""
    model = in_double(**settings)
    canvases, collator = canvases_of(model)[::3], collator_of(model)
    options = SamplingConfig(sampler="ancestral", num_steps=4, temperature=1.0, rank_by="revealed")
    one, all_at_once = (
        decode(model, canvases, dataclasses.replace(options, batch_size=size), collator) for size in (1, 64)
    )
    assert ids(one) == ids(all_at_once)


def test_unknown_words_are_written_again_alike(model, monkeypatch):
    """The places of invented words that are left get other numbers, the same in any batch."""
    canvases, collator, seen = canvases_of(model), collator_of(model), []
    real = decoding.row_keys
    monkeypatch.setattr(decoding, "row_keys", lambda seed, *rest: seen.append(seed) or real(seed, *rest))
    options = SamplingConfig(num_steps=1, temperature=5.0, top_p=1.0, rank_by="revealed")
    one, all_at_once = (
        ids(decode(model, canvases, dataclasses.replace(options, batch_size=size), collator)) for size in (1, 64)
    )
    assert one == all_at_once and len(set(seen)) == 2


# ---- texts ---------------------------------------------------------------------------------------------------------

QUESTIONS = ["How can I learn to cook?", "Where is the museum? " * 6, "Where is it?", "How can I learn to cook?"]


@pytest.mark.parametrize("skill", ("paraphrase_text", "complete_text", "fill_masks"))
def test_alone_and_in_a_list(model, skill):
    """A text, also one of several sentences, gets in a list what it gets alone; a second one like it gets others, and
    ``numbers`` says which.
    """
    generator = DiffusionTextGenerator(model, SamplingConfig(num_steps=3, temperature=1.0, num_samples=2, best_of=1))
    work = getattr(generator, skill)
    texts = [text for text in QUESTIONS if skill != "complete_text" or len(text) < 60]
    together = work(texts, batch_size=3)
    assert [work(text) for text in texts[:-1]] == together[:-1]
    assert together[-1] != together[0] and work(texts[-1:], numbers=[1]) == together[-1:]
    assert work(texts, numbers=range(5, 5 + len(texts)), batch_size=1) == work(
        texts, numbers=range(5, 5 + len(texts)), batch_size=64
    )
    assert "2 entries for 1 texts" in refusal(work, texts[:1], numbers=[0, 1])


def test_lengths_drawn_independently(model):
    """Raw candidates of drawn lengths, as in an evaluation: the same whatever else is asked for."""
    generator = DiffusionTextGenerator(model, SamplingConfig(num_steps=2, temperature=1.0))
    examples = [(PAIR, model.tokenizer.encode(pair.source)) for pair in grammar_pairs()[:6]]
    counts = [3, 1, 2, 3, 3, 3]
    whole = generator.generate_ids(examples, generator.options, counts, 0, independent=True)
    for index in (5, 2):
        (alone,) = generator.generate_ids(
            examples[index : index + 1], generator.options, counts[index : index + 1], 0, independent=True
        )
        assert ids(alone) == ids(whole[index])
    lengths = [len(output.ids) for outputs in whole for output in outputs]
    assert len(set(lengths)) > 3


def test_a_revision_is_compared_with_candidates_of_its_own_text(model):
    """Two texts with the same source do not keep each other from the same words."""
    source = model.tokenizer.encode(grammar_pairs()[0].source)
    blank = [blank_canvas(PAIR, source, 9, model.tokenizer.mask_id) for _ in range(4)]
    options = SamplingConfig(num_steps=2, temperature=1.0, revise=3)
    canvases = candidates_of(1, blank[:2]) + candidates_of(2, blank[2:])
    together = ids(decode(model, canvases, options, collator_of(model)))
    apart = [ids(decode(model, part, options, collator_of(model))) for part in (canvases[:2], canvases[2:])]
    assert together == apart[0] + apart[1]


# ---- numbers -------------------------------------------------------------------------------------------------------


def test_numbers():
    """Equal texts are counted, parts numbered within their text, and every difference makes another number."""
    assert numbers_of_texts(["a", "b", "a"], None) == [0, 0, 1] and numbers_of_texts(["a", "b"], [7, 9]) == [7, 9]
    examples = [(PAIR, [5, 6]), (PAIR, (5, 6)), (NO_SOURCE, [5, 6]), (PAIR, [5]), (PAIR, [56])]
    numbers = numbers_of_examples(examples, None)
    assert len(set(numbers)) == 5 and numbers_of_examples(examples[1:2], [(1, 0)]) == numbers[1:2]
    assert all(0 <= number < 2**64 for number in numbers)


def test_canvases_of_no_text():
    """They are told apart by what stands in them, equal ones by their order; what has a name keeps it, and the caller's
    canvases are left alone.
    """
    plain = [Canvas(PAIR, [7], [4, 4]), Canvas(PAIR, [7], [4, 4]), Canvas(PAIR, [7, 4], [4]), Canvas(PAIR, [7], [4, 8])]
    given = named([*plain, *candidates_of(5, [Canvas(PAIR, [7], [4, 4])])])
    assert given[0].text == given[1].text and [canvas.candidate for canvas in given] == [0, 1, 0, 0, 0]
    assert len({canvas.text for canvas in given}) == 4 and given[4].text == 5
    assert all(canvas.text is None for canvas in plain)


def test_memory_bounds_a_batch(monkeypatch):
    """Places beyond one table of log mu begin a new batch, twice as soon with guidance; a longer canvas goes alone; the
    texts stay the same.
    """
    model = in_double()
    canvases, options = canvases_of(model)[:20], SamplingConfig(num_steps=3, batch_size=8)
    whole = decode(model, canvases, options, collator_of(model))
    vocab_size, most = model.denoiser.bert_config.vocab_size, 16
    monkeypatch.setattr(decoding, "LARGEST_TABLE", most * vocab_size + vocab_size - 1)
    places = [canvas.words.count(model.tokenizer.mask_id) for canvas in canvases]
    for guided, limit in ((False, most), (True, most // 2)):
        batches = list(decoding.batches_of(model, canvases, range(len(canvases)), options.batch_size, guided))
        assert [index for batch in batches for index in batch] == list(range(len(canvases)))
        assert all(len(batch) == 1 or sum(places[index] for index in batch) <= limit for batch in batches)
        # no batch could have taken the next canvas
        for batch, following in zip(batches, batches[1:]):
            assert len(batch) == 8 or sum(places[index] for index in [*batch, following[0]]) > limit
    assert [output.ids for output in decode(model, canvases, options, collator_of(model))] == [o.ids for o in whole]
