"""No room to write: one line, exit code 2, and what was there before is intact. On a real full disk where one may be
mounted, else under a limit.
"""

import contextlib
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from diffusion_bert.commands.cli import guarded
from diffusion_bert.model.checkpoint import save_checkpoint
from diffusion_bert.model.payload import read_payload
from diffusion_bert.training.run_directory import RunDirectory
from tests.helpers.models import refusal, tiny_model
from tests.helpers.scripts import run, small_flags, start


@contextlib.contextmanager
def largest_file(size: int):
    """Within this block the system refuses to write any file beyond ``size`` bytes ("File too large")."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 3 MB, which holds a tiny model but not two."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def one_line(result, *words: str) -> None:
    """A refusal: exit code 2, one error line with these words, no traceback."""
    errors = [line for line in result.err.replace("\r", "\n").splitlines() if "rror" in line]
    assert result.code == 2 and len(errors) == 1 and errors[0].startswith("error: "), result.err[-2000:]
    assert all(word in errors[0] for word in words) and "Traceback" not in result.err, errors


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_training_on_a_full_disk(data_dir, small_disk):
    """The real script: last.pt, which comes before the first validation, fits; best_model.pt beside it does not. One
    line; last.pt loads; no half file.
    """
    process = start(
        "run_conditional_training", *small_flags(data_dir, output_dir=small_disk, max_steps=4, save_steps=1)
    )
    out, err = process.communicate(timeout=300)
    (folder,) = small_disk.iterdir()
    one_line(
        type("Result", (), {"code": process.returncode, "err": err}),
        "best_model.pt",
        "No space left on device",
        "another place",
    )
    assert read_payload(folder / "last.pt")["training"]["state"]["step"] == 0
    assert not list(folder.glob(".*")) and not (folder / "best_model.pt").exists()


def test_resuming_on_a_full_disk(data_dir, tmp_path):
    """A run that cannot save any more keeps its last.pt, byte for byte, and goes on from there when there is room
    again.
    """
    from diffusion_bert.training.state import Reporter
    from tests.helpers.scripts import new_trainer

    class Stop(Reporter):
        def step(self, step, progress, values):
            trainer.stop_signal = 2 if step == 2 else trainer.stop_signal

    trainer = new_trainer(data_dir, tmp_path, Stop(), max_steps=4, save_steps=1)
    trainer.fit()
    before = trainer.run.last.read_bytes()
    with largest_file(len(before) // 2):
        result = run("continue_training", "--resume", "--model_dir", trainer.run.path)
    one_line(result, "last.pt", "File too large", "previous file")
    assert trainer.run.last.read_bytes() == before and not list(trainer.run.path.glob(".*"))
    assert run("continue_training", "--resume", "--model_dir", trainer.run.path).code == 0
    assert read_payload(trainer.run.last)["training"]["state"]["step"] == 4


@pytest.mark.parametrize("limit, name", [(3_000, "evaluation.json"), (20_000, "evaluation.png")])
def test_reports_on_a_full_disk(own_run, limit, name):
    """The previous report stays, whichever of its files does not fit."""
    for file in ("evaluation.json", "evaluation.md", "evaluation.png"):
        (own_run / file).write_text("old")
    with largest_file(limit):
        result = run(
            "evaluate_trained_model",
            "--checkpoint",
            own_run / "best_model.pt",
            "--max_samples",
            2,
            "--num_steps",
            2,
            "--device",
            "cpu",
        )
    one_line(result, name, "File too large")
    assert (own_run / name).read_text() == "old" and not list(own_run.glob(".*"))


@pytest.mark.parametrize("limit", [0, 3000, 300_000])
def test_exports_on_a_full_disk(own_run, tmp_path, limit, capsys):
    """A transformers folder is there whole or not at all, whichever of its files does not fit."""
    from diffusion_bert import export

    with largest_file(limit):
        assert guarded(export.main, [str(own_run), str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: cannot write") and err.count("\n") == 1 and "File too large" in err
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize("limit", [0, 1000, 300_000])
def test_every_save_is_all_or_nothing(tmp_path, limit):
    """Wherever the space ends - at the first byte, in the header, among the weights - the old file stays."""
    save_checkpoint(tmp_path / "a.pt", tiny_model())
    before = contents(tmp_path)
    with largest_file(limit):
        message = refusal(save_checkpoint, tmp_path / "a.pt", tiny_model(), {"more": 1})
    assert "File too large" in message and contents(tmp_path) == before


def test_the_log_on_a_full_disk(tmp_path):
    """A line that cannot be written is one line with the way to go on."""
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    message = refusal(RunDirectory(tmp_path).append_metrics, {"step": 1})
    assert "No space left on device" in message and "--resume" in message


def test_output_to_a_full_disk(capsys):
    """`script > file` on a full disk: the failing print ends in one line; an error that is ours is not hidden."""

    def printing(argv):
        with open("/dev/full", "w") as full:
            print("hello", file=full, flush=True)

    assert guarded(printing, []) == 2 and capsys.readouterr().err.startswith("error: No space left on device")
    with pytest.raises(FileNotFoundError):
        guarded(lambda argv: os.stat("/nowhere/at/all"), [])


def test_a_full_temporary_folder(data_dir, tmp_path, monkeypatch):
    """A dry run has nowhere to put its files: one line."""
    import tempfile

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    result = run("run_conditional_training", *small_flags(data_dir, output_dir=tmp_path), "--dry_run")
    one_line(result, "Not a directory")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(data_dir, tmp_path):
    """A read-only --output_dir: one line, nothing written."""
    (tmp_path / "closed").mkdir(mode=0o500)
    one_line(
        run("run_conditional_training", *small_flags(data_dir, output_dir=tmp_path / "closed")),
        "closed",
        "Permission denied",
    )


def test_two_runs_started_at_once(data_dir, tmp_path):
    """Two real processes with the same command: two directories, both complete."""
    flags = small_flags(data_dir, output_dir=tmp_path, max_steps=1)
    processes = [start("run_conditional_training", *flags) for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted(path.name[-4:] for path in tmp_path.iterdir()) == ["_001", "_002"]
    for folder in tmp_path.iterdir():
        assert {
            "best_model.pt",
            "last.pt",
            "config.yaml",
            "metrics.jsonl",
            "training_results.json",
            "curves.png",
        } == set(contents(folder))
        shutil.rmtree(folder)
