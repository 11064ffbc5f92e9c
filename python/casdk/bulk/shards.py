"""A target that is a folder of Parquet files, one for each shard."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from casdk._columns import to_arrow
from casdk.bulk.disk import Checksum, Part, rename, sync_folder
from casdk.bulk.manifest import Manifest, Shard
from casdk.bulk.targets import Rows, Target, described, remove
from casdk.errors import BulkError, ConfigError, ItemError

__all__ = ["OURS", "SHARE_MANIFEST", "ParquetTarget"]

GROUP_ROWS: Final = 4096
"""Rows in a row group, which are held in memory until it is written."""
ERRORS: Final = "_errors.parquet"
OURS: Final = re.compile(
    r"part-\d{5,}\.parquet|_part-\d{5,}\.parquet\.tmp|_begun-\d+-\d+\.parquet|_errors\.parquet(\.tmp)?"
    r"|_casdk(\.\d+-of-\d+)?\.json(\.tmp)?|_lock\.\d+-of-\d+"
)
"""What runs leave in their folder."""
SHARE_MANIFEST: Final = re.compile(r"_casdk\.(\d+)-of-(\d+)\.json")
"""What a run that makes a share of the shards has instead of ``_casdk.json``."""
LEFT_BEFORE: Final = ("_lock", "_casdk.json.tmp")
"""What a run that was killed before its first manifest may have left."""


class ParquetTarget(Target):
    """A folder of ``part-00000.parquet`` and so on, columns ``name``, ``embedding`` (FixedSizeList) and ``error``.

    An item that failed has a null for its embedding and says why in ``error``. What else is in the folder begins with
    an underscore, so that pyarrow's datasets, DuckDB and others read it as it is: the manifest ``_casdk.json``, and
    ``_errors.parquet`` with ``row``, ``name`` and ``error`` of the failed items when all is done.

    Args:
        path: A folder, made if it is not there.
        dtype: ``float32`` or ``float16``.

    Raises:
        ConfigError: pyarrow is not installed.
    """

    def __init__(self, path: str, dtype: str) -> None:
        super().__init__(path)
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise ConfigError('a folder of Parquet files needs pyarrow: pip install "casdk[arrow]"') from error
        self._arrow: Any = pyarrow
        self._dtype = np.dtype(dtype)
        self.manifest_path: Path = self.path / "_casdk.json"
        self.lock_path: Path = self.path / "_lock"
        self._part: Part | None = None
        self._writer: Any = None

    def _make_folder(self) -> None:
        self.path.mkdir(exist_ok=True)

    def foreign_files(self) -> Iterator[Path]:
        """Yield what lies in the folder.

        Raises:
            BulkError: Several runs are making it.
        """
        found = self._found()
        if any(SHARE_MANIFEST.fullmatch(path.name) for path in found):
            raise BulkError(
                f"{self.name} is made by several runs, each with its shard=: when all are finished, "
                "casdk.bulk.merge joins what they have made"
            )
        yield from found

    def _found(self) -> list[Path]:
        return [path for path in sorted(self.path.iterdir()) if path.name not in LEFT_BEFORE]

    def clear(self) -> None:
        others = [path.name for path in self._found() if not OURS.fullmatch(path.name)]
        if others:
            raise BulkError(
                f"{self.name} holds files that are not of a bulk run, as {others[0]}: they are left alone, so give "
                "another target"
            )
        remove(self.manifest_path)
        sync_folder(self.path)
        for path in self._found():
            remove(path)

    def check(self, manifest: Manifest) -> None:
        for shard in (*manifest.shards, *([manifest.begun] if manifest.begun is not None else [])):
            for name, size in shard.files.items():
                self._compare_size(self.path / name, size)

    def begin(self, manifest: Manifest, width: int) -> None:
        arrow = self._arrow
        self._name = f"part-{manifest.next_number:05d}.parquet"
        number = arrow.from_numpy_dtype(self._dtype)
        schema = [("name", arrow.string()), ("embedding", arrow.list_(number, width)), ("error", arrow.string())]
        self._rows = np.empty((GROUP_ROWS, width), self._dtype)
        self._names: list[str] = []
        self._errors: dict[int, str] = {}
        self._open(arrow.schema(schema))
        begun = [] if manifest.begun is None else list(manifest.begun.files)
        for path in self.path.glob(f"_begun-{manifest.next_number:05d}-*.parquet"):
            if path.name not in begun:
                remove(path)
        for name in begun:
            self._copy(self.path / name)

    def _open(self, schema: Any) -> None:
        self._part = Part(self.path / f"_{self._name}.tmp")
        self._part.checksum = Checksum()
        self._writer = self._arrow.parquet.ParquetWriter(
            self._part,
            schema,
            # Names differ from row to row, and so do the numbers of embeddings: a dictionary or a codec finds nothing.
            use_dictionary=["error"],
            compression={"name": "zstd", "embedding": "none", "error": "zstd"},
            write_statistics=["name"],
        )

    def _copy(self, begun: Path) -> None:
        """Write what there is of the shard again: row groups begin at the same rows as if it had not been stopped."""
        for batch in self._arrow.parquet.ParquetFile(begun).iter_batches(GROUP_ROWS):
            names, column, errors = batch.column("name"), batch.column("embedding"), batch.column("error")
            good = np.asarray(column.is_valid())
            rows = np.full((len(good), self._rows.shape[1]), np.nan, self._dtype)
            rows[good] = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, rows.shape[1])
            said = {place: error for place, error in enumerate(errors.to_pylist()) if error is not None}
            self._put(names.to_pylist(), rows, said)

    def add(self, names: Sequence[str], rows: Rows, errors: Mapping[int, ItemError]) -> None:
        self._put(names, rows, {place: _as_utf8(described(error)) for place, error in errors.items()})

    def _put(self, names: Sequence[str], rows: Rows, errors: Mapping[int, str]) -> None:
        while len(names):
            held = len(self._names)
            room = GROUP_ROWS - held
            part = rows[:room]
            self._rows[held : held + len(part)] = part
            self._names += names[:room]
            self._errors.update((held + place, said) for place, said in errors.items() if place < room)
            if len(self._names) == GROUP_ROWS:
                self._write_group()
            names, rows = names[room:], rows[room:]
            errors = {place - room: said for place, said in errors.items() if place >= room}

    def _write_group(self) -> None:
        arrow, count = self._arrow, len(self._names)
        if not count:
            return
        said = [self._errors.get(place) for place in range(count)] if self._errors else None
        columns = [
            arrow.array(self._names, arrow.string()),
            to_arrow(self._rows[:count], self._errors),
            arrow.nulls(count, arrow.string()) if said is None else arrow.array(said, arrow.string()),
        ]
        self._writer.write_batch(arrow.record_batch(columns, schema=self._writer.schema), row_group_size=GROUP_ROWS)
        self._names, self._errors = [], {}

    def commit(self, shard: Shard) -> Shard:
        return self._end(shard, self._name)

    def keep(self, shard: Shard) -> Shard:
        # A name of its own: until the manifest is written, the beginning that the last run has left is what counts.
        return self._end(shard, f"_begun-{shard.number:05d}-{shard.rows}.parquet")

    def _end(self, shard: Shard, name: str) -> Shard:
        part = self._part
        assert part is not None
        assert part.checksum is not None
        self._write_group()
        self._writer.close()
        part.sync()
        part.close()
        rename(part.path, self.path / name)
        self._part = self._writer = None
        return msgspec.structs.replace(shard, files={name: part.size}, checksum=part.checksum.text)

    def drop(self) -> None:
        if self._part is not None:
            part, writer, self._part, self._writer = self._part, self._writer, None, None
            with contextlib.suppress(OSError):  # it writes a footer, and the disk may be full; the file goes anyway
                writer.close()
            part.close()
            remove(part.path)

    def complete(self, manifest: Manifest) -> None:
        for path in self.path.glob("_begun-*.parquet"):
            remove(path)
        if (self.path / ERRORS).exists():
            return
        arrow = self._arrow
        schema = arrow.schema([("row", arrow.int64()), ("name", arrow.string()), ("error", arrow.string())])
        part = Part(self.path / f"{ERRORS}.tmp")
        try:
            with arrow.parquet.ParquetWriter(part, schema) as writer:
                for shard in manifest.shards:
                    if shard.failed:
                        writer.write_table(self._errors_of(manifest, shard, schema))
            part.sync()
        finally:
            part.close()
        rename(part.path, self.path / ERRORS)

    def _errors_of(self, manifest: Manifest, shard: Shard, schema: Any) -> Any:
        [name] = shard.files
        table = self._arrow.parquet.ParquetFile(self.path / name).read(["name", "error"])
        rows = self._arrow.array(np.arange(shard.rows) + manifest.start_of(shard.number))
        table = self._arrow.table([rows, table["name"], table["error"]], schema=schema)
        return table.filter(table["error"].is_valid())

    def names_of(self, manifest: Manifest, shard: Shard) -> Iterator[str]:
        [name] = shard.files
        for batch in self._arrow.parquet.ParquetFile(self.path / name).iter_batches(columns=["name"]):
            yield from batch.column("name").to_pylist()


def _as_utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
