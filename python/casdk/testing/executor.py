"""What answers behind the fault server: a CLIP that needs no model, whose rows anyone can compute again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from casdk.wire import docarray_pb2, jina_pb2

__all__ = ["Executor", "embed", "embedding_of", "fail", "put_embedding"]

Documents = list[docarray_pb2.DocumentProto]
ROUTES = ("gateway", "clip")


def embed(content: str | bytes, width: int = 512) -> NDArray[np.float32]:
    """Return the embedding the fault server gives, ``[width] float32`` in ``[-1, 1)``.

    ``shake_128(blake2b(content, 32 bytes))``, read as little-endian uint32, divided by 2**31, minus 1.

    Args:
        content: A text, or an image's bytes (a tensor's, in C order).
        width: Numbers in a row.
    """
    data = content.encode() if isinstance(content, str) else content
    stretched = hashlib.shake_128(hashlib.blake2b(data, digest_size=32).digest()).digest(4 * width)
    return (np.frombuffer(stretched, "<u4").astype(np.float64) / 2**31 - 1.0).astype(np.float32)


class Executor:
    """Encode, rank, index and search in memory, as the reference executors do.

    Texts that begin with ``!!raise`` fail their whole request, ``!!noemb`` stays without an embedding and
    ``!!drop`` is left out of the reply.

    Args:
        width: Numbers in a row.
        poison: Says of a text whether the executor fails on it; beside ``!!raise``.
    """

    def __init__(self, width: int = 512, poison: Callable[[str], bool] | None = None) -> None:
        self.width = width
        self.poison = poison
        self._index: list[tuple[docarray_pb2.DocumentProto, NDArray[np.float32]]] = []
        self._verbs: dict[str, Callable[[Documents, dict[str, object]], Documents]] = {
            "rank": self._rank,
            "index": self._add,
            "search": self._search,
            "delete": self._delete,
        }

    def answer(self, request: jina_pb2.DataRequestProto) -> jina_pb2.DataRequestProto:
        """Return the reply to a request; an executor's exception is a status in it."""
        reply = jina_pb2.DataRequestProto()
        reply.CopyFrom(request)
        reply.header.status.code = jina_pb2.StatusProto.SUCCESS
        reply.header.target_executor = ""
        for name in ROUTES:
            route = reply.routes.add(executor=name)
            route.start_time.GetCurrentTime()
            route.end_time.GetCurrentTime()
        docs = list(reply.data.docs.docs)
        verb = self._verbs.get(request.header.exec_endpoint.strip("/"), self._encode)
        parameters = {name: _plain(value) for name, value in request.parameters.fields.items()}
        try:
            kept = verb(docs, parameters)
        except ValueError as error:
            reply.data.CopyFrom(request.data)
            fail(reply, error)
            return reply
        if len(kept) != len(docs):
            kept = [_copy(document) for document in kept]
            del reply.data.docs.docs[:]
            reply.data.docs.docs.extend(kept)
        return reply

    # verbs

    def _encode(self, docs: Documents, parameters: dict[str, object]) -> Documents:
        kept = []
        for document in docs:
            if document.text == "!!drop":
                continue
            kept.append(document)
            content = _content(document)
            if document.text:
                if document.text.startswith("!!raise") or (self.poison is not None and self.poison(document.text)):
                    raise ValueError(f"boom: {document.text[:100]}")
                document.mime_type = "text/plain"
            if parameters.get("drop_image_content"):
                _drop_image(document)
            if content and document.text != "!!noemb":
                put_embedding(document, embed(content, self.width))
        return kept

    def _rank(self, docs: Documents, parameters: dict[str, object]) -> Documents:
        for document in docs:
            self._encode([document, *document.matches], parameters)
            query = _unit(embedding_of(document))
            cosines = [float(query @ _unit(embedding_of(match))) for match in document.matches]
            weights = np.exp(100 * (np.array(cosines) - max(cosines, default=0.0)))
            for match, cosine, weight in zip(document.matches, cosines, weights, strict=True):
                match.ClearField("embedding")
                match.scores["clip_score"].value = float(weight / weights.sum())
                match.scores["clip_score"].op_name = "softmax"
                match.scores["clip_score_cosine"].value = cosine
                match.scores["clip_score_cosine"].op_name = "cosine"
            order = sorted(document.matches, key=lambda match: -match.scores["clip_score"].value)
            ordered = [_copy(match) for match in order]
            del document.matches[:]
            document.matches.extend(ordered)
        return docs

    def _add(self, docs: Documents, parameters: dict[str, object]) -> Documents:
        kept = self._encode(docs, parameters)
        for document in kept:
            if document.HasField("embedding"):
                row = _unit(embedding_of(document))
                stored = docarray_pb2.DocumentProto(id=document.id, text=document.text, uri=document.uri)
                stored.mime_type = document.mime_type
                stored.tags.CopyFrom(document.tags)
                # An id that is there already is replaced, as annlite does.
                self._index = [entry for entry in self._index if entry[0].id != document.id or not document.id]
                self._index.append((stored, row))
        return kept

    def _search(self, docs: Documents, parameters: dict[str, object]) -> Documents:
        kept = self._encode(docs, parameters)
        limit = parameters.get("limit", 10.0)
        for document in kept:
            if not document.HasField("embedding"):
                continue
            query = _unit(embedding_of(document))
            distances = [1.0 - float(query @ row) for _, row in self._index]
            del document.matches[:]
            nearest = sorted(range(len(distances)), key=distances.__getitem__)
            for position in nearest[: int(limit) if isinstance(limit, float) else 10]:
                match = document.matches.add()
                match.CopyFrom(self._index[position][0])
                match.adjacency = 1
                match.scores["cosine"].value = distances[position]
        return kept

    def _delete(self, docs: Documents, parameters: dict[str, object]) -> Documents:
        self._index.clear()
        return docs

    @property
    def indexed(self) -> int:
        """Documents in the index."""
        return len(self._index)


