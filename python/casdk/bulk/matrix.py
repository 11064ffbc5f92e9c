"""A target that is one ``.npy`` matrix, with the names of its rows and the errors beside it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import numpy as np

from casdk.bulk.disk import READ_BYTES, Checksum, Lock, Part, rename, sync_folder, write_whole
from casdk.bulk.items import CONTENT_BYTES
from casdk.bulk.large_part import LargePart
from casdk.bulk.manifest import BY_THAT_INPUT, Manifest, Shard, read_manifest, write_manifest
from casdk.bulk.old_matrix import OldMatrix
from casdk.bulk.requests import piece_items
from casdk.bulk.row_blocks import RowBlocks
from casdk.bulk.sources import to_lines
from casdk.bulk.targets import FillableTarget, Held, Rows, described, remove
from casdk.bulk.work import Labels
from casdk.errors import ItemError

__all__ = ["MatrixTarget", "head_of"]

FILES: Final = ("rows", "names", "errors")
CONTENTS: Final = "contents"
READ_ROWS: Final = 4096
"""Rows that are read at a time."""


class MatrixTarget(FillableTarget):
    """A matrix ``NAME.npy``, ``[N, D]``: row n is the embedding of item n, NaN if the item failed.

    Beside it are ``NAME.names.jsonl`` with a JSON string per row, ``NAME.errors.jsonl`` with an object per failed item,
    and the manifest, ``NAME.casdk.json``. Until the run is done, all of them but the manifest end in ``.part``. A shard
    is a range of rows, and the manifest has the size of each file at its end. A killed run may have written more, which
    the next run cuts off. If names do not say everything about the items, ``NAME.contents.bin`` says the rest, for
    updates (`casdk.bulk.items`). An update writes a new matrix into ``.part`` files; meanwhile
    ``NAME.casdk.json.before`` is the manifest of the old one.

    Args:
        path: The path of the matrix, which ends in ``.npy``.
        dtype: ``float32`` or ``float16``.
    """

    blocks: RowBlocks | None

    def __init__(self, path: str, dtype: str) -> None:
        super().__init__(path)
        self.path: Path = Path(os.path.expanduser(path))
        self._dtype = np.dtype(dtype)
        stem = self.path.with_suffix("")
        self._final = {
            "rows": self.path,
            "names": stem.with_name(f"{stem.name}.names.jsonl"),
            "errors": stem.with_name(f"{stem.name}.errors.jsonl"),
            CONTENTS: stem.with_name(f"{stem.name}.contents.bin"),
        }
        self._part = {name: path.with_name(f"{path.name}.part") for name, path in self._final.items()}
        self.manifest_path: Path = stem.with_name(f"{stem.name}.casdk.json")
        self._before_path: Path = self.manifest_path.with_name(f"{self.manifest_path.name}.before")
        self.lock_path: Path = self.path.with_name(f"{self.path.name}.lock")
        self._filling: Path = self.path.with_name(f"{self.path.name}.filling")
        self._new_errors: Path = self._final["errors"].with_name(f"{self._final['errors'].name}.filling")
        self._files: dict[str, Part] = {}
        self._row = self._labelled = 0
        self._failed_rows: list[tuple[int, str]] = []

    def _acquire(self) -> Held:
        return Lock(self.lock_path, self.name)

    def _read_manifest(self) -> tuple[bytes, str]:
        return self.manifest_path.read_bytes(), str(self.manifest_path)

    def write_manifest(self, manifest: Manifest) -> None:
        write_whole(self.manifest_path, write_manifest(manifest))

    def foreign_files(self) -> Iterator[str]:
        yield from (str(path) for path in (*self._final.values(), *self._part.values()) if path.exists())

    def clear(self) -> None:
        # A complete matrix stays until the new one takes its name.
        # Its file of contents is of no use without its manifest.
        for path in (self._filling, self.manifest_path, self._before_path, *self._part.values(), self._final[CONTENTS]):
            remove(path)

    def check(self, manifest: Manifest) -> None:
        entry = manifest.begun or (manifest.shards[-1] if manifest.shards else None)
        for name, size in (entry.files if entry is not None else {}).items():
            final = manifest.finished and not self._part[name].exists()
            path = self._final[name] if final else self._part[name]
            found = path.stat().st_size if path.exists() else None
            self._compare_size(str(path), found, size, exactly=final)

    def begin(self, manifest: Manifest, width: int) -> None:
        entry = manifest.begun or (manifest.shards[-1] if manifest.shards else None)
        sizes = entry.files if entry is not None else {}
        self._row = self._labelled = manifest.rows
        self._failed_rows, self._width = [], width
        self._shard_start = manifest.start_of(manifest.next_number)
        self._contents_size = manifest.shards[-1].files.get(CONTENTS, 0) if manifest.shards else 0
        self._rows_file = LargePart(self._part["rows"], sizes.get("rows", 0))
        self._files = {"rows": self._rows_file}
        self._files |= {name: Part(self._part[name], sizes.get(name, 0)) for name in ("names", "errors")}
        if not sizes:
            self._rows_file.write(self._head(0))
        if self.blocks is None:
            piece_rows = piece_items(manifest.settings.batch_size)
            self.blocks = RowBlocks.of_pieces(width, self._dtype, piece_rows)
        self.blocks.begin(self._row - self._shard_start, self._rows_file.size)
        checksum = Checksum()
        if manifest.begun is not None:
            self._add_up(checksum, manifest.start_of(manifest.next_number))
        self._rows_file.checksum = checksum

    def _add_up(self, checksum: Checksum, start: int) -> None:
        """Count the rows that were kept of a shard into its checksum."""
        with open(self._part["rows"], "rb") as rows:
            rows.seek(len(self._head(0)) + start * self._width * self._dtype.itemsize)
            while data := rows.read(READ_BYTES):
                checksum.add(data)

    def add(self, rows: Rows, errors: Mapping[int, ItemError]) -> None:
        if errors:
            self._failed_rows += [(self._row + place, described(error)) for place, error in sorted(errors.items())]
        self._add_rows(rows)
        self._row += len(rows)

    def _add_rows(self, rows: Rows) -> None:
        blocks = self.blocks
        assert blocks is not None
        while len(rows):
            room = blocks.room(blocks.next_row)
            blocks.add(rows[:room])
            rows = rows[room:]
            if blocks.is_full:
                self._write_block()

    def _write_block(self) -> None:
        """Write the rows that were put into the latest block, if there are any."""
        assert self.blocks is not None
        if (block := self.blocks.take()) is not None:
            self._rows_file.write_rows(block)

    def add_labels(self, labels: Labels) -> None:
        names, first = labels.names, self._labelled
        self._files["names"].write(labels.lines)
        self._labelled += len(names)
        if self._failed_rows:
            failed = [(row, said) for row, said in self._failed_rows if row < self._labelled]
            del self._failed_rows[: len(failed)]
            lines = [{"row": row, "name": names[row - first], "error": said} for row, said in failed]
            self._files["errors"].write(_as_json(lines))

    def commit(self, shard: Shard, contents: bytes = b"") -> Shard:
        kept = self._keep_contents(shard, contents)
        shard = self._stop(shard)
        return msgspec.structs.replace(shard, files={**shard.files, **kept})

    def _keep_contents(self, shard: Shard, contents: bytes) -> dict[str, int]:
        """Write the contents of a shard's items, if there are any; returns the size of the file, by its name."""
        if not contents and not self._contents_size:
            return {}
        part = Part(self._part[CONTENTS], self._contents_size)
        try:
            part.write(bytes(self._shard_start * CONTENT_BYTES - self._contents_size))
            part.write(contents or bytes(shard.rows * CONTENT_BYTES))
            part.sync()
        finally:
            part.close()
        return {CONTENTS: part.size}

    def keep(self, shard: Shard, contents: bytes = b"") -> Shard:
        self._rows_file.overwrite(self._head(self._row))
        return self._stop(shard)

    def _stop(self, shard: Shard) -> Shard:
        checksum = self._rows_file.checksum
        assert checksum is not None
        self._write_block()
        for file in self._files.values():
            file.sync()
        sizes = {name: file.size for name, file in self._files.items()}
        self.drop()
        return msgspec.structs.replace(shard, files=sizes, checksum=checksum.text)

    def drop(self) -> None:
        if self.blocks is not None:
            self.blocks.end()
        for file in self._files.values():
            file.close()
        self._files = {}

    def complete(self, manifest: Manifest) -> None:
        self._width = manifest.width
        sizes = manifest.shards[-1].files if manifest.shards else {}
        for name in (*([CONTENTS] if CONTENTS in sizes else []), *reversed(FILES)):
            if not self._part[name].exists() and self._final[name].exists() and manifest.shards:
                continue
            file = Part(self._part[name], sizes.get(name, 0))
            try:
                if name == "rows":
                    file.overwrite(self._head(manifest.rows))
                file.sync()
            finally:
                file.close()
            rename(self._part[name], self._final[name])
        if self._before_path.exists():
            if CONTENTS not in sizes:
                remove(self._final[CONTENTS])
            remove(self._before_path)
            sync_folder(self._before_path.parent)

    def written(self) -> tuple[int, float]:
        """Return how many rows are in the file of a run under way, and when the last of them was written, in Unix time.

        Raises:
            FileNotFoundError: There is none.
        """
        with open(self._part["rows"], "rb") as rows:
            found = os.fstat(rows.fileno())
            if not found.st_size:
                return 0, found.st_mtime
            np.lib.format.read_magic(rows)
            (_, width), _, dtype = np.lib.format.read_array_header_1_0(rows)
            return (found.st_size - rows.tell()) // (width * dtype.itemsize), found.st_mtime

    # an update

    def begin_update(self, manifest: Manifest) -> Manifest:
        # If the run is killed between these two steps, the manifest is that of the old matrix, and the next run does
        # both steps again.
        write_whole(self._before_path, write_manifest(manifest))
        new = Manifest(settings=manifest.settings, space=manifest.space, prefetch=manifest.prefetch)
        self.write_manifest(new)
        return new

    @property
    def advice(self) -> str:
        return BY_THAT_INPUT if self._before_path.exists() else super().advice

    def read_old_matrix(self) -> OldMatrix | None:
        """Return the matrix that was there, if an update is making another one."""
        try:
            data = self._before_path.read_bytes()
        except FileNotFoundError:
            return None
        manifest = read_manifest(data, str(self._before_path))
        return OldMatrix(manifest, self._final, self._dtype, len(head_of(self._dtype, manifest.rows, manifest.width)))

    def _head(self, rows: int) -> bytes:
        return head_of(self._dtype, rows, self._width)

    def names_of(self, manifest: Manifest, shard: Shard) -> Iterator[str]:
        before = manifest.shards[shard.number - 1].files["names"] if shard.number else 0
        with open(self._there("names"), "rb") as lines:
            lines.seek(before)
            for _ in range(shard.rows):
                yield msgspec.json.decode(lines.readline(), type=str)

    def _there(self, name: str) -> Path:
        part = self._part[name]
        return part if part.exists() else self._final[name]

    # rows that are filled in

    def failures(self, manifest: Manifest, shard: Shard) -> dict[int, str]:
        first = manifest.start_of(shard.number)
        return {line["row"] - first: line["error"] for line in self._failed(manifest, shard)}

    def _failed(self, manifest: Manifest, shard: Shard) -> list[dict[str, Any]]:
        start, stop = _of_errors(manifest, shard)
        with open(self._there("errors"), "rb") as lines:
            lines.seek(start)
            return [json.loads(line) for line in lines.read(stop - start).splitlines()]

    def fill(self, manifest: Manifest, shard: Shard, rows: Mapping[int, Rows], errors: Mapping[int, str]) -> Manifest:
        self._width, first = manifest.width, manifest.start_of(shard.number)
        failed = [line for line in self._failed(manifest, shard) if line["row"] - first not in rows]
        for line in failed:
            line["error"] = errors.get(line["row"] - first, line["error"])
        filled = {place: rows[place].astype(self._dtype).ravel() for place in sorted(rows)}
        grown = self._write_errors(manifest, shard, _as_json(failed))
        checksum = self._checksum_with(first, shard.rows, filled)
        changed = msgspec.structs.replace(shard, failed=len(failed), checksum=checksum)
        then = _with_longer_errors(manifest.with_replaced(changed), shard.number, grown)
        # Once this file is on disk, the change will be made: if the run is killed, the next one makes it by `settle`.
        data = b"".join(row.tobytes() for row in filled.values())
        filling = Filling(write_manifest(then), [first + place for place in filled], data)
        write_whole(self._filling, msgspec.msgpack.encode(filling))
        return self.settle(manifest)

    def _write_errors(self, manifest: Manifest, shard: Shard, of_shard: bytes) -> int:
        """Write all errors again, with others for one shard; returns how many bytes more they are."""
        start, stop = _of_errors(manifest, shard)
        end = (manifest.begun or manifest.shards[-1]).files["errors"]
        part = Part(self._new_errors)
        try:
            with open(self._there("errors"), "rb") as old:
                for data in _read(old, start):
                    part.write(data)
                part.write(of_shard)
                old.seek(stop)
                for data in _read(old, end - stop):
                    part.write(data)
            part.sync()
        finally:
            part.close()
        return len(of_shard) - (stop - start)

    def _checksum_with(self, first: int, count: int, rows: Mapping[int, Rows]) -> str:
        """Return the checksum of rows that follow each other, some of which are replaced."""
        checksum = Checksum()
        with open(self._there("rows"), "rb") as file:
            file.seek(len(self._head(0)) + first * self._width * self._dtype.itemsize)
            for start in range(0, count, READ_ROWS):
                stop = min(start + READ_ROWS, count)
                block = np.fromfile(file, self._dtype, (stop - start) * self._width).reshape(-1, self._width)
                for place in range(start, stop):
                    if place in rows:
                        block[place - start] = rows[place]
                checksum.add(block.data)
        return checksum.text

    def settle(self, manifest: Manifest) -> Manifest:
        if not self._filling.exists():
            for left in (self._new_errors, self._filling.with_name(f"_{self._filling.name}.tmp")):
                remove(left)
            return manifest
        filling = msgspec.msgpack.decode(self._filling.read_bytes(), type=Filling)
        then = read_manifest(filling.manifest, str(self._filling))
        self._width = then.width
        row_bytes, head_bytes = self._width * self._dtype.itemsize, len(self._head(0))
        with open(self._there("rows"), "r+b") as file:
            for place, row in enumerate(filling.rows):
                file.seek(head_bytes + row * row_bytes)
                file.write(filling.data[place * row_bytes : (place + 1) * row_bytes])
            file.flush()
            os.fsync(file.fileno())
        if self._new_errors.exists():
            rename(self._new_errors, self._there("errors"))
        self.write_manifest(then)
        remove(self._filling)
        sync_folder(self._filling.parent)
        return then


