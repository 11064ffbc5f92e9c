"""A target that is a folder in the layout of clip-retrieval, as autofaiss and clip-back read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import IO, Any, Final, TypeAlias

import msgspec
import numpy as np

from casdk.bulk.disk import Checksum, Part, sum_of
from casdk.bulk.folders import FolderTarget
from casdk.bulk.large_part import LargePart
from casdk.bulk.manifest import Manifest, Shard
from casdk.bulk.matrix import head_of
from casdk.bulk.sources import to_lines
from casdk.bulk.storage import Storage
from casdk.bulk.targets import Rows, described_rows, in_dtype, remove
from casdk.bulk.work import Labels
from casdk.errors import ItemError

__all__ = ["ClipRetrievalTarget"]

LINES: Final = "rows"
"""The kind of the file that has a line for each row of the shard under way, also for rows that failed."""
GROUP_ROWS: Final = 1 << 16
"""Rows of metadata that are held in memory at a time."""
COPIED_BYTES: Final = 1 << 20

Line: TypeAlias = tuple[str, str, str | None]
"""A line of that file: name, caption and error of a row."""


class ClipRetrievalTarget(FolderTarget):
    """A folder with ``img_emb/img_emb_0.npy``, ``text_emb/text_emb_0.npy`` and ``metadata/metadata_0.parquet``.

    Row n of one is row n of the others. clip-retrieval knows no row without an embedding, so one of which an item
    failed is in none of them; it is in ``_failed/failed_0.parquet``, and in the end in ``_errors.parquet``. A shard of
    which every row failed has no files: autofaiss passes over an empty matrix, and not over the metadata next to it.
    Numbers are not padded, because their count is not known at the first shard; clip-retrieval's readers sort
    all three folders by their names, so that the files stay next to each other.

    Args:
        storage: The folder, made if it is not there.
        dtype: ``float16``.
        columns: Which of the matrices there are, ``img_emb``, ``text_emb`` or both.
    """

    def __init__(self, storage: str | Storage, dtype: str, columns: tuple[str, ...]) -> None:
        super().__init__(storage, dtype, columns)
        string, row = self._arrow.string(), self._arrow.int64()
        # The name of an image is stored as its path, which clip-retrieval knows; names of texts have their own column.
        self._named = "image_path" if "img_emb" in columns else "name"
        captions = ["caption"] if "text_emb" in columns else []
        self._metadata = self._arrow.schema([(column, string) for column in (self._named, *captions)])
        self._failed = self._arrow.schema([("row", row), ("name", string), ("error", string)])
        self._parts: dict[str, Part] = {}

    def begin(self, manifest: Manifest, width: int) -> None:
        """Open the files of the next shard, and copy the kept beginning of the shard into them, if there is one."""
        self._width, number = width, manifest.next_number
        self._start = manifest.start_of(number)
        self._drop_begun(manifest)
        begun = () if manifest.begun is None else manifest.begun.files
        files = {name.rpartition(".")[2]: name for name in begun}
        head = self._head(0)
        for column in self._columns:
            part = self._parts[column] = LargePart(self.storage.scratch / f"_{column}_{number}.npy.tmp")
            part.write(head)
            part.checksum = Checksum()
        self._parts[LINES] = Part(self.storage.scratch / f"_{LINES}_{number}.jsonl.tmp")
        for kind, name in files.items():
            with self.storage.open(name) as file:
                _copy(file, self._parts[kind], skip=0 if kind == LINES else len(head))
        row_bytes = width * np.dtype(self._dtype).itemsize
        self._row = self._labelled = 0
        self._said: dict[int, str] = {}
        self._good = (self._parts[self._columns[0]].size - len(head)) // row_bytes

    def _head(self, rows: int) -> bytes:
        return head_of(np.dtype(self._dtype), rows, self._width)

    def add(self, rows: Rows, errors: Mapping[int, ItemError]) -> None:
        """Add the embeddings of those rows of which no item failed."""
        parts = len(self._columns)
        count, first = len(rows) // parts, self._row
        by_row = rows.reshape(count, parts, -1)
        if errors:
            said = described_rows(errors, parts)
            self._said.update((first + row, words) for row, words in said.items())
            by_row = np.delete(by_row, list(said), axis=0)
        self._row += count
        if len(by_row):
            for place, column in enumerate(self._columns):
                self._parts[column].write(in_dtype(by_row[:, place], self._dtype).data)
        self._good += len(by_row)

    def add_labels(self, labels: Labels) -> None:
        """Add a line for each row, with its error if it has one."""
        names, said, first = labels.names, self._said, self._labelled
        texts = enumerate(zip(names, labels.captions or [""] * len(names), strict=True), first)
        self._parts[LINES].write(to_lines([(*two, said.pop(row, None)) for row, two in texts]))
        self._labelled += len(names)

    def commit(self, shard: Shard, contents: bytes = b"") -> Shard:
        """Write the files of the shard to disk, and give them their final names."""
        lines, number, sums = self._parts[LINES], shard.number, list[str]()
        lines.close()
        made: dict[str, Part] = {}
        if self._good:
            for column in self._columns:
                made[f"{column}/{column}_{number}.npy"] = self._parts[column]
                sums.append(self._end_matrix(self._parts[column]))
            good = ((name, caption) for name, caption, error in _read(lines.path.open("rb")) if error is None)
            made[f"metadata/metadata_{number}.parquet"] = self._write_rows("metadata", number, self._metadata, good)
        if shard.failed:
            rows = enumerate(_read(lines.path.open("rb")), self._start)
            failed = ((row, name, error) for row, (name, _, error) in rows if error is not None)
            made[f"_failed/failed_{number}.parquet"] = self._write_rows("failed", number, self._failed, failed)
        for name, part in made.items():
            self.storage.take_in(part.path, name)
        self.drop()
        sums += [part.checksum.text for part in made.values() if part.checksum is not None]
        files = {name: part.size for name, part in made.items()}
        return msgspec.structs.replace(shard, files=files, checksum=sum_of(sums))

    def _end_matrix(self, part: Part) -> str:
        """Write the number of rows into a matrix, wait until it is on disk, and return the checksum of its header."""
        head, checksum = self._head(self._good), Checksum()
        part.overwrite(head)
        part.sync()
        part.close()
        checksum.add(head)
        return checksum.text

    def _write_rows(self, kind: str, number: int, schema: Any, rows: Iterable[tuple[Any, ...]]) -> Part:
        """Write rows into a Parquet file, which is returned; only the values for which the schema has columns count."""
        part = self._parts[kind] = Part(self.storage.scratch / f"_{kind}_{number}.parquet.tmp")
        part.checksum = Checksum()

        def tables() -> Iterator[Any]:
            remaining = iter(rows)
            while taken := list(islice(remaining, GROUP_ROWS)):
                columns = zip(schema, zip(*taken, strict=True), strict=False)
                yield self._arrow.table(
                    [self._arrow.array(values, field.type) for field, values in columns], schema=schema
                )

        self._write_table(part, schema, tables())
        return part

    def keep(self, shard: Shard, contents: bytes = b"") -> Shard:
        """Write the beginning of the shard to disk, under names that `begin` finds."""
        files: dict[str, int] = {}
        for kind, part in self._parts.items():
            part.sync()
            part.close()
            name = self._begun_name(shard, kind)
            self.storage.take_in(part.path, name)
            files[name] = part.size
        sums = [part.checksum.text for part in self._parts.values() if part.checksum is not None]
        self._parts = {}
        return msgspec.structs.replace(shard, files=files, checksum=sum_of(sums))

    def drop(self) -> None:
        """Remove the files of the shard that is being made."""
        for part in self._parts.values():
            part.close()
            remove(part.path)
        self._parts = {}

    def _errors_of(self, manifest: Manifest, shard: Shard, schema: Any) -> Any:
        return self._read_table(f"_failed/failed_{shard.number}.parquet")

    def names_of(self, manifest: Manifest, shard: Shard) -> Iterator[str]:
        """Yield the names of all rows, also of those that failed, in order."""
        for name in shard.files:
            if name.endswith(f".{LINES}"):  # the beginning of a shard
                yield from (called for called, _, _ in _read(self.storage.open(name)))
                return
        good: Iterator[str] = iter(())
        failed: dict[int, str] = {}
        start = manifest.start_of(shard.number)
        for name in shard.files:
            if name.startswith("metadata/"):
                good = iter(self._read_table(name)[self._named].to_pylist())
            elif name.startswith("_failed/"):
                table = self._read_table(name)
                failed = dict(zip(table["row"].to_pylist(), table["name"].to_pylist(), strict=True))
        for row in range(start, start + shard.rows):
            yield failed[row] if row in failed else next(good)

    def _read_table(self, name: str) -> Any:
        return self._arrow.parquet.ParquetFile(self.storage.for_arrow(name)).read()


_decoder: Final = msgspec.json.Decoder(Line)


def _read(lines: IO[bytes]) -> Iterator[Line]:
    """Yield the lines of a shard under way, and close their file."""
    with lines:
        for line in lines:
            yield _decoder.decode(line)


def _copy(file: IO[bytes], part: Part, *, skip: int) -> None:
    """Copy a file into a part, without its first ``skip`` bytes."""
    file.seek(skip)
    while data := file.read(COPIED_BYTES):
        part.write(data)
