"""For every test: no network, one thread, and one small trained run that is shared and must not be changed."""

import os

# before torch and the hub library are imported: both read these once
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # what a process says of a closed connection
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ.pop("HF_HUB_OFFLINE", None)

import shutil
import socket
from pathlib import Path

import pytest

from tests.helpers.scripts import run, small_flags, write_data


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """The hub is a closed port of this machine, and no socket leaves the machine."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    connect = socket.socket.connect

    def only_here(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_here)


@pytest.fixture(autouse=True)
def float32_everywhere(monkeypatch):
    """The processor is one without bf16, so that no test depends on the machine; a test of bf16 says otherwise."""
    monkeypatch.setattr("diffusion_bert.machine.precision.processor_flags", lambda: frozenset())


@pytest.fixture(autouse=True)
def no_state_of_the_user(monkeypatch, tmp_path_factory):
    """Histories and memories of tests are no matter of the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))


@pytest.fixture(autouse=True)
def no_bundled_checkpoint(monkeypatch, tmp_path_factory):
    """Tests that name no checkpoint mean a run of theirs, or none."""
    monkeypatch.setattr("diffusion_bert.config.paths.BUNDLED", tmp_path_factory.getbasetemp() / "no checkpoints")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """A folder with train, valid and test pairs from the bundled grammar."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory, data_dir) -> Path:
    """The run directory of one finished small training on pairs: do not change it."""
    output = tmp_path_factory.mktemp("runs")
    result = run("run_conditional_training", *small_flags(data_dir, output_dir=output, epochs=4))
    assert result.code == 0, result.err
    return next(output.iterdir())


@pytest.fixture(scope="session")
def trained_on_text(tmp_path_factory) -> Path:
    """The run directory of a small training on plain texts (.txt): do not change it."""
    texts = tmp_path_factory.mktemp("texts") / "mine.txt"
    things, colours = ("cat", "dog", "house", "tree", "car", "bird"), ("old", "new", "red", "big", "warm")
    texts.write_text(
        "\n".join(f"The {colour} {thing} is in the garden today." for colour in colours for thing in things)
    )
    output = tmp_path_factory.mktemp("text_runs")
    result = run(
        "run_conditional_training",
        *small_flags(None, train_file=texts, output_dir=output, epochs=2, task_name="custom"),
    )
    assert result.code == 0, result.err
    return next(output.iterdir())


@pytest.fixture
def own_run(trained, tmp_path) -> Path:
    """A copy of the shared run that a test may change, alone in its folder."""
    return Path(shutil.copytree(trained, tmp_path / "own" / trained.name))
