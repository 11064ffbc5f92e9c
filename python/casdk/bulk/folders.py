"""A target that is a folder: what is in it, whose that is, and what all layouts of it have in common."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Final

from casdk.bulk.disk import Part
from casdk.bulk.manifest import Manifest, Shard, write_manifest
from casdk.bulk.object_storage import open_storage
from casdk.bulk.storage import Storage
from casdk.bulk.targets import Held, Target
from casdk.errors import BulkError, ConfigError

__all__ = ["EMBEDDING", "ERRORS", "RUN_FILES", "SHARE_MANIFEST", "FolderTarget"]

EMBEDDING: Final = ("embedding",)
"""What the one matrix of a target is called, unless its layout says otherwise."""
ERRORS: Final = "_errors.parquet"
MANIFEST: Final = "_casdk.json"
RUN_FILES: Final = re.compile(
    r"part-\d{5,}\.parquet|_part-\d{5,}\.parquet\.tmp|_begun-\d+-\d+\.\w+(\.tmp)?|_errors\.parquet(\.tmp)?"
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
        storage: The folder, made if it is not there.
        dtype: ``float32`` or ``float16``.
        columns: What the matrices of the layout are called.

    Raises:
        ConfigError: pyarrow is not installed.
    """

    def __init__(self, storage: str | Storage, dtype: str, columns: tuple[str, ...] = EMBEDDING) -> None:
        self.storage: Storage = open_storage(storage) if isinstance(storage, str) else storage
        super().__init__(self.storage.name)
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise ConfigError('a folder of Parquet files needs pyarrow: pip install "casdk[arrow]"') from error
        self._arrow: Any = pyarrow
        self._dtype = dtype
        self._columns = columns
        self.manifest_name: str = MANIFEST

    def _acquire(self) -> Held:
        return self.storage.lock()

    def _read_manifest(self) -> tuple[bytes, str]:
        return self.storage.read_manifest(self.manifest_name), self.storage.where(self.manifest_name)

    def write_manifest(self, manifest: Manifest) -> None:
        """Say what it holds from now on."""
        self.storage.write_manifest(self.manifest_name, write_manifest(manifest))

    def foreign_files(self) -> Iterator[str]:
        """Yield what lies in the folder."""
        yield from map(self.storage.where, self._found())

    @property
    def is_whole(self) -> bool:
        """Whether it has a manifest of its own, and not only such as runs of shares have."""
        return self.storage.size_of(MANIFEST) is not None

    def forget(self) -> None:
        """Remove its manifest, for good: from here on, those of others count."""
        self.storage.remove(self.manifest_name)

    def _found(self) -> list[str]:
        """Return the names of what is in the folder."""
        return [name for name in self.storage.names() if name not in LEFT_BEFORE]

    def clear(self) -> None:
        """Remove what an earlier run has left, its manifest first.

        Raises:
            BulkError: There are files of others that would remain in it.
        """
        found = self._found()
        if others := [name for name in found if not RUN_FILES.fullmatch(name)]:
            raise BulkError(
                f"{self.name} holds files that are not of a bulk run, as {others[0].rpartition('/')[2]}: they are left "
                "alone, so give another target"
            )
        self.forget()
        self.storage.remove(*found)

    def check(self, manifest: Manifest) -> None:
        """Check that what the manifest says is there.

        Raises:
            BulkError: A file is missing, or has another size.
        """
        sizes = self.storage.sizes()
        for shard in manifest.entries:
            for name, size in shard.files.items():
                self._compare_size(self.storage.where(name), sizes.get(name), size)

    def _makes(self, number: int) -> bool:
        """Whether a shard is one that this run makes."""
        return True

    def _begun(self, number: int) -> list[str]:
        """Return the files that hold the beginning of a shard, also of one that is whole by now."""
        return self.storage.beginning(f"_begun-{number:05d}-")

    def _begun_name(self, shard: Shard, kind: str) -> str:
        """Return the name of a file with the beginning of a shard.

        A name of its own: until the manifest is written, the beginning that the last run has left is what counts.
        """
        return f"_begun-{shard.number:05d}-{shard.rows}.{kind}"

    def _drop_begun(self, manifest: Manifest) -> None:
        """Remove the files of beginnings of the next shard that the manifest does not name."""
        known = () if manifest.begun is None else manifest.begun.files
        self.storage.remove(*(name for name in self._begun(manifest.next_number) if name not in known))

    def complete(self, manifest: Manifest) -> None:
        """Give a finished target its final form; done again where an earlier run was stopped in the middle of it."""
        whole = {name for shard in manifest.shards for name in shard.files} | {ERRORS}
        found = self._found()
        # What a run has left that was killed, also of a shard that an input which is shorter now does not have.
        left = [name for name in found if name not in whole and RUN_FILES.fullmatch(name)]
        self.storage.remove(*(name for name in left if not name.startswith(("_casdk", "_lock"))))
        if ERRORS not in found:
            arrow = self._arrow
            schema = arrow.schema([("row", arrow.int64()), ("name", arrow.string()), ("error", arrow.string())])
            failed = (shard for shard in manifest.shards if shard.failed)
            part = Part(self.storage.scratch / f"{ERRORS}.tmp")
            self._write_table(part, schema, (self._errors_of(manifest, shard, schema) for shard in failed))
            self.storage.take_in(part.path, ERRORS)

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
