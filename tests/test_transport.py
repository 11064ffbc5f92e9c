"""The connection to one server: slots, the credential, the largest request, and replies to other requests."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from casdk import TLS, AuthError, Limits, ReplyError, ServerError, Timeouts, TransportError
from casdk._engine.waiting import run
from casdk._rust import new_id
from casdk._transport.address import parse_address
from casdk._transport.transport import Transport
from casdk.testing import EntityTooLarge, FaultServer, Gate, Hold, Refuse, WrongId
from casdk.wire.jina_pb2 import DataRequestProto
from casdk.wire.json_form import write_reply


def request(transport, text="a"):
    """Return an id, and the request of it in the transport's form."""
    made = DataRequestProto()
    made.header.request_id, made.header.exec_endpoint = new_id(), "/encode"
    made.data.docs.docs.add(id=new_id(), text=text)
    if transport.codec == "proto":
        return made.header.request_id, made.SerializeToString()
    return made.header.request_id, b"".join(write_reply(made, camel=True))


@asynccontextmanager
async def opened(server, scheme, caller, credential=None, **limits):
    """A transport to a server, on the engine."""
    tls = TLS(ca=server.ca) if scheme.endswith("s") else TLS()
    transport = Transport(
        parse_address(server.address(scheme)), credential, tls, Timeouts(), Limits(**limits), None, None
    )
    transport.engine = caller.engine
    try:
        yield transport
    finally:
        await transport.aclose()


def test_a_reply_comes_scanned_with_its_times(scheme):
    async def job(caller):
        async with opened(server, scheme, caller) as transport:
            first = await transport.exchange(*request(transport))
            return first, await transport.exchange(*request(transport))

    with FaultServer(width=8) as server:
        first, second = run(job)
    for received in (first, second):
        assert received.reply.rows == 1
        assert received.reply.width == 8
        assert received.size > 32
        assert received.sent_at < received.received_at
    assert 0 < first.connecting <= first.received_at - first.sent_at
    assert second.connecting == 0


def test_no_more_requests_than_the_limit_are_under_way(scheme):
    gate = Gate()

    async def job(caller):
        async with opened(server, scheme, caller, requests=3) as transport:
            tasks = [asyncio.create_task(transport.exchange(*request(transport))) for _ in range(10)]
            await asyncio.to_thread(gate.wait_for, 3, 30)
            gate.open()
            await asyncio.gather(*tasks)

    with FaultServer(Hold(gate), width=8) as server:
        run(job)
        assert server.counters.most_running == 3
        server.wait_for(lambda counters: counters.replies == 10)


def test_a_credential_function_is_called_again_if_its_token_is_refused(scheme):
    tokens = iter(["old", "new"])

    async def job(caller):
        async with opened(server, scheme, caller, lambda: next(tokens)) as transport:
            return [(await transport.exchange(*request(transport))).reply.rows for _ in range(2)]

    with FaultServer(width=8, token="new") as server:
        assert run(job) == [1, 1]
    assert next(tokens, None) is None


def test_a_credential_that_stays_wrong_is_an_error(scheme):
    async def job(caller):
        async with opened(server, scheme, caller, "wr0ng") as transport:
            await transport.exchange(*request(transport))

    with FaultServer(width=8, token="right") as server, pytest.raises(AuthError) as refusal:
        run(job)
    assert "wr0ng" not in repr(refusal.value)


def test_a_reply_to_another_request_is_not_taken():
    """On a websocket it belongs to no request; in JSON, ids do not show it, since jina makes them up."""

    async def job(caller):
        async with opened(server, "grpc", caller) as transport:
            await asyncio.wait_for(transport.exchange(*request(transport)), 20)

    with FaultServer(WrongId(), width=8) as server, pytest.raises(ReplyError):
        run(job)


@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_the_largest_request_is_learned_from_refusals(scheme):
    async def job(caller):
        async with opened(server, scheme, caller) as transport:
            before = transport.largest
            identity, small = request(transport, "x" * 500)
            await transport.exchange(identity, small)
            identity, large = request(transport, "x" * 5000)
            with pytest.raises(ServerError) as refusal:
                await transport.exchange(identity, large)
            return before, len(small), len(large), transport.largest, refusal.value

    with FaultServer(EntityTooLarge(2000), width=8) as server:
        before, small, large, learned, refusal = run(job)
    assert before == float("inf")
    assert learned == max(small, large // 2)
    assert refusal.too_large


def test_a_token_that_is_sent_back_is_not_shown():
    async def job(caller):
        async with opened(server, "grpc", caller, "s3cret") as transport:
            await transport.exchange(*request(transport))

    with (
        FaultServer(Refuse(message="no Bearer s3cret here"), width=8) as server,
        pytest.raises(TransportError) as caught,
    ):
        run(job)
    shown = f"{caught.value} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert "s3cret" not in shown
    assert "no Bearer *** here" in shown


def test_a_connection_is_open_until_a_fork(scheme):

    async def job(caller):
        async with opened(server, scheme, caller) as transport:
            seen = [transport.is_connected]
            for _ in range(2):
                await transport.exchange(*request(transport))
                seen.append(transport.is_connected)
            await transport.before_fork()
            seen.append(transport.is_connected)
            await transport.exchange(*request(transport))
            return [*seen, transport.is_connected]

    with FaultServer(width=8) as server:
        seen = run(job)
    assert seen == [False, True, True, False, True]
