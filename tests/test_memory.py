"""Freed memory is kept by programs on a CPU, in a process of its own each, and a user's own limits win."""

import os
import subprocess
import sys

import pytest
from commands import ROOT

CODE = """
import ctypes, sys
import torch
from diffusion_bert.memory import keep_freed_memory
from diffusion_bert.model import pick_device

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


def run(**environment) -> list[str]:
    done = subprocess.run([sys.executable, "-c", CODE], env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux") or "glibc" not in str(os.confstr("CS_GNU_LIBC_VERSION")), reason="glibc only")
def test_blocks_are_cleared_once():
    """Blocks of 48 MiB cost thousands of page faults each time, none once they are kept, and as many as before when they are not."""
    usual, kept, again, knows = run()
    assert int(kept) < int(usual) / 10 and int(again) > int(usual) / 2 and knows == "True"
    assert run(MALLOC_TRIM_THRESHOLD_="65536")[3] == "False"
