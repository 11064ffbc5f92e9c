"""A target that is a folder: the names of its files, and what its layouts have in common."""

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
"""The name of the column with the embeddings, in our own layout."""
ERRORS: Final = "_errors.parquet"
MANIFEST: Final = "_casdk.json"
RUN_FILES: Final = re.compile(
    r"part-\d{5,}\.parquet|_part-\d{5,}\.parquet\.tmp|_begun-\d+-\d+\.\w+(\.tmp)?|_errors\.parquet(\.tmp)?"
    r"|(img_emb|text_emb|metadata|_failed)/(img_emb|text_emb|metadata|failed)_\d+\.(npy|parquet)"
    r"|_(img_emb|text_emb|metadata|failed|rows)_\d+\.\w+\.tmp"
    r"|_contents-\d{5,}\.bin(\.tmp)?|_again-\d{5,}\.(parquet|bin)(\.tmp)?"
    r"|_casdk(\.\d+-of-\d+)?\.json(\.tmp)?|_lock\.\d+-of-\d+"
)
"""The files of bulk runs in a folder of any layout."""
SHARE_MANIFEST: Final = re.compile(r"_casdk\.(\d+)-of-(\d+)\.json")
"""The manifest of a run that makes a share of the shards, instead of ``_casdk.json``."""
LEFT_BEFORE: Final = ("_lock", "_casdk.json.tmp")
"""The files that a run may have left that was killed before it wrote its first manifest."""


class FolderTarget(Target):
    """A folder with the files of each shard.

    The names of its other files begin with an underscore: the manifest ``_casdk.json``, the lock, and in a finished
    folder ``_errors.parquet``, with ``row``, ``name`` and ``error`` of the failed items.

    Args:
        storage: The folder, made if it is not there.
        dtype: ``float32`` or ``float16``.
        columns: The names of the matrices in the layout.

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
        """Write the manifest, which from now on says what the folder holds."""
        self.storage.write_manifest(self.manifest_name, write_manifest(manifest))

    def foreign_files(self) -> Iterator[str]:
        """Yield the files in the folder, none of which belongs to a run while there is no manifest."""
        yield from map(self.storage.where, self._found())

    @property
    def is_whole(self) -> bool:
        """Whether there is a manifest of the whole folder, and not only those of runs with a share."""
        return self.storage.size_of(MANIFEST) is not None

    def forget(self) -> None:
        """Remove the manifest for good: from then on, the manifests of other runs count."""
        self.storage.remove(self.manifest_name)

    def _found(self) -> list[str]:
        """Return the names of the files in the folder, without those of `LEFT_BEFORE`."""
        return [name for name in self.storage.names() if name not in LEFT_BEFORE]

    def clear(self) -> None:
        """Remove the files of an earlier run, its manifest first.

        Raises:
            BulkError: The folder also has files that are not of a bulk run, which are never removed.
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
        """Check that the files exist that the manifest names.

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
        """Return the files that hold the beginning of a shard, which may be complete by now."""
        return self.storage.beginning(f"_begun-{number:05d}-")

    def _begun_name(self, shard: Shard, kind: str) -> str:
        """Return the name of a file with the beginning of a shard.

        Each beginning has a name of its own, because the one before it counts until the manifest is written.
        """
        return f"_begun-{shard.number:05d}-{shard.rows}.{kind}"

    def _drop_begun(self, manifest: Manifest) -> None:
        """Remove files with a beginning of the next shard, unless the manifest names them."""
        known = () if manifest.begun is None else manifest.begun.files
        self.storage.remove(*(name for name in self._begun(manifest.next_number) if name not in known))

    def complete(self, manifest: Manifest) -> None:
        """Give a finished target its final form; done again where an earlier run was stopped in the middle of it."""
        whole = {name for shard in manifest.shards for name in shard.files} | {ERRORS}
        found = self._found()
        # Killed runs have left these, perhaps of a shard that does not exist any more since the input became shorter.
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
        """Write tables into a file, one below the other, and wait until it is on disk."""
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