class Filling(msgspec.Struct, frozen=True):
    """The change of a matrix whose rows are filled in; on disk before anything is changed, until all is changed.

    Attributes:
        manifest: The manifest after the change.
        rows: The rows that are filled in.
        data: The bytes of these rows, one after the other.
    """

    manifest: bytes
    rows: list[int]
    data: bytes


def _read(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield the next ``size`` bytes of a file in parts."""
    while size and (data := file.read(min(size, READ_BYTES))):
        yield data
        size -= len(data)


def _of_errors(manifest: Manifest, shard: Shard) -> tuple[int, int]:
    """Return where the lines of a shard begin and end in the file of errors."""
    return manifest.shards[shard.number - 1].files["errors"] if shard.number else 0, shard.files["errors"]


def _with_longer_errors(manifest: Manifest, number: int, grown: int) -> Manifest:
    """Return the manifest after the errors of a shard have become longer by ``grown`` bytes."""

    def moved(shard: Shard) -> Shard:
        if shard.number < number:
            return shard
        return msgspec.structs.replace(shard, files={**shard.files, "errors": shard.files["errors"] + grown})

    begun = None if manifest.begun is None else moved(manifest.begun)
    return msgspec.structs.replace(manifest, shards=tuple(map(moved, manifest.shards)), begun=begun)


def head_of(dtype: np.dtype[Any], rows: int, width: int) -> bytes:
    """Return the header of a ``.npy`` file; its length is the same for any number of rows, so it can be overwritten."""
    head = io.BytesIO()
    form = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, width)}
    # NumPy leaves room in it for a longer first axis.
    np.lib.format.write_array_header_1_0(head, form)
    return head.getvalue()


def _as_json(failed: list[dict[str, object]]) -> bytes:
    try:
        return to_lines(failed)
    except UnicodeEncodeError:  # a path whose name is no UTF-8, in an error's text
        return b"".join(json.dumps(error).encode() + b"\n" for error in failed)
