"""`casdk.compat.Client` with the docarray that programs of clip_client use: only their imports change."""

from uuid import uuid4

import docarray
import numpy as np
import pytest
from casdk.compat import Client
from deterministic import ranking, rows


@pytest.fixture
def client(url):
    with Client(url) as client:
        yield client


@pytest.fixture
def words():
    return [f"{word} {uuid4()}" for word in ("amber", "basil", "candle")]


def test_strings(client, call, png, words):
    found = call(client, "encode", [*words, str(png)])
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rows([*(word.encode() for word in words), png.read_bytes()]))
    assert call(client, "encode", []) == []


def test_documents(client, call, contents, expected):
    given = docarray.DocumentArray(docarray.Document(**{name: value}) for name, value in contents.items())
    objects = list(given)
    found = call(client, "encode", given, batch_size=2)
    assert isinstance(found, docarray.DocumentArray)
    assert all(one is other for one, other in zip(found, objects, strict=True))
    np.testing.assert_array_equal(found.embeddings, expected)


def test_rank(client, call, contents, expected):
    query, *candidates = [docarray.Document(**{name: value}) for name, value in contents.items()]
    query.matches = candidates
    ordered = list(query.matches)
    (found,) = call(client, "rank", [query])
    assert found is query
    order, probabilities, _ = ranking(expected)
    assert [match.id for match in found.matches] == [ordered[place].id for place in order]
    np.testing.assert_allclose(found.matches[:, "scores__clip_score__value"], probabilities, rtol=0, atol=1e-6)


def test_index_and_search(client, call, words):
    indexed = call(client, "index", words)
    assert isinstance(indexed, docarray.DocumentArray)
    assert indexed.texts == words
    np.testing.assert_array_equal(indexed.embeddings, rows(word.encode() for word in words))
    found = call(client, "search", words, limit=2)
    assert isinstance(found, docarray.DocumentArray)
    for query, word in zip(found, words, strict=True):
        assert query.text == word
        assert isinstance(query.matches, docarray.DocumentArray)
        assert len(query.matches) == 2
        assert query.matches[0].text == word
        assert query.matches[0].scores["cosine"].value == pytest.approx(0, abs=1e-6)


def test_profile(client, capsys):
    figures = client.profile("amber")
    assert set(figures) == {"Roundtrip", "Client-server network", "Server", "Gateway-CLIP network", "CLIP model"}
    assert 0 < figures["Server"] <= figures["Roundtrip"]
    assert "Roundtrip" in capsys.readouterr().out


def test_callbacks_get_docarrays_documents(client, call, words):
    seen = []
    assert call(client, "encode", words, batch_size=2, on_done=seen.append) is None
    documents = [document for request in seen for document in request.data.docs]
    assert all(isinstance(document, docarray.Document) for document in documents)
    found = {document.text: document.embedding for document in documents}
    np.testing.assert_array_equal([found[word] for word in words], rows(word.encode() for word in words))
