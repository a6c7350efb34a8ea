"""The house: floors, documentation and size of the code, and what every preset and file must have."""

import ast
import re
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import yaml

from diffusion_bert.commands.child_settings import BELONGS_TO_WEIGHTS
from diffusion_bert.config.presets import load_preset
from diffusion_bert.config.run_config import RunConfig
from tests.helpers.scripts import ROOT, SCRIPTS

PACKAGE = ROOT / "diffusion_bert"
FLOORS = (  # wings, and the few modules beside them, from the ground up: imports only point down
    "errors version text",
    "config machine",
    "data diffusion",
    "model",
    "samplers",
    "generation training",
    "evaluation",
    "commands",
    "export share trace_image",
)
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names.split()}
WINGS = [name for name in FLOOR_OF if (PACKAGE / name).is_dir()]
MAY_PRINT = ("commands", "export", "share", "trace_image")
FILES = sorted(PACKAGE.rglob("*.py"))
PRESETS = sorted((ROOT / "configs").glob("*.yaml"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def room(path: Path) -> str:
    """The wing in which a file is, or its own name where it is in none; the face of the package has neither."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[Path]:
    """Files of the package that a file imports, wherever in the file; a face stands for itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE.name]
        elif isinstance(node, ast.ImportFrom):
            base = path.relative_to(ROOT).parent.parts
            start = base[: len(base) - node.level + 1] if node.level else ()
            module = ".".join([*start, *([node.module] if node.module else [])])
            if module.split(".")[0] == PACKAGE.name:
                names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        for name in names:
            place = ROOT.joinpath(*name.split("."))
            found |= {file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}
    return found - {PACKAGE / "__init__.py", path}


@each_file
def test_imports_point_down(path):
    """A file stands on a floor and imports nothing from a higher one, nor from another wing of its own floor."""
    if path == PACKAGE / "__init__.py":
        return
    own = room(path)
    assert own in FLOOR_OF, f"{path.name} has no floor: put it into a wing"
    wrong = {room(file) for file in imported(path) if room(file) != own and FLOOR_OF[room(file)] >= FLOOR_OF[own]}
    assert not wrong


def test_no_circles():
    """No file imports, by whatever way round, itself; faces count as files of their own."""
    graph = {path: imported(path) for path in FILES if path != PACKAGE / "__init__.py"}
    done: set[Path] = set()

    def visit(path, trail):
        assert path not in trail, " -> ".join(str(file.relative_to(PACKAGE)) for file in [*trail, path])
        if path not in done:
            for other in graph[path]:
                visit(other, [*trail, path])
            done.add(path)

    for path in graph:
        visit(path, [])
    # the parser of imports sees something, inside functions too
    assert PACKAGE / "config/schema.py" in graph[PACKAGE / "diffusion/schedule.py"]
    assert PACKAGE / "training/trainer.py" in graph[PACKAGE / "commands/training_run.py"]
    assert PACKAGE / "generation/generator.py" in graph[PACKAGE / "trace_image.py"]


def test_tests_mirror_the_wings():
    """Every wing has a folder of tests; beside them are only those of the benchmarks and of the repository."""
    folders = {path.parent.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders == {*WINGS, "benchmarks", "repository"}


def test_the_root_holds_little():
    """Beside its wings and doors the package has at most four modules; every wing has a face that says what it is for,
    what it never does, and what it offers.
    """
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"export", "share", "trace_image"}
    assert modules == {"__init__", "errors", "version"}
    assert len(WINGS) == 11
    for wing in WINGS:
        text = (PACKAGE / wing / "__init__.py").read_text()
        tree = ast.parse(text)
        lines = ast.get_docstring(tree)
        assert len(lines.splitlines()) >= 3 and re.search(r"never|Only this wing", lines), wing
        offered = next(ast.literal_eval(node.value) for node in tree.body if "__all__" in ast.unparse(node)[:20])
        bound = {
            alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        bound |= {target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets}
        assert set(offered) <= bound, wing


def test_light_wings_load_in_a_blink():
    """Settings, machine and strings load no heavy library at the top of a file, nor do the flags' parser and the doors:
    that keeps --help and the refusal of a wrong path instant.
    """
    light = [path for wing in ("config", "machine", "text") for path in (PACKAGE / wing).glob("*.py")]
    light += [
        PACKAGE / f"{name}.py"
        for name in ("__init__", "version", "errors", "export", "share", "trace_image", "commands/cli")
    ]
    assert len(light) > 15
    for path in light:
        tree = ast.parse(path.read_text())
        top = {alias.name.split(".")[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        top |= {
            node.module.split(".")[0]
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module and not node.level
        }
        assert not top & {"torch", "numpy", "transformers", "tokenizers", "datasets", "matplotlib", "rich"}, path


@each_file
def test_only_the_top_prints(path):
    """Library code returns values; print() is for the commands, the doors and the scripts."""
    if room(path) not in MAY_PRINT:
        calls = [
            node.lineno
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
        ]
        assert not calls


@each_file
def test_documentation(path):
    """Every module, and every public class and function at its top level, says what it is."""
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.ClassDef)
    silent = [
        node.name
        for node in tree.body
        if isinstance(node, kinds) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert ast.get_docstring(tree) and not silent


@each_file
def test_size(path):
    """No file over 250 lines, unless its docstring gives the reason; no function over 60; no line over 120."""
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 250 or "Longer than 250 lines because" in ast.get_docstring(tree)
    long = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.end_lineno - n.lineno >= 60]
    assert not long
    assert max(map(len, text.splitlines())) <= 120


def test_scripts_are_short():
    """The four scripts are below 100 lines."""
    assert all(len((ROOT / f"{script}.py").read_text().splitlines()) < 100 for script in SCRIPTS)


def test_checkpoints_are_never_unpickled():
    """Every torch.load says weights_only=True; nothing else in the package reads a pickle."""
    loads = 0
    for path in [*FILES, *ROOT.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("load", "loads")
            ):
                owner = getattr(node.func.value, "id", "")
                assert owner not in ("pickle", "dill", "joblib", "marshal"), path
                if owner == "torch":
                    loads += 1
                    assert any(
                        word.arg == "weights_only" and getattr(word.value, "value", None) is True
                        for word in node.keywords
                    ), path
        assert not re.search(r"os\.system|shell=True|eval\(|exec\(", re.sub(r"\.eval\(", "", path.read_text())), path
    assert loads == 1


# ---- presets -------------------------------------------------------------------------------------------------------


def test_all_presets_are_there():
    """The presets of the menus, the one for a GPU and those of the released model."""
    expected = {
        "quick_demo",
        "fast_training",
        "deep_training",
        "quality_boost",
        "deep_training_continue",
        "fine_tuning",
    }
    expected |= {"qqp_bert_base", "general_english", "general_english_continue", "everyday_english"}
    assert {path.stem for path in PRESETS} >= expected


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_load(path):
    """Every preset is a legal config, each key once, none beyond the settings there are."""
    settings = load_preset(path.stem)
    flat = RunConfig.from_flat(settings, path.stem).to_flat()
    assert all(flat[name] == value for name, value in settings.items())
    keys = re.findall(r"^(\w+):", path.read_text(), flags=re.M)
    assert len(keys) == len(set(keys)) == len(settings) == len(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_open_with_what_to_expect(path):
    """The first lines are comments: what for, expected time and result."""
    opening = path.read_text().split("\n\n")[0]
    comments = [line for line in opening.splitlines() if line.startswith("#")]
    assert path.read_text().startswith("# ") and len(comments) >= 2
    text = " ".join(comments).lower()
    assert "time:" in text and "result:" in text


@pytest.mark.parametrize(
    ("name", "epochs", "num_steps"),
    [("quality_boost", 5, 64), ("deep_training_continue", 8, 128), ("fine_tuning", 3, None)],
)
def test_presets_for_continuing(name, epochs, num_steps):
    """What they promise in the menu; nothing in them belongs to the weights; fine-tuning has the smallest learning
    rate.
    """
    settings = load_preset(name)
    assert settings["epochs"] == epochs and settings.get("num_steps") == num_steps
    assert not set(settings) & set(BELONGS_TO_WEIGHTS)
    assert settings["lr_factor"] >= load_preset("fine_tuning")["lr_factor"]


@pytest.mark.parametrize("kind", [DeprecationWarning, FutureWarning])
def test_our_own_deprecated_calls_are_errors(kind):
    """A library that warns of a call made by this package fails the test that makes it; its own calls are its own
    affair.
    """
    with pytest.raises(kind):
        warnings.warn_explicit("old", kind, "model.py", 1, module="diffusion_bert.model.diffusion_model")
    if kind is DeprecationWarning:
        warnings.warn_explicit("old", kind, "other.py", 1, module="somewhere.else")


def test_no_syntax_newer_than_the_oldest_python():
    """Every file parses as Python 3.11, the oldest that pyproject.toml admits, and nothing that came later is
    imported; the tests have run there and on the newest.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["requires-python"] == ">=3.11" and project["tool"]["ruff"]["target-version"] == "py311"
    for path in [*FILES, *ROOT.glob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        ast.parse(path.read_text(), feature_version=(3, 11))
        assert not re.search(r"from (typing|warnings) import.*\b(override|TypeIs|deprecated)\b", path.read_text())


def test_every_mutant_still_applies():
    """The text that each mutant of mutations.py breaks stands exactly once in its file, and its tests exist: rewrite
    both together.
    """
    from tools.mutations import MUTANTS, test_file

    lost = [name for name, file, text, _, tests in MUTANTS if (PACKAGE / file).read_text().count(text) != 1]
    missing = [test for *_, tests in MUTANTS for test in tests.split() if not (ROOT / test_file(test)).is_file()]
    assert not lost and not missing and len(MUTANTS) >= 30


# ---- the repository ------------------------------------------------------------------------------------------------


def test_every_package_is_installed():
    """pyproject.toml lists every folder with code, so that pip install brings all of it, data files included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    listed -= {"diffusion_bert.checkpoints", "diffusion_bert.configs"}  # test_wheel.py installs them
    assert listed == {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    patterns = project["tool"]["setuptools"]["package-data"]
    data = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    for path in data:
        package = ".".join(path.parent.relative_to(ROOT).parts)
        assert any(path.match(pattern) for pattern in patterns[package]), path
    assert data


def test_requirements_are_enough():
    """Every third-party module that the package imports is named in requirements.txt, and nothing else is."""
    named = {
        re.split(r"[<>=~! \[]", line)[0].lower().replace("-", "_")
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line.strip() and line[0] != "#"
    }
    used = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                used.add(node.module.split(".")[0])
    third = {{"yaml": "pyyaml"}.get(name, name) for name in used - set(sys.stdlib_module_names) - {"diffusion_bert"}}
    assert third == named


@pytest.mark.parametrize(
    "name",
    ["README.md", "Makefile", "LICENSE", "CHANGELOG.md", "CITATION.cff", "requirements.txt", "docs/after_training.md"],
)
def test_files_of_the_repository(name):
    """The usual files are there and not empty."""
    if not (ROOT / name).exists() and name.endswith(".md"):
        pytest.skip(f"{name} is not written yet")
    assert (ROOT / name).stat().st_size > 100


def test_makefile_targets():
    """make demo, make test and make style exist."""
    text = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", text, flags=re.M) for target in ("demo", "test", "style"))
