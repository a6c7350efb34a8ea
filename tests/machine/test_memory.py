"""Freed memory is kept by programs on a CPU, in a process of its own each, and a user's own limits win."""

import os
import subprocess
import sys

import pytest

from tests.helpers.scripts import ROOT

CODE = """
import torch
import transformers  # as every command that computes has it: the heap looks another way without
from diffusion_bert.machine.memory import keep_freed_memory
from diffusion_bert.machine.device import pick_device

def faults():  # pages that had to be cleared
    return int(open("/proc/self/stat").read().split()[9])

def rounds():
    for _ in range(2):
        torch.empty(12 * 2**20).fill_(1.0)
    before = faults()
    for _ in range(5):
        torch.empty(12 * 2**20).fill_(1.0)
    return faults() - before

print(rounds())
pick_device("cpu")
print(rounds())
keep_freed_memory(False)
print(rounds(), keep_freed_memory())
"""


GAPS = """
import torch
from diffusion_bert.machine.memory import give_back_freed_memory, keep_freed_memory

def resident():  # MiB
    return int(open("/proc/self/statm").read().split()[1]) // 256

keep_freed_memory()
start = resident()
# 8 MiB each, with something small behind it
blocks = [(torch.ones(2**21 + 1000 * n), torch.ones(2**15)) for n in range(30)]
small = [after for _, after in blocks]
del blocks
kept = resident()
give_back_freed_memory()
print(start, kept, resident(), sum(float(block.sum()) for block in small) == 30 * 2**15)
"""
glibc_only = pytest.mark.skipif(
    not sys.platform.startswith("linux") or "glibc" not in str(os.confstr("CS_GNU_LIBC_VERSION")), reason="glibc only"
)


def run(code: str = CODE, **environment) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@glibc_only
def test_gaps_are_given_back():
    """Freed blocks between others that live on count as used, until they are given back; the others keep what they
    hold.
    """
    start, kept, after, whole = run(GAPS)
    assert int(kept) > int(start) + 200 and int(after) < int(start) + 60 and whole == "True"


@glibc_only
def test_blocks_are_cleared_once():
    """Blocks of 48 MiB cost thousands of page faults each time, none once they are kept, and as many as before when
    they are not.
    """
    usual, kept, again, knows = run()
    assert int(kept) < int(usual) / 10 and int(again) > int(usual) / 2 and knows == "True"
    assert run(MALLOC_TRIM_THRESHOLD_="65536")[3] == "False"
