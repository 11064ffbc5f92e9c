"""A target that is a folder of Parquet files, one for each shard."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from casdk.bulk.disk import Checksum, Part
from casdk.bulk.folders import EMBEDDING, ERRORS, FolderTarget
from casdk.bulk.items import CONTENT_BYTES
from casdk.bulk.large_part import LargePart
from casdk.bulk.manifest import Manifest, Shard
from casdk.bulk.row_blocks import RowBlocks
from casdk.bulk.row_groups import Group, Matrix, RowGroups
from casdk.bulk.shard_files import GROUP_ROWS, Made, fill_rows, leave_out_rows
from casdk.bulk.storage import Storage
from casdk.bulk.targets import FillableTarget, Rows, described_rows, remove
from casdk.bulk.work import Labels
from casdk.errors import ItemError

__all__ = ["ParquetTarget", "rows_file_of"]

AGAIN: Final = re.compile(r"_again-(\d+)\.\w+(\.tmp)?")
"""Names of files that replace those of a shard, before they are renamed."""


class HeldRows(NamedTuple):
    """A row group that is full and waits for its names.

    Attributes:
        rows: How many rows it has.
        matrices: The embeddings, one matrix for each column.
        errors: The texts for the column ``error``, by row.
    """

    rows: int
    matrices: list[Matrix]
    errors: dict[int, str]


class ParquetTarget(FolderTarget, FillableTarget):
    """A folder of ``part-00000.parquet`` and so on, columns ``name``, ``embedding`` (FixedSizeList) and ``error``.

    A failed item has a null embedding, and ``error`` says why. If a row is an image and its caption, each has a column,
    ``image_embedding`` and ``text_embedding``, and ``error`` says which of the two failed. pyarrow's datasets read the
    folder as it is, since they ignore names that begin with an underscore; DuckDB reads it as ``part-*.parquet``. If
    names do not say everything about the items, a shard has ``_contents-00000.bin`` beside it, for updates
    (`casdk.bulk.items`).

    Args:
        place: The folder, which is made if it does not exist.
        dtype: ``float32`` or ``float16``.
        columns: The names of the columns with embeddings.

    Raises:
        ConfigError: pyarrow is not installed.
    """

    blocks: RowBlocks | None

    def __init__(self, storage: str | Storage, dtype: str, columns: tuple[str, ...] = EMBEDDING) -> None:
        super().__init__(storage, dtype, columns)
        self._part: Part | None = None
        self._blocks: list[RowBlocks] = []

    def begin(self, manifest: Manifest, width: int) -> None:
        self._name = f"part-{manifest.next_number:05d}.parquet"
        self.storage.remove(ERRORS)  # an update continues a finished run, which has written this file
        self._width = width
        if not self._blocks:
            self._blocks = [RowBlocks(width, np.dtype(self._dtype), GROUP_ROWS) for _ in self._columns]
            self.blocks = self._blocks[0] if len(self._blocks) == 1 else None
        for blocks in self._blocks:
            blocks.begin(0)
        self._hold_nothing()
        self._full: deque[HeldRows] = deque()
        self._names: list[str] = []
        self._part = LargePart(self.storage.scratch / f"_{self._name}.tmp")
        self._part.checksum = Checksum()
        self._groups = RowGroups(self._arrow, self._part, self._schema(width))
        self._drop_begun(manifest)
        if manifest.begun is not None:
            self._copy(rows_file_of(manifest.begun))

    def _hold_nothing(self) -> None:
        """Forget the rows that were held for the next row group."""
        self._held = 0
        self._bad: list[tuple[int, int]] = []
        self._errors: dict[int, str] = {}

    def _schema(self, width: int) -> Any:
        arrow = self._arrow
        number = arrow.from_numpy_dtype(np.dtype(self._dtype))
        embeddings = [(column, arrow.list_(number, width)) for column in self._columns]
        return arrow.schema([("name", arrow.string()), *embeddings, ("error", arrow.string())])

    def _copy(self, begun: str) -> None:
        """Write the rows that were kept of the shard again: row groups begin at the same rows as without the stop."""
        parts, width = len(self._columns), self._width
        for batch in self._arrow.parquet.ParquetFile(self.storage.for_arrow(begun)).iter_batches(GROUP_ROWS):
            rows = np.full((len(batch), parts, width), np.nan, self._dtype)
            bad: list[tuple[int, int]] = []
            for part, column in enumerate(self._columns):
                good = np.asarray(batch.column(column).is_valid())
                numbers = batch.column(column).drop_null().flatten().to_numpy(zero_copy_only=False)
                rows[good, part] = numbers.reshape(-1, width)
                bad += [(int(row), part) for row in np.flatnonzero(~good)]
            errors = batch.column("error").to_pylist()
            said = {row: error for row, error in enumerate(errors) if error is not None}
            self._put(rows, bad, said)
            self._put_names(batch.column("name").to_pylist())

    def add(self, rows: Rows, errors: Mapping[int, ItemError]) -> None:
        parts = len(self._columns)
        bad = [divmod(place, parts) for place in errors] if errors else []
        said = described_rows(errors, parts) if errors else {}
        self._put(rows.reshape(len(rows) // parts, parts, -1), bad, said)

    def add_labels(self, labels: Labels) -> None:
        self._put_names(labels.names)

    def _put_names(self, names: Sequence[str]) -> None:
        """Add names, and write each row group that is full and now has all of its names."""
        self._names += names
        while self._full and len(self._names) >= self._full[0].rows:
            held = self._full.popleft()
            self._groups.add(Group(self._names[: held.rows], held.matrices, held.errors))
            del self._names[: held.rows]

    def _put(self, rows: Rows, bad: Collection[tuple[int, int]], errors: Mapping[int, str]) -> None:
        """Add rows to those that are held, and end each row group that is full.

        Args:
            rows: ``[N, columns, D]``.
            bad: Row and column of each embedding that is missing.
            errors: The texts for the column ``error``, by row.
        """
        start = 0
        while start < len(rows):
            held = self._held
            stop = min(len(rows), start + GROUP_ROWS - held)
            for part, blocks in enumerate(self._blocks):
                blocks.add(rows[start:stop, part])
            if bad:
                self._bad += [(held + row - start, column) for row, column in bad if start <= row < stop]
                self._errors |= {held + row - start: said for row, said in errors.items() if start <= row < stop}
            self._held += stop - start
            start = stop
            if self._held == GROUP_ROWS:
                self._end_group()

    def _end_group(self) -> None:
        """Let the rows that are held be a row group, which is written once it has its names."""
        if self._held:
            matrices = [self._matrix(blocks, part) for part, blocks in enumerate(self._blocks)]
            self._full.append(HeldRows(self._held, matrices, self._errors))
            self._hold_nothing()

    def _matrix(self, blocks: RowBlocks, part: int) -> Matrix:
        """Return the embeddings of a column, without the rows that stand for failed items."""
        block = blocks.take()
        assert block is not None
        bad = sorted(row for row, column in self._bad if column == part)
        if not bad:
            return Matrix(block, bad)
        good = np.delete(block.rows[: block.filled], bad, 0)
        block.release()
        return Matrix(good, bad)

    def commit(self, shard: Shard, contents: bytes = b"") -> Shard:
        return self._end(shard, self._name, f"_contents-{shard.number:05d}.bin", contents)

    def keep(self, shard: Shard, contents: bytes = b"") -> Shard:
        return self._end(shard, self._begun_name(shard, "parquet"), self._begun_name(shard, "bin"), contents)

    def _end(self, shard: Shard, name: str, contents_name: str, contents: bytes) -> Shard:
        part = self._part
        assert part is not None
        assert part.checksum is not None
        self._end_group()
        self._put_names([])
        self._groups.close()
        part.sync()
        part.close()
        self.storage.take_in(part.path, name)
        self._part = None
        for blocks in self._blocks:
            blocks.end()
        files = {name: part.size}
        if contents:
            self.storage.write(contents_name, contents)
            files[contents_name] = len(contents)
        return msgspec.structs.replace(shard, files=files, checksum=part.checksum.text)

    def drop(self) -> None:
        for blocks in self._blocks:
            blocks.end()
        if self._part is not None:
            part, self._part = self._part, None
            part.close()
            remove(part.path)

    def _errors_of(self, manifest: Manifest, shard: Shard, schema: Any) -> Any:
        table = self._open_rows(shard).read(["name", "error"])
        rows = self._arrow.array(np.arange(shard.rows) + manifest.start_of(shard.number))
        table = self._arrow.table([rows, table["name"], table["error"]], schema=schema)
        return table.filter(table["error"].is_valid())

    def names_of(self, manifest: Manifest, shard: Shard) -> Iterator[str]:
        for batch in self._open_rows(shard).iter_batches(columns=["name"]):
            yield from batch.column("name").to_pylist()

    def _open_rows(self, shard: Shard) -> Any:
        return self._arrow.parquet.ParquetFile(self.storage.for_arrow(rows_file_of(shard)))

    # shards that are made again

    def failures(self, manifest: Manifest, shard: Shard) -> dict[int, str]:
        said = self._open_rows(shard).read(["error"])["error"].to_pylist()
        return {row: error for row, error in enumerate(said) if error is not None}

    def fill(self, manifest: Manifest, shard: Shard, rows: Mapping[int, Rows], errors: Mapping[int, str]) -> Manifest:
        self.storage.remove(ERRORS)
        old, new = self._old_and_new(shard)
        errors = {row: _as_utf8(error) for row, error in errors.items()}
        made = fill_rows(self._arrow, old, new, self._schema(manifest.width), rows, errors)
        self.storage.take_in(new, new.name)
        return self._replace(manifest, _with_file(shard, made))

    def _old_and_new(self, shard: Shard) -> tuple[Any, Path]:
        """Return what a shard's file is read from, and where it is written again."""
        old = self.storage.for_arrow(rows_file_of(shard))
        return old, self.storage.scratch / f"_again-{shard.number:05d}.parquet"

    def leave_out(self, manifest: Manifest, shard: Shard, stays: NDArray[np.bool_]) -> Manifest:
        """Remove rows of a shard, and return the manifest afterwards.

        Args:
            manifest: The manifest of the target.
            shard: The shard.
            stays: ``[shard.rows]``, whether a row stays.
        """
        self.storage.remove(ERRORS)
        old, new = self._old_and_new(shard)
        changed = _with_file(shard, leave_out_rows(self._arrow, old, new, self._schema(manifest.width), stays))
        self.storage.take_in(new, new.name)
        files = dict(changed.files)
        if contents := self.contents_of(shard):
            left = np.frombuffer(contents, np.uint8).reshape(-1, CONTENT_BYTES)[stays].tobytes()
            self.storage.write(new.with_suffix(".bin").name, left)
            files[f"_contents-{shard.number:05d}.bin"] = len(left)
        return self._replace(manifest, msgspec.structs.replace(changed, items="", files=files))

    def contents_of(self, shard: Shard) -> bytes:
        """Return the contents of a shard's items, as `casdk.bulk.items.Contents` encodes them; empty if it has none."""
        others = [name for name in shard.files if name != rows_file_of(shard)]
        contents = b""
        for name in others:
            with self.storage.open(name) as file:
                contents += file.read()
        return contents

    def _replace(self, manifest: Manifest, shard: Shard) -> Manifest:
        """Write the manifest with a shard's new files, then rename these; after a kill in between, `settle` does so."""
        manifest = manifest.with_replaced(shard)
        self.write_manifest(manifest)
        return self.settle(manifest)

    def settle(self, manifest: Manifest) -> Manifest:
        entries = {shard.number: shard for shard in manifest.entries}
        for again in self.storage.beginning("_again-"):
            found = AGAIN.fullmatch(again)
            if found is None or not self._makes(number := int(found[1])):
                continue
            if number in entries and (name := self._name_of(again, entries[number])) is not None:
                self.storage.rename(again, name)
            else:  # the run was killed before it wrote the manifest
                self.storage.remove(again)
        return manifest

    def _name_of(self, again: str, shard: Shard) -> str | None:
        """Return which file of the shard this one replaces; ``None`` if the manifest does not know this one."""
        if again.endswith(".parquet"):
            return rows_file_of(shard) if self.storage.checksum_of(again) == shard.checksum else None
        # Contents are only written again if rows were removed, so the new file has another size.
        name = f"_contents-{shard.number:05d}.bin"
        return name if again.endswith(".bin") and shard.files.get(name) == self.storage.size_of(again) else None


def rows_file_of(shard: Shard) -> str:
    """Return the name of the file with the rows of a shard."""
    [name] = [name for name in shard.files if not name.endswith(".bin")]
    return name


def _with_file(shard: Shard, made: Made) -> Shard:
    """Return the entry of a shard whose file was written again."""
    files = {**shard.files, rows_file_of(shard): made.size}
    return msgspec.structs.replace(shard, rows=made.rows, failed=made.failed, files=files, checksum=made.checksum)


def _as_utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
