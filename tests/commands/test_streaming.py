"""Sentences appear as they are finished: the line that is written stretch by stretch, and the command loop with it."""

import io

import pytest

from diffusion_bert.commands.repl import Repl
from diffusion_bert.commands.terminal import Stream, wrapped
from diffusion_bert.config.schema import DisplayConfig, SamplingConfig
from diffusion_bert.generation.generator import DiffusionTextGenerator
from tests.helpers.models import tiny_model

PARAGRAPH = "How can I learn to cook?  Where is the museum today?"


class Screen(io.StringIO):
    """A terminal of 30 columns that remembers what was on it at each flush."""

    def __init__(self, is_terminal: bool = True):
        super().__init__()
        self.terminal, self.seen = is_terminal, []

    def isatty(self) -> bool:
        return self.terminal

    def flush(self) -> None:
        self.seen.append(self.getvalue())


TEXT = "  1. The quick brown fox jumps over the lazy dog, and so on."


@pytest.mark.parametrize("cuts", [[], [9], [5, 15, 29], list(range(5, 58, 3))])
def test_a_stream_wraps_as_a_whole_line_does(monkeypatch, cuts):
    """Wherever it is cut between words, it is wrapped like ``say``; in a pipe it is not wrapped at all."""
    monkeypatch.setenv("COLUMNS", "31")
    places = [0, *[TEXT.index(" ", cut) for cut in cuts], len(TEXT)]
    for is_terminal, expected in ((True, wrapped(TEXT, 30)), (False, TEXT)):
        screen = Screen(is_terminal)
        stream = Stream(TEXT[:5], screen)
        for start, end in zip([5, *places[1:]], places[1:]):
            stream.write(TEXT[start:end])
        assert stream.end() and screen.getvalue() == expected + "\n"


def test_line_breaks_and_what_is_never_begun(monkeypatch):
    """A typed line break begins a new line of full width; a stream without a word writes nothing."""
    monkeypatch.setenv("COLUMNS", "31")
    screen = Screen()
    stream = Stream("  1. ", screen)
    for part in ("One two.", "\n\n  - ", "Three four five six seven eight nine.", "\n"):
        stream.write(part)
    assert stream.end()
    assert screen.getvalue() == "  1. One two.\n\n  - Three four five six seven\n    eight nine.\n\n"
    assert screen.seen[0] == "  1. One"  # each word at once
    glued = Screen()
    stream = Stream("  1. ", glued)
    for part in ("It was a rather long day.", " (", "Then we left.", ") ", '"', "So!", '"'):
        stream.write(part)
    assert stream.end() and glued.getvalue() == '  1. It was a rather long day.\n    (Then we left.) "So!"\n'
    empty = Screen()
    assert Stream("  1. ", empty).end() is False and empty.getvalue() == ""


def session(screen: Screen, **options) -> Repl:
    generator = DiffusionTextGenerator(
        tiny_model(), SamplingConfig(num_steps=3, best_of=1, num_samples=2, rank_by="revealed", **options)
    )
    return Repl(generator, lambda line: print(line, file=screen), stream=lambda start: Stream(start, screen))


@pytest.mark.parametrize("line", [f"para {PARAGRAPH}", "complete The best way"])
def test_the_loop_shows_sentences_as_they_are_finished(monkeypatch, line):
    """The screen holds the first sentence before the second is written; the numbered candidates are those of the loop
    without a stream.
    """
    screen, plain = Screen(False), []
    repl = session(screen, max_sentences=2, temperature=0.0)
    work, begun = repl.generator.generate_ids, []
    monkeypatch.setattr(
        repl.generator, "generate_ids", lambda *a, **k: begun.append(screen.getvalue()) or work(*a, **k)
    )
    repl.handle(line)
    assert begun[0] == "" and begun[-1].startswith("  1. ") and len(begun[-1]) > 10
    Repl(repl.generator, plain.append).handle(line)
    assert screen.getvalue().splitlines() == plain and plain[1].startswith("  2. ")


def test_no_stream_with_a_trace_or_in_fill():
    """A trace tells the whole story at once; fill has nothing to stream."""
    for line, display in ((f"para {PARAGRAPH}", DisplayConfig(trace=True)), ("fill The [MASK*] is", DisplayConfig())):
        screen = Screen(False)
        repl = session(screen)
        repl.display = display
        repl.handle(line)
        lines = screen.getvalue().splitlines()
        assert sum(text.startswith("  1. ") for text in lines) == 1 and any("  2. " in text for text in lines)


def test_a_refused_text_leaves_one_line():
    """Nothing of a candidate is on the screen before the refusal."""
    screen = Screen(False)
    session(screen).handle("para Why? " + "how " * 99)
    assert screen.getvalue().count("\n") == 1 and "is too long" in screen.getvalue()
