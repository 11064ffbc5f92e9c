"""Connections take turns, so that one with many pieces does not delay the others."""

import asyncio

import pytest
from casdk.server import turns
from casdk.server.turns import Feeder, Turns


class Reader(asyncio.Protocol):
    """Keeps what it is handed, and takes as long for each byte as it is told."""

    def __init__(self, clock, seconds_a_byte=0.0):
        self.clock = clock
        self.seconds_a_byte = seconds_a_byte
        self.pieces = []

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.pieces.append(data)
        self.clock.now += len(data) * self.seconds_a_byte


class Connection:
    """A transport that counts."""

    reading = True
    closing = False

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def is_closing(self):
        return self.closing

    def write(self, data):
        return data


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(turns, "time", made)
    return made


def fed(clock, queue, seconds_a_byte):
    feeder = Feeder(Reader(clock, seconds_a_byte), queue)
    connection = Connection()
    feeder.connection_made(connection)
    return feeder, feeder.protocol, connection


def test_what_is_read_fast_is_read_at_once(clock):
    async def reading():
        feeder, reader, connection = fed(clock, Turns(), 1e-9)
        feeder.data_received(bytes(1 << 18))
        return reader.pieces, connection.reading

    pieces, reading = asyncio.run(reading())
    assert sum(map(len, pieces)) == 1 << 18
    assert reading
    assert max(map(len, pieces)) == turns.MOST


def test_those_who_take_long_take_turns(clock):
    async def reading():
        queue = Turns()
        readers = []
        for _ in range(2):
            feeder, reader, connection = fed(clock, queue, 1e-4)
            feeder.data_received(bytes(1000))
            assert 0 < sum(map(len, reader.pieces)) < 1000
            assert not connection.reading
            readers.append((reader, connection))
        order = []
        while not all(connection.reading for _, connection in readers):
            before = [len(reader.pieces) for reader, _ in readers]
            await asyncio.sleep(0)
            order.append([len(reader.pieces) > some for (reader, _), some in zip(readers, before, strict=True)])
        return [b"".join(reader.pieces) for reader, _ in readers], order

    read, order = asyncio.run(reading())
    assert read == [bytes(1000)] * 2
    assert [True, True] not in order
    assert order[:2] == [[True, False], [False, True]]


def test_a_reader_that_pauses_is_handed_nothing_until_it_goes_on(clock):
    class Pausing(Reader):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    async def reading():
        reader = Pausing(clock)
        feeder = Feeder(reader, Turns())
        connection = Connection()
        feeder.connection_made(connection)
        feeder.data_received(bytes(3 * turns.LEAST))
        found = [(len(reader.pieces), connection.reading)]
        while len(found) < 3:
            reader.transport.resume_reading()
            await asyncio.sleep(0)
            found.append((len(reader.pieces), connection.reading))
        return found, b"".join(reader.pieces)

    found, read = asyncio.run(reading())
    assert found[:2] == [(1, False), (2, False)]
    assert turns.LEAST < len(read) <= 3 * turns.LEAST


def test_a_connection_that_is_handed_on_goes_on_with_its_next_reader(clock):
    class Upgrading(Reader):
        def data_received(self, data):
            super().data_received(data)
            self.transport.set_protocol(following)
            self.transport.unread(data[-3:])

    following = Reader(clock)

    async def reading():
        first = Upgrading(clock)
        feeder = Feeder(first, Turns())
        feeder.connection_made(Connection())
        feeder.data_received(bytes(2 * turns.LEAST))
        assert first.transport.get_protocol() is following
        assert first.transport.write(b"a") == b"a"
        return first.pieces, following.pieces

    first, then = asyncio.run(reading())
    assert first == [bytes(turns.LEAST)]
    assert b"".join(then) == bytes(turns.LEAST + 3)


def test_what_is_left_of_a_lost_connection_is_forgotten(clock):
    async def reading():
        feeder, reader, _ = fed(clock, Turns(), 1e-3)
        feeder.data_received(bytes(1000))
        read = len(reader.pieces)
        feeder.connection_lost(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return len(reader.pieces) - read

    assert asyncio.run(reading()) == 0
