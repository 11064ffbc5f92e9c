"""The error of a stopped stream has the rows that were finished and not returned yet."""

import asyncio

import numpy as np
import pytest
from casdk import AuthError, CasdkError, Document
from casdk.testing import Cut, Gate, Hold, Refuse
from stops import BATCH, DONE, ONCE, TEXTS, failing


@pytest.fixture
def scheme(pair):
    return pair[0]


@pytest.fixture
def mode(pair):
    return pair[1]


def take(mode, client, content, **options):
    """Return the pieces that were handed out, and the error."""
    pieces = []

    def sync():
        pieces.extend(client.stream(content, **options))

    async def twin():
        async for piece in client.astream(content, **options):
            pieces.append(piece)  # noqa: PERF401

    with pytest.raises(CasdkError) as caught:
        sync() if mode == "sync" else asyncio.run(twin())
    return pieces, caught.value


@pytest.mark.parametrize("pair", [("grpc", "sync"), ("http", "async")], indirect=True, ids="-".join)
@pytest.mark.parametrize("errors", ["raise", "skip", "return"])
def test_a_stream(make_server, connect_to, scheme, mode, rows, errors):
    """The second of five requests fails, while the next two are done: their rows travel in the error."""
    gate = Gate()
    script = {TEXTS[BATCH]: (Hold(gate), Refuse.unauthenticated())}
    client = connect_to(make_server(lambda request: script.get(request.texts[0])), scheme, retry=ONCE)

    def content():
        yield from TEXTS[: 4 * BATCH]
        gate.open()  # asked for a fifth batch, with two in flight at most: all before it is done but the second
        yield from TEXTS[4 * BATCH :]

    pieces, error = take(mode, client, content(), batch_size=BATCH, prefetch=2, errors=errors)
    [first] = pieces
    np.testing.assert_array_equal(first.embeddings if errors == "return" else first, rows(TEXTS[:BATCH]))
    assert type(error) is AuthError
    assert (error.start, len(error.partial)) == (BATCH, len(TEXTS) - BATCH)
    good = np.isfinite(error.partial).all(axis=1)
    assert not good[:BATCH].any()
    assert good[BATCH : 3 * BATCH].all()
    assert error.done == BATCH + good.sum()
    np.testing.assert_array_equal(error.partial[good], rows(TEXTS[BATCH:])[good])


@pytest.mark.parametrize("pair", [("grpc", "sync"), ("http", "async")], indirect=True, ids="-".join)
def test_a_stream_of_documents(make_server, connect_to, scheme, mode, rows):
    gate = Gate()
    documents = [Document(text=text) for text in TEXTS]
    script = {TEXTS[BATCH]: (Hold(gate), Refuse.unauthenticated())}
    client = connect_to(make_server(lambda request: script.get(request.texts[0])), scheme, retry=ONCE)

    def content():
        yield from documents[: 4 * BATCH]
        gate.open()
        yield from documents[4 * BATCH :]

    [first], error = take(mode, client, content(), batch_size=BATCH, prefetch=2)
    assert all(ours is theirs for ours, theirs in zip(first, documents, strict=False))
    assert (error.start, error.partial) == (BATCH, None)
    assert all(ours is theirs for ours, theirs in zip(error.documents, documents[BATCH:], strict=True))
    np.testing.assert_array_equal(error.documents[BATCH : 3 * BATCH].embeddings, rows(TEXTS[2 * BATCH : 4 * BATCH]))
    assert all(document.embedding is None for document in documents[BATCH : 2 * BATCH])


@pytest.mark.parametrize("pair", [("grpc", "sync"), ("http", "async")], indirect=True, ids="-".join)
def test_a_stream_that_had_handed_out_all_it_had(make_server, connect_to, scheme, mode, rows):
    server = make_server(failing(Cut("after")))
    client = connect_to(server, scheme, retry=ONCE)
    pieces, error = take(mode, client, TEXTS, batch_size=BATCH, prefetch=1)
    np.testing.assert_array_equal(np.concatenate(pieces), rows(TEXTS[:DONE]))
    assert (error.done, error.total, error.server) == (DONE, len(TEXTS), server.address(scheme))
    assert (error.start, error.partial.shape) == (DONE, (BATCH, 32))
    assert np.isnan(error.partial).all()
