"""The executor behind the fault server: it needs no model, and anyone can compute its rows again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from casdk.server.answers import NO_ROW, Indexing, Row, cosines_of, encode, failure, lose
from casdk.server.documents import Place, finish
from casdk.wire.docarray_pb2 import DocumentProto
from casdk.wire.jina_pb2 import DataRequestProto
from casdk.wire.values import plain

__all__ = ["Executor", "embed", "fail"]

ROUTES = ("gateway", "clip")


def embed(content: str | bytes, width: int = 512) -> NDArray[np.float32]:
    """Return the embedding that the fault server sends for some content, ``[width] float32`` in ``[-1, 1)``.

    It is ``shake_128(blake2b(content, 32 bytes))``, read as little-endian uint32, divided by 2**31, minus 1.

    Args:
        content: A text, or the bytes of an image, or of a tensor in C order.
        width: Numbers in a row.
    """
    data = content.encode() if isinstance(content, str) else content
    stretched = hashlib.shake_128(hashlib.blake2b(data, digest_size=32).digest()).digest(4 * width)
    return (np.frombuffer(stretched, "<u4").astype(np.float64) / 2**31 - 1.0).astype(np.float32)


class Executor:
    """Encodes, ranks, indexes and searches in memory, as the embedded server does.

    A text that begins with ``!!raise`` fails its whole request, one with ``!!noemb`` gets no embedding, and one with
    ``!!drop`` is left out of the reply.

    Args:
        width: Numbers in a row.
        poison: Returns whether the executor fails on a text, beside those that begin with ``!!raise``.
    """

    def __init__(self, width: int = 512, poison: Callable[[str], bool] | None = None) -> None:
        self.width = width
        self.poison = poison
        self._store = _Store()
        self._indexing = Indexing(self._store)

    def answer(self, request: DataRequestProto) -> DataRequestProto:
        """Return the reply to a request; if the executor raises, the reply has the exception as its status."""
        reply = DataRequestProto()
        reply.CopyFrom(request)
        finish(reply)
        reply.header.target_executor = ""
        for name in ROUTES:
            route = reply.routes.add(executor=name)
            route.start_time.GetCurrentTime()
            route.end_time.GetCurrentTime()
        try:
            self._work(reply)
        except ValueError as error:
            reply.data.CopyFrom(request.data)
            fail(reply, error)
        return reply

    def _work(self, reply: DataRequestProto) -> None:
        endpoint, documents = reply.header.exec_endpoint or "/", reply.data.docs.docs
        parameters = plain(reply.parameters)
        if endpoint not in Indexing.ALONE:
            for _ in encode(endpoint, documents, parameters, self._rows):
                pass
            lose(documents)
        if self._indexing.serves(endpoint):
            for _ in self._indexing.work(endpoint, documents, parameters):
                pass

    def _rows(self, places: Sequence[Place]) -> Generator[None, None, list[Row | None]]:
        yield from ()
        return [self._row(document) for _, document in places]

    def _row(self, document: DocumentProto) -> Row | None:
        text = document.text
        if text in NO_ROW:
            return None
        if text.startswith("!!raise") or (text and self.poison is not None and self.poison(text)):
            raise ValueError(f"boom: {text[:100]}")
        content = text.encode() or document.blob or document.tensor.dense.buffer
        return embed(content, self.width) if content else None

    @property
    def indexed(self) -> int:
        """How many documents are in the index."""
        return len(self._store)


class _Store:
    """An index in memory, the oldest document first."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[bytes, Row]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def largest(self) -> int:
        return max((len(document) for document, _ in self._entries.values()), default=0)

    def put(self, entries: Iterable[tuple[str, bytes, Row]]) -> None:
        for key, document, row in list(entries):
            self._entries.pop(key, None)
            self._entries[key] = (document, row)

    def known(self, ids: Sequence[str]) -> set[str]:
        return self._entries.keys() & set(ids)

    def delete(self, ids: Iterable[str]) -> None:
        for key in ids:
            self._entries.pop(key, None)

    def nearest(self, row: Row, limit: int, most: int) -> list[tuple[bytes, float]]:
        if not self._entries:
            return []
        documents, rows = zip(*self._entries.values(), strict=True)
        distances = 1.0 - cosines_of(row, np.stack(rows))
        return [(documents[at], float(distances[at])) for at in np.argsort(distances, kind="stable")[:limit]]

    def status(self) -> dict[str, str | float]:
        return {"total_docs": len(self), "index_size": len(self)}


def fail(reply: DataRequestProto, error: Exception, name: str = "") -> None:
    """Write an exception of the executor into the status of a reply."""
    status = failure(error, "Executor")
    status.exception.name = name or status.exception.name
    reply.header.status.CopyFrom(status)
    for route in reply.routes:
        if route.executor != ROUTES[0]:
            route.status.CopyFrom(status)
