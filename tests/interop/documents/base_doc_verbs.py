"""docarray's documents of 0.30 and later through every verb of a real server: the same objects come back."""

from typing import Any

import numpy as np
import pytest
from casdk import Client
from casdk.errors import FileMissingError, ItemTypeError
from deterministic import ranking, rows
from docarray import BaseDoc, DocList
from docarray.documents import ImageDoc, TextDoc
from docarray.typing import ImageBytes, ImageUrl, NdArray


class Item(BaseDoc):
    text: str | None = None
    url: ImageUrl | None = None
    bytes_: ImageBytes | None = None
    tensor: NdArray | None = None
    embedding: NdArray | None = None
    scores: dict[str, Any] | None = None
    tags: dict[str, Any] | None = None


class Query(Item):
    matches: DocList[Item] | None = None
    chunks: DocList[Item] | None = None


NAMES = {"uri": "url", "blob": "bytes_"}


@pytest.fixture
def client(url):
    with Client(url) as client:
        yield client


@pytest.fixture
def items(contents):
    made = [
        Item(**{NAMES.get(name, name): value}, tags={"place": n}) for n, (name, value) in enumerate(contents.items())
    ]
    return DocList[Item](made)


def check_same(found, given, kind):
    assert isinstance(found, DocList)
    assert found.doc_type is kind
    assert all(one is other for one, other in zip(found, given, strict=True))


def embeddings(documents):
    return np.stack([np.asarray(document.embedding) for document in documents])


@pytest.mark.parametrize("array", [DocList[Item], list, iter])
def test_encode(client, call, items, expected, array):
    given = list(items)
    check_same(call(client, "encode", array(items), batch_size=3), given, Item)
    np.testing.assert_array_equal(embeddings(given), expected)
    assert [item.tags for item in given] == [{"place": place} for place in range(4)]


def test_encode_docarrays_own_classes(client, call, png):
    given = [TextDoc(text="plain"), ImageDoc(url=str(png)), ImageDoc(bytes_=png.read_bytes())]
    found = call(client, "encode", given)
    assert isinstance(found, DocList)
    assert all(one is other for one, other in zip(found, given, strict=True))
    np.testing.assert_array_equal(embeddings(given), rows([b"plain", png.read_bytes(), png.read_bytes()]))


@pytest.mark.parametrize("source", ["matches", "chunks"])
def test_rank(client, call, items, expected, source):
    first, *candidates = list(items)
    query = Query(text=first.text, **{source: DocList[Item](candidates)})
    found = call(client, "rank", DocList[Query]([query]), source=source)
    check_same(found, [query], Query)
    order, probabilities, cosines = ranking(expected)
    ranked = getattr(query, source)
    assert isinstance(ranked, DocList)
    assert all(match is candidates[place] for match, place in zip(ranked, order, strict=True))
    for name, wanted in (("clip_score", probabilities), ("clip_score_cosine", cosines)):
        np.testing.assert_allclose([m.scores[name]["value"] for m in ranked], wanted, rtol=0, atol=1e-6)


def test_rank_with_shared_candidates(items, check_shared):
    candidates = [items[1], items[3]]
    text = Query(text=items[0].text, matches=DocList[Item](candidates))
    blob = Query(bytes_=items[2].bytes_, matches=DocList[Item](candidates))
    check_shared(text, blob, candidates, lambda matches, name: [m.scores[name]["value"] for m in matches])


def test_index_and_search(client, call, items, expected):
    check_same(call(client, "index", items, batch_size=3), list(items), Item)
    np.testing.assert_array_equal(embeddings(items), expected)
    queries = DocList[Query]([Query(text=items[0].text), Query(tensor=items[3].tensor)])
    found = call(client, "search", queries, limit=3)
    check_same(found, list(queries), Query)
    for query, wanted in zip(queries, (items[0], items[3]), strict=True):
        assert isinstance(query.matches, DocList)
        assert query.matches.doc_type is Item
        distances = [match.scores["cosine"]["value"] for match in query.matches]
        assert len(distances) == 3
        assert distances == sorted(distances)
        nearest = query.matches[0]
        assert (nearest.id, nearest.tags) == (wanted.id, wanted.tags)
        assert distances[0] == pytest.approx(0, abs=1e-6)


def test_class_without_a_place_is_refused_before_anything_is_sent(client, call):
    class Bare(BaseDoc):
        text: str

    with pytest.raises(ItemTypeError, match="Bare has no field 'embedding'"):
        call(client, "encode", [Bare(text="t")])


def test_empty_list_stays_docarrays(client, call):
    for verb in ("encode", "index", "search", "rank"):
        found = call(client, verb, DocList[Query]())
        assert isinstance(found, DocList)
        assert found.doc_type is Query


@pytest.mark.parametrize("verb", ["encode", "index", "search"])
def test_what_was_done_stays_when_a_call_stops(client, call, verb):
    """Those that were not done are as they were, their matches too."""
    documents = [Query(text=f"text {number}") for number in range(3)]
    documents.append(Query(url="missing.png", matches=DocList[Item]([Item(text="of old")])))
    with pytest.raises(FileMissingError) as stopped:
        call(client, verb, documents, batch_size=1, prefetch=1)
    error = stopped.value
    assert (error.done, error.total, error.partial) == (3, 4, None)
    check_same(error.documents, documents, Query)
    assert [document.embedding is not None for document in documents] == [True, True, True, False]
    assert [match.text for match in documents[3].matches] == ["of old"]
