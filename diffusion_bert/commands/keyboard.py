"""The keyboard of the command loop: line editing with a history that lasts, and Ctrl-C where Python is deaf to it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from ..machine.storage import state_folder

LONGEST_HISTORY = 1000  # lines
GRACE = 2.0  # seconds in which a second Ctrl-C may still be heard


@contextlib.contextmanager
def line_editing(repl) -> Iterator[None]:
    """Completion and history for input(); the history is kept with the user's state, where that can be written."""
    try:
        import readline
    except ImportError:  # not on Windows
        yield
        return
    readline.set_completer(
        lambda text, number: (repl.completions(text, readline.get_line_buffer()) + [None] * (number + 1))[number]
    )
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")
    readline.set_history_length(LONGEST_HISTORY)
    folder = state_folder()
    with contextlib.suppress(OSError):
        if folder is not None:
            readline.read_history_file(folder / "history")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if folder is not None:
                readline.write_history_file(folder / "history")


class Patience:
    """Two Ctrl-C end the program where the first could not end a generation, which hangs where Python does not look at
    signals: a thread is told of every signal by the operating system.
    """

    def __init__(self):
        self.count, self.before, self.pipe = 0, -1, None

    def restart(self) -> None:
        """The prompt is back: whatever was interrupted has ended."""
        self.count = 0

    def __enter__(self) -> Patience:
        try:
            self.pipe = os.pipe()
            os.set_blocking(self.pipe[1], False)
            self.before = signal.set_wakeup_fd(self.pipe[1], warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=(self.pipe[0],), daemon=True).start()
        except (ValueError, OSError):  # not in the main thread
            self.pipe = None
        return self

    def __exit__(self, *_) -> None:
        if self.pipe is not None:
            signal.set_wakeup_fd(self.before)
            os.close(self.pipe[1])  # which ends the thread

    def _watch(self, end: int) -> None:
        while numbers := os.read(end, 64):
            self.count += numbers.count(bytes([signal.SIGINT]))
            if self.count >= 2:
                threading.Timer(GRACE, self._leave).start()
        os.close(end)

    def _leave(self) -> None:
        if self.count >= 2:
            with contextlib.suppress(Exception):
                sys.stderr.write("\ninterrupted\n")
                sys.stderr.flush()
            os._exit(128 + signal.SIGINT)
