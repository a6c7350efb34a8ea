"""The example scripts and the notebook run, on a tiny model."""

import importlib.util
import json
import sys

import pytest

from tests.helpers.scripts import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_there_are_four_short_examples():
    """One for each project of docs/after_training.md, of about thirty lines, named there with its command."""
    page = (ROOT / "docs/after_training.md").read_text(encoding="utf-8")
    assert len(EXAMPLES) == 4
    for path in EXAMPLES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
        assert f"python examples/{path.name}" in page


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, trained, capsys, monkeypatch):
    """It runs from its first to its last line and prints some texts."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(str(trained / "best_model.pt"))
    assert len(capsys.readouterr().out.splitlines()) >= 6


def test_notebook_runs(tmp_path, monkeypatch):
    """Every cell of docs/quickstart.ipynb, with seconds of training instead of a minute."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    for name, value in {"MINUTES": "0.05", "PAIRS": "8", "OUTPUT": str(tmp_path / "runs")}.items():
        monkeypatch.setenv(f"QUICKSTART_{name}", value)
    notebook = nbformat.read(ROOT / "docs/quickstart.ipynb", as_version=4)
    place = {"metadata": {"path": str(ROOT / "docs")}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    outputs = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert "image/png" in outputs and "Score" in outputs and "error:" not in outputs
    assert (next((tmp_path / "runs").iterdir()) / "trace.png").is_file()
