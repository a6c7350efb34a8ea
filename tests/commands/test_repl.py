"""The command loop: every command, every mistake, and nothing the user can type ends it."""

import re
from typing import get_type_hints

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from diffusion_bert.commands.repl import OPTIONS, PROMPT, SETTABLE, Repl, typed
from diffusion_bert.config.fields import check_value
from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.data.skills import PAIR, Skills
from diffusion_bert.generation.correcting import LEAST_GAIN
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.model.checkpoint import load_checkpoint
from tests.helpers.scripts import run

SPECIAL = re.compile(r"\[(PAD|UNK|CLS|SEP|MASK|unused\d+)\]|##")
LONG = " ".join(f"The museum number {number} is open on Friday and on Sunday." for number in range(12))


@pytest.fixture(scope="module")
def model(trained):
    return load_checkpoint(trained / "best_model.pt")


class Session:
    """A loop whose output is collected."""

    def __init__(self, model, **options):
        self.lines = []
        options = {"num_steps": 3, "device": "cpu", **options}
        self.repl = Repl(DiffusionTextGenerator(model, SamplingConfig(**options)), write=self.lines.append)

    def options(self) -> dict:
        """All options by name."""
        return {**vars(self.repl.generator.options), **vars(self.repl.display)}

    def __call__(self, line: str) -> list[str]:
        """The lines one command writes."""
        self.lines.clear()
        assert self.repl.handle(line) is True
        return list(self.lines)

    def candidates(self, line: str) -> list[str]:
        """The numbered candidates one command writes."""
        return [
            re.fullmatch(r"  \d+\. (.*)", text, flags=re.S)[1] for text in self(line) if re.match(r"  \d+\. ", text)
        ]


@pytest.fixture
def session(model):
    return Session(model)


COMMANDS = [
    "para How can I learn to cook?",
    "fill The weather is nice today, so we go out.",
    "mask The [MASK] is [MASK] today.",
    "complete The best way to learn is",
]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_gives_candidates(session, line):
    """At least two different ones, numbered, none with a special token."""
    found = session.candidates(line)
    assert len(found) == 3 and len(set(found)) >= 2
    assert not any(SPECIAL.search(text) for text in found)


def test_what_was_typed_comes_back(session):
    """Outside the masked places the text is as typed, case and spacing included; complete keeps the whole text in
    front.
    """
    for text in session.candidates("mask  HELLO   World,  the [MASK] of McDonald's  is ~~ok~~!"):
        assert re.fullmatch(r"HELLO   World,  the \S+ of McDonald's  is ~~ok~~!", text)
    for text in session.candidates("complete  The BEST  way"):
        assert text.startswith("The BEST  way") and len(text) > len("The BEST  way")


def test_quotes_are_dropped_once(session):
    """One enclosing pair of quotes is no part of the text; others are."""
    assert all(text.startswith("The cat ") for text in session.candidates('mask "The cat [MASK]"'))
    assert all(text.startswith("“The cat” ") for text in session.candidates("mask “The cat” [MASK] now"))


def test_brackets_are_ordinary_text(session):
    """[Name] is text like any other, and so are other special tokens; only [MASK] means something."""
    for text in session.candidates("mask Dear [Name], the [MASK] of [CLS] is here."):
        assert re.fullmatch(r"Dear \[Name\], the \S+ of \[CLS\] is here\.", text)
    (line,) = session("mask Dear [Name], hello.")
    assert "no [MASK] in the text" in line


def test_asking_twice_gives_something_new(model):
    """Every request has its own seed, and the same seed gives the same session."""
    first, second = Session(model), Session(model)
    one, two = first.candidates(COMMANDS[0]), first.candidates(COMMANDS[0])
    assert one != two and [second.candidates(COMMANDS[0]), second.candidates(COMMANDS[0])] == [one, two]
    first("set seed 0")
    assert first.candidates(COMMANDS[0]) == one


