"""The types of the commands' arguments and options, with the checks of their values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter
from cyclopts.validators import Number

from casdk.cli.content import STDIN

__all__ = ["Flag", "IndexOn", "Json", "Limit", "Model", "OutWord", "PathWord", "Size", "UnknownOptionError", "Word"]


class UnknownOptionError(ValueError):
    """A word that looks like an unknown option."""


def _check_words(kind: Any, words: Sequence[object] | object) -> None:
    """Refuse a word that looks like an unknown option; a lone ``-`` is standard input."""
    for word in words if isinstance(words, tuple | list) else (words,):
        if str(word).startswith("-") and str(word) != STDIN:
            raise UnknownOptionError(str(word))


def _check_size(kind: Any, size: object) -> None:
    if isinstance(size, int):  # the validator of cyclopts fails on a value that is not a number, as "auto"
        Number(gte=1)(int, size)


def _as_written(kind: Any, tokens: Sequence[cyclopts.Token]) -> str:
    """Return a word unchanged. Its type says ``Path`` for the shell's completion, which then offers files."""
    return tokens[0].value


Word = Annotated[str, Parameter(allow_leading_hyphen=True, validator=_check_words)]
PathWord = Annotated[Path | str, Parameter(allow_leading_hyphen=True, validator=_check_words, converter=_as_written)]
OutWord = Annotated[Path | str, Parameter(alias="-o", allow_leading_hyphen=True, converter=_as_written)]
Flag: Parameter = Parameter(negative="")
Json = Annotated[bool, Flag, Parameter(help="Print JSON.")]
Size = Annotated[
    int | Literal["auto"] | None,
    Parameter(
        help="Items per request, or auto to find out how many are best; 32 by default, and auto for a bulk run.",
        validator=_check_size,
    ),
]
IndexOn = Annotated[
    str | None, Parameter(help="Which of several servers has the index: its address; it needs to be said of those.")
]
Limit = Annotated[int, Parameter(help="Matches per query.", validator=Number(gte=1))]
Model = Annotated[str | None, Parameter(help="Model to ask for, where the flow has several.")]
