"""A target that is a folder of Parquet files, one for each shard."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from casdk._columns import to_arrow
from casdk.bulk.disk import Checksum, Part, checksum_of, rename, sync_folder, write_whole
from casdk.bulk.items import CONTENT_BYTES
from casdk.bulk.manifest import Manifest, Shard
from casdk.bulk.shard_files import GROUP_ROWS, Made, fill_rows, leave_out_rows, open_writer
from casdk.bulk.targets import FillableTarget, Rows, described, remove
from casdk.errors import BulkError, ConfigError, ItemError

__all__ = ["OURS", "SHARE_MANIFEST", "ParquetTarget", "rows_file_of"]

ERRORS: Final = "_errors.parquet"
OURS: Final = re.compile(
    r"part-\d{5,}\.parquet|_part-\d{5,}\.parquet\.tmp|_begun-\d+-\d+\.parquet|_errors\.parquet(\.tmp)?"
    r"|_contents-\d{5,}\.bin(\.tmp)?|_again-\d{5,}\.(parquet|bin)(\.tmp)?"
    r"|_casdk(\.\d+-of-\d+)?\.json(\.tmp)?|_lock\.\d+-of-\d+"
)
"""What runs leave in their folder."""
SHARE_MANIFEST: Final = re.compile(r"_casdk\.(\d+)-of-(\d+)\.json")
"""What a run that makes a share of the shards has instead of ``_casdk.json``."""
AGAIN: Final = re.compile(r"_again-(\d+)\.\w+(\.tmp)?")
"""What is made again of a shard, until it takes the place of what was there."""
LEFT_BEFORE: Final = ("_lock", "_casdk.json.tmp")
"""What a run that was killed before its first manifest may have left."""


class ParquetTarget(FillableTarget):
    """A folder of ``part-00000.parquet`` and so on, columns ``name``, ``embedding`` (FixedSizeList) and ``error``.

    An item that failed has a null for its embedding and says why in ``error``. What else is in the folder begins with
    an underscore, so that pyarrow's datasets, DuckDB and others read it as it is: the manifest ``_casdk.json``, and
    ``_errors.parquet`` with ``row``, ``name`` and ``error`` of the failed items when all is done. Where names do not
    say all of the items, a shard has ``_contents-00000.bin`` beside it, for updates (`casdk.bulk.items`).

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
        yield from self._found()

    def _found(self) -> list[Path]:
        return [path for path in sorted(self.path.iterdir()) if path.name not in LEFT_BEFORE]

    @property
    def is_whole(self) -> bool:
        """Whether it has a manifest of its own, and not only such as runs of shares have."""
        return self.manifest_path.exists()

    def forget(self) -> None:
        """Remove its manifest, for good: from here on, those of others count."""
        remove(self.manifest_path)
        sync_folder(self.path)

    def clear(self) -> None:
        others = [path.name for path in self._found() if not OURS.fullmatch(path.name)]
        if others:
            raise BulkError(
                f"{self.name} holds files that are not of a bulk run, as {others[0]}: they are left alone, so give "
                "another target"
            )
        self.forget()
        for path in self._found():
            remove(path)

    def check(self, manifest: Manifest) -> None:
        for shard in manifest.entries:
            for name, size in shard.files.items():
                self._compare_size(self.path / name, size)

    def begin(self, manifest: Manifest, width: int) -> None:
        self._name = f"part-{manifest.next_number:05d}.parquet"
        remove(self.path / ERRORS)  # of an earlier end, if this is an update
        self._rows = np.empty((GROUP_ROWS, width), self._dtype)
        self._names: list[str] = []
        self._errors: dict[int, str] = {}
        self._part = Part(self.path / f"_{self._name}.tmp")
        self._part.checksum = Checksum()
        self._writer = open_writer(self._arrow, self._part, self._schema(width))
        begun = [] if manifest.begun is None else list(manifest.begun.files)
        for path in self.path.glob(f"_begun-{manifest.next_number:05d}-*.parquet"):
            if path.name not in begun:
                remove(path)
        for name in begun:
            self._copy(self.path / name)

    def _schema(self, width: int) -> Any:
        arrow = self._arrow
        number = arrow.from_numpy_dtype(self._dtype)
        columns = [("name", arrow.string()), ("embedding", arrow.list_(number, width)), ("error", arrow.string())]
        return arrow.schema(columns)

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

    def commit(self, shard: Shard, contents: bytes = b"") -> Shard:
        shard = self._end(shard, self._name)
        if not contents:
            return shard
        name = f"_contents-{shard.number:05d}.bin"
        write_whole(self.path / name, contents)
        return msgspec.structs.replace(shard, files={**shard.files, name: len(contents)})

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
        table = self._arrow.parquet.ParquetFile(self.path / rows_file_of(shard)).read(["name", "error"])
        rows = self._arrow.array(np.arange(shard.rows) + manifest.start_of(shard.number))
        table = self._arrow.table([rows, table["name"], table["error"]], schema=schema)
        return table.filter(table["error"].is_valid())

    def names_of(self, manifest: Manifest, shard: Shard) -> Iterator[str]:
        for batch in self._arrow.parquet.ParquetFile(self.path / rows_file_of(shard)).iter_batches(columns=["name"]):
            yield from batch.column("name").to_pylist()

    # shards that are made again

    def failures(self, manifest: Manifest, shard: Shard) -> dict[int, str]:
        said = self._arrow.parquet.ParquetFile(self.path / rows_file_of(shard)).read(["error"])["error"].to_pylist()
        return {row: error for row, error in enumerate(said) if error is not None}

    def fill(self, manifest: Manifest, shard: Shard, rows: Mapping[int, Rows], errors: Mapping[int, str]) -> Manifest:
        remove(self.path / ERRORS)
        old, new = self.path / rows_file_of(shard), self.path / f"_again-{shard.number:05d}.parquet"
        errors = {row: _as_utf8(error) for row, error in errors.items()}
        made = fill_rows(self._arrow, old, new, self._schema(manifest.width), rows, errors)
        return self._replace(manifest, _with_file(shard, made))

    def leave_out(self, manifest: Manifest, shard: Shard, kept: NDArray[np.bool_]) -> Manifest:
        """Leave rows out of a shard, and return what the target then holds.

        Args:
            manifest: What it holds.
            shard: The shard.
            kept: ``[shard.rows]``, whether a row stays.
        """
        remove(self.path / ERRORS)
        old, new = self.path / rows_file_of(shard), self.path / f"_again-{shard.number:05d}.parquet"
        changed = _with_file(shard, leave_out_rows(self._arrow, old, new, self._schema(manifest.width), kept))
        files = dict(changed.files)
        if contents := self.contents_of(shard):
            left = np.frombuffer(contents, np.uint8).reshape(-1, CONTENT_BYTES)[kept].tobytes()
            write_whole(new.with_suffix(".bin"), left)
            files[f"_contents-{shard.number:05d}.bin"] = len(left)
        return self._replace(manifest, msgspec.structs.replace(changed, items="", files=files))

    def contents_of(self, shard: Shard) -> bytes:
        """Return what is known of the contents of a shard's items, as `casdk.bulk.items.Contents` has it."""
        others = [name for name in shard.files if name != rows_file_of(shard)]
        return b"".join((self.path / name).read_bytes() for name in others)

    def _replace(self, manifest: Manifest, shard: Shard) -> Manifest:
        """Give what was made of a shard anew its place; a run that is killed here is made good for by `settle`."""
        manifest = manifest.with_replaced(shard)
        self.write_manifest(manifest)
        return self.settle(manifest)

    def settle(self, manifest: Manifest) -> Manifest:
        entries = {shard.number: shard for shard in manifest.entries}
        for path in sorted(self.path.glob("_again-*")):
            found = AGAIN.fullmatch(path.name)
            if found is None or not self._makes(number := int(found[1])):
                continue
            if number in entries and (name := _place_of(path, entries[number])) is not None:
                rename(path, self.path / name)
            else:  # it came to its end before the manifest did
                remove(path)
        return manifest

    def _makes(self, number: int) -> bool:
        """Whether a shard is one that this run makes."""
        return True


def rows_file_of(shard: Shard) -> str:
    """Return the name of the file with the rows of a shard."""
    [name] = [name for name in shard.files if not name.startswith("_contents-")]
    return name


def _with_file(shard: Shard, made: Made) -> Shard:
    """Return the entry of a shard whose file was made again."""
    files = {**shard.files, rows_file_of(shard): made.size}
    return msgspec.structs.replace(shard, rows=made.rows, failed=made.failed, files=files, checksum=made.checksum)


def _place_of(again: Path, shard: Shard) -> str | None:
    """Return the name of which the manifest says that it is a file that was made again; ``None`` if it says of none."""
    name = rows_file_of(shard)
    if again.suffix == ".parquet":
        return name if checksum_of(again) == shard.checksum else None
    # Contents are written again where rows are left out, so it is their number that tells.
    name = f"_contents-{shard.number:05d}.bin"
    return name if again.suffix == ".bin" and shard.files.get(name) == again.stat().st_size else None


def _as_utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
