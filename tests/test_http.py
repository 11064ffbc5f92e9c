"""Requests over http, on casdk's own channel and on the one of httpx."""

import asyncio
from functools import partial

import pytest
from casdk import DeadlineError, Limits, TransportError
from casdk._transport.channels import http1
from casdk._transport.channels.libraries import http
from casdk._transport.channels.options import ExchangeOptions
from http_peer import NAMES, Served, answer, message_of, read_request


@pytest.fixture(params=[http.HttpChannel, http1.HttpChannel], ids=["httpx", "own"])
def served_by(request):
    """A server, as `Served` has it, and one of the channels."""
    return partial(Served, request.param)


async def test_a_connection_is_kept(served_by):
    async with served_by(answer) as served:
        for name in NAMES[:5]:
            assert await served.ask(name) == message_of(name)
        assert served.connections == 1
        answers = await asyncio.gather(*(served.ask(name) for name in NAMES))
        assert answers == [message_of(name) for name in NAMES]
        assert 1 < served.connections <= Limits().connections


async def test_what_is_sent(served_by):
    async with served_by(answer) as served:
        options = ExchangeOptions(context=(("traceparent", "00-1"),))
        await served.channel.exchange(NAMES[0], b"{}", (("authorization", "token"),), options)
        await served.channel.exchange(NAMES[0], b"{}", (("authorization", "token"),))
    fields = ["post /post http/1.1", f"host: {served.channel.endpoint.authority}", "user-agent: casdk"]
    fields += ["accept: application/json", "accept-encoding: identity", "content-type: application/json"]
    fields += ["authorization: token"]
    fields += ["content-length: 2", "", ""]
    assert sorted(served.heads[0].decode().lower().split("\r\n")) == sorted([*fields, "traceparent: 00-1"])
    assert sorted(served.heads[1].decode().lower().split("\r\n")) == sorted(fields)


async def test_no_request_is_repeated_that_had_its_own_connection(served_by):
    async def close(served, reader, writer):
        served.heads.append((await read_request(reader))[0])

    async with served_by(close) as served:
        with pytest.raises(TransportError, match=r"without an answer|without sending a response") as caught:
            await served.ask(NAMES[0])
        assert caught.value.sent
        assert len(served.heads) == served.connections == 1


async def test_each_request_has_its_deadline(served_by):
    async def be_silent(served, reader, writer):
        await reader.read()

    async with served_by(be_silent, read=0.1) as served:
        outcomes = await asyncio.gather(*(served.ask(name) for name in NAMES[:40]), return_exceptions=True)
        assert all(isinstance(outcome, DeadlineError) for outcome in outcomes)
        assert served.connections == 40