def test_score_of_a_text_and_of_a_pair(session):
    """The numbers are those of Python, with a value for every word piece; asking twice gives the same; quotes are
    dropped.
    """
    session("set score_draws 4")
    generator = session.repl.generator
    for line, arguments in (
        ("score How are you?", ("How are you?",)),
        ('score "Where is it?" => How are you?', ("Where is it?", "How are you?")),
        ("score Where is it?=>How are you?", ("Where is it?", "How are you?")),
    ):
        lines = session(line)
        score = generator.score(*arguments)
        assert lines == session(line) and len(lines) == 4
        assert f"{score.nelbo:.2f} nats" in lines[0] and f"{score.standard_error:.2f}" in lines[0]
        assert f"{score.length:.2f}" in lines[1] and f"{score.leave_one_out:.2f} nats" in lines[2]
        assert [part.rsplit(" ", 1)[0] for part in lines[3].strip().split("  ")] == [p.piece for p in score.pieces]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("score => How are you?", "nothing stands before => : expected source => target"),
        ("score How are you? =>", "nothing stands behind =>"),
        ('score "" => ""', "nothing stands before"),
        (f"score {'museum ' * 60}", "word pieces: this model scores at most"),
        (f"score {'museum ' * 60} => How?", "beside this target the model takes"),
        ("fix The [MASK] is open.", "fill it first with mask"),
        (f"fix {'museum ' * 60}", "this model corrects at most"),
        ("set max_changes 0", "at least 1"),
        ("set score_draws 1", "at least 2"),
    ],
)
def test_what_cannot_be_scored_or_corrected(session, line, words):
    """One line that says why."""
    (message,) = session(line)
    assert words in message


def test_fix_shows_what_it_changed(session, monkeypatch):
    """The corrected text, then a line for each change; in colours where there are some; a text that stays says so."""
    fix, line = session.repl.generator.correct_text, "fix Where  is the the museum on Friday?"
    monkeypatch.setattr("diffusion_bert.generation.correcting.LEAST_GAIN", dict.fromkeys(LEAST_GAIN, 1e9))
    assert session(line) == ["  1. Where  is the the museum on Friday?", "     (nothing changed)"]
    monkeypatch.setattr("diffusion_bert.generation.correcting.LEAST_GAIN", dict.fromkeys(LEAST_GAIN, -1e9))
    correction = fix("Where  is the the museum on Friday?")
    lines = session(line)
    assert lines[0] == f"  1. {correction.text}" and correction.text.startswith("Where  ")
    assert lines[1:] == [f"     {change.before} -> {change.after}" for change in correction.changes] != []
    session.repl.show_trace = lambda trace, label: True
    coloured = session(line)
    assert coloured[1:] == lines[1:] and "\x1b[" in coloured[0]
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured[0]) == lines[0]


@pytest.mark.parametrize("command", ["para", "fill"])
def test_a_long_text_is_worked_on_sentence_by_sentence(session, command):
    """A text longer than the model's limit is not cut: sentence by sentence, each one answered."""
    found = session.candidates(f"{command} {LONG}")
    assert len(found) >= 2
    if command == "fill":
        assert all(text.count(".") >= 6 and len(text.split()) > 60 for text in found)


def test_a_long_text_with_one_mask(session):
    """Only the sentence with the [MASK] changes."""
    before, after = LONG[: len(LONG) // 2 + 20].rsplit(".", 1)[0] + ".", LONG[len(LONG) // 2 :].split(". ", 1)[1]
    for text in session.candidates(f"mask {before} The [MASK] is closed. {after}"):
        assert text.startswith(before) and text.endswith(after) and "[MASK]" not in text


@pytest.mark.parametrize("command", ["para", "fill", "complete", "mask [MASK]"])
def test_an_endless_sentence_is_refused_with_the_limit(session, command):
    """What cannot be split is refused in one line that names the limit."""
    (line,) = session(f"{command} {'museum ' * 200}")
    assert re.search(r"too long|at most", line) and re.search(r"\d+", line)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", "0.5"),
        ("num_steps", "4"),
        ("top_k", "7"),
        ("top_p", "0.8"),
        ("num_samples", "2"),
        ("sampler", "ancestral"),
        ("seed", "5"),
        ("guidance_scale", "1.5"),
        ("no_repeat", "off"),
        ("length", "12"),
        ("length", "short"),
        ("margin", "on"),
        ("length", "none"),
        ("trace", "on"),
        ("trace_delay", "0"),
        ("gamma", "0.5"),
    ],
)
def test_set_and_show(session, option, value):
    """set changes an option, show shows it and the model."""
    assert session(f"set {option} {value}") == [f"{option} = {value}"]
    lines = session("show")
    assert f"  {option} = {value}" in lines and "task sample" in lines[0] and len(lines) == 1 + len(SETTABLE)


