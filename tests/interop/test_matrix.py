"""Every verb over every scheme against every server: right numbers, or no answer at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from casdk import Client, Document, DocumentArray
from fixtures import MODES, SCHEMES, SERVERS, Served, call
from samples import KINDS, Sample, samples

COUNT, BATCH = 8, 3
EXACT = 1e-6
INDEXED_WITHIN = 60.0
"""Seconds; annlite writes its index in a thread of its own."""


@dataclass
class Case:
    served: Served
    client: Client
    mode: str
    items: list[Sample]

    def call(self, verb: str, *arguments: Any, **options: Any) -> Any:
        return call(self.client, self.mode, verb, *arguments, **options)

    @property
    def documents(self) -> list[Document]:
        return [Document(**s.fields) for s in self.items]


def encode(case: Case) -> None:
    rows = case.call("encode", [s.item for s in case.items], batch_size=BATCH)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, case.served.rows(case.items), rtol=0, atol=EXACT)
    documents = case.documents
    result = case.call("encode", documents, batch_size=BATCH)
    assert isinstance(result, DocumentArray)
    assert all(a is b for a, b in zip(result, documents, strict=True))
    np.testing.assert_allclose(result.embeddings, rows, rtol=0, atol=EXACT)


def rank(case: Case) -> None:
    query, candidates = case.items[0], case.items[1:]
    nested = [[Document(**c.fields) for c in candidates] for _ in range(BATCH + 1)]
    queries = [Document(**query.fields, matches=matches) for matches in nested]
    result = case.call("rank", queries, batch_size=1)
    probability, cosine = case.served.scores(query, candidates)
    for document, given, ranked in zip(queries, nested, result, strict=True):
        assert ranked is document
        place = [next(i for i, g in enumerate(given) if g is match) for match in ranked.matches]
        assert sorted(place) == list(range(len(candidates)))
        shown = [(m.scores["clip_score"].value, m.scores["clip_score_cosine"].value) for m in ranked.matches]
        assert [p for p, _ in shown] == sorted((p for p, _ in shown), reverse=True)
        np.testing.assert_allclose(shown, np.stack([probability, cosine], 1)[place], rtol=0, atol=EXACT)
        assert {m.scores["clip_score"].op_name for m in ranked.matches} == {"softmax"}


def index(case: Case) -> None:
    documents = [Document(**s.fields, tags={"place": i}) for i, s in enumerate(case.items)]
    result = case.call("index", documents, batch_size=BATCH)
    assert [d.id for d in result] == [d.id for d in documents]
    np.testing.assert_allclose(result.embeddings, case.served.rows(case.items), rtol=0, atol=EXACT)


def search(case: Case) -> None:
    documents = case.documents
    for place, document in enumerate(documents):
        document.tags = {"place": place, "nested": {"salt": [repr(case.client), None, True]}}
    ids = [d.id for d in case.call("index", documents, batch_size=BATCH)]
    rows = case.served.rows(case.items)
    found = _search_until_indexed(case, ids)
    for place, query in enumerate(found):
        assert query.matches[0].id == ids[place]
        assert query.matches[0].tags == documents[place].tags
        distances = [m.scores["cosine"].value for m in query.matches]
        assert distances == sorted(distances)
        known = [(ids.index(m.id), m.scores["cosine"].value) for m in query.matches if m.id in ids]
        for other, distance in known:
            assert distance == pytest.approx(_distance(rows[place], rows[other]), abs=EXACT)
        if query.matches[0].text:
            assert query.matches[0].text == case.items[place].fields["text"]


def _search_until_indexed(case: Case, ids: list[str]) -> DocumentArray:
    until = time.monotonic() + INDEXED_WITHIN
    while True:
        found = case.call("search", [s.item for s in case.items], limit=COUNT, batch_size=BATCH)
        missing = [i for i, query in enumerate(found) if ids[i] not in [m.id for m in query.matches]]
        if not missing or time.monotonic() > until:
            assert not missing, f"never indexed: {missing}"
            return found


def _distance(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def profile(case: Case) -> None:
    for content in (case.items[0].item, None):
        profile = case.call("profile", content)
        assert 0 < profile["Server"] <= profile["Roundtrip"]
        assert profile["Roundtrip"] == pytest.approx(profile["Client-server network"] + profile["Server"])


VERBS: dict[str, Callable[[Case], None]] = {
    "encode": encode, "rank": rank, "index": index, "search": search, "profile": profile,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_verb(server: Served, scheme: str, verb: str, mode: str, kind: str, tmp_path: Path) -> None:
    items = samples(kind, f"{scheme} {verb} {mode} {kind}", COUNT, tmp_path)
    with server.client(scheme) as client:
        VERBS[verb](Case(server, client, mode, items))
