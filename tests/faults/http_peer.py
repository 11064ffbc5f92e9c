"""A server of raw HTTP/1.1 in one function, and a channel to it: what the tests of the channels share."""

import asyncio
import re

from casdk import TLS, Limits, Timeouts
from casdk._transport.address import Endpoint
from casdk._transport.channels.options import ExchangeOptions

NAMES = [number.to_bytes(16, "big").hex() for number in range(100)]


def message_of(name):
    return b'{"data":[{"id":"%b"}]}' % name.encode()


def reply_to(request):
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(request), request)


def length_of(head):
    """Return how many bytes the body of a request has."""
    return int(re.search(rb"(?i)content-length: (\d+)", head)[1])


async def read_request(reader):
    """Return the body of a request, and the head that it came with."""
    head = await reader.readuntil(b"\r\n\r\n")
    return head, await reader.readexactly(length_of(head))


class Served:
    """A server of one function, and the channel to it.

    Args:
        kind: The channel's class.
        talk: What the server does with a connection.
        timeouts: The channel's.

    Attributes:
        heads: The heads of the requests that it has read.
        connections: How many it has had.
    """

    def __init__(self, kind, talk, **timeouts):
        self._kind = kind
        self._talk = talk
        self._timeouts = Timeouts(**timeouts)
        self._talks = set()
        self.heads = []
        self.connections = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._attend, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        endpoint = Endpoint("http", "127.0.0.1", port)
        self.channel = self._kind(endpoint, TLS(), self._timeouts, Limits(), None)
        return self

    async def __aexit__(self, *error):
        await self.channel.aclose()
        self._server.close()
        while not all(talk.done() for talk in self._talks):
            await asyncio.wait(self._talks)

    async def _attend(self, reader, writer):
        self._talks.add(asyncio.current_task())
        self.connections += 1
        try:
            await self._talk(self, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def ask(self, name, **options):
        return bytes(await self.channel.exchange(name, message_of(name), (), ExchangeOptions(**options)))


async def answer(served, reader, writer):
    """Answer each request by itself."""
    while True:
        head, body = await read_request(reader)
        served.heads.append(head)
        writer.write(reply_to(body))
