"""A request goes only over a connection that was checked, even if connections end meanwhile."""

import logging

import pytest
from casdk import ServerError, TransportError
from casdk._transport.address import parse_address
from casdk._transport.channels.http1 import HttpChannel
from casdk._transport.channels.inspection import MOST_CONNECTIONS, ConnectionEndedError, checked
from http_peer import NAMES, Served, answer, message_of, read_request, reply_to

ENDPOINT = parse_address("grpc://host:1")
CANARIES = NAMES[-2:]


class Recorded:
    """A check of two requests, which takes note of what it asks.

    Args:
        endings: Connections that end under it.
    """

    def __init__(self, endings=0):
        self.passed = []
        self.answers = []
        self.endings = endings

    def has_passed(self, connection):
        return connection in self.passed

    async def inspect(self, connection, ask, *, sent=False):
        assert not sent
        if self.endings:
            self.endings -= 1
            raise ConnectionEndedError
        self.answers += [await ask(name, message_of(name)) for name in CANARIES]
        self.passed.append(connection)


async def ask(connection, name, message):
    return connection, message


@pytest.mark.parametrize("endings", range(MOST_CONNECTIONS))
async def test_a_connection_that_ended_is_followed_by_another(endings):
    """The last of these is asked for once more when it was found right, as it may have ended meanwhile."""
    check, opened = Recorded(endings), []

    async def connect():
        if len(opened) <= endings:
            opened.append(object())
        return opened[-1]

    if endings + 1 == MOST_CONNECTIONS:
        with pytest.raises(TransportError, match="ends each connection before it could be checked") as ended:
            await checked(check, ENDPOINT, connect, ask)
        assert not ended.value.sent
    else:
        assert await checked(check, ENDPOINT, connect, ask) is opened[-1]
    assert check.passed == [opened[-1]]
    assert check.answers == [(opened[-1], message_of(name)) for name in CANARIES]
    assert await checked(check, ENDPOINT, connect, ask) is opened[-1]
    assert len(check.answers) == 2


async def refuse(connection, name, message):
    raise ServerError("it is full")


async def test_what_the_check_fails_on_the_request_fails_on():
    async def connect():
        return "connection"

    with pytest.raises(ServerError, match="it is full"):
        await checked(Recorded(), ENDPOINT, connect, refuse)


async def test_over_http_a_check_goes_over_the_connection_of_its_request():
    seen = []

    async def note(served, reader, writer):
        seen.append([])
        here = seen[-1]
        while True:
            _, body = await read_request(reader)
            here.append(body)
            writer.write(reply_to(body))

    check = Recorded()
    async with Served(HttpChannel, note) as served:
        for name in NAMES[:3]:
            assert await served.ask(name, check=check) == message_of(name)
        [connection] = check.passed
        connection.end()
        assert await served.ask(NAMES[3], check=check, repeatable=False) == message_of(NAMES[3])
    canaries = [message_of(name) for name in CANARIES]
    assert seen == [[*canaries, *map(message_of, NAMES[:3])], [*canaries, message_of(NAMES[3])]]


async def test_a_kept_connection_that_ended_is_replaced_by_a_checked_one():
    """The request that was on its way when the server closed it is made on a new one, behind the check of that."""
    seen = []

    async def close_at_the_fourth(served, reader, writer):
        seen.append([])
        here = seen[-1]
        for _ in range(3):
            _, body = await read_request(reader)
            here.append(body)
            writer.write(reply_to(body))
        await read_request(reader)

    check = Recorded()
    async with Served(HttpChannel, close_at_the_fourth) as served:
        for name in NAMES[:2]:
            assert await served.ask(name, check=check) == message_of(name)
    canaries = [message_of(name) for name in CANARIES]
    assert seen == [[*canaries, message_of(name)] for name in NAMES[:2]]


async def test_a_connection_that_ends_under_its_check_is_replaced():
    async def close_at_the_second(served, reader, writer):
        _, body = await read_request(reader)
        writer.write(reply_to(body))
        if served.connections > 1:
            await answer(served, reader, writer)
        await read_request(reader)

    check = Recorded()
    async with Served(HttpChannel, close_at_the_second) as served:
        assert await served.ask(NAMES[0], check=check, repeatable=False) == message_of(NAMES[0])
        assert served.connections == 2
        assert len(check.passed) == 1


async def test_a_server_of_http_that_keeps_no_connection_is_checked_over_others(caplog):
    caplog.set_level(logging.WARNING, "casdk.connections")
    seen = []

    async def close_each(served, reader, writer):
        _, body = await read_request(reader)
        seen.append(body)
        writer.write(reply_to(body).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))

    async with Served(HttpChannel, close_each) as served:
        for name in NAMES[:2]:
            assert await served.ask(name, check=Recorded()) == message_of(name)
        assert served.connections == 6
    canaries = [message_of(name) for name in CANARIES]
    assert seen == [*canaries, message_of(NAMES[0]), *canaries, message_of(NAMES[1])]
    assert caplog.text.count("keeps no connection for a second request") == 1
