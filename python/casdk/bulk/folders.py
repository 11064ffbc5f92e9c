"""A target that is a folder: what is in it, whose that is, and what all layouts of it have in common."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from casdk.bulk.disk import Part, rename, sync_folder
from casdk.bulk.manifest import Manifest, Shard
from casdk.bulk.targets import Target, remove
from casdk.errors import BulkError, ConfigError

__all__ = ["EMBEDDING", "ERRORS", "RUN_FILES", "SHARE_MANIFEST", "FolderTarget"]

EMBEDDING: Final = ("embedding",)
"""What the one matrix of a target is called, unless its layout says otherwise."""
ERRORS: Final = "_errors.parquet"
FOLDERS: Final = ("img_emb", "text_emb", "metadata", "_failed")
"""Folders in the layout of clip-retrieval."""
RUN_FILES: Final = re.compile(
    r"part-\d{5,}\.parquet|_part-\d{5,}\.parquet\.tmp|_begun-\d+-\d+\.\w+|_errors\.parquet(\.tmp)?"
    r"|(img_emb|text_emb|metadata|_failed)/(img_emb|text_emb|metadata|failed)_\d+\.(npy|parquet)"
    r"|_(img_emb|text_emb|metadata|failed|rows)_\d+\.\w+\.tmp"
    r"|_contents-\d{5,}\.bin(\.tmp)?|_again-\d{5,}\.(parquet|bin)(\.tmp)?"
    r"|_casdk(\.\d+-of-\d+)?\.json(\.tmp)?|_lock\.\d+-of-\d+"
)
"""What runs leave in their folder, whatever its layout."""
SHARE_MANIFEST: Final = re.compile(r"_casdk\.(\d+)-of-(\d+)\.json")
"""What a run that makes a share of the shards has instead of ``_casdk.json``."""
LEFT_BEFORE: Final = ("_lock", "_casdk.json.tmp")
"""What a run that was killed before its first manifest may have left."""


class FolderTarget(Target):
    """A folder with the files of each shard; what else is in it begins with an underscore.

    That is the manifest ``_casdk.json``, the lock, and ``_errors.parquet`` with ``row``, ``name`` and ``error`` of the
    failed items when all is done.

    Args:
        path: The folder, made if it is not there.
        dtype: ``float32`` or ``float16``.
        columns: What the matrices of the layout are called.

    Raises:
        ConfigError: pyarrow is not installed.
    """

    def __init__(self, path: str, dtype: str, columns: tuple[str, ...] = EMBEDDING) -> None:
        super().__init__(path)
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise ConfigError('a folder of Parquet files needs pyarrow: pip install "casdk[arrow]"') from error
        self._arrow: Any = pyarrow
        self._dtype = dtype
        self._columns = columns
        self.manifest_path: Path = self.path / "_casdk.json"
        self.lock_path: Path = self.path / "_lock"

    def _make_folder(self) -> None:
        self.path.mkdir(exist_ok=True)

    def foreign_files(self) -> Iterator[Path]:
        """Yield what lies in the folder."""
        yield from self._found()

    @property
    def is_whole(self) -> bool:
        """Whether it has a manifest of its own, and not only such as runs of shares have."""
        return self.manifest_path.exists()

    def forget(self) -> None:
        """Remove its manifest, for good: from here on, those of others count."""
        remove(self.manifest_path)
        sync_folder(self.path)

    def _found(self) -> list[Path]:
        """Return what is in the folder, and in those folders in it that a layout has."""
        found: list[Path] = []
        for path in sorted(self.path.iterdir()):
            if path.name in FOLDERS and path.is_dir():
                found += sorted(path.iterdir())
            elif path.name not in LEFT_BEFORE:
                found.append(path)
        return found

    def _is_ours(self, path: Path) -> bool:
        return RUN_FILES.fullmatch(path.relative_to(self.path).as_posix()) is not None

    def clear(self) -> None:
        """Remove what an earlier run has left, its manifest first.

        Raises:
            BulkError: There are files of others that would remain in it.
        """
        others = [path for path in self._found() if not self._is_ours(path)]
        if others:
            raise BulkError(
                f"{self.name} holds files that are not of a bulk run, as {others[0].name}: they are left alone, so "
                "give another target"
            )
        self.forget()
        for path in self._found():
            remove(path)
        for folder in FOLDERS:
            if (self.path / folder).is_dir():
                (self.path / folder).rmdir()

    def check(self, manifest: Manifest) -> None:
        """Check that what the manifest says is there.

        Raises:
            BulkError: A file is missing, or has another size.
        """
        for shard in manifest.entries:
            for name, size in shard.files.items():
                self._compare_size(self.path / name, size)

    def _makes(self, number: int) -> bool:
        """Whether a shard is one that this run makes."""
        return True

    def _begun(self, number: int) -> Iterator[Path]:
        """Yield the files that hold the beginning of a shard, also of one that is whole by now."""
        yield from self.path.glob(f"_begun-{number:05d}-*")

    def _begun_name(self, shard: Shard, kind: str) -> str:
        """Return the name of a file with the beginning of a shard.

        A name of its own: until the manifest is written, the beginning that the last run has left is what counts.
        """
        return f"_begun-{shard.number:05d}-{shard.rows}.{kind}"

    def _drop_begun(self, manifest: Manifest) -> None:
        """Remove the files of beginnings of the next shard that the manifest does not name."""
        known = () if manifest.begun is None else manifest.begun.files
        for path in self._begun(manifest.next_number):
            if path.name not in known:
                remove(path)

    def complete(self, manifest: Manifest) -> None:
        """Give a finished target its final form; done again where an earlier run was stopped in the middle of it."""
        whole = {name for shard in manifest.shards for name in shard.files} | {ERRORS}
        for path in self._found():
            # What a run has left that was killed, also of a shard that an input which is shorter now does not have.
            is_left = path.relative_to(self.path).as_posix() not in whole and self._is_ours(path)
            if is_left and not path.name.startswith(("_casdk", "_lock")):
                remove(path)
        if not (self.path / ERRORS).exists():
            arrow = self._arrow
            schema = arrow.schema([("row", arrow.int64()), ("name", arrow.string()), ("error", arrow.string())])
            failed = (shard for shard in manifest.shards if shard.failed)
            part = Part(self.path / f"{ERRORS}.tmp")
            self._write_table(part, schema, (self._errors_of(manifest, shard, schema) for shard in failed))
            rename(part.path, self.path / ERRORS)

    def _write_table(self, part: Part, schema: Any, tables: Iterable[Any]) -> None:
        """Write tables into a file, one below the other, and have it on disk."""
        try:
            with self._arrow.parquet.ParquetWriter(part, schema) as writer:
                for table in tables:
                    writer.write_table(table)
            part.sync()
        finally:
            part.close()

    @abstractmethod
    def _errors_of(self, manifest: Manifest, shard: Shard, schema: Any) -> Any:
        """Return ``row``, ``name`` and ``error`` of the failed items of a shard."""
