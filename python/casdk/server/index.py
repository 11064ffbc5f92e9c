"""The index of the embedded server: documents and embeddings in one SQLite file, searched by sqlite-vec.

`IndexExecutor` uses it on a thread of its own. A reply to ``/index`` is sent after its transaction is on disk, so the
documents survive a killed server and a power cut.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import apsw
import numpy as np
import sqlite_vec
from numpy.typing import NDArray

from casdk.wire.values import shown

__all__ = ["Index"]

FILE = "index.sqlite"
SCHEMA = """
create table if not exists space (encoder text not null, dim integer not null);
create table if not exists documents (id text primary key, document blob not null, embedding blob not null);
"""
NEAREST = """
select documents.document, nearest.distance from (
    select rowid, coalesce(vec_distance_cosine(embedding, ?), 1.0) as distance
    from documents order by distance, rowid limit ?
) as nearest join documents on documents.rowid = nearest.rowid order by nearest.distance, nearest.rowid
"""


class Index:
    """Documents by id, with one row each; to be used by one thread at a time.

    Args:
        workspace: Directory of the database; made if it is missing. One server at a time may use it.
        encoder: Name of the encoder whose rows these are.
        dim: Numbers in a row.

    Attributes:
        largest: Bytes of the largest document that was stored.

    Raises:
        ValueError: The workspace has rows of another encoder, or another server uses it, or its file is not an index.
    """

    def __init__(self, workspace: Path, encoder: str, dim: int) -> None:
        workspace.mkdir(parents=True, exist_ok=True)
        self._dim = dim
        self.largest: int = 0
        self._file = workspace / FILE
        try:
            self._database = apsw.Connection(str(self._file))
            try:
                self._open(encoder)
            except BaseException:
                self._database.close()
                raise
        except apsw.BusyError:
            raise ValueError(f"another server uses the workspace {workspace}") from None
        except apsw.Error as error:
            raise ValueError(f"cannot use the index {self._file}: {error}") from error

    def _open(self, encoder: str) -> None:
        database = self._database
        database.enable_load_extension(True)
        database.load_extension(sqlite_vec.loadable_path())
        database.enable_load_extension(False)
        for pragma in ("locking_mode=exclusive", "journal_mode=wal", "synchronous=full"):
            database.execute(f"pragma {pragma}").fetchall()
        database.execute(SCHEMA)
        (self.largest,) = database.execute("select coalesce(max(length(document)), 0) from documents").fetchone() or (
            0,
        )
        space = database.execute("select encoder, dim from space").fetchone()
        if space is None:
            database.execute("insert into space values (?, ?)", (encoder, self._dim))
        elif space != (encoder, self._dim):
            raise ValueError(
                f"the workspace {self._file.parent} holds rows of {space[1]} numbers of the encoder {space[0]!r}; "
                f"this one is {encoder!r} with {self._dim}"
            )

    def put(self, entries: Iterable[tuple[str, bytes, NDArray[np.float32]]]) -> None:
        """Insert or replace documents: of each the id, the bytes to store and its row ``[D]``.

        Raises:
            ValueError: A row has another width; nothing is stored then.
        """
        rows = []
        for key, document, row in entries:
            if row.size != self._dim:
                raise ValueError(
                    f"document {shown(key)} has an embedding of {row.size} numbers; the index holds {self._dim}"
                )
            rows.append((key, document, row.tobytes()))
        with self._transaction():
            self._database.executemany("insert or replace into documents values (?, ?, ?)", rows)
        self.largest = max(self.largest, *(len(document) for _, document, _ in rows), 0)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Make one transaction of the statements in a ``with``.

        Raises:
            OSError: The file cannot be written; the message names it.
        """
        try:
            self._database.execute("begin immediate")
            yield
            self._database.execute("commit")
        except apsw.Error as error:
            raise OSError(f"cannot write the index {self._file}: {error}") from error
        finally:
            if self._database.in_transaction:  # SQLite ends the transaction by itself if the disk is full
                self._database.execute("rollback")

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are in the index."""
        found = (self._database.execute("select id from documents where id = ?", (key,)) for key in ids)
        return {str(row[0]) for rows in found for row in rows}

    def delete(self, ids: Iterable[str]) -> None:
        """Remove documents; an unknown id is no error."""
        with self._transaction():
            self._database.executemany("delete from documents where id = ?", ((key,) for key in ids))

    def nearest(self, row: NDArray[np.float32], limit: int, most: int) -> list[tuple[bytes, float]]:
        """Return the stored bytes of the nearest documents and their cosine distances, ascending.

        A row of zeros is at distance 1 from everything.

        Args:
            row: ``[D]``.
            limit: The most documents to return.
            most: The most stored bytes to return.

        Raises:
            ValueError: The row has another width, or the documents have more bytes.
        """
        if row.size != self._dim:
            raise ValueError(f"the query has {row.size} numbers; the index holds {self._dim}")
        nearest = []
        for document, distance in self._database.execute(NEAREST, (row.tobytes(), limit)):
            most -= len(document)
            if most < 0:
                raise ValueError(
                    "the nearest documents are too large for one reply: lower the limit, or send fewer queries"
                )
            nearest.append((bytes(document), float(distance)))
        return nearest

    def status(self) -> dict[str, str | float]:
        """Return how many documents there are and where."""
        (total,) = self._database.execute("select count(*) from documents").fetchone() or (0,)
        return {"total_docs": total, "index_size": total, "n_dim": self._dim, "workspace": str(self._file.parent)}

    def close(self) -> None:
        """Close the database."""
        self._database.close()