def test_options_take_effect(session):
    """num_samples is the number of candidates; both samplers work; temperature 0 too."""
    session("set num_samples 2")
    assert len(session.candidates(COMMANDS[1])) == 2
    for line in ("set sampler ancestral", "set temperature 0", "set batch_size 1"):
        session(line)
        assert len(session.candidates(COMMANDS[0])) == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("set temperature", "needs a value"),
        ("set temperature hot", "expected a number"),
        ("set temperature nan", "finite"),
        ("set temperature -1", "at least 0"),
        ("set temperature 1e9", "at most 100"),
        ("set num_steps 0", "at least 1"),
        ("set num_steps 2.5", "whole number"),
        ("set top_p 1.01", "at most 1"),
        ("set sampler best", "expected one of ancestral, first_hitting, confidence"),
        ("set temprature 1", "did you mean 'temperature'?"),
        ("set trace maybe", "expected true or false"),
        ("set trace_delay -1", "at least 0"),
        ("set device cuda", "unknown option 'device'"),
        ("set seed -1", "at least 0"),
        ("set length 0", "short, same, long or a whole number of at least 1"),
        ("set no_repeat yes", "expected one of off, adjacent, content"),
        ("set guidance_scale -1", "at least 0"),
        ("set num_samples 99999999999999999999", "at most 1000"),
    ],
)
def test_nonsense_keeps_the_old_value(session, line, words):
    """A wrong option or value is one line, and everything stays as it was."""
    before = session.options()
    (message,) = session(line)
    assert words in message and session.options() == before


def test_unknown_and_empty_commands(session):
    """An unknown command names the nearest; an empty line is nothing; a command without a text shows an example."""
    assert "did you mean 'para'?" in session("parap hello")[0] and "help" in session("@@@")[0]
    assert session("") == [] == session("   ")
    for command in ("para", "fill", "mask", "complete", "score", "fix", 'para ""', "fill   "):
        assert "for example" in session(command)[0]
    assert len(session("x" * 10_000)[0]) < 200


def test_help_lists_everything(session):
    """help names every command and every option."""
    text = "\n".join(session("help"))
    assert all(
        word in text
        for word in (
            "para <text>",
            "fill <text>",
            "mask <text>",
            "complete <text>",
            "score <text>",
            "fix <text>",
            "set <option> <value>",
            "show",
            "quit",
            "Ctrl-D",
            *SETTABLE,
        )
    )


@pytest.mark.parametrize(
    "line",
    [
        "set temperature = 0.5",
        "set temperature=0.5",
        "set  temperature= 0.5",
        "set temperature 0.5",
        "set temperature: 0.5",
        "set temperature to 0.5",
        "set --temperature 0.5",
        "SET Temperature 0.5",
        "/set temperature 0.5",
    ],
)
def test_set_takes_an_equals_sign(session, line):
    """As the options are printed, so they can be typed, and as other programs want them."""
    assert session(line) == ["temperature = 0.5"]
    assert session("set num-samples 2") == ["num_samples = 2"] and session("set length to 3") == ["length = 3"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("temperature 0.5", "set temperature 0.5"),
        ("temperature = 0.5", "set temperature 0.5"),
        ("top_k=7", "set top_k 7"),
        ("Temperature: 0.5", "set temperature 0.5"),
        ("--num-samples 2", "set num_samples 2"),
        ("bye bye love", "para bye bye love"),
        ("q fever is a disease", "para q fever is a disease"),
        ("Hello, how are you?", "para Hello, how are you?"),
        ("quit smoking is hard", "para quit smoking is hard"),
        ("The weather is nice today.", "para The weather is nice today."),
    ],
)
def test_what_was_probably_meant_is_offered(session, line, offered):
    """A setting without set, a text without a command: asked, and done by y; by anything else not."""
    (question,) = session(line)
    assert question.startswith(f"{offered.removesuffix('?')}? (y ")
    before = session.options()
    assert session("show") and session("y")[0].startswith("unknown command 'y'") and session.options() == before
    session(line)
    lines = session("y")
    assert lines == session(offered) if offered.startswith("set") else lines[0].startswith("  1. ")


@pytest.mark.parametrize("line", ["quit smoking is hard", "exit strategies for startups", "Quit the job?"])
def test_a_sentence_is_no_farewell(session, line):
    """quit and exit leave alone, or with a word of farewell."""
    assert session.repl.handle(line) is True
    assert session.repl.handle("quit now") is False


