"""The one exception that stands for a mistake of the user: printed as a single line, exit code 2, no traceback."""

LONGEST = 600


class UserError(Exception):
    """What came, what was expected, what to do; one line of text. A long value is shortened in the middle."""

    def __init__(self, message: str):
        text = " ".join(str(message).split())
        super().__init__(text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 + 5 :]}")


def nearest(name: str, known) -> str:
    """A hint ``; did you mean 'x'?`` for a mistyped name, or an empty string when nothing is near."""
    import difflib

    match = difflib.get_close_matches(str(name), [str(item) for item in known], n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""
