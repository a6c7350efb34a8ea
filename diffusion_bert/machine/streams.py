"""The three standard streams: missing ones are /dev/null, characters that cannot be written are replaced, and a reader
that goes away, or a full disk behind them, ends nobody's work.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable

GONE = (errno.EPIPE, errno.EIO, errno.EBADF)  # a pipe without a reader, a terminal that was closed


class ReaderGone(BaseException):
    """Nobody reads stdout any more, and the command has nothing else to do than to write to it."""

    code = 128 + getattr(signal, "SIGPIPE", 13)


class Output:
    """A text stream around another one, whose reader may go away: what is written after that is dropped. So is what a
    full disk refuses, unless it is what a command is there to write.

    Args:
        stream: what is written to.
        is_main: that its reader has gone is told to ``on_reader_gone``, and without anybody to tell raises ReaderGone.
    """

    outlive = False  # whether commands go on without a reader
    gone = False  # whether the reader of stdout has gone
    listener: Callable[[], None] | None = None

    def __init__(self, stream, is_main: bool):
        self._stream, self._is_main, self._dead = stream, is_main, False

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if not self._dead:
            self._guarded(self._stream.write, text)
        return len(text)

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if not self._dead:
            self._guarded(self._stream.flush)

    def _guarded(self, work: Callable, *arguments) -> None:
        try:
            work(*arguments)
        except OSError as error:
            if error.errno not in GONE:
                if self._is_main and not Output.outlive:
                    raise
                return
            self._dead = True
            _to_nowhere(self._stream)
            if self._is_main:
                _reader_gone()


def _to_nowhere(stream) -> None:
    """What is still in the stream's buffer goes to /dev/null, also at the end of the interpreter."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass


def forget_stdout() -> None:
    """Nobody reads it: what is still in its buffer shall not fail once more at the end."""
    _to_nowhere(sys.stdout)


def _reader_gone() -> None:
    Output.gone = True
    if not Output.outlive:
        raise ReaderGone
    if Output.listener is not None:
        Output.listener()


def prepare_streams() -> None:
    """Make the three streams of this process safe to use. Once, before anything else is opened."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
        forgiving(getattr(sys, name))
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    sys.stdout, sys.stderr = Output(sys.stdout, True), Output(sys.stderr, False)


def forgiving(stream) -> None:
    """What a stream cannot read or write becomes a question mark; an input that knows ASCII only is read as UTF-8,
    which holds it.
    """
    if hasattr(stream, "reconfigure"):
        ascii_input = stream.readable() and (stream.encoding or "").lower().replace("-", "") in ("ascii", "usascii")
        try:
            stream.reconfigure(errors="replace", **({"encoding": "utf-8"} if ascii_input else {}))
        except (ValueError, OSError):
            pass


def outlive_reader() -> None:
    """From now on this process has work to finish, whether anybody reads what it prints or not."""
    Output.outlive = True


def on_reader_gone(listener: Callable[[], None] | None) -> None:
    """Call this when the reader of stdout goes away, or at once where it has gone."""
    Output.listener = listener
    if Output.gone and listener is not None:
        listener()


def reader_gone() -> bool:
    """Whether nobody reads stdout any more."""
    return Output.gone
