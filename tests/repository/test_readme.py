"""What the README and the docs say is true: commands parse, files exist, links lead somewhere, tables are fresh."""

import argparse
import contextlib
import importlib
import io
import re
import shlex
import sys

import pytest

from diffusion_bert.commands.cli import Parser, settings_of
from diffusion_bert.commands.repl import ALL_SKILLS, SETTABLE
from diffusion_bert.config.run_config import RunConfig
from tests.helpers.scripts import ROOT, run
from tools.flag_tables import PAGES as PAGES_WITH_TABLES
from tools.flag_tables import rewritten

OURS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*OURS, ROOT / "checkpoints" / "README.md"]
TEXTS = {path: path.read_text(encoding="utf-8") for path in PAGES}
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
PROGRAM = re.compile(r"(?:\.venv/bin/)?(python3?|torchrun|make|pip|ruff)\b")
TOP_FOLDERS = ("benchmarks", "checkpoints", "configs", "diffusion_bert", "docs", "examples", "tests", "tools")
TYPED_IN_THE_LOOP = {*ALL_SKILLS, "para", "fill", "mask", "complete", "score", "fix", "set", "show", "help", "quit"}


class Parsed(Exception):
    """A program has parsed its flags; it goes no further."""


def blocks(text: str) -> list[str]:
    """The code of a page: fenced blocks, without Python, and indented ones."""
    fenced = re.findall(r"^```(?!python)\w*\n(.*?)^```", text, flags=re.M | re.S)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return [*fenced, *re.findall(r"(?:^ {4,}.*\n)+", rest, flags=re.M)]


def spans(text: str) -> list[str]:
    """Code in the sentences and tables of a page; a line may end inside it."""
    return re.findall(r"`([^`]+)`", re.sub(r"\s+", " ", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)))


def commands(text: str) -> list[str]:
    """Every command of a page that one can type: lines of code blocks, and code in the text that begins like one."""
    lines = [line for block in blocks(text) for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines()]
    found = [part for line in lines for part in re.split(r"&&|;|\|\|?", line.partition("  #")[0])]
    return [command.strip() for command in [*found, *spans(text)] if PROGRAM.match(command.strip())]


def program(command: str) -> tuple[str, list[str]]:
    """(module or target, arguments) of a command; a script is a module as well."""
    words = shlex.split(command)
    if words[0] in ("make", "pip", "ruff"):
        return words[0], words[1:]
    words = words[1:]
    if words[:1] == ["-m"]:
        return words[1], words[2:]
    place = next((place for place, word in enumerate(words) if not word.startswith("-")), None)
    return ("", words) if place is None else (words[place].removesuffix(".py"), words[place + 1 :])


def parse(module: str, arguments: list[str], monkeypatch) -> dict:
    """What the real parser of a program makes of the arguments; the program is stopped there."""

    def stopped(original):
        def parse_and_stop(self, argv=None, *more):
            raise Parsed(original(self, argv, *more))

        return parse_and_stop

    with monkeypatch.context() as patch:
        patch.setattr(Parser, "parse", stopped(Parser.parse))
        patch.setattr(argparse.ArgumentParser, "parse_args", stopped(argparse.ArgumentParser.parse_args))
        patch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(Parsed) as stop:
            importlib.import_module(module).main()
    return stop.value.args[0]


PROGRAMS = sorted(
    module
    for module in {program(command)[0] for path in OURS for command in commands(TEXTS[path])}
    if module and not module.startswith("examples/") and (ROOT / f"{module.replace('.', '/')}.py").is_file()
)


@each_page
def test_commands_parse(path, monkeypatch):
    """Every command names a program there is, with flags and values that its parser takes; presets exist."""
    for command in commands(TEXTS[path]):
        module, arguments = program(command)
        if module == "make":
            targets = [word for word in arguments if "=" not in word]
            assert all(re.search(rf"^{word}:", (ROOT / "Makefile").read_text(), flags=re.M) for word in targets), (
                command
            )
        elif module.startswith("examples/"):
            assert (ROOT / f"{module}.py").is_file(), command
        elif module and module not in ("pip", "ruff", "venv", "pytest"):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), command
            if not arguments:
                continue  # a program is named, or all its defaults are meant
            given = parse(module, arguments, monkeypatch)
            if module == "run_conditional_training":
                RunConfig.from_flat(settings_of(given))
            elif module == "continue_training":
                settings_of({name: given[name] for name in ("preset",) if name in given})


def test_there_are_commands():
    """The search for commands finds them, broken lines and torchrun included."""
    found = [command for path in OURS for command in commands(TEXTS[path])]
    assert len(found) > 80 and any(command.startswith("torchrun") for command in found)
    text = "    python a.py --x 1 \\\n      --y 2   # why\n\n`make test` and `python b.py`\n\n```\npip install c\n```\n"
    assert commands(text) == [
        "pip install c",
        "python a.py --x 1  --y 2".replace("  ", " "),
        "make test",
        "python b.py",
    ]
    assert program("torchrun --nproc_per_node=2 a.py --x 1") == ("a", ["--x", "1"])


