"""The executor of the reference flow: clip_server's endpoints and request semantics over recomputable rows.

Runs inside a reference environment. The index is annlite's in its answers (cosine distance, ascending; a
query's own matches are replaced) and exact in its search.
"""

import asyncio

import numpy as np
from deterministic import DROPPED, RAISES, SLEEPS, WITHOUT_ROW, cosines, rows, softmax
from jina import Document, DocumentArray, Executor, requests


class Encoder(Executor):
    """Encodes and ranks; what else it is asked it takes for encoding, as clip_server does."""

    @requests
    async def encode(self, docs, parameters=None, **_):
        drop = bool((parameters or {}).get("drop_image_content"))
        dropped = await self._encode(docs, drop)
        return DocumentArray(d for d in docs if d.id not in dropped) if dropped else None

    @requests(on="/rank")
    async def rank(self, docs, parameters=None, **_):
        await self._encode(docs["@r,m"], bool((parameters or {}).get("drop_image_content")))
        for query in docs:
            candidates = query.matches
            cosine = cosines(query.embedding[None], candidates.embeddings)[0]
            for candidate, probability, value in zip(candidates, softmax(cosine), cosine, strict=True):
                candidate.scores["clip_score"].value = probability
                candidate.scores["clip_score"].op_name = "softmax"
                candidate.scores["clip_score_cosine"].value = value
                candidate.scores["clip_score_cosine"].op_name = "cosine"
            candidates.embeddings = None
            query.matches = sorted(candidates, key=lambda c: c.scores["clip_score"].value, reverse=True)

    @staticmethod
    async def _encode(docs, drop):
        """Give every document with content its embedding; return the ids to be lost."""
        todo, contents, dropped = [], [], set()
        for d in docs:
            if d.text:
                if d.text.startswith(RAISES):
                    raise ValueError(f"boom: {d.text}")
                if d.text.startswith(SLEEPS):
                    await asyncio.sleep(float(d.text[len(SLEEPS) :]))
                if d.text.startswith(DROPPED):
                    dropped.add(d.id)
                if d.text.startswith((DROPPED, WITHOUT_ROW)):
                    continue
                contents.append(d.text.encode())
            elif d.tensor is not None:
                # Pixels: over http they come as JSON's numbers, without the dtype that they had.
                contents.append(np.asarray(d.tensor, np.uint8).tobytes())
            elif d.blob:
                contents.append(d.blob)
            else:
                continue  # clip_server leaves an empty document as it is
            todo.append(d)
            if drop and not d.text:
                d.pop("blob", "tensor")
        for d, row in zip(todo, rows(contents), strict=True):
            d.embedding = row
        return dropped


class Deterministic(Encoder):
    """Indexes and searches too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._indexed, self._matrix = [], np.empty((0, 0), np.float32)

    @requests(on="/index")
    async def index(self, docs, parameters=None, **_):
        await self._encode(docs, bool((parameters or {}).get("drop_image_content")))
        known = {d.id: d for d in self._indexed}
        known.update((d.id, Document(d, copy=True)) for d in docs if d.embedding is not None)
        self._indexed = list(known.values())
        self._matrix = np.stack([d.embedding for d in self._indexed])

    @requests(on="/search")
    async def search(self, docs, parameters=None, **_):
        await self._encode(docs, bool((parameters or {}).get("drop_image_content")))
        limit = int((parameters or {}).get("limit", 10))
        for query in docs:
            query.matches = DocumentArray()
            if query.embedding is None or not self._indexed:
                continue
            distance = 1.0 - cosines(query.embedding[None], self._matrix)[0]
            for place in np.argsort(distance, kind="stable")[:limit]:
                found = self._indexed[place]
                match = Document(id=found.id, text=found.text or None, uri=found.uri or None, tags=found.tags)
                match.scores["cosine"].value = float(distance[place])
                query.matches.append(match)

    @requests(on="/delete")
    async def delete(self, **_):
        self._indexed, self._matrix = [], np.empty((0, 0), np.float32)
