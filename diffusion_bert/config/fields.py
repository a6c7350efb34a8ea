"""One setting: how it is declared as a field of a dataclass, and how a value is checked against it."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import field
from typing import Any, get_args, get_type_hints

from ..errors import UserError, nearest


def option(
    default: Any,
    help: str,
    choices: tuple | None = None,
    low: float | None = None,
    high: float | None = None,
    or_count: bool = False,
    several: bool = False,
):
    """A field with its help line, allowed values and inclusive bounds.

    ``or_count``: besides its choices a whole number from 1 on, kept as text; ``several``: also several of its choices,
    with commas.
    """
    return field(
        default=default,
        metadata={"help": help, "choices": choices, "low": low, "high": high, "or_count": or_count, "several": several},
    )


def build(section: type, settings: dict[str, Any], origin: str = "settings"):
    """One dataclass from the keys of ``settings`` that are its fields, each checked."""
    hints = get_type_hints(section)
    return section(
        **{
            f.name: check_value(f, hints[f.name], settings[f.name], origin)
            for f in dataclasses.fields(section)
            if f.name in settings
        }
    )


def plain(value: Any) -> Any:
    """Numbers of numpy, torch and Python's decimals, strings of numpy, paths and torch's devices as Python's own plain
    ones, a ~ at the beginning of a path as the folder it stands for; anything else as it is.
    """
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    module = type(value).__module__.split(".")[0]
    if module in ("numpy", "torch") and getattr(value, "ndim", 1) == 0 and hasattr(value, "item"):
        return value.item()
    if module in ("decimal", "fractions"):
        return float(value)
    if isinstance(value, str) and value.startswith("~") and "/" in value:  # in a YAML file, or as --data_dir=~/mine
        return os.path.expanduser(value)
    return str(value) if module == "torch" and type(value).__name__ == "device" else value


def check_value(f: dataclasses.Field, hint: Any, value: Any, origin: str = "settings") -> Any:
    """The value in the field's type, or a UserError that names what came and what is expected.

    "3" and 3.0 are no whole numbers here; 1 is a number. ``origin`` says where the value came from; "--" makes it a
    flag.
    """
    where = f"--{f.name}" if origin == "--" else f"{origin}: {f.name}" if origin else f.name
    value = plain(value)
    optional = type(None) in get_args(hint)
    kind = next(k for k in get_args(hint) if k is not type(None)) if optional else hint
    if value is None and optional:
        return None
    if kind is float and isinstance(value, str):
        try:
            value = float(value)  # YAML reads 5e-4 (no dot) as text
        except ValueError:
            pass
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e300 else math.inf
    meta = f.metadata
    if meta["or_count"]:
        value = str(value) if type(value) is int else value
        if isinstance(value, str) and value.isascii() and value.isdigit() and int(value) >= 1:
            return str(int(value))
        if isinstance(value, str) and value not in meta["choices"]:
            expected = f"{', '.join(meta['choices'])} or a whole number of at least 1"
            raise UserError(f"{where} is '{value}': expected {expected}{nearest(value, meta['choices'])}")
    if meta["several"] and isinstance(value, str) and "," in value:
        parts = [part.strip() for part in value.split(",")]
        for part in parts:
            if part not in meta["choices"]:
                raise UserError(
                    f"{where} names '{part}': expected some of"
                    f" {', '.join(meta['choices'])}{nearest(part, meta['choices'])}"
                )
        if len(set(parts)) < len(parts):
            raise UserError(f"{where} is '{value}': expected every name once")
        return ",".join(parts)
    if type(value) is not kind:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise UserError(f"{where} is {value!r}: expected {names[kind]}")
    if meta["choices"] and value not in meta["choices"]:
        raise UserError(
            f"{where} is '{value}': expected one of {', '.join(meta['choices'])}{nearest(value, meta['choices'])}"
        )
    if kind is float and not math.isfinite(value):
        raise UserError(f"{where} is {value}: expected a finite number")
    if meta["low"] is not None and value < meta["low"]:
        raise UserError(f"{where} is {value}: expected at least {meta['low']}")
    if meta["high"] is not None and value > meta["high"]:
        raise UserError(f"{where} is {value}: expected at most {meta['high']}")
    if kind is str and not value.strip():
        raise UserError(f"{where} is empty: give a value or leave the setting out")
    return value
