"""A target that is one ``.npy`` matrix, with the names of its rows and the errors beside it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from casdk.bulk.disk import Checksum, Part, rename
from casdk.bulk.manifest import Manifest, Shard
from casdk.bulk.sources import to_lines
from casdk.bulk.targets import Rows, Target, described, remove
from casdk.errors import ItemError

__all__ = ["MatrixTarget"]

FILES: Final = ("rows", "names", "errors")


class MatrixTarget(Target):
    """``NAME.npy``, ``[N, D]``: row n is that of item n, NaN where it failed.

    Beside it are ``NAME.names.jsonl`` with a JSON string per row, ``NAME.errors.jsonl`` with an object per failed item,
    and the manifest, ``NAME.casdk.json``. While the run goes on, the three are called ``.part``; a shard is a run of
    rows, and whole when the manifest says how far the three are true.

    Args:
        path: Ends in ``.npy``.
        dtype: ``float32`` or ``float16``.
    """

    def __init__(self, path: str, dtype: str) -> None:
        super().__init__(path)
        self._dtype = np.dtype(dtype)
        stem = self.path.with_suffix("")
        self._final = {
            "rows": self.path,
            "names": stem.with_name(f"{stem.name}.names.jsonl"),
            "errors": stem.with_name(f"{stem.name}.errors.jsonl"),
        }
        self._part = {name: path.with_name(f"{path.name}.part") for name, path in self._final.items()}
        self.manifest_path: Path = stem.with_name(f"{stem.name}.casdk.json")
        self.lock_path: Path = self.path.with_name(f"{self.path.name}.lock")
        self._files: dict[str, Part] = {}
        self._row = 0

    def _make_folder(self) -> None:
        return None

    def foreign_files(self) -> Iterator[Path]:
        yield from (path for path in (*self._final.values(), *self._part.values()) if path.exists())

    def clear(self) -> None:
        # A matrix that is whole stays until the new one takes its place.
        for path in (self.manifest_path, *self._part.values()):
            remove(path)

    def check(self, manifest: Manifest) -> None:
        entry = manifest.begun or (manifest.shards[-1] if manifest.shards else None)
        for name, size in (entry.files if entry is not None else {}).items():
            final = manifest.finished and not self._part[name].exists()
            self._compare_size(self._final[name] if final else self._part[name], size, exactly=final)

    def begin(self, manifest: Manifest, width: int) -> None:
        entry = manifest.begun or (manifest.shards[-1] if manifest.shards else None)
        sizes = entry.files if entry is not None else {}
        self._row, self._width = manifest.rows, width
        self._files = {name: Part(self._part[name], sizes.get(name, 0)) for name in FILES}
        if not sizes:
            self._files["rows"].write(self._head(0))
        checksum = Checksum()
        if manifest.begun is not None:
            self._add_up(checksum, manifest.start_of(manifest.next_number))
        self._files["rows"].checksum = checksum

    def _add_up(self, checksum: Checksum, start: int) -> None:
        """Count in what there is of the shard that is gone on with."""
        with open(self._part["rows"], "rb") as rows:
            rows.seek(len(self._head(0)) + start * self._width * self._dtype.itemsize)
            while data := rows.read(1 << 20):
                checksum.add(data)

    def add(self, names: Sequence[str], rows: Rows, errors: Mapping[int, ItemError]) -> None:
        files = self._files
        files["names"].write(to_lines(names))
        if errors:
            failed = [
                {"row": self._row + place, "name": names[place], "error": described(error)}
                for place, error in sorted(errors.items())
            ]
            files["errors"].write(_as_json(failed))
        files["rows"].write(np.ascontiguousarray(rows, self._dtype).data)
        self._row += len(names)

    def commit(self, shard: Shard) -> Shard:
        return self._stop(shard)

    def keep(self, shard: Shard) -> Shard:
        self._files["rows"].overwrite(self._head(self._row))
        return self._stop(shard)

    def _stop(self, shard: Shard) -> Shard:
        checksum = self._files["rows"].checksum
        assert checksum is not None
        for file in self._files.values():
            file.sync()
        sizes = {name: file.size for name, file in self._files.items()}
        self.drop()
        return msgspec.structs.replace(shard, files=sizes, checksum=checksum.text)

    def drop(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}

    def complete(self, manifest: Manifest) -> None:
        self._width = manifest.width
        sizes = manifest.shards[-1].files if manifest.shards else {}
        for name in reversed(FILES):
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

    def _head(self, rows: int) -> bytes:
        # NumPy leaves room in a header for a longer first axis, so that it can be written again over itself.
        head = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(self._dtype)
        form = {"descr": descr, "fortran_order": False, "shape": (rows, self._width)}
        np.lib.format.write_array_header_1_0(head, form)
        return head.getvalue()

    def names_of(self, manifest: Manifest, shard: Shard) -> Iterator[str]:
        before = manifest.shards[shard.number - 1].files["names"] if shard.number else 0
        part, final = self._part["names"], self._final["names"]
        with open(part if part.exists() else final, "rb") as lines:
            lines.seek(before)
            for _ in range(shard.rows):
                yield msgspec.json.decode(lines.readline(), type=str)


def _as_json(failed: list[dict[str, object]]) -> bytes:
    try:
        return to_lines(failed)
    except UnicodeEncodeError:  # a path whose name is no UTF-8, in an error's text
        return b"".join(json.dumps(error).encode() + b"\n" for error in failed)
