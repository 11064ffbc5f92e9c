"""Merged calls that are stopped return their own rows, and no other call's."""

import asyncio

import numpy as np
import pytest
from casdk import ClosedError, DeadlineError, Document, RejectedError, Retry, TransportError
from casdk._calls.merging import REQUESTS_IN_FLIGHT
from casdk.testing import Cut, Gate, Hold

ONCE = Retry(attempts=1)
TEXTS = [f"text {number}" for number in range(12)]


async def merged_calls(client, server, gate, contents, **options):
    """Return calls that travel as one batch, on its way, and what they wait for."""
    busy = []
    for number in range(REQUESTS_IN_FLIGHT):
        busy.append(asyncio.create_task(client.aencode(["busy"])))
        await asyncio.to_thread(gate.wait_for, number + 1)
    calls = [asyncio.create_task(client.aencode(content, **options)) for content in contents]
    for _ in range(5):
        await asyncio.sleep(0)
    return calls, busy


CONTENTS = [TEXTS[0:4], TEXTS[4:8], TEXTS[8:12]]
"""Of three calls. The batch is halved to find item 5: then items 0 to 4 are done, and from 6 on they are put off."""


@pytest.mark.parametrize("errors", ["raise", "return"])
def test_merged_calls_carry_their_own_rows(make_server, connect_to, scheme, rows, errors):
    gate, last = Gate(), Gate()

    def script(request):
        if request.texts == ("busy",):
            return Hold(gate)
        return (Hold(last), Cut("after")) if request.texts[0] == TEXTS[6] else None

    server = make_server(script, poison={TEXTS[5]})
    client = connect_to(server, scheme, retry=ONCE, timeout=30, coalesce=True)

    async def main():
        calls, busy = await merged_calls(client, server, gate, CONTENTS, errors=errors)
        gate.open()
        await asyncio.gather(*busy)
        last.open()  # only now: to cut the shared connection earlier would fail the busy calls, too
        return await asyncio.gather(*calls, return_exceptions=True)

    first, second, third = asyncio.run(main())
    assert [request.texts for request in server.requests if len(request.texts) == 12] == [tuple(TEXTS[:12])]
    np.testing.assert_array_equal(first if errors == "raise" else first.embeddings, rows(CONTENTS[0]))
    assert isinstance(third, TransportError)
    assert (third.done, third.total) == (0, 4)
    assert third.partial is None or np.isnan(third.partial).all()
    if errors == "raise":
        assert isinstance(second, RejectedError)
        assert (second.index, second.item, second.done, second.total) == (1, TEXTS[5], 1, 4)
        partial = second.partial
    else:
        assert [error.index for error in second.errors] == [1, 2, 3]
        assert [error.cause is second.stopped for error in second.errors] == [False, True, True]
        assert (second.stopped.done, second.stopped.total) == (1, 4)
        assert second.stopped.server == third.server == server.address(scheme)
        assert second.stopped is not third
        partial = second.embeddings
    np.testing.assert_array_equal(partial[:1], rows(CONTENTS[1][:1]))
    assert np.isnan(partial[1:]).all()
    assert partial.base is None


def test_a_deadline_of_one_of_the_merged_calls(make_server, connect_to, rows):
    gate, last = Gate(), Gate()

    def script(request):
        if request.texts == ("busy",):
            return Hold(gate)
        return Hold(last) if request.texts[0] == TEXTS[6] else None

    server = make_server(script, poison={TEXTS[5]})
    client = connect_to(server, "grpc", retry=ONCE, coalesce=True)

    async def main():
        calls, busy = await merged_calls(client, server, gate, CONTENTS[:1])
        late = asyncio.create_task(client.aencode(CONTENTS[1], errors="return", timeout=1))
        calls.append(asyncio.create_task(client.aencode(CONTENTS[2])))
        await asyncio.sleep(0)
        gate.open()
        found = await late
        last.open()
        await asyncio.gather(*busy)
        return found, await asyncio.gather(*calls)

    found, (first, third) = asyncio.run(main())
    assert isinstance(found.stopped, DeadlineError)
    assert (found.stopped.done, found.stopped.total) == (1, 4)
    np.testing.assert_array_equal(found.embeddings[:1], rows(CONTENTS[1][:1]))
    assert [error.index for error in found.errors] == [1, 2, 3]
    np.testing.assert_array_equal(first, rows(CONTENTS[0]))
    np.testing.assert_array_equal(third, rows(CONTENTS[2]))


def test_merged_documents_keep_what_they_have(make_server, connect_to, rows):
    gate, last = Gate(), Gate()

    def script(request):
        if request.texts == ("busy",):
            return Hold(gate)
        return (Hold(last), Cut("after")) if request.texts[0] == TEXTS[6] else None

    server = make_server(script, poison={TEXTS[5]})
    client = connect_to(server, "grpc", retry=ONCE, timeout=30, coalesce=True)
    documents = [Document(text=text) for text in CONTENTS[1]]

    async def main():
        calls, busy = await merged_calls(client, server, gate, [CONTENTS[0], documents, CONTENTS[2]])
        gate.open()
        await asyncio.gather(*busy)
        last.open()  # only now: to cut the shared connection earlier would fail the busy calls, too
        return await asyncio.gather(*calls, return_exceptions=True)

    _, error, _ = asyncio.run(main())
    assert (error.partial, error.done) == (None, 1)
    assert [ours is theirs for ours, theirs in zip(error.documents, documents, strict=True)] == [True] * 4
    np.testing.assert_array_equal(documents[0].embedding, rows(CONTENTS[1])[0])
    assert [document.embedding for document in documents[1:]] == [None] * 3


def test_merged_calls_of_a_client_that_is_closed(make_server, connect_to, scheme):
    gate = Gate()
    server = make_server(Hold(gate))
    client = connect_to(server, scheme, timeout=30, coalesce=True)

    async def main():
        calls, busy = await merged_calls(client, server, gate, CONTENTS)
        await client.aclose()
        return await asyncio.gather(*busy, *calls, return_exceptions=True)

    ended = asyncio.run(main())
    gate.open()
    assert [type(error) for error in ended] == [ClosedError] * 5
    assert [(error.done, error.total, error.server) for error in ended[REQUESTS_IN_FLIGHT:]] == [
        (0, 4, server.address(scheme))
    ] * 3
    assert len(set(map(id, ended))) == 5
