"""The cache on disk: whole or not there, never stale, repaired when damaged, optional."""

import contextlib
import json
import os
import signal
import threading
import time

import numpy as np
import pytest

from diffusion_bert.data import cache as cache_module
from diffusion_bert.data.cache import INDEX, Cache, CacheUnwritable, fingerprint, open_entry


def build(writer):
    for start in (0, 5):
        writer.append("numbers", np.arange(start, start + 5))
    writer.append("empty", np.zeros(0, dtype=np.int32))
    writer.append("flags", np.array([True, False]))
    return {"note": "one"}


def refuse(writer):
    raise AssertionError("built again")


def test_written_once_and_mapped_ever_after(tmp_path):
    """Arrays and plain values come back exactly, read-only, without building again; nothing temporary is left."""
    cache = Cache(tmp_path / "deep" / "cache")
    for entry in (cache.get("a", build), cache.get("a", refuse)):
        assert entry.arrays["numbers"].tolist() == list(range(10)) and entry.meta == {"note": "one"}
        assert (
            entry.arrays["numbers"].dtype == np.int64
            and entry.arrays["empty"].shape == (0,)
            and entry.arrays["flags"].tolist() == [True, False]
        )
        with pytest.raises(ValueError):
            entry.arrays["numbers"][0] = 1
    assert [path.name for path in cache.folder.iterdir()] == ["a"]


@pytest.mark.parametrize("damage", ["byte", "cut", "absent", "index", "format", "no index"])
def test_a_damaged_entry_is_made_anew(tmp_path, damage):
    """A changed byte, a cut or missing file, a broken index or another format: removed and built again."""
    cache = Cache(tmp_path)
    cache.get("a", build)
    file, index = tmp_path / "a" / "numbers.bin", tmp_path / "a" / INDEX
    if damage == "byte":
        file.write_bytes(file.read_bytes()[:-1] + b"\7")
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    elif damage == "absent":
        file.unlink()
    elif damage == "index":
        index.write_text(index.read_text()[:20])
    elif damage == "format":
        index.write_text(json.dumps({**json.loads(index.read_text()), "format": 999}))
    else:
        index.unlink()
    with pytest.raises(AssertionError, match="built again"):
        cache.get("a", refuse)
    assert list(tmp_path.iterdir()) == []
    assert cache.get("a", build).arrays["numbers"].tolist() == list(range(10))


def test_of_several_processes_one_builds(tmp_path):
    """Three processes that want an entry at once: one makes it, the others wait and map it; of the lock nothing
    stays.
    """

    def slow(writer):
        with open(tmp_path / "built", "a") as log:
            log.write("x")
        time.sleep(0.5)
        return build(writer)

    children = []
    for _ in range(3):
        if (child := os.fork()) == 0:
            code = 9
            with contextlib.suppress(BaseException):
                code = int(Cache(tmp_path / "cache").get("a", slow).arrays["numbers"].tolist() != list(range(10)))
            os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert (tmp_path / "built").read_text() == "x" and [path.name for path in (tmp_path / "cache").iterdir()] == ["a"]


def test_entries_in_use_are_not_trimmed(tmp_path):
    """Too large a cache loses what nobody uses: never an entry that this process has opened, which its workers may open
    later.
    """
    cache = Cache(tmp_path)
    for name in ("mine", "another"):
        cache.get(name, build)
    cache_module._in_use.discard(tmp_path / "another")
    cache.trim(max_bytes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_killed_builder_is_replaced(tmp_path):
    """The lock of a process that is killed while it builds ends with it: who waited builds."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            Cache(tmp_path).get("a", lambda writer: os.write(writing, b"x") and time.sleep(60))
        os._exit(9)
    assert os.read(reading, 1) == b"x"
    waiting = threading.Thread(target=lambda: Cache(tmp_path).get("a", build))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    waiting.join(10)
    assert not waiting.is_alive() and Cache(tmp_path).get("a", refuse).meta == {"note": "one"}


def test_an_error_or_stop_while_building_leaves_nothing(tmp_path):
    """Whatever interrupts the writing passes through, and no half entry stays."""
    for kind in (KeyboardInterrupt, RuntimeError, ValueError):

        def stop(writer, kind=kind):
            build(writer)
            raise kind

        with pytest.raises(kind):
            Cache(tmp_path).get("a", stop)
        assert list(tmp_path.iterdir()) == []


def test_two_processes_at_once(tmp_path):
    """When another process has written the entry meanwhile, that one is taken and one's own removed."""

    def slow(writer):
        Cache(tmp_path / "x").get("inner", build)
        os.rename(tmp_path / "x" / "inner", tmp_path / "a")
        return build(writer)

    assert Cache(tmp_path).get("a", slow).meta == {"note": "one"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "x"]


def test_a_folder_that_cannot_be_written(tmp_path):
    """A file stands where the folder should be: said in one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheUnwritable, match="file"):
        Cache(tmp_path / "file").get("a", build)


def test_default_folder(monkeypatch, tmp_path):
    """$XDG_CACHE_HOME, else ~/.cache; ~ is understood."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Cache().folder == tmp_path / "diffusion_bert"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("", None):
        monkeypatch.delenv("XDG_CACHE_HOME") if value is None else monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert Cache().folder == tmp_path / "home" / ".cache" / "diffusion_bert"
    assert Cache("~/mine").folder == tmp_path / "home" / "mine"


def test_the_longest_unused_go_first(tmp_path):
    """Beyond the bound entries are removed in the order of their last use, but not the one just made; old leftovers go
    too.
    """
    cache = Cache(tmp_path)
    for age, name in ((30, "a"), (20, "b"), (10, "c")):
        cache.get(name, build)
        os.utime(tmp_path / name / INDEX, (time.time() - age,) * 2)
    (tmp_path / ".d.1.tmp").mkdir()
    os.utime(tmp_path / ".d.1.tmp", (time.time() - 100_000,) * 2)
    (tmp_path / ".e.1.tmp").mkdir()
    size = sum(file.stat().st_size for file in (tmp_path / "a").iterdir())
    open_entry(tmp_path / "a")  # used: now the youngest
    cache_module._in_use.clear()  # as in a later process
    cache.trim(max_bytes=2 * size)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".e.1.tmp", "a", "c"]
    cache.trim(keep=tmp_path / "c", max_bytes=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".e.1.tmp", "c"]


def test_fingerprints_differ_whenever_a_part_does():
    """Bytes, arrays and values all count, and so does where one part ends."""
    parts = [
        (),
        (b"ab",),
        (b"a", b"b"),
        ("ab",),
        (1,),
        (1.0,),
        (np.arange(3),),
        (np.arange(4),),
        (None,),
        ("",),
        (1, 2),
        (12,),
    ]
    assert len({fingerprint(*part) for part in parts}) == len(parts)
    assert fingerprint("a", 1) == fingerprint("a", 1)