def test_commands_do_not_mind_case_and_spaces(session):
    """PARA works; so do spaces around and a tab between."""
    assert len(session.candidates("  PARA   How are you?  ")) >= 2
    assert len(session.candidates("fill\tThe weather is nice today.")) >= 2
    assert session("set\ttop_k   4 ") == ["top_k = 4"]


@pytest.mark.parametrize(
    "line", ["para: How are you?", "Para: How are you?", "/para How are you?", "para How are you?"]
)
def test_signs_around_a_command(session, line):
    """A colon behind it or a stroke before it changes nothing."""
    session("set num_steps 2")
    session("set seed 4")
    expected = session("para How are you?")
    session("set seed 4")
    assert session(line) == expected and expected[0].startswith("  1. ")


@pytest.mark.parametrize(
    "word", ["quit", "exit", " QUIT ", "quit now", "quit()", "exit();", "Quit.", ":q", "/exit", "\\q", "bye!", "q"]
)
def test_leaving(session, word):
    """quit and exit leave, however they are dressed."""
    assert session.repl.handle(word) is False


def test_ctrl_c_gives_up_the_line_only(session, monkeypatch):
    """Ctrl-C during generation, or at the prompt, comes back to the prompt."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(session.repl.generator, "rewrite", interrupted)
    script = iter(["para How are you?", KeyboardInterrupt(), "show", EOFError(), "never"])

    def read():
        line = next(script)
        if isinstance(line, BaseException):
            raise line
        return line

    session.repl.run(read)
    assert any("interrupted" in line for line in session.lines) and any(
        "num_steps = 3" in line for line in session.lines
    )
    assert next(script) == "never"


@pytest.mark.parametrize(
    "text",
    [
        "museum " * 14_286,
        "x" * 100_000,
        "\x00" * 100_000,
        "[MASK]" * 16_667,
        "東" * 100_000,
        "\u0301" * 100_000,
        '"' * 100_000,
    ],
)
def test_a_line_of_100000_characters(session, text):
    """Answered, or refused in a short line, by every command; options stay."""
    before = session.options()
    session("set num_samples 1")
    for command in ("para", "complete", "score", "fix", "set temperature", "nonsense"):
        lines = session(f"{command} {text}")
        assert lines and all(len(line) <= 600 for line in lines if not line.startswith("  1. "))
    session(f"set num_samples {before['num_samples']}")
    assert session.options() == before


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    option=st.sampled_from(SETTABLE),
    value=st.one_of(st.text(min_size=1, max_size=20), st.integers().map(str), st.floats().map(str)),
)
def test_set_takes_legal_values_only(model, option, value):
    """Whatever is typed after set: either the option takes a value that the command line would take, or it keeps its
    old one; one line each time.
    """
    session = Session(model)
    before = session.options()
    lines = session(f"set {option} {value}") if value.strip() else [""]
    after = session.options()
    assert len(lines) == 1
    assert {name for name in before if before[name] != after[name]} <= {option}
    if lines[0] != f"{option} = {typed(after[option])}":
        assert after == before
    for name, (section, f) in OPTIONS.items():
        check_value(f, get_type_hints(section)[name], after[name])


def test_set_alone_lists_all_options(session):
    """One line per option with its value, what it does and what may be chosen."""
    lines = session("set")
    assert [line.split(" = ")[0].strip() for line in lines] == list(SETTABLE)
    assert any(line.startswith("  sampler = confidence") and "ancestral, first_hitting" in line for line in lines)
    assert any(line.startswith("  trace = off") for line in lines) and any(
        line.startswith("  length = none") for line in lines
    )


def test_requested_lengths(session):
    """short, same, long and a number are obeyed by what is written next."""
    generator = session.repl.generator
    source = generator.tokenizer.encode("How can I learn to cook in two weeks?")
    for length, expected in (
        ("9", 9),
        ("same", len(source)),
        ("short", round(len(source) * 2 / 3)),
        ("long", round(len(source) * 4 / 3)),
    ):
        assert session(f"set length {length}") == [f"length = {length}"]
        (outputs,) = generator.generate_ids([(PAIR, source)], generator.options, [3], 0)
        assert [len(output.ids) for output in outputs] == [expected] * 3
        assert len(session.candidates("para How can I learn to cook in two weeks?")) >= 1


def test_trace_without_colours(session):
    """A line per step, then the candidates as ever; the last step is the first candidate; nothing else changes; no
    escape codes.
    """
    plain = session.candidates(COMMANDS[0])
    session("set seed 0")
    session("set trace on")
    lines = session(COMMANDS[0])
    steps = [line for line in lines if line.startswith("  step ")]
    assert len(steps) >= 2 and steps[-1].endswith(plain[0]) and "_" in steps[0]
    assert lines[len(steps) :] == [f"  {number}. {text}" for number, text in enumerate(plain, 1)]
    assert not any("\x1b" in line for line in lines)


def test_trace_on_a_terminal(model):
    """What draws gets the trace, and the first candidate is not written twice; where it cannot draw, it is written."""
    for can_draw in (True, False):
        session, seen = Session(model), []
        session.repl.show_trace = lambda trace, label, seen=seen, answer=can_draw: (
            seen.append((label, trace.text)) or answer
        )
        assert len(session("para How are you?")) == 3 and not seen
        session("set trace on")
        lines = session("para How are you?")
        assert (
            len(seen) == 1
            and seen[0][0] == "  1. "
            and [line[:5] for line in lines] == ["  1. ", "  2. ", "  3. "][can_draw:]
        )


def test_completion(session):
    """Commands at the start, options after set, nothing elsewhere."""
    complete = session.repl.completions
    assert complete("co", "co") == ["complete "] and set(complete("", "")) >= {"para ", "set ", "quit "}
    assert complete("te", "set te") == ["temperature "] and "seed " in complete("", "set ")
    assert complete("te", "para te") == [] and complete("o", "set trace o") == []


def test_end_of_input_without_quit(trained):
    """A pipe that ends without quit ends the loop with exit code 0; broken UTF-8 in it does no harm."""
    result = run(
        "interactive_generation",
        "--checkpoint",
        trained / "best_model.pt",
        "--num_steps",
        "2",
        "--device",
        "cpu",
        stdin="para caf\udce9 now\nhelp\n",
    )
    assert result.code == 0 and result.err == "" and result.out.count(PROMPT) == 3 and "  2. " in result.out


def test_another_task_says_so(trained_on_text):
    """para on a checkpoint of another task gives that task's generation and says so in a line."""
    model = load_checkpoint(trained_on_text / "best_model.pt")
    assert not model.knows_pairs
    assert Session(model)(COMMANDS[0])[0].startswith("(this checkpoint was trained on plain texts")
    model.knows_pairs, model.skills = True, Skills.of("QT")
    lines = Session(model)(COMMANDS[0])
    assert lines[0] == "(this checkpoint was trained on QT: para writes a question about it)" and len(lines) >= 3
    assert "a question about it" in "\n".join(Session(model)("help"))


