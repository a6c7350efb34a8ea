"""The picture of a text as it is written."""

import pytest

from diffusion_bert import trace_image
from diffusion_bert.config.schema import SAMPLER_NAMES, SamplingConfig
from diffusion_bert.errors import UserError
from diffusion_bert.evaluation.confidence_map import follow, plot_confidence, shortened
from diffusion_bert.generation.generator import DiffusionTextGenerator
from tests.helpers.models import new_model, refusal, tiny_model

SOURCE = "How can I learn to cook for $5?"


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_following(sampler):
    """Every place has a word, the step that revealed it and a confidence in each step; together the words are the
    text.
    """
    written = follow(
        DiffusionTextGenerator(tiny_model(), SamplingConfig(sampler=sampler, remask_cap=0.3, known_words=False)),
        SOURCE,
        steps=5,
    )
    places = len(written.words)
    assert places == len(written.revealed) and all(len(row) == places for row in written.confidence)
    assert set(written.revealed) <= set(range(1, len(written.confidence) + 1)) and max(written.revealed) == len(
        written.confidence
    )
    assert "".join(written.words) == "".join(written.text.split()) and written.text != SOURCE
    for place, step in enumerate(written.revealed):
        assert 0 < written.confidence[step - 1][place] <= 1 + 1e-9
    if sampler not in ("first_hitting",):
        assert len(written.confidence) <= 5


def test_confident_places_come_first():
    """With the confidence sampler at temperature 0 the first word revealed is the surest of its step."""
    options = SamplingConfig(temperature=0.0, no_repeat="off", known_words=False, best_of=1, num_samples=1)
    written = follow(DiffusionTextGenerator(tiny_model(), options), SOURCE, steps=30)
    first = written.confidence[0]
    assert all(
        first[place] == pytest.approx(max(first), abs=1e-6) for place, step in enumerate(written.revealed) if step == 1
    )


def test_model_of_plain_texts_continues():
    """Without pairs there is no other sentence: the continuation is drawn."""
    model = new_model()
    model.knows_pairs = False
    assert follow(DiffusionTextGenerator(model, SamplingConfig(num_steps=3)), "The best way").text


def test_refusals(trained, tmp_path):
    """Empty and too long texts; a path that is no picture."""
    generator = DiffusionTextGenerator(tiny_model(), SamplingConfig(num_steps=2))
    assert "empty" in refusal(follow, generator, " ") and "too long" in refusal(
        follow, generator, "Where is the museum? " * 9
    )
    best = trained / "best_model.pt"
    for argv in ((best, "a", tmp_path / "x.jpg"), (best, "a", tmp_path / "none" / "x.png")):
        assert "expected a file ending in .png" in refusal(trace_image.main, [str(item) for item in argv])
    with pytest.raises(UserError):
        trace_image.main([str(best)])


def test_the_command(trained, tmp_path, capsys):
    """CHECKPOINT TEXT OUT.png writes an opaque picture and prints the text; as .svg it is the same to the byte every
    time.
    """
    import matplotlib.image

    path = tmp_path / "trace.png"
    assert (
        trace_image.main([str(trained / "best_model.pt"), SOURCE, str(path), "--num_steps", "4", "--device", "cpu"])
        == 0
    )
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[1] > 700 and (pixels.shape[2] == 3 or float(pixels[..., 3].min()) == 1.0)
    assert f"Written: {path}" in capsys.readouterr().out
    written = follow(DiffusionTextGenerator(tiny_model(), SamplingConfig(num_steps=2)), SOURCE)
    written.words[0] = "$\\frac"  # no formula
    plot_confidence(written, tmp_path / "again.png")
    drawn = []
    for _ in range(2):
        plot_confidence(written, tmp_path / "again.svg")
        drawn.append((tmp_path / "again.svg").read_bytes())
    assert drawn[0] == drawn[1] and drawn[0].startswith(b"<?xml") and b"<svg" in drawn[0]
    assert len(shortened("word " * 100)) <= 110 and shortened(SOURCE) == SOURCE
