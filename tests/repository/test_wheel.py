"""A plain installation: the wheel holds the package, the presets and the bundled model, and works from any folder."""

import os
import subprocess
import sys
import zipfile

import pytest

from tests.helpers.scripts import ROOT

BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the unpacked wheel, as pip would put it into site-packages."""
    folder, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("tree")
    for path in (
        "diffusion_bert",
        "configs",
        "checkpoints",
        "pyproject.toml",
        "requirements.txt",
        "README.md",
        "LICENSE",
    ):
        os.symlink(ROOT / path, source / path)
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=source, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    site = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def python(installed, folder, *command):
    """Run Python in a folder with nothing of this project but the installed wheel; what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_presets_and_the_model_come_along(installed, tmp_path):
    """Every preset of the checkout is found by name, and so is the bundled model; both inside the package."""
    code = (
        "from pathlib import Path; import diffusion_bert\n"
        "from diffusion_bert.config import RunConfig, checkpoint_file, load_preset\n"
        "from diffusion_bert.config.presets import CONFIG_DIR\n"
        "print(Path(diffusion_bert.__file__).parent, CONFIG_DIR, checkpoint_file(None))\n"
        "print(*sorted(p.stem for p in CONFIG_DIR.glob('*.yaml')))\n"
        "RunConfig.from_flat(load_preset('quick_demo'))"
    )
    places, names = python(installed, tmp_path, "-c", code).splitlines()
    package, configs, model = places.split()
    assert package == str(installed / "diffusion_bert") and configs == f"{package}/configs"
    assert model == f"{package}/checkpoints/general_english.pt"
    assert names.split() == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))


def test_it_trains_and_answers_from_another_folder(installed, tmp_path):
    """A few steps of the demo and an answer in Python, where there is no checkout."""
    flags = "--preset quick_demo --max_steps 3 --max_samples 64 --device cpu --num_threads 1"
    code = f"import sys; from diffusion_bert.commands.train import main; sys.exit(main({flags.split()!r}))"
    assert "Trained 3 steps" in python(installed, tmp_path, "-c", code)
    code = (
        "from diffusion_bert import DiffusionTextGenerator\n"
        "g = DiffusionTextGenerator.from_checkpoint(num_steps=2)\n"
        "print(len(g.paraphrase_text('How can I learn to cook?', num_samples=2)))"
    )
    assert python(installed, tmp_path, "-c", code).strip() in ("1", "2")
    assert python(installed, tmp_path, "-m", "diffusion_bert.export", "--help").startswith("usage")
