"""Which text is this, and which of its candidates? Of that and of the seed all random numbers of a canvas are made, so
that it is written alike alone, in any batch and by any of several processes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..errors import UserError
from ..machine.seeds import number_of, occurrences
from .canvas import Canvas


def numbers_of_texts(texts: Sequence[str], numbers: Sequence[int] | None) -> list[int]:
    """The ``numbers`` of some texts, one each; default: how many equal texts stand before it."""
    numbers = occurrences(texts) if numbers is None else list(numbers)
    if len(numbers) != len(texts):
        raise UserError(f"numbers has {len(numbers)} entries for {len(texts)} texts: expected one for each")
    return numbers


def numbers_of_examples(examples: Sequence[tuple[int, Sequence[int]]], numbers: Sequence | None) -> list[int]:
    """A number of 64 bits for each (skill, source), made of these and of one of ``numbers`` (default: those of as many
    texts of one part).
    """
    contents = [(skill, *source) for skill, source in examples]
    numbers = [(number, 0) for number in occurrences(contents)] if numbers is None else numbers
    return [number_of(*content, number) for content, number in zip(contents, numbers, strict=True)]


def candidates_of(text: int, canvases: list[Canvas]) -> list[Canvas]:
    """The canvases, in this order, as the candidates of a text."""
    for number, canvas in enumerate(canvases):
        canvas.text, canvas.candidate = text, number
    return canvases


def named(canvases: Sequence[Canvas]) -> list[Canvas]:
    """The canvases; one of no text takes what stands in it for its text, and of equal ones each is a candidate."""
    texts = [
        number_of(canvas.skill, *canvas.source, canvas.words) if canvas.text is None else canvas.text
        for canvas in canvases
    ]
    return [
        dataclasses.replace(canvas, text=text, candidate=number) if canvas.text is None else canvas
        for canvas, text, number in zip(canvases, texts, occurrences(texts))
    ]
