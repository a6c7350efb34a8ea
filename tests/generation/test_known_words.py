"""What is written consists of known words: of the checkpoint's lexicon, of the source, of what was typed."""

import pytest
import torch

from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.data.lexicon import words_of
from diffusion_bert.data.skills import CONTINUE, NO_SOURCE, PAIR
from diffusion_bert.generation.canvas import NEW_WORD, NO_SIGN, Canvas, at_least, blank_canvas
from diffusion_bert.generation.decoding import decode
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.generation.ranking import COST, LESS, completion_score
from diffusion_bert.model.diffusion_model import extend_lexicon
from diffusion_bert.samplers import SAMPLERS
from tests.helpers.canvases import collator_of
from tests.helpers.models import grammar_pairs, new_model, tiny_model


def unknown_words(model, canvas: Canvas, ids: list[int]) -> list[tuple[int, ...]]:
    flags = model.tokenizer.continuation.tolist()
    known = {*model.known_words.words, *words_of(canvas.source, flags), *words_of(canvas.words, flags)}
    stray = [(index,) for index in ids[:1] if flags[index]]
    return [word for word in words_of(ids, flags) if word not in known] + stray


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("attention", ["isolated", "full"])
def test_no_word_is_invented(sampler, attention):
    """A random network invents many words, and none with the rules, at any number of steps, with or without a lexicon
    in the checkpoint; what was given stays.
    """
    model = new_model(attention=attention)
    encode, mask = model.tokenizer.encode, model.tokenizer.mask_id
    canvases = [blank_canvas(PAIR, encode(pair.source), 9, mask) for pair in grammar_pairs()[:8]]
    given = encode("how can i learn to xylo ?")
    canvases += [
        Canvas(NO_SOURCE, [], [given[0], mask, mask, *given[3:]], 0.3, [0, NEW_WORD, NEW_WORD] + [0] * (len(given) - 3))
    ]
    for lexicon in (model.lexicon, model.lexicon[:0]):
        model.lexicon = lexicon
        for steps in (1, 5):
            options = {"sampler": sampler, "num_steps": steps, "temperature": 2.0, "top_p": 1.0}
            free = decode(model, canvases, SamplingConfig(**options, known_words=False), collator_of(model))
            bound = decode(model, canvases, SamplingConfig(**options), collator_of(model))
            assert sum(len(unknown_words(model, c, o.ids)) for c, o in zip(canvases, free)) > 5
            for canvas, output in zip(canvases, bound):
                assert not unknown_words(model, canvas, output.ids) and mask not in output.ids
                assert all(old in (mask, new) for old, new in zip(canvas.words, output.ids))


def test_a_lexicon_grows():
    """A model that is trained on keeps the words it knew and takes in those of its new targets."""
    model = new_model()
    before = set(model.known_words.words)
    flags = model.tokenizer.continuation
    start, rest = int((~flags).nonzero()[-1]), int(flags.nonzero()[-1])
    extend_lexicon(model, [[start, rest, rest]])
    assert before and model.known_words.words == before | {(start, rest, rest)}


def test_known_words_with_a_trace():
    """A word that was written again is told in the trace, whose last frame reads as the text."""
    traces = []
    generator = DiffusionTextGenerator(tiny_model(), SamplingConfig(num_steps=1, temperature=3.0, top_p=1.0))
    for seed in range(5):
        found = generator.paraphrase_text("How can I learn?", on_trace=traces.append, seed=seed)
        *_, (_, cells) = traces[-1].frames()
        assert "".join(cell.text for cell in cells) == found[0]


# ---- completions ---------------------------------------------------------------------------------------------------


def test_completions_add_at_least_two_words():
    """At least min_added_words words where no length is asked for; 0 lets a single mark do."""
    generator = DiffusionTextGenerator(tiny_model(), SamplingConfig(num_steps=3))

    def added(**options) -> list[int]:
        texts = [text for seed in range(6) for text in generator.complete_text("How can I", seed=seed, **options)]
        return [sum(any(map(str.isalnum, word)) for word in text[len("How can I") :].split()) for text in texts]

    assert min(added()) >= 2 and min(added(min_added_words=4)) >= 3
    assert min(added(length=1)) <= 1


def test_what_a_completion_begins_with():
    """The first places take no mark; lengths too short for them lose their mass, unless no other is left."""
    canvas = blank_canvas(CONTINUE, [7], 4, 0, no_sign=2)
    assert canvas.constraints == [NEW_WORD + NO_SIGN, NO_SIGN, 0, 0]
    log_probs = torch.tensor([0.5, 0.3, 0.2]).log()
    assert at_least(log_probs, 3).isfinite().tolist() == [False, False, True]
    assert torch.equal(at_least(log_probs, 4), log_probs) and torch.equal(at_least(log_probs, 1), log_probs)
    assert completion_score("x", "x", ["the", "."], -1.0, 2) == -1.0 - LESS
    assert completion_score("x a b", "x", ["a", "b"], -1.0, 2) == -1.0
    assert completion_score("the door and the door", "the door and", ["the", "door"], -1.0, 2) == -1.0
    assert completion_score("go to the sea to the sea", "go to the sea", ["to"] * 2, -1.0, 2) == -1.0 - COST
