"""The scaling benchmark in a tiny form: its data is what it says, and one process of it measures what it says."""

import json
import mmap
from pathlib import Path

import pytest

from benchmarks.common import write_pairs
from benchmarks.speed import scaling
from benchmarks.speed.memory import Memory
from diffusion_bert.data.reading import read_file


def test_made_up_pairs(tmp_path):
    """Seeded, of the promised number and lengths, the target a permutation of the source but for one word."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_pairs(tmp_path / f"{name}.jsonl", 300, seed)
    texts = [(tmp_path / f"{name}.jsonl").read_text() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]
    pairs = read_file(tmp_path / "a.jsonl").pairs
    assert len(pairs) == 300
    for source, target in pairs:
        one, two = sorted(source[:-1].split()), sorted(target[:-1].split())
        assert len(one) == len(two) and 5 <= len(one) <= 20 and len(set(one) - set(two)) <= 1


@pytest.mark.parametrize("above", [0, 64])
def test_one_process(tmp_path, capsys, above):
    """A real training of two steps, mapped or in memory: the first step is later than the data, memory and padding are
    counted.
    """
    write_pairs(tmp_path / "t.jsonl", 200, 0)
    flags = [
        "--model",
        "tiny",
        "--steps",
        "2",
        "--batch_size",
        "16",
        "--cache_above_mb",
        str(above),
        "--folder",
        str(tmp_path),
    ]
    scaling.main([*flags, "--child", str(tmp_path / "t.jsonl")])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 < found["ready"] < found["first"] and 0 < found["padding"] < 0.5
    assert found["anonymous"] > 50 and (tmp_path / "cache").exists() == (above == 0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_anonymous_memory_is_seen():
    """64 MB that are written to show in the peak."""
    memory = Memory()
    before = memory.anonymous
    # a mapping of its own: a new block might lie in memory that this process has and does not use
    with mmap.mmap(-1, 64 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(b"x" * len(held))
        memory.look()
    assert memory.anonymous > before + 55
