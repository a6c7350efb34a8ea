"""The commands that read finished texts: score and fix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..data.skills import NO_SOURCE
from ..errors import UserError
from ..generation.correcting import Correction
from ..generation.generator import DiffusionTextGenerator
from ..generation.scoring import TextScore
from ..generation.tracing import GIVEN, Cell
from ..text.english import strip_enclosing_quotes
from .live import paint, printable, wrap
from .terminal import terminal_width
from .text_commands import Loop, TextCommand
from .text_files import Row

ARROW = re.compile(r"\s*=>\s*")
NUMBERS = (  # what a file tells of a score
    "nelbo",
    "standard_error",
    "reveal",
    "stay",
    "length",
    "nelbo_per_piece",
    "leave_one_out",
    "leave_one_out_per_piece",
)


class ScoreCommand(TextCommand):
    """How likely a text is, alone or beside its source."""

    pairs = True

    def __init__(self, generator: DiffusionTextGenerator):
        help = "how likely the model finds a text, or the target of A => B"
        super().__init__(generator, "score", "<text>", help, "How are you? => How do you do?")

    def row(self, typed: str) -> Row:
        if not ARROW.search(typed):
            return super().row(typed)
        source, target = (strip_enclosing_quotes(part).strip() for part in ARROW.split(typed, maxsplit=1))
        if not source or not target:
            side = "before" if not source else "behind"
            raise UserError(f"nothing stands {side} => : expected source => target, for example: score {self.example}")
        return Row(source, target=target)

    def check(self, row: Row) -> None:
        for text in (row.text, row.target):
            if text is not None:
                self.generator.check_text(text)
        if row.target is None:
            self.generator.check_scorable("", row.text, NO_SOURCE)
        else:
            skill = self.generator.model.skills.number(self.generator.task, self.generator.options.style)
            self.generator.check_scorable(row.text, row.target, skill)

    def answers(self, rows: Sequence[Row], numbers: Sequence[int]) -> list[TextScore]:
        """The noise of a text does not depend on where it stands."""
        scores: list[Any] = [None] * len(rows)
        for alone in (True, False):
            chosen = [number for number, row in enumerate(rows) if (row.target is None) == alone]
            texts = [rows[number].text for number in chosen]
            targets = None if alone else [rows[number].target for number in chosen]
            for number, score in zip(chosen, self.generator.score(texts, targets) if chosen else []):
                scores[number] = score
        return scores

    def respond(self, loop: Loop, typed: str) -> None:
        """The numbers, and what the model says of each word piece."""
        row = self.row(typed)
        score = self.generator.score(row.text, row.target)
        count = f"{len(score.pieces)} word piece{'' if len(score.pieces) == 1 else 's'}"
        loop.write(
            f"  NELBO          {score.nelbo:.2f} nats (standard error {score.standard_error:.2f}),"
            f" {score.nelbo_per_piece:.2f} for each of {count}"
        )
        loop.write(f"  of it          words {score.reveal + score.stay:.2f}, their number {score.length:.2f}")
        loop.write(
            f"  leave one out  {score.leave_one_out:.2f} nats, {score.leave_one_out_per_piece:.2f} per word piece:"
        )
        pieces = "  ".join(f"{printable(piece.piece)} {piece.leave_one_out:.1f}" for piece in score.pieces)
        loop.write(f"                 {pieces}")

    @property
    def columns(self) -> list[str]:
        return ["source", "target", "word_pieces", *NUMBERS]

    def record(self, row: Row, answer: TextScore | None) -> dict[str, Any]:
        pieces = answer.pieces if answer else []
        return {
            "source": row.text,
            "target": row.target,
            "word_pieces": len(pieces) or None,
            **{name: round(getattr(answer, name), 6) if answer else None for name in NUMBERS},
            "pieces": [[piece.piece, round(piece.nelbo, 6), round(piece.leave_one_out, 6)] for piece in pieces],
        }

    def cells(self, row: Row, answer: TextScore | None) -> list[str]:
        record = self.record(row, answer)
        return ["" if record[name] is None else str(record[name]) for name in self.columns]

    def line(self, answer: TextScore | None) -> str:
        return "" if answer is None else str(round(answer.nelbo, 6))


class FixCommand(TextCommand):
    """Corrects a few words of a text."""

    def __init__(self, generator: DiffusionTextGenerator):
        help = "correct the words that look wrong, at most max_changes"
        super().__init__(generator, "fix", "<text>", help, "I want want to go home.")

    def check(self, row: Row) -> None:
        self.generator.check_text(row.text)
        self.generator.correctable_parts(row.text)

    def answers(self, rows: Sequence[Row], numbers: Sequence[int]) -> list[Correction]:
        return self.generator.correct_text([row.text for row in rows])

    def respond(self, loop: Loop, typed: str) -> None:
        """The corrected text, its new words in colour where there are colours, and what they were."""
        correction = self.generator.correct_text(self.row(typed).text)
        if loop.show_trace is not None and correction.changes:
            for line in wrap([Cell("  1. ", GIVEN), *cells_of(correction)], terminal_width()):
                loop.write(paint(line, 1))
        else:
            loop.write(f"  1. {correction.text}")
        for change in correction.changes:
            loop.write(f"     {printable(change.before)} -> {printable(change.after)}")
        if not correction.changes:
            loop.write("     (nothing changed)")

    @property
    def columns(self) -> list[str]:
        return ["source", "output_1", "changes"]

    def record(self, row: Row, answer: Correction | None) -> dict[str, Any]:
        changes = [
            {"before": change.before, "after": change.after, "start": change.start, "gain": round(change.gain, 6)}
            for change in (answer.changes if answer else ())
        ]
        return {"source": row.text, "outputs": [answer.text] if answer else [], "changes": changes}

    def cells(self, row: Row, answer: Correction | None) -> list[str]:
        changes = "; ".join(f"{change.before} -> {change.after}" for change in (answer.changes if answer else ()))
        return [row.text, answer.text if answer else "", changes]

    def line(self, answer: Correction | None) -> str:
        return answer.text if answer else ""


def cells_of(correction: Correction) -> list[Cell]:
    """The corrected text in pieces; those that changed belong to step 1."""
    cells, position = [], 0
    for change in correction.changes:
        cells += [Cell(printable(correction.text[position : change.start]), GIVEN), Cell(printable(change.after), 1)]
        position = change.start + len(change.after)
    return [*cells, Cell(printable(correction.text[position:]), GIVEN)]
