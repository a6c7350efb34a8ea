"""Ctrl-C on a real terminal: one gives up the answer, two end a generation that hangs where Python is deaf."""

import sys
import time

import pytest

from diffusion_bert.commands.keyboard import GRACE
from diffusion_bert.commands.repl import PROMPT
from tests.helpers.scripts import ROOT
from tests.helpers.terminal import Terminal

CTRL_C = "\x03"
TALK = ROOT / "interactive_generation.py"
# one call into C that takes an hour: the interpreter looks at no signal before it returns
HANGS = f"""
import hashlib, sys
sys.path.insert(0, {str(ROOT)!r})
from diffusion_bert.generation.generator import DiffusionTextGenerator as Generator
def hang(*_, **__):
    print("at work", file=sys.stderr)
    hashlib.pbkdf2_hmac("md5", b"", b"", 2**31 - 1)
Generator.rewrite = hang
import interactive_generation
sys.exit(interactive_generation.main())
"""


def test_one_ctrl_c_gives_up_the_answer(trained, tmp_path):
    """Back at the prompt, however often; the next command is answered, quit leaves with 0."""
    slow = ("--num_steps", "100000", "--batch_size", "1", "--num_samples", "200", "--device", "cpu")
    with Terminal.of(TALK, "--checkpoint", trained, *slow, folder=tmp_path) as terminal:
        terminal.until(PROMPT)
        for _ in range(2):
            terminal.type(f"complete {' '.join(['the'] * 8)}\n")
            time.sleep(0.3)  # it is at work now, for minutes
            terminal.type(CTRL_C)
            terminal.until("interrupted; quit leaves")
            terminal.until(PROMPT)
            terminal.type("half a line")
            terminal.until("half a line")
            time.sleep(0.3)  # readline waits again: a signal between two of its letters is heard at the next one only
            terminal.type(CTRL_C)
            terminal.until(PROMPT)
        time.sleep(GRACE + 1)  # four Ctrl-C, each of which has ended something
        for setting in ("num_steps", "num_samples"):
            terminal.type(f"set {setting} 2\n")
            terminal.until(f"{setting} = 2")
        terminal.type("complete the\n")
        terminal.until("  2. ")
        terminal.until(PROMPT)
        terminal.type("quit\n")
        assert terminal.end() == 0


@pytest.mark.parametrize("work", ["command loop", "file"])
def test_two_ctrl_c_end_what_hangs(trained, tmp_path, work):
    """The first one cannot; the second one ends the program, with a word and 130."""
    files = []
    if work == "file":
        (tmp_path / "in.txt").write_text("How are you?\n")
        files = ["--input_file", "in.txt", "--output_file", "out.txt"]
    command = [sys.executable, "-c", HANGS, "--checkpoint", trained, "--device", "cpu", *files]
    with Terminal(command, tmp_path) as terminal:
        if not files:
            terminal.until(PROMPT)
            terminal.type("para How are you?\n")
        terminal.until("at work")
        time.sleep(0.5)  # from the word to the call that hangs
        terminal.type(CTRL_C)
        time.sleep(GRACE + 1)
        assert terminal.process.poll() is None
        terminal.type(CTRL_C)
        terminal.until("interrupted")
        assert terminal.end() == 130