@each_page
def test_files_exist(path):
    """Files of the repository that a page names in code are there, and so are the tests it names."""
    for name in (name for name in spans(TEXTS[path]) if re.fullmatch(r"\S+\.(py|yaml|md|ipynb|pt|svg)", name)):
        if "/" in name and not re.search(r"[{*A-Z]{3}|\{|^runs/|^path/|\.\.", name):  # or of the package, from there on
            assert (ROOT / name).is_file() or (ROOT / "diffusion_bert" / name).is_file(), f"{path.name}: {name}"
    for command in commands(TEXTS[path]):
        for word in shlex.split(command)[1:]:
            if word.split("/")[0] in TOP_FOLDERS and "/" in word and "$" not in word:
                assert (ROOT / word).exists(), command
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
    for name in (name for name in spans(TEXTS[path]) if re.fullmatch(r"test_\w+", name)):
        assert f"def {name}(" in tests, f"{path.name}: {name}"


@each_page
def test_links(path):
    """Links inside the repository lead to a file, and to a heading of it where they name one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[path]):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{path.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.M)
            assert anchor in [slug(heading) for heading in headings], f"{path.name}: {target}"


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_limits(path):
    """No line over 120 characters; the README has at most 150 lines."""
    lines = TEXTS[path].splitlines()
    assert [line for line in lines if len(line) > 120] == []
    assert path != ROOT / "README.md" or len(lines) <= 150


def test_every_page_asks_one_question_and_is_listed():
    """The title of a page says what it answers, a paragraph follows, and docs/README.md lists it."""
    index = TEXTS[ROOT / "docs" / "README.md"]
    for path in sorted((ROOT / "docs").glob("*.md")):
        lines = TEXTS[path].splitlines()
        assert lines[0].startswith("# ") and lines[1] == "" and lines[2]
        if path.name != "README.md":
            assert lines[0].endswith("?") and f"({path.name})" in index, path.name
    assert "(quickstart.ipynb)" in index


@pytest.mark.parametrize("name", PAGES_WITH_TABLES)
def test_flag_tables_are_fresh(name):
    """They are what ``python -m tools.flag_tables`` would write, and hold every flag."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert rewritten(text) == text and "<!-- flags of " in text and "| `--" in text
    assert rewritten(re.sub(r"(flags of \w+ -->\n).*?(<!-- end)", r"\1stale\n\2", text, flags=re.S)) == text


@each_page
def test_command_loop_and_python(path):
    """What is typed at the prompt of the command loop are commands and options it has; Python is Python."""
    for code in re.findall(r"^```python\n(.*?)^```", TEXTS[path], flags=re.M | re.S):
        compile(code, path.name, "exec")
    for line in re.findall(r"^Enter command: (.+)$", TEXTS[path], flags=re.M):
        assert line.split()[0] in TYPED_IN_THE_LOOP, line
    for option in re.findall(r"\bset ([a-z_]+) [\w.]+", "; ".join(spans(TEXTS[path]))):
        assert option in SETTABLE, option


def test_python_of_the_readme_runs(trained, tmp_path, monkeypatch, capsys):
    """From its first to its last line, with a small model as the newest run."""
    (tmp_path / "runs").symlink_to(trained.parent)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```", TEXTS[ROOT / "README.md"], flags=re.M | re.S)
    exec(code, {})
    assert capsys.readouterr().out.count("[") >= 3


def help_of(module: str, monkeypatch) -> str:
    """What a program prints with --help."""
    out = io.StringIO()
    with monkeypatch.context() as patch, contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", [module, "--help"])
        importlib.import_module(module).main()
    assert not stop.value.code
    return out.getvalue()


@pytest.mark.parametrize("module", PROGRAMS)
def test_help(module, monkeypatch):
    """Every program of the pages has a help."""
    assert help_of(module, monkeypatch).startswith("usage")


def test_flags_exist(monkeypatch):
    """Every flag that a page names, alone or with a value, is one of a program of the pages."""
    known = {flag for module in PROGRAMS for flag in re.findall(r"--\w+", help_of(module, monkeypatch))}
    known |= {"--help", "--version", "--nproc_per_node", "--nnodes", "--rdzv_backend", "--rdzv_endpoint"}
    for path in OURS:
        code = spans(TEXTS[path]) + commands(TEXTS[path])
        named = {flag for span in code for flag in re.findall(r"(?<![\w-])--[a-z]\w*", span)}
        assert named <= known, f"{path.name}: {sorted(named - known)}"


def test_training_table_of_the_readme(monkeypatch):
    """The flags in the table by the reader's situation train with the script that stands above them."""
    table = TEXTS[ROOT / "README.md"].split("type `python run_conditional_training.py` with")[1].split("\n\n")[0]
    rows = re.findall(r"`(--[^`]+)`", table)
    assert len(rows) >= 5
    for row in rows:
        RunConfig.from_flat(settings_of(parse("run_conditional_training", row.split(), monkeypatch)))


def test_dry_run(monkeypatch, tmp_path):
    """The dry run of docs/training.md goes through all stages and leaves nothing."""
    command = "python run_conditional_training.py --preset quick_demo --dry_run"
    assert command in commands(TEXTS[ROOT / "docs" / "training.md"])
    monkeypatch.chdir(tmp_path)
    module, arguments = program(command)
    done = run(module, *arguments, "--device", "cpu")
    assert done.code == 0 and list(tmp_path.iterdir()) == [], done.err