@pytest.mark.parametrize(("task", "command"), [("QT", "question"), ("wiki_alignment", "simplify"), ("CC", "reply")])
def test_skill_of_the_task(trained, task, command):
    """A checkpoint of such a task has its own command, in help too; another checkpoint says that it has not learned
    it.
    """
    model = load_checkpoint(trained / "best_model.pt")
    (refused,) = Session(model)(f"{command} How are you?")
    assert f"not learned to {command}" in refused and f"{command} <text>" not in "\n".join(Session(model)("help"))
    model.skills = Skills.of(task)
    session = Session(model)
    assert len(session.candidates(f"{command} How are you?")) == 3
    assert "for example" in session(command)[0] and f"  {command} <text>" in "\n".join(session("help"))


WORDS = st.sampled_from(
    [
        "para",
        "fill",
        "mask",
        "complete",
        "set",
        "show",
        "[MASK]",
        "[MASK][MASK]",
        "=>",
        "[CLS]",
        '"',
        "temperature",
        "nan",
        "\x00",
        "\ud800",
        "🙂",
        "a\u0301",
        "\u202e",
        "東京",
        "\x1b[2J",
        "İ",
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    line=st.one_of(
        st.text(max_size=40),
        st.tuples(
            st.sampled_from(["para ", "fill ", "mask ", "complete ", "score ", "fix ", "set "]),
            st.lists(st.one_of(WORDS, st.text(max_size=8)), max_size=6).map(" ".join),
        ).map("".join),
    )
)
@example(line="mask [MASK] \ud800")
def test_nothing_typed_ends_the_loop(model, line):
    """Any unicode and control characters: an answer or a line of explanation, never an exception, never a special token
    that was not typed.
    """
    session = Session(model, num_steps=2, num_samples=2)
    if line.strip().split(" ")[0].lower() in ("quit", "exit"):
        return
    for text in session.candidates(line):
        assert not SPECIAL.search(text) or SPECIAL.search(line)
