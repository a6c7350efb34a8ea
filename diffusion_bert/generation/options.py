"""The options of one request: checked by name, and made hotter where candidates came out twice."""

from __future__ import annotations

import dataclasses

from ..config.fields import build
from ..config.schema import SamplingConfig
from ..errors import UserError, nearest

RETRIES = 3  # more rounds for candidates that came out twice, each hotter
RETRY_STRIDE = 7919  # a prime between the seeds of two rounds


def checked_options(options: dict) -> SamplingConfig:
    """Options by name; a UserError names an unknown or invalid one."""
    known = [f.name for f in dataclasses.fields(SamplingConfig)]
    for name in options:
        if name not in known:
            raise UserError(f"unknown option '{name}'{nearest(name, known)}; expected one of {', '.join(known)}")
    return build(SamplingConfig, options, "options")


def hotter(options: SamplingConfig, attempt: int) -> SamplingConfig:
    """Options for another attempt at candidates that came out twice: twice as hot each time, and without top_p, which
    would leave a sure word alone.
    """
    if attempt == 0:
        return options
    return dataclasses.replace(options, temperature=min(100.0, max(options.temperature, 0.5) * 2.0**attempt), top_p=1.0)
