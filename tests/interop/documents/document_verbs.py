"""docarray 0.21's documents through every verb of a real server: the same objects come back, with what it said."""

import docarray
import numpy as np
import pytest
from casdk import Client
from deterministic import ranking, rows


@pytest.fixture
def client(url):
    with Client(url) as client:
        yield client


@pytest.fixture
def documents(contents):
    made = [
        docarray.Document(**{name: value}, tags={"place": place})
        for place, (name, value) in enumerate(contents.items())
    ]
    return docarray.DocumentArray(made)


def check_same(found, given):
    assert isinstance(found, docarray.DocumentArray)
    assert [document.id for document in found] == [document.id for document in given]
    assert all(one is other for one, other in zip(found, given, strict=True))


def test_encode(client, call, documents, expected):
    given = list(documents)
    check_same(call(client, "encode", documents, batch_size=3), given)
    np.testing.assert_array_equal(documents.embeddings, expected)
    assert documents[:, "tags__place"] == [0, 1, 2, 3]
    assert [document.content_type for document in given] == ["text", None, "blob", "tensor"]


def test_encode_generator_of_documents(client, call, documents, expected):
    found = call(client, "encode", (document for document in documents), batch_size=3)
    check_same(found, list(documents))
    np.testing.assert_array_equal(found.embeddings, expected)


def test_mixed_with_our_own_items_gives_rows(client, call, documents, expected):
    found = call(client, "encode", [*documents, "plain"])
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, np.concatenate([expected, rows([b"plain"])]))


@pytest.mark.parametrize("source", ["matches", "chunks"])
def test_rank(client, call, documents, expected, source):
    query, *candidates = list(documents)
    setattr(query, source, docarray.DocumentArray(candidates))
    found = call(client, "rank", [query], source=source)
    assert isinstance(found, docarray.DocumentArray)
    assert found[0] is query
    order, probabilities, cosines = ranking(expected)
    ranked = getattr(query, source)
    assert all(match is candidates[place] for match, place in zip(ranked, order, strict=True))
    for name, wanted in (("clip_score", probabilities), ("clip_score_cosine", cosines)):
        np.testing.assert_allclose(ranked[:, f"scores__{name}__value"], wanted, rtol=0, atol=1e-6)
    assert ranked[:, "scores__clip_score__op_name"] == ["softmax"] * 3
    assert query.embedding is None


def test_rank_with_shared_candidates(documents, check_shared):
    text, blob, *candidates = [documents[at] for at in (0, 2, 1, 3)]
    for query in (text, blob):
        query.matches = docarray.DocumentArray(candidates)
    check_shared(text, blob, candidates, lambda matches, name: matches[:, f"scores__{name}__value"])


def test_index_and_search(client, call, documents, expected):
    given = list(documents)
    check_same(call(client, "index", documents), given)
    np.testing.assert_array_equal(documents.embeddings, expected)
    of_old = docarray.Document(text="of old")
    queries = [docarray.Document(text=given[0].text, matches=[of_old]), docarray.Document(tensor=given[3].tensor)]
    found = call(client, "search", queries, limit=3)
    check_same(found, queries)
    for query, wanted in zip(queries, (given[0], given[3]), strict=True):
        assert isinstance(query.matches, docarray.DocumentArray)
        assert len(query.matches) == 3
        distances = query.matches[:, "scores__cosine__value"]
        assert distances == sorted(distances)
        nearest = next(match for match in query.matches if match.id == wanted.id)
        assert nearest.scores["cosine"].value == pytest.approx(0, abs=1e-6)
        assert nearest.tags["place"] == wanted.tags["place"]


def test_bad_document_is_named(client, call):
    from casdk.errors import EmptyItemError

    documents = [docarray.Document(text="good"), docarray.Document()]
    with pytest.raises(EmptyItemError) as stopped:
        call(client, "encode", documents)
    assert stopped.value.index == 1
    assert stopped.value.item is documents[1]


def test_empty_array_stays_docarrays(client, call):
    for verb in ("encode", "index", "search", "rank"):
        found = call(client, verb, docarray.DocumentArray())
        assert isinstance(found, docarray.DocumentArray)
        assert len(found) == 0


@pytest.mark.parametrize("verb", ["encode", "index", "search"])
def test_what_was_done_stays_when_a_call_stops(client, call, verb):
    """Those that were not done are as they were, their matches too."""
    from casdk.errors import FileMissingError

    documents = [docarray.Document(text=f"text {number}") for number in range(3)]
    documents.append(docarray.Document(uri="missing.png", matches=[docarray.Document(text="of old")]))
    with pytest.raises(FileMissingError) as stopped:
        call(client, verb, documents, batch_size=1, prefetch=1)
    error = stopped.value
    assert (error.done, error.total, error.partial) == (3, 4, None)
    check_same(error.documents, documents)
    assert [document.embedding is not None for document in documents] == [True, True, True, False]
    assert documents[3].matches[:, "text"] == ["of old"]


def test_a_ranking_that_stops_leaves_each_document_whole(client, call):
    from casdk.errors import FileMissingError

    documents = [
        docarray.Document(text=text, matches=[docarray.Document(text="a"), docarray.Document(**{kind: "b.png"})])
        for text, kind in (("one", "text"), ("two", "uri"))
    ]
    with pytest.raises(FileMissingError) as stopped:
        call(client, "rank", documents, prefetch=1)
    assert stopped.value.done == 1
    assert sorted(documents[0].matches[:, "text"]) == ["a", "b.png"]
    assert all("clip_score" in match.scores for match in documents[0].matches)
    assert [(match.text, dict(match.scores)) for match in documents[1].matches] == [("a", {}), ("", {})]
