"""Where embeddings are written to, as they come: a ``.parquet`` or ``.jsonl`` file, or standard output."""

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
    """Return a value as JSON; a path whose name is no UTF-8 in it keeps its odd bytes as lone surrogates, escaped."""
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
        """Take a piece.

        Args:
            start: Position of its first item in the whole input.
            names: Of its items.
            rows: ``[len(names), D]``; ``[len(names), 0]`` if all are bad and D is not known yet.
            bad: Positions in it of the items that have no row; there, ``rows`` are NaN.
        """
        if not len(rows):
            return
        if not self.width and len(bad) < len(rows):
            self.width = int(rows.shape[1])
            self._begin()
        self._write(start, names, rows, bad)
        self.rows += len(rows) - len(bad)

    def _begin(self) -> None:
        """Act before the first good row, when its width is known."""

    @abstractmethod
    def _write(self, start: int, names: Sequence[str], rows: Rows, bad: Collection[int]) -> None: ...

    def summary(self, skipped: int) -> str:
        """Return the line that is printed when all is written."""
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class LineSink(Sink):
    """A line of JSON per item on standard output."""

    def _write(self, start: int, names: Sequence[str], rows: Rows, bad: Collection[int]) -> None:
        sys.stdout.buffer.write(lines_of(start, names, rows, bad))
        sys.stdout.buffer.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.rows:
            error.add_note(f"{self.rows} rows were printed before")


class SummarySink(Sink):
    """What a person at a terminal wants to see: how many rows there are, and how the first ones begin."""

    SHOWN: Final = 10
    NUMBERS: Final = 3
    NAME: Final = 48

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype)
        self._shown: list[str] = []

    def _write(self, start: int, names: Sequence[str], rows: Rows, bad: Collection[int]) -> None:
        for position, name in enumerate(names):
            if len(self._shown) == self.SHOWN:
                return
            if position not in bad:
                label = name if len(name) <= self.NAME else f"{name[: self.NAME - 3]}..."
                label = label.encode("utf-8", "backslashreplace").decode()
                numbers = " ".join(f"{number:8.4f}" for number in rows[position, : self.NUMBERS])
                self._shown.append(f"  {label:<{self.NAME}} {numbers} ...")

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
    """A file, which is ``NAME.part`` while it is written; it becomes NAME when it is whole, and stays if the run stops.

    Args:
        target: Name of the file.
        dtype: ``float32`` or ``float16``.
    """

    def __init__(self, target: str, dtype: str) -> None:
        super().__init__(dtype)
        self._name = target
        self._target = Path(os.path.expanduser(target))
        self._part_name = self._target.with_name(self._target.name + ".part")
        self._kept = 0
        """Rows in the file."""

    def __enter__(self) -> Self:
        self._part = PartFile(self._target, self._part_name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Another Ctrl-C here would lose the rows that are kept, so signals wait.
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
        if self._kept:
            error.add_note(f"the {self._kept} rows before it are in {self._part_name}")

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
        """Complete the file and give it its name."""
        self._part.finish()

    def _leave(self) -> None:
        """Make of the file what can be read, and leave it."""
        self._part.leave()

    def summary(self, skipped: int) -> str:
        left_out = f", {skipped} left out" if skipped else ""
        return f"{self._name}: {self.rows} x {self.width} {self.dtype}{left_out}"


class JsonlSink(FileSink):
    """One line per item: ``{"index": 0, "item": "apple.png", "embedding": [...]}``."""

    def _put(self, start: int, names: Sequence[str], rows: Rows, bad: Collection[int]) -> None:
        self._part.write(lines_of(start, names, rows, bad))
        self._kept += len(rows) - len(bad)


def lines_of(start: int, names: Sequence[str], rows: Rows, bad: Collection[int]) -> bytes:
    """Return a line of JSON per good row."""
    return b"".join(
        to_json({"index": start + position, "item": name, "embedding": rows[position].tolist()}) + b"\n"
        for position, name in enumerate(names)
        if position not in bad
    )


class Held(NamedTuple):
    """Good rows that are still to be written, with positions and names."""

    indices: list[int]
    names: list[str]
    rows: Rows

    def halves(self) -> tuple[Held, Held]:
        """Return the first half of the rows, and the second."""
        middle = len(self.rows) // 2
        first = Held(self.indices[:middle], self.names[:middle], self.rows[:middle])
        return first, Held(self.indices[middle:], self.names[middle:], self.rows[middle:])


class ParquetSink(FileSink):
    """Columns ``index``, ``item`` and ``embedding``, a FixedSizeList."""

    GROUP: Final = 4096
    """Rows in a row group."""
    HEAD: Final = 1 << 16
    PER_GROUP: Final = 1 << 12
    """Bytes that a file, and each of its row groups, takes in the footer, with room to spare."""

    def __init__(self, target: str, dtype: str) -> None:
        super().__init__(target, dtype)
        try:
            import pyarrow.parquet
        except ImportError:
            raise ConfigError('a .parquet file needs pyarrow: pip install "casdk[arrow]"') from None
        self._arrow: Any = pyarrow
        self._writer: Any = None
        self._held: list[Held] = []
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
            self._held.append(Held(indices, [_as_utf8(names[position]) for position in good], rows[good]))

    def _write(self, start: int, names: Sequence[str], rows: Rows, bad: Collection[int]) -> None:
        self._put(start, names, rows, bad)
        if sum(len(held.rows) for held in self._held) >= self.GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            indices = [index for held in self._held for index in held.indices]
            names = [name for held in self._held for name in held.names]
            rows = np.concatenate([held.rows for held in self._held]).astype(self.dtype, copy=False)
            self._held = []
            self._write_group(Held(indices, names, rows))

    def _write_group(self, held: Held) -> None:
        """Write a row group, or as many of its rows as there is room for: a footer has to fit behind them."""
        size = held.rows.nbytes + sum(2 * len(name.encode()) for name in held.names)
        try:
            self._part.reserve(self.HEAD + (self._groups + 1) * self.PER_GROUP + size + size // 4)
        except OSError:
            if len(held.rows) == 1:
                raise
            for half in held.halves():
                self._write_group(half)
            return
        arrow = self._arrow
        columns = [
            arrow.array(held.indices, arrow.int64()),
            arrow.array(held.names, arrow.string()),
            arrow.FixedSizeListArray.from_arrays(arrow.array(held.rows.reshape(-1)), self.width),
        ]
        self._writer.write_batch(arrow.record_batch(columns, schema=self._writer.schema))
        self._groups += 1
        self._kept += len(held.rows)

    def _finish(self) -> None:
        if not self.width:
            self._begin()
        self._flush()
        self._writer.close()
        super()._finish()

    def _leave(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # no room for what is held, but for the footer
                self._flush()
            self._writer.close()
        super()._leave()


def _as_utf8(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


FILES: Final[dict[str, type[FileSink]]] = {".jsonl": JsonlSink, ".parquet": ParquetSink}


def open_sink(target: str | None, dtype: str) -> Sink:
    """Return what writes to a target of that name.

    Args:
        target: A file, `STDOUT`, or ``None`` for standard output in the form that suits it.
        dtype: ``float32`` or ``float16``.

    Raises:
        ConfigError: No form of file is called so, or its library is missing.
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
