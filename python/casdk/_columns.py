"""Columns of pandas, polars and Arrow in, an Arrow column out; none of their libraries is imported for an item of ours.

A column is read a slice at a time, so that a call over a long one never holds it as Python objects. A null becomes
``None``, which is an item's error. Any other object that exports itself through Arrow's C interface
(``__arrow_c_stream__``, ``__arrow_c_array__``) is read by pyarrow, without a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from casdk.documents.recognise import origins
from casdk.errors import ConfigError, InputTypeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ArrowArray", "ArrowStream", "Column", "PandasColumn", "Unreadable", "check_arrow", "column_of", "to_arrow"]

SLICE_ROWS: Final = 1024
"""Rows turned into Python objects at a time."""


class ArrowStream(Protocol):
    """A stream of Arrow's: a polars ``Series``, a pyarrow ``ChunkedArray``, and columns of many other libraries."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Return a PyCapsule ``arrow_array_stream``."""


class ArrowArray(Protocol):
    """An array of Arrow's: a pyarrow ``Array``, such as ``encode(..., result="arrow")`` returns."""

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        """Return two PyCapsules, ``arrow_schema`` and ``arrow_array``."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...


class PandasColumn(Protocol):
    """A pandas ``Series`` or ``Index``."""

    def isna(self) -> Any:
        """Return which rows are null."""

    def tolist(self) -> list[Any]:
        """Return the rows."""
        ...

    def __len__(self) -> int:
        """Return the number of rows."""
        ...


class Column:
    """A column, as the items of a call: sized, and read slice by slice."""

    def __init__(self, source: Any, kind: str) -> None:
        self._source = source
        self._read = _READ[kind]

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self._source), SLICE_ROWS):
            stop = min(start + SLICE_ROWS, len(self._source))
            try:
                rows = list(self._read(self._source, start, stop))
            except Exception:  # read again one by one, to find the row that fails
                rows = [self._read_row(row) for row in range(start, stop)]
            yield from rows

    def _read_row(self, row: int) -> Any:
        try:
            [item] = self._read(self._source, row, row + 1)
        except Exception as error:
            return Unreadable(error)
        return item


class Unreadable:
    """A row that cannot be read.

    Attributes:
        cause: The exception that reading it has raised.
    """

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


def _read_pandas(column: Any, start: int, stop: int) -> Iterable[Any]:
    part = (column.iloc if hasattr(column, "iloc") else column)[start:stop]
    return [None if null else item for item, null in zip(part.tolist(), np.asarray(part.isna()), strict=True)]


def _read_polars(column: Any, start: int, stop: int) -> Iterable[Any]:
    items: list[Any] = column.slice(start, stop - start).to_list()
    return items


def _read_arrow(column: Any, start: int, stop: int) -> Iterable[Any]:
    items: list[Any] = column.slice(start, stop - start).to_pylist()
    return items


_READ: Final = {"pandas": _read_pandas, "polars": _read_polars, "pyarrow": _read_arrow}
CLASSES: Final = {
    "pandas": {"Series", "Index", "ExtensionArray"},
    "polars": {"Series"},
    "pyarrow": {"Array", "ChunkedArray"},
}


def column_of(content: object) -> Column | None:
    """Return a column to read items from, or ``None`` for content of another kind.

    Raises:
        InputTypeError: The content is a table.
        ConfigError: The content can only be read with pyarrow, which is not installed.
    """
    kind = type(content)
    streams, arrays = hasattr(kind, "__arrow_c_stream__"), hasattr(kind, "__arrow_c_array__")
    if (streams or arrays) and not callable(getattr(content, "columns", len)):
        raise _table(content)
    for module, name in origins(kind):
        root = module.partition(".")[0]
        if root in CLASSES and name in CLASSES[root]:
            return Column(content, root)
    if not streams and not arrays:
        return None
    pyarrow = _pyarrow(f"reading a {kind.__name__}")
    column = pyarrow.chunked_array(content) if streams else pyarrow.array(content)
    if pyarrow.types.is_struct(column.type):
        raise _table(content)
    return Column(column, "pyarrow")


def _table(content: object) -> InputTypeError:
    return InputTypeError(
        f"content must be one column, not a whole {type(content).__name__}: choose one, e.g. df['text']"
    )


def to_arrow(rows: NDArray[Any], bad: Iterable[int] = ()) -> Any:
    """Return ``[N, D]`` as a ``pyarrow.FixedSizeListArray`` of N lists of D numbers, on the same memory.

    Args:
        rows: ``[N, D]`` float32 or float16.
        bad: Rows that become null.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    pyarrow = _pyarrow("an Arrow result")
    count, width = rows.shape
    number = pyarrow.from_numpy_dtype(rows.dtype)
    valid = np.ones(count, bool)
    valid[list(bad)] = False
    # Arrow counts validity in bits, the lowest first; without a null it needs none.
    bits = None if valid.all() else pyarrow.py_buffer(np.packbits(valid, bitorder="little"))
    values = pyarrow.Array.from_buffers(number, rows.size, [None, pyarrow.py_buffer(np.ascontiguousarray(rows))])
    return pyarrow.Array.from_buffers(pyarrow.list_(number, width), count, [bits], children=[values])


def check_arrow() -> None:
    """Check that there can be an Arrow result, before anything is sent.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    _pyarrow("an Arrow result")


def _pyarrow(what: str) -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ConfigError(f'{what} needs pyarrow: pip install "casdk[arrow]"') from error
    return pyarrow
