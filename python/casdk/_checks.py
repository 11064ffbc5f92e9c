"""Checks of the fields of settings, each with a sentence that names the field and what it was."""

from __future__ import annotations

import math
import sys
from typing import Any, Final

import msgspec
import numpy as np

from casdk._wording import shown
from casdk.errors import ConfigError

__all__ = ["MOST_SECONDS", "check_count", "check_number", "check_rate", "check_seconds", "require"]

MOST_SECONDS: Final = 1_000_000
"""Longest limit for a connection, a request or a backoff, 11 days: gRPC has 32 bits for milliseconds."""

LEAST_PER_SECOND: Final = 1 / MOST_SECONDS
MOST_PER_SECOND: Final = 1_000_000_000
"""The largest limit of requests or items a second: one each nanosecond, which does not limit anything."""


def require(true: bool, sentence: str) -> None:
    if not true:
        raise ConfigError(sentence)


def check_number(struct: msgspec.Struct, name: str) -> float:
    """Return a field that has to be a finite number; one of NumPy's becomes Python's own.

    Raises:
        ConfigError: It is none.
    """
    value: Any = getattr(struct, name)
    if isinstance(value, np.integer | np.floating):
        value = value.item()
        msgspec.structs.force_setattr(struct, name, value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    require(is_number, f"{where(struct, name)} must be a number, not {shown(value)}")
    is_finite = isinstance(value, int) or math.isfinite(value)
    require(is_finite, f"{where(struct, name)} must be a finite number, not {shown(value)}")
    number: float = value
    return number


def check_seconds(struct: msgspec.Struct, name: str, most: float = MOST_SECONDS) -> None:
    """Check a field that is a time.

    Raises:
        ConfigError: It is none.
    """
    value = check_number(struct, name)
    require(value > 0, f"{where(struct, name)} must be more than 0 seconds, not {shown(value)}")
    require(value <= most, f"{where(struct, name)} must be at most {most:g} seconds, not {shown(value)}")


def check_count(struct: msgspec.Struct, name: str, least: int = 1) -> None:
    value = check_number(struct, name)
    require(isinstance(value, int), f"{where(struct, name)} must be an int, not {shown(value)}")
    require(value >= least, f"{where(struct, name)} must be at least {least}, not {shown(value)}")
    require(value <= sys.maxsize, f"{where(struct, name)} must be at most {sys.maxsize}, not {shown(value)}")


def check_rate(struct: msgspec.Struct, name: str) -> None:
    """Check a field that is a rate, in requests or items per second.

    Raises:
        ConfigError: It is not a positive number, or too large.
    """
    value = check_number(struct, name)
    require(value > 0, f"{where(struct, name)} must be more than 0 a second, not {shown(value)}")
    require(
        LEAST_PER_SECOND <= value <= MOST_PER_SECOND,
        f"{where(struct, name)} must be from {LEAST_PER_SECOND:g} to {MOST_PER_SECOND:g} a second, not {shown(value)}",
    )


def where(struct: msgspec.Struct, name: str) -> str:
    return f"{type(struct).__name__}: {name}"
