"""Where embeddings are written to, as they come: ``.npy``, ``.parquet``, ``.jsonl``. A file is whole or not there."""

from __future__ import annotations

import os
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from casdk.errors import ConfigError

__all__ = ["STDOUT", "Sink", "open_sink"]

STDOUT: Final = "-"
Rows = NDArray[np.floating[Any]]


class Sink(ABC):
    """Takes rows with the names of their items; a context manager that leaves no half of a file behind.

    Args:
        target: The file; `STDOUT` for standard output.
        dtype: ``float32`` or ``float16``.
    """

    def __init__(self, target: str, dtype: str) -> None:
        self.dtype = dtype
        self.rows: int = 0
        self.width: int = 0
        self._target = None if target == STDOUT else Path(target).expanduser()
        self._file: IO[bytes] = sys.stdout.buffer

    def __enter__(self) -> Self:
        if self._target is not None:
            # Beside the target, so that taking its place is one step; it is closed in __exit__.
            self._file = tempfile.NamedTemporaryFile(
                dir=self._target.parent, prefix=f".{self._target.name}.", delete=False
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._target is None:
            if error is None:
                self._finish()
                self._file.flush()
            return
        written = Path(self._file.name)
        try:
            self._finish() if error is None else self._abandon()
            self._file.close()
            if error is None:
                umask = os.umask(0)
                os.umask(umask)
                written.chmod(0o666 & ~umask)  # a temporary file is private, a result like any other file
                written.replace(self._target)
        finally:
            self._file.close()
            written.unlink(missing_ok=True)

    def write(self, indices: Sequence[int], names: Sequence[str], rows: Rows) -> None:
        """Take rows ``[n, D]``, and the positions and names of their items."""
        if not self.rows and len(rows):
            self.width = int(rows.shape[1])
            self._begin()
        if len(rows):
            self._write(indices, names, rows)
            self.rows += len(rows)

    def _begin(self) -> None:
        """Act before the first rows, when their width is known."""

    @abstractmethod
    def _write(self, indices: Sequence[int], names: Sequence[str], rows: Rows) -> None: ...

    def _finish(self) -> None:
        """Act after the last rows."""

    def _abandon(self) -> None:
        """Act when there will be no file."""


class NpySink(Sink):
    """One matrix ``[N, D]``."""

    def _begin(self) -> None:
        self._head()

    def _write(self, indices: Sequence[int], names: Sequence[str], rows: Rows) -> None:
        self._file.write(np.ascontiguousarray(rows, self.dtype).data)

    def _finish(self) -> None:
        self._file.seek(0)
        self._head()

    def _head(self) -> None:
        # NumPy leaves room in a header for a longer first axis, so that it can be written again over itself.
        shape = (self.rows, self.width)
        form = {"descr": np.lib.format.dtype_to_descr(np.dtype(self.dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, form)


class JsonlSink(Sink):
    """One line per item: ``{"index": 0, "item": "apple.png", "embedding": [...]}``."""

    def _write(self, indices: Sequence[int], names: Sequence[str], rows: Rows) -> None:
        lines = (
            {"index": index, "item": name, "embedding": row}
            for index, name, row in zip(indices, names, rows.tolist(), strict=True)
        )
        self._file.write(msgspec.json.Encoder().encode_lines(lines))
        if self._target is None:
            self._file.flush()


class ParquetSink(Sink):
    """Columns ``index``, ``item`` and ``embedding``, a FixedSizeList."""

    def __init__(self, target: str, dtype: str) -> None:
        super().__init__(target, dtype)
        try:
            import pyarrow.parquet
        except ImportError:
            raise ConfigError('a .parquet file needs pyarrow: pip install "casdk[arrow]"') from None
        self._arrow: Any = pyarrow
        self._writer: Any = None

    def _begin(self) -> None:
        arrow = self._arrow
        number = arrow.from_numpy_dtype(np.dtype(self.dtype))
        schema = arrow.schema(
            [("index", arrow.int64()), ("item", arrow.string()), ("embedding", arrow.list_(number, self.width))]
        )
        self._writer = arrow.parquet.ParquetWriter(self._file, schema)

    def _write(self, indices: Sequence[int], names: Sequence[str], rows: Rows) -> None:
        arrow = self._arrow
        flat = arrow.array(np.ascontiguousarray(rows, self.dtype).reshape(-1))
        columns = [
            arrow.array(indices, arrow.int64()),
            arrow.array(names, arrow.string()),
            arrow.FixedSizeListArray.from_arrays(flat, self.width),
        ]
        self._writer.write_batch(arrow.record_batch(columns, schema=self._writer.schema))

    def _finish(self) -> None:
        writer = self._writer
        if writer is None:
            self._begin()
            writer = self._writer
        writer.close()

    def _abandon(self) -> None:
        if self._writer is not None:
            self._writer.close()  # else it would try when it is collected, on a closed file


SINKS: Final[dict[str, type[Sink]]] = {".npy": NpySink, ".jsonl": JsonlSink, ".parquet": ParquetSink}


def open_sink(target: str, dtype: str) -> Sink:
    """Return what writes to a target of that name.

    Raises:
        ConfigError: No form of file is called so, or its library is missing.
    """
    if target == STDOUT:
        return JsonlSink(target, dtype)
    kind = SINKS.get(Path(target).suffix.lower())
    if kind is None:
        raise ConfigError(f"-o {target}: name a file that ends in {', '.join(SINKS)}, or - for lines of JSON")
    if not Path(target).expanduser().parent.is_dir():
        raise ConfigError(f"-o {target}: there is no such directory")
    return kind(target, dtype)
