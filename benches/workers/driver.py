"""casdk without a network, for callgrind: ``python driver.py`` reads ``CALLS REPLIES BATCH TIMES`` from each line.

``single`` calls have one request each, a ``bulk`` call has all of them. A reply is there ``at-once``, as its request is
sent, or those to all requests of one turn of the loop come ``together`` in the next, as from one read of a socket.
"""

import asyncio
import gc
import sys
from typing import Any

import content
import numpy as np
from calls import report
from casdk import Client
from casdk._transport.channels import Channel

try:
    from casdk._engine.waiter import Waiter
except ImportError:  # another checkout's
    try:
        from casdk._transport.channels.waiter import Waiter
    except ImportError:  # whose channels have futures
        Waiter = None

WIDTH = 512


class Canned(Channel):
    """Answers each request with the same reply.

    Args:
        client: Whose channel this becomes.
        reply: The packed reply.
    """

    def __init__(self, client: Client, reply: bytes) -> None:
        session = client._session
        transport = session.transport if Waiter is None else session.way.transports[0]
        super().__init__(transport.endpoint, transport._tls, transport._timeouts, transport._limits, None)
        self._reply = reply
        transport._channel = self

    has_waiters = is_connected = True

    async def exchange(self, *_: Any) -> bytes:
        return self._reply

    async def dry_run(self, *_: Any) -> None:
        return None

    async def aclose(self) -> None:
        pass


class Together(Canned):
    """Answers in the next turn of the loop."""

    _waiting: list[Any] = []

    async def exchange(self, *_: Any) -> bytes:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._waiting = []
            loop.call_soon(self._receive)
        waiter = loop.create_future() if Waiter is None else Waiter()
        self._waiting.append(waiter)
        return (await waiter) or waiter.outcome

    def _receive(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            (waiter.set_result if Waiter is None else waiter.reply)(self._reply)


REPLIES = {"at-once": Canned, "together": Together}


def reply_of(batch: int) -> bytes:
    """Return a `DataRequestProto` with a row for each document."""
    dense = _field(1, np.zeros(WIDTH, np.float32).tobytes()) + _field(2, _varint(WIDTH)) + _field(3, b"<f4")
    document = _field(16, _field(1, dense) + _field(3, b"numpy"))
    return _field(4, _field(1, _field(1, document) * batch))


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def main() -> None:
    for line in sys.stdin:
        calls, replies, batch, times = line.split()
        count, texts = int(times), content.texts(int(batch))
        with Client("grpc://127.0.0.1:1") as client:
            REPLIES[replies](client, reply_of(len(texts)))
            for _ in range(20):
                client.encode(texts)
            everything = texts * count
            gc.collect()
            # What this process made so far is no garbage: collections shall not look at it while calls are counted.
            gc.freeze()
            report()
            if calls == "bulk":
                client.encode(everything, batch_size=len(texts))
            else:
                for _ in range(count):
                    client.encode(texts)
            report()


if __name__ == "__main__":
    main()
