"""The options of a verb at run time, for `help`, Shift-Tab, `inspect.signature` and the reference.

`Client` decorates its verbs with `takes`. Type checkers read the overloads, which are not there at run time.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, TypeVar

import msgspec

from casdk._calls.options import Options

__all__ = ["takes"]

F = TypeVar("F", bound=Callable[..., Any])

ENTRY: Final = re.compile(r"    (\w+): .*(?:\n      .*)*")
"""An attribute in a docstring, with the lines that go on with it."""
PLACE: Final = re.compile(r"    \*\*options: .*(?:\n      .*)*")
"""Where a verb's docstring stands for its options."""


def takes(*kinds: type, without: Collection[str] = (), defaults: type[msgspec.Struct] = Options) -> Callable[[F], F]:
    """Write the options of a function that takes ``**options`` into its signature and its docstring.

    Each option is described in its TypedDict, and its default is in `Options`, or another struct: nowhere else.

    Args:
        kinds: TypedDicts of options, each documented by its ``Attributes``; one that extends another comes after it.
        without: Options in these TypedDicts that the function does not take.
        defaults: The struct that has the default of each option.
    """
    parameters = [parameter for parameter in _parameters(kinds, defaults) if parameter.name not in without]
    names = {parameter.name for parameter in parameters}
    documented = [found for kind in kinds for found in ENTRY.finditer(inspect.cleandoc(kind.__doc__ or ""))]
    described = "\n".join(found[0] for found in documented if found[1] in names)

    def describe(function: F) -> F:
        own = inspect.signature(function)
        own_parameters = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        function.__signature__ = own.replace(parameters=[*own_parameters, *parameters])  # type: ignore[attr-defined]
        function.__doc__ = PLACE.sub(lambda _: described, inspect.cleandoc(function.__doc__ or ""), count=1)
        return function

    return describe


def _parameters(kinds: tuple[type, ...], of: type[msgspec.Struct]) -> Iterator[inspect.Parameter]:
    defaults = dict(zip(reversed(of.__struct_fields__), reversed(of.__struct_defaults__), strict=False))
    annotations = {name: annotation for kind in kinds for name, annotation in kind.__annotations__.items()}
    for name, annotation in annotations.items():
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults[name],
            annotation=getattr(annotation, "__forward_arg__", annotation),
        )
