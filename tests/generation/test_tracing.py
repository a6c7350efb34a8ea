"""Traces: the frames end in the output, only masked places change, and watching changes nothing."""

import pytest

from diffusion_bert.config.schema import SAMPLER_NAMES, SamplingConfig
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.generation.tracing import GIVEN, HIDDEN, History, Trace, Tracer, align, join_traces
from tests.helpers.models import new_model, tiny_model

SKILLS = {
    "paraphrase_text": ("How can I learn to cook?", "Where is the museum? " * 9),
    "complete_text": ("The BEST way,  McDonald said", "I"),
    "fill_masks": ("HELLO, the [MASK][MASK]  of (Mr. X) ok!", "The weather is nice today, so we all go out."),
}


@pytest.fixture(scope="module")
def generator():
    return DiffusionTextGenerator(tiny_model(), SamplingConfig(num_steps=6, known_words=False, device="cpu", best_of=2))


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
@pytest.mark.parametrize("skill", SKILLS)
def test_frames_lead_to_the_output(generator, skill, sampler):
    """The last frame is the first candidate, and the candidates are those of an untraced call; a word stays once it is
    there, except under remask; what was typed never changes; a frame is as wide as the next unless a word comes back
    another.
    """
    texts, traces = list(SKILLS[skill]), []
    work = getattr(generator, skill)
    options = {"sampler": sampler, "remask_cap": 0.3}
    answers = work(texts, **options, on_trace=traces.append)
    assert answers == work(texts, **options)
    assert len(traces) == len(texts)
    for answer, trace in zip(answers, traces):
        frames = list(trace.frames())
        lines = ["".join(cell.text for cell in cells) for _, cells in frames]
        assert lines[-1] == answer[0] == trace.text and len(frames) > 2
        steps = [step for step, _ in frames]
        assert steps == sorted(set(steps)) and steps[0] == 0
        for (_, cells), (step, later) in zip(frames, frames[1:]):
            changed = [(a, b) for a, b in zip(cells, later) if a != b]
            assert changed and len(cells) == len(later)
            for before, after in changed:
                assert before.step != GIVEN and after.step in (step, HIDDEN)
                assert before.step == HIDDEN or sampler == "remask"
        assert all(set(cell.text) == {"_"} and cell.step == HIDDEN for cell in frames[0][1] if cell.step != GIVEN)
        assert all(cell.step != HIDDEN for cell in frames[-1][1])


def test_one_step_reveals_everything(generator):
    """With a single step there are two frames: nothing, and all."""
    traces = []
    generator.paraphrase_text("How are you?", num_steps=1, no_repeat="off", on_trace=traces.append)
    assert [step for step, _ in traces[0].frames()] == [0, 1]


def test_text_without_anything_to_write(generator):
    """Sentences without a [MASK] between others with one are there from the start."""
    text = "The museum is open on Friday and Sunday. " * 4 + "The [MASK] is closed."
    traces = []
    first, *_ = generator.fill_masks(text, on_trace=traces.append)
    cells = list(traces[0].frames())[0][1]
    assert "".join(cell.text for cell in cells if cell.step == GIVEN).startswith(
        "The museum is open on Friday and Sunday. " * 4
    )
    assert traces[0].text == first


def test_words_taken_back():
    """A word that goes back to [MASK] is blank again, and another word may stand there for a while."""
    trace = Trace(
        [("The ", None), ("Cat", 0), (" ", None), ("sat", 1)],
        [(1, 0, "dog"), (2, 0, None), (2, 1, "sat"), (4, 0, "cat")],
    )
    lines = ["".join(cell.text for cell in cells) for _, cells in trace.frames()]
    assert lines == ["The ___ ___", "The dog ___", "The ___ sat", "The Cat sat"] and trace.text == "The Cat sat"
    assert [step for step, _ in trace.frames()] == [0, 1, 2, 4]
    whole = join_traces([trace, Trace([(" ", None)]), trace])
    assert whole.text == "The Cat sat The Cat sat" and [step for step, _ in whole.frames()] == [0, 1, 2, 4, 5, 6, 8]


def test_alignment():
    """Pieces are found again whatever their capitals and spacing; where they are not, the text stays in one part."""
    tokenizer = tiny_model().tokenizer
    text = "Don't  I learn to cook?"
    ids = tokenizer.encode(text)
    parts = align(text, ids, tokenizer)
    assert "".join(part for part, _ in parts) == text and [place for _, place in parts if place is not None] == list(
        range(len(ids))
    )
    assert align("Ask: cook.", tokenizer.encode("cook."), tokenizer, start=4)[0] == ("Ask:", None)
    assert align("Something else", ids, tokenizer) == [("Something else", None)]


def test_confidence_is_a_probability_and_kept_for_every_step():
    """One row per step, zero at places the model never looked at, sure or not between 0 and 1 elsewhere."""
    model = new_model()
    generator, tracer = (
        DiffusionTextGenerator(model, SamplingConfig(num_steps=5, known_words=False)),
        Tracer(confidence=True),
    )
    source = model.tokenizer.encode("How can I learn to cook?")
    ((output,),) = generator.generate_ids([(1, source)], generator.options, [1], 0, tracer=tracer)
    (history,) = tracer.histories.values()
    assert isinstance(history, History) and len(history.confidence) == max(step for step, _, _ in history.changes)
    for row in history.confidence:
        assert all(0 < value <= 1 + 1e-9 for value in row[: len(output.ids)]) and not any(row[len(output.ids) :])