def fail(reply: jina_pb2.DataRequestProto, error: Exception, name: str = "") -> None:
    """Make a reply say that the executor raised."""
    status = reply.header.status
    status.code = jina_pb2.StatusProto.ERROR
    status.description = repr(error)
    status.exception.name = name or type(error).__name__
    status.exception.args[:] = [str(argument) for argument in error.args]
    status.exception.stacks[:] = ["Traceback (most recent call last):\n", f"{error!r}\n"]
    status.exception.executor = "Executor"
    for route in reply.routes:
        if route.executor != ROUTES[0]:
            route.status.CopyFrom(status)


def put_embedding(document: docarray_pb2.DocumentProto, row: NDArray[np.float32]) -> None:
    """Give a document a row, as docarray writes one."""
    document.embedding.Clear()
    dense = document.embedding.dense
    dense.buffer = row.astype("<f4").tobytes()
    dense.shape.append(len(row))
    dense.dtype = "<f4"
    document.embedding.cls_name = "numpy"


def embedding_of(document: docarray_pb2.DocumentProto) -> NDArray[np.float32]:
    """Return a document's row."""
    dense = document.embedding.dense
    return np.frombuffer(dense.buffer, dense.dtype or "<f4")


def nested(document: docarray_pb2.DocumentProto) -> Iterator[docarray_pb2.DocumentProto]:
    """Yield a document and everything in it."""
    yield document
    for inside in (*document.chunks, *document.matches):
        yield from nested(inside)


def _content(document: docarray_pb2.DocumentProto) -> bytes:
    if document.text:
        return document.text.encode()
    return document.blob or document.tensor.dense.buffer


def _drop_image(document: docarray_pb2.DocumentProto) -> None:
    if document.WhichOneof("content") in ("blob", "tensor"):
        document.ClearField("blob")
        document.ClearField("tensor")


def _copy(document: docarray_pb2.DocumentProto) -> docarray_pb2.DocumentProto:
    copy = docarray_pb2.DocumentProto()
    copy.CopyFrom(document)
    return copy


def _unit(row: NDArray[np.float32]) -> NDArray[np.float32]:
    return row / max(float(np.linalg.norm(row)), 1e-12)


def _plain(value: object) -> object:
    kind = value.WhichOneof("kind")  # type: ignore[attr-defined]
    return getattr(value, kind) if kind in ("number_value", "string_value", "bool_value") else None
