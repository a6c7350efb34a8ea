"""Long evaluations: texts are written as they come, a killed one goes on and ends alike, several processes share one,
memory stays flat, and a log hears of it now and then.
"""

import json
from pathlib import Path

import pytest

from diffusion_bert.commands import evaluation_progress
from diffusion_bert.commands import progress as progress_module
from diffusion_bert.config.schema import SamplingConfig
from diffusion_bert.data.grammar import Grammar
from diffusion_bert.data.pairs import Pair
from diffusion_bert.evaluation import writing
from diffusion_bert.evaluation.journal import Journal
from diffusion_bert.evaluation.writing import ChunkWriter, write_outputs
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.machine.memory import give_back_freed_memory, keep_freed_memory
from tests.helpers.models import new_model
from tests.helpers.scripts import run
from tests.training.test_distributed import finished, launch

FLAGS = ("--num_steps", "3", "--device", "cpu", "--mbr", "3", "--parts", "reconstruction,generation")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Four sources at a time."""
    monkeypatch.setattr(writing, "CHUNK", 4)


def without_seconds(path: Path) -> dict:
    """evaluation.json without what no two runs share."""
    report = json.loads(path.read_text())
    for row in report["rows"].values():
        row.pop("seconds", None)
    return report


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """The folder of an evaluation that nothing interrupted, of 14 sources."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "CHUNK", 4)
        result = run(
            "evaluate_trained_model", "--checkpoint", trained / "best_model.pt", *FLAGS, "--output_dir", folder
        )
    assert result.code == 0, result.err
    return folder


def test_killed_twice_it_ends_alike(trained, whole, tmp_path, monkeypatch):
    """Stopped between chunks and inside a line, the same command goes on; texts and figures are those of one run."""
    real, argv = ChunkWriter.write, ("--checkpoint", trained / "best_model.pt", *FLAGS, "--output_dir", tmp_path)
    written = []

    def killed(self, first):
        if len(written) == limit:
            raise KeyboardInterrupt
        written.append(first)
        return real(self, first)

    monkeypatch.setattr(ChunkWriter, "write", killed)
    for limit in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            main(argv)
        with open(tmp_path / "generations.jsonl", "a") as file:
            file.write('{"source": "cut o')  # as a kill inside a write leaves it
    limit = None
    result = run("evaluate_trained_model", *argv)
    assert result.code == 0 and "going on after 12 sources" in result.out, result.err + result.out
    assert written == [0, 4, 8, 12]
    assert (tmp_path / "generations.jsonl").read_bytes() == (whole / "generations.jsonl").read_bytes()
    assert without_seconds(tmp_path / "evaluation.json") == without_seconds(whole / "evaluation.json")
    assert not (tmp_path / "generations.jsonl.job.json").exists()


def main(argv) -> None:
    import evaluate_trained_model
    from diffusion_bert.commands import evaluate

    assert evaluate_trained_model  # the script calls what follows, and turns an interrupt into an exit code
    evaluate.main([str(item) for item in argv])


def test_two_processes_write_the_same(trained, whole, tmp_path):
    """One report, one voice, the same texts in the same order and the same figures; no parts are left."""
    folder = tmp_path / "report"
    argv = ("--checkpoint", trained / "best_model.pt", *FLAGS, "--output_dir", folder)
    (code, out, err), (other_code, other_out, _) = finished(launch(tmp_path, 2, "evaluate_trained_model", *argv), 120)
    assert code == other_code == 0 and "Conditional generation" in out and other_out == "", err
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    assert (folder / "generations.jsonl").read_bytes() == (whole / "generations.jsonl").read_bytes()
    assert without_seconds(folder / "evaluation.json") == without_seconds(whole / "evaluation.json")


def test_first_lines(trained, tmp_path):
    """The sample and its seed stand in the first line, figures of the short parts before the tables."""
    argv = ("--checkpoint", trained / "best_model.pt", *FLAGS, "--output_dir", tmp_path, "--max_samples", "3")
    out = run("evaluate_trained_model", *argv).out.splitlines()
    assert out[1].endswith("on 3 examples of test, a random sample by seed 0 (--max_samples 3)")
    assert out[2].startswith("Restored words by corruption: ") and "% at 20 %" in out[2]


# ---- the journal ---------------------------------------------------------------------------------------------------


def test_another_job_begins_anew(tmp_path):
    """Records of the same job are taken over in whole chunks; another job's are not, and the remark names what differs;
    a finished one starts over.
    """
    path, records = tmp_path / "generations.jsonl", [{"source": f"é {number}"} for number in range(5)]
    Journal(path, {"steps": 3}, 2).append(records, {"greedy": 1.5})
    again = Journal(path, {"steps": 3}, 2)
    assert again.records == records[:4] and again.seconds == {"greedy": 1.5} and "after 4 sources" in again.remark
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == records[:4]
    other = Journal(path, {"steps": 4}, 2)
    assert other.records == [] and "another steps" in other.remark and path.read_bytes() == b""
    other.append(records, {})
    other.finish()
    assert Journal(path, {"steps": 4}, 2).records == []


# ---- progress and memory -------------------------------------------------------------------------------------------


def test_a_log_gets_a_line_now_and_then(capsys, monkeypatch):
    """Count, time left and rate, at most every half minute."""
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    progress = evaluation_progress.progress_bars()
    progress("generation", 0, 182)
    for now[0] in (10, 29, 31, 45, 62):
        progress("generation", int(now[0]), 182)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "generation 17%, 31 of 182, 2:31 left, 1.00 a second",
        "generation 34%, 62 of 182, 2:00 left, 1.00 a second",
    ]


def resident(name: str) -> float:
    """VmRSS or VmHWM of this process in MB."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{name}:")) / 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_memory_stays_flat(monkeypatch, tmp_path):
    """Ten times as many sources of the same lengths raise the peak by less than 100 MB (where everything was kept, it
    rose by 1.5 MB a source, here by 864), what stays by less than 20.
    """
    monkeypatch.setattr(writing, "CHUNK", 64)
    generator = DiffusionTextGenerator(new_model(), SamplingConfig(num_steps=2, device="cpu", rank_by="revealed"))
    pairs = [Pair(*pair) for pair in Grammar.load().pairs("train", 64)]
    keep_freed_memory()
    peaks, kept = [], []
    try:
        for times in (1, 1, 10):  # the peak of the same work varies by 50 MB with what the allocator keeps
            give_back_freed_memory()
            base = resident("VmRSS")
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            journal = Journal(tmp_path / f"{len(peaks)}.jsonl", {}, 64)
            outputs = write_outputs(generator, pairs * times, 1, [], lambda *_: None, journal)
            assert len(outputs.best) == 64 * times
            peaks.append(resident("VmHWM") - base)
            kept.append(resident("VmRSS") - base)
    finally:
        keep_freed_memory(False)
    assert peaks[2] < max(peaks[:2]) + 100 and kept[2] < 20, (peaks, kept)
