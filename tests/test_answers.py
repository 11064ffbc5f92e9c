"""How large replies are read; the tests of the verbs show the results."""

import threading

import numpy as np
import pytest
from casdk import Document
from casdk._calls import answers


@pytest.fixture
def places(monkeypatch):
    """The threads in which documents of replies are read."""
    seen, read = [], answers.read_documents

    def note(raw):
        seen.append(threading.current_thread().name)
        return read(raw)

    monkeypatch.setattr(answers, "read_documents", note)
    return seen


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_the_documents_of_a_large_reply_are_read_on_a_worker(connect, scheme, monkeypatch, places, large):
    if large:
        monkeypatch.setattr(answers, "LARGE_REPLY_BYTES", 0)
    with connect(scheme) as client:
        client.index([Document(id=f"answers {number}", text=f"text {number}") for number in range(4)])
        (found,) = client.search(["text 2"], limit=2)
        (ranked,) = client.rank([Document(text="a", matches=[Document(text="b"), Document(text="a")])])
        (response,) = client.encode(["a"], return_responses=True)
    assert found.matches[0].text == "text 2"
    assert ranked.matches[0].text == "a"
    np.testing.assert_allclose(np.linalg.norm(response.docs.embeddings, axis=1), 1, rtol=1e-3)
    assert len(places) >= 2
    assert {name.startswith("casdk-read") for name in places} == {large}
