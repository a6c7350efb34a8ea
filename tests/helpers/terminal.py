"""One of the scripts on a terminal of its own, with someone who reads and types."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

PATIENCE = 180  # seconds for an answer on a busy machine


class Terminal:
    """A process on a pseudo-terminal, which gets Ctrl-C from its keyboard as from a real one.

    Args:
        command: program and arguments.
        folder: where it is started.
        columns: width of the terminal.
    """

    def __init__(self, command, folder: Path, columns: int = 80):
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {**os.environ, "PYTHONUTF8": "1", "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)

        def own_terminal() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored by all that a shell has started with &
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        self.process = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            env=environment,
            start_new_session=True,
            preexec_fn=own_terminal,
            **streams,
        )
        os.close(theirs)
        self.unread = self.seen = ""

    @classmethod
    def of(cls, script: Path, *argv, **settings) -> "Terminal":
        """A Python script with its arguments."""
        return cls([sys.executable, script, *argv], **settings)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)

    def type(self, text: str) -> None:
        """Keys; \\x03 is Ctrl-C."""
        os.write(self.ours, text.encode())

    def until(self, words: str) -> str:
        """Read until these words, and return what stands before them; fails when they do not come."""
        end = time.monotonic() + PATIENCE
        while words not in self.unread:
            assert time.monotonic() < end and self._read(), self.seen[-3000:]
        before, self.unread = self.unread.split(words, 1)
        return before

    def end(self) -> int:
        """Read all that is still to come; the exit code."""
        end = time.monotonic() + PATIENCE
        while self._read():
            assert time.monotonic() < end, self.seen[-3000:]
        return self.process.wait(timeout=PATIENCE)

    def _read(self) -> bool:
        """Read what there is within a second; False when the other end is closed."""
        if select.select([self.ours], [], [], 1)[0]:
            with contextlib.suppress(OSError):  # the last one has closed it
                if text := os.read(self.ours, 65536).decode(errors="replace"):
                    self.unread += text
                    self.seen += text
                    return True
            return False
        return True
