"""Writes embeddings as they arrive: to a ``.parquet`` or ``.jsonl`` file, or to standard output."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from casdk.cli.parts import PartFile
from casdk.cli.signals import undisturbed
from casdk.errors import ConfigError

__all__ = ["STDOUT", "Sink", "open_sink", "to_json"]

STDOUT: Final = "-"
Rows = NDArray[np.floating[Any]]


def to_json(value: object) -> bytes:
    """Return a value as JSON; bytes of a path that are not UTF-8 are escaped as lone surrogates."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()


class Sink(ABC):
    """Takes the rows of all items in order; a context manager.

    Args:
        dtype: ``float32`` or ``float16``.

    Attributes:
        rows: Rows taken, without those that are bad.
        width: Numbers in a row; 0 until the first one comes.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.rows: int = 0
        self.width: int = 0

    def write(self, start: int, names: Sequence[str], rows: Rows, bad: Collection[int] = ()) -> None:
        """Write the rows of a piece of the input.

        Args:
            start: Index of its first item in the whole input.
            names: The names of its items.
            rows: ``[len(names), D]``; ``[len(names), 0]`` if all are bad and D is not known yet.
            bad: Positions of the items without a row, in this piece; their rows are NaN.
        """
        if not len(rows):
            return
        if not self.width and len(bad) < len(rows):
            self.width = int(rows.shape[1])
            self._begin()
        self._write(start, names, rows, bad)
        self.rows += len(rows) - len(bad)

    def _begin(self) -> None:
        """Prepare for the first good row, once the width is known."""

    @abstractmethod
    def _write(self, start: int, names: Sequence[str], rows: Rows, bad: Collection[int]) -> None: ...

    def summary(self, skipped: int) -> str:
        """Return what is printed at the end, ``""`` for nothing."""
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class LineSink(Sink):
    """Writes a line of JSON per item to standard output."""

    def _write(self, start: int, names: Sequence[str], rows: Rows, bad: Collection[int]) -> None:
        sys.stdout.buffer.write(lines_of(start, names, rows, bad))
        sys.stdout.buffer.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.rows:
            error.add_note(f"{self.rows} rows were printed before")


class SummarySink(Sink):
    """Prints a summary for a terminal: the number of rows, and the first numbers of the first rows."""

    SHOWN_ROWS: Final = 10
    SHOWN_NUMBERS: Final = 3
    NAME_CHARACTERS: Final = 48

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype)
        self._shown: list[str] = []

    def _write(self, start: int, names: Sequence[str], rows: Rows, bad: Collection[int]) -> None:
        for position, name in enumerate(names):
            if len(self._shown) == self.SHOWN_ROWS:
                return
            if position not in bad:
                label = name if len(name) <= self.NAME_CHARACTERS else f"{name[: self.NAME_CHARACTERS - 3]}..."
                label = label.encode("utf-8", "backslashreplace").decode()
                numbers = " ".join(f"{number:8.4f}" for number in rows[position, : self.SHOWN_NUMBERS])
                self._shown.append(f"  {label:<{self.NAME_CHARACTERS}} {numbers} ...")

    def summary(self, skipped: int) -> str:
        more = self.rows - len(self._shown)
        return "\n".join(
            [
                f"{self.rows} x {self.width} {self.dtype}",
                *self._shown,
                *([f"  and {more} more"] if more else []),
                "(-o FILE.npy, .parquet or .jsonl writes them, -o - prints them as lines of JSON)",
            ]
        )


class FileSink(Sink):
    """Writes a file as ``NAME.part`` and renames it when it is complete; if the command stops, ``NAME.part`` stays.

    Args:
        target: Name of the file.
        dtype: ``float32`` or ``float16``.
    """

    def __init__(self, target: str, dtype: str) -> None:
        super().__init__(dtype)
        self._name = target
        self._target = Path(os.path.expanduser(target))
        self._part_name = self._target.with_name(self._target.name + ".part")
        self._written = 0
        """Rows in the file."""

    def __enter__(self) -> Self:
        self._part = PartFile(self._target, self._part_name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Another Ctrl-C here would lose the rows that were written, so signals are ignored meanwhile.
        with undisturbed():
            try:
                if error is None:
                    self._finish()
            except BaseException as failed:
                self._stop(failed)
                raise
            if error is not None:
                self._stop(error)

    def _stop(self, error: BaseException) -> None:
        try:
            self._leave()
        except Exception as lost:  # an OSError, or one of pyarrow's
            error.add_note(f"the rows before it could not be kept: {lost}")
            self._part_name.unlink(missing_ok=True)
            return
        finally:
            self._part.close()
        if self._written:
            error.add_note(f"the {self._written} rows before it are in {self._part_name}")

    def _write(self, start: int, names: Sequence[str], rows: Rows, bad: Collection[int]) -> None:
        try:
            self._put(start, names, rows, bad)
        except OSError:
            if len(rows) == 1:
                raise
            # There is no room for all of them, but perhaps for the first ones.
            middle = len(rows) // 2
            self._write(start, names[:middle], rows[:middle], {position for position in bad if position < middle})
            late = {position - middle for position in bad if position >= middle}
            self._write(start + middle, names[middle:], rows[middle:], late)

    @abstractmethod
    def _put(self, start: int, names: Sequence[str], rows: Rows, bad: Collection[int]) -> None:
        """Write all of these rows, or none.

        Raises:
            OSError: There is no room for them.
        """

    def _finish(self) -> None:
        """Complete the file and rename it to its target."""
        self._part.finish()

    def _leave(self) -> None:
        """Complete what was written so far, so that it can be read, and close the file."""
        self._part.leave()

    def summary(self, skipped: int) -> str:
        left_out = f", {skipped} left out" if skipped else ""
        return f"{self._name}: {self.rows} x {self.width} {self.dtype}{left_out}"


class JsonlSink(FileSink):
    """Writes a line per item: ``{"index": 0, "item": "apple.png", "embedding": [...]}``."""

    def _put(self, start: int, names: Sequence[str], rows: Rows, bad: Collection[int]) -> None:
        self._part.write(lines_of(start, names, rows, bad))
        self._written += len(rows) - len(bad)


def lines_of(start: int, names: Sequence[str], rows: Rows, bad: Collection[int]) -> bytes:
    """Return a line of JSON per good row."""
    return b"".join(
        to_json({"index": start + position, "item": name, "embedding": rows[position].tolist()}) + b"\n"
        for position, name in enumerate(names)
        if position not in bad
    )


class GoodRows(NamedTuple):
    """Rows that `ParquetSink` has not written yet, with the indices and names of their items."""

    indices: list[int]
    names: list[str]
    rows: Rows

    def halves(self) -> tuple[GoodRows, GoodRows]:
        """Return the first half of the rows, and the second."""
        middle = len(self.rows) // 2
        first = GoodRows(self.indices[:middle], self.names[:middle], self.rows[:middle])
        return first, GoodRows(self.indices[middle:], self.names[middle:], self.rows[middle:])


class ParquetSink(FileSink):
    """Writes the columns ``index``, ``item`` and ``embedding``, which is a FixedSizeList."""

    GROUP_ROWS: Final = 4096
    FOOTER_BYTES: Final = 1 << 16
    FOOTER_BYTES_PER_GROUP: Final = 1 << 12
    """The most bytes of the footer, without and for each row group."""

    def __init__(self, target: str, dtype: str) -> None:
        super().__init__(target, dtype)
        try:
            import pyarrow.parquet
        except ImportError:
            raise ConfigError('a .parquet file needs pyarrow: pip install "casdk[arrow]"') from None
        self._arrow: Any = pyarrow
        self._writer: Any = None
        self._waiting: list[GoodRows] = []
        self._groups = 0

    def _begin(self) -> None:
        arrow = self._arrow
        number = arrow.from_numpy_dtype(np.dtype(self.dtype))
        schema = arrow.schema(
            [("index", arrow.int64()), ("item", arrow.string()), ("embedding", arrow.list_(number, self.width))]
        )
        self._writer = arrow.parquet.ParquetWriter(self._part, schema, use_dictionary=["item"])

    def _put(self, start: int, names: Sequence[str], rows: Rows, bad: Collection[int]) -> None:
        good = [position for position in range(len(rows)) if position not in bad]
        if good:
            indices = [start + position for position in good]
            self._waiting.append(GoodRows(indices, [_as_utf8(names[position]) for position in good], rows[good]))

    def _write(self, start: int, names: Sequence[str], rows: Rows, bad: Collection[int]) -> None:
        self._put(start, names, rows, bad)
        if sum(len(good.rows) for good in self._waiting) >= self.GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            indices = [index for good in self._waiting for index in good.indices]
            names = [name for good in self._waiting for name in good.names]
            rows = np.concatenate([good.rows for good in self._waiting]).astype(self.dtype, copy=False)
            self._waiting = []
            self._write_group(GoodRows(indices, names, rows))

    def _write_group(self, good: GoodRows) -> None:
        """Write a row group, or as many of its rows as there is room for: a footer has to fit behind them."""
        size = good.rows.nbytes + sum(2 * len(name.encode()) for name in good.names)
        footer = self.FOOTER_BYTES + (self._groups + 1) * self.FOOTER_BYTES_PER_GROUP
        try:
            self._part.reserve(footer + size + size // 4)
        except OSError:
            if len(good.rows) == 1:
                raise
            for half in good.halves():
                self._write_group(half)
            return
        arrow = self._arrow
        columns = [
            arrow.array(good.indices, arrow.int64()),
            arrow.array(good.names, arrow.string()),
            arrow.FixedSizeListArray.from_arrays(arrow.array(good.rows.reshape(-1)), self.width),
        ]
        self._writer.write_batch(arrow.record_batch(columns, schema=self._writer.schema))
        self._groups += 1
        self._written += len(good.rows)

    def _finish(self) -> None:
        if not self.width:
            self._begin()
        self._flush()
        self._writer.close()
        super()._finish()

    def _leave(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # there may be no room for more rows, but there is for the footer
                self._flush()
            self._writer.close()
        super()._leave()


def _as_utf8(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


FILES: Final[dict[str, type[FileSink]]] = {".jsonl": JsonlSink, ".parquet": ParquetSink}


def open_sink(target: str | None, dtype: str) -> Sink:
    """Return the sink for a target.

    Args:
        target: A file, `STDOUT`, or ``None`` for standard output: a summary on a terminal, else lines of JSON.
        dtype: ``float32`` or ``float16``.

    Raises:
        ConfigError: The name has an unknown suffix, or its directory or the library for it is missing.
    """
    if target is None and sys.stdout.isatty():
        return SummarySink(dtype)
    if target is None or target == STDOUT:
        return LineSink(dtype)
    kind = FILES.get(Path(target).suffix.lower())
    if kind is None:
        raise ConfigError(
            f"-o {target}: name a file that ends in .npy, {', '.join(FILES)}, a folder, or - for lines of JSON"
        )
    if not Path(os.path.expanduser(target)).parent.is_dir():
        raise ConfigError(f"-o {target}: there is no such directory")
    return kind(target, dtype)
