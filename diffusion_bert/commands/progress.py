"""How far work is: a bar on a terminal, in a pipe or a log a plain line now and then."""

from __future__ import annotations

import contextlib
import sys
import time

from .terminal import fitted, in_notebook, is_terminal, say, terminal_width

SHORTEST_BAR, EVERY_SECONDS = 10, 30.0
BAR = "{desc} {percentage:3.0f}%|{bar}| "
SHORTEST_MEASURED = 1.0  # seconds: a pace from less is an accident


def duration(seconds: float) -> str:
    """1:05 for 65 seconds, 2:00:00 for two hours."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Shows a share from 0 to 1, with as many of its remarks as the line has room for.

    Args:
        what: one word for what is being done; may be changed by ``doing``.
        log: where plain lines go when stderr is neither a terminal nor shown in a notebook.
        begins_at: the share that was done before.
    """

    def __init__(self, what: str, log=None, begins_at: float = 0.0):
        self.what, self.log, self.bar = what, log, None
        self.share = self.begins_at = begins_at
        self.started = self.told = time.monotonic()
        if is_terminal(sys.stderr) or in_notebook():
            from tqdm import tqdm

            self.bar = tqdm(
                total=1.0,
                initial=begins_at,
                desc=what,
                dynamic_ncols=is_terminal(sys.stderr),
                ncols=terminal_width(),
                mininterval=0.5,
                bar_format=BAR,
            )

    def update(self, share: float, *remarks: str) -> None:
        """``share`` is done; the first remarks are the most important ones."""
        self.share = min(1.0, share)
        remarks = tuple(filter(None, remarks))
        if self.bar is not None:
            room = terminal_width() - len(self.what) - len(" 100%|| ") - SHORTEST_BAR
            text = ""
            for remark in remarks:
                if len(text) + len(remark) + 2 > room:
                    break
                text += f"{', ' if text else ''}{remark}"
            self.bar.bar_format = BAR + text.replace("{", "{{").replace("}", "}}")
            self.bar.update(self.share - self.bar.n)
        elif time.monotonic() - self.told >= EVERY_SECONDS:
            self.told = time.monotonic()
            print(f"{self.what} {self.share:.0%}, {', '.join(remarks)}", file=self.log or sys.stderr, flush=True)

    def left(self, share: float) -> str:
        """How long it will take at the pace that led to ``share``; empty where nothing is done yet, or all is."""
        done = share - self.begins_at
        if done <= 0 or share >= 1:
            return ""
        return f"{duration((time.monotonic() - self.started) * (1 - share) / done)} left"

    def pace(self, share: float, total: int) -> str:
        """How many of ``total`` a second led to ``share``; empty where that took no time."""
        elapsed = time.monotonic() - self.started
        if elapsed < SHORTEST_MEASURED:
            return ""
        pace = (share - self.begins_at) * total / elapsed
        return f"{pace:,.0f} a second" if pace >= 10 else f"{pace:.2f} a second"

    def doing(self, what: str) -> None:
        """Show another word at once."""
        self.what = what
        if self.bar is not None:
            self.bar.set_description_str(what, refresh=True)

    def write(self, text: str, file=None) -> None:
        """A line above the bar."""
        if self.bar is not None:
            self.bar.write(fitted(text), file=file)
        else:
            say(text, file=file)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def tell_entries(entry: int, problem: str) -> None:
    """Tell of a bad entry of a file, and of nothing else (entry 0)."""
    if entry:
        print(f"entry {entry}: {problem}", file=sys.stderr)


@contextlib.contextmanager
def shown_progress(command: str, total: int | None):
    """A callable (entry, problem) as ``tell_entries`` that also shows how many of ``total`` texts are done, each of
    which it hears of as entry 0.
    """
    bar, done = Progress(command), 0

    def on_progress(entry: int, problem: str) -> None:
        nonlocal done
        if entry:
            bar.write(f"entry {entry}: {problem}", file=sys.stderr)
        else:
            done += 1
            if total is None:
                bar.update(0.0, f"{done:,} texts")
            else:
                share = done / max(1, total)
                bar.update(share, f"{done:,} of {total:,}", bar.left(share))

    try:
        yield on_progress
    finally:
        bar.close()
