"""The caller's iterable and callbacks run where the caller is, deadline or not, or in a thread of their own."""

import asyncio
import sqlite3
import threading
from collections.abc import Mapping

import numpy as np
import pytest
from casdk import DeadlineError, Document, InputValueError
from places import SPAN, Watch


@pytest.fixture(params=["grpc", "http"])
def client(request, connect):
    """Both forms of messages."""
    return connect(request.param)


def iterables(note):
    """Iterables of every kind whose iteration is the caller's code."""

    class List(list):
        def __iter__(self):
            note()
            return super().__iter__()

    class Stepwise(tuple):
        def __iter__(self):
            for item in super().__iter__():
                note()
                yield item

    class Keyed(Mapping):
        def __getitem__(self, key):
            raise AssertionError("nobody asks for values")

        def __iter__(self):
            for item in "abc":
                note()
                yield item

        def __len__(self):
            note()
            return 3

    def generator():
        for item in "abc":
            note()
            yield item

    class Indexed:
        def __getitem__(self, index):
            note()
            return "abc"[index]

        __iter__ = None

    def seen(item):
        note()
        return item

    return {
        "a list": List("abc"),
        "a tuple": Stepwise("abc"),
        "keys": Keyed().keys(),
        "a generator": generator(),
        "a map": map(seen, "abc"),
        "a filter": filter(seen, "abc"),
    }


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("kind", list(iterables(None)))
def test_an_iterable_is_read_where_the_caller_is(client, call, mode, expected, kind, timeout):
    note, here = Watch(), Watch()
    SPAN.set("mine")

    async def twin():
        here()
        return await client.aencode(iterables(note)[kind], batch_size=2, timeout=timeout)

    if mode == "async":
        rows = asyncio.run(twin())
    else:
        here()
        rows = client.encode(iterables(note)[kind], batch_size=2, timeout=timeout)
    np.testing.assert_array_equal(rows, expected(list("abc")))
    assert note.places == here.places


@pytest.mark.parametrize("kind", list(iterables(None)))
def test_or_in_a_thread_of_its_own(client, call, expected, kind):
    note = Watch()
    SPAN.set("mine")
    rows = call(client, "encode", iterables(note)[kind], batch_size=2, reader="thread")
    np.testing.assert_array_equal(rows, expected(list("abc")))
    threads = {(name, loop, span) for name, loop, span in note.places if name != "MainThread"}
    assert threads == {("casdk-reader", None, "mine")}


def test_the_end_in_that_thread_does_not_overtake_the_last_chunk(make_server, connect_to, scheme):
    """The end of the iterable reaches the engine after its last chunk, so no item is missing.

    The iterable makes a call of its own, which ends the thread's wait in the middle of a turn of the loop. If the end
    took another way to the loop than the chunks, it could be seen before the last of them.
    """
    client = connect_to(make_server(), scheme)

    def texts():
        yield from "abc"
        client.encode(["d"])

    for _ in range(100):
        assert client.encode(texts(), batch_size=2, reader="thread").shape[0] == 3


@pytest.mark.parametrize("verb", ["encode", "index", "search", "stream", "rank"])
@pytest.mark.parametrize("reader", ["caller", "thread"])
def test_every_verb_reads_where_it_is_told(client, call, mode, verb, reader):
    note = Watch()

    def documents():
        for text in "abc":
            note()
            yield Document(text=text, matches=[Document(text="b")])

    assert len(list(call(client, verb, documents(), batch_size=1, reader=reader, timeout=30))) == 3
    [(name, loop, _)] = note.places
    assert name == ("casdk-reader" if reader == "thread" else "MainThread")
    assert (loop is None) == (mode == "sync" or reader == "thread")


def test_a_cursor_of_sqlite_is_read_in_its_own_thread(client, expected):
    with sqlite3.connect(":memory:") as database:
        database.execute("create table texts (text)")
        database.executemany("insert into texts values (?)", [("a",), ("b",), ("c",)])
        rows = database.execute("select text from texts")
        found = client.encode((text for (text,) in rows), batch_size=2, timeout=30)
        np.testing.assert_array_equal(found, expected(list("abc")))
        pieces = client.stream((text for (text,) in database.execute("select text from texts")), timeout=30)
        assert sum(map(len, pieces)) == 3
    database.close()


def test_what_the_iterable_changes_in_the_callers_context_stays(client):
    """As if the caller read it itself."""

    def texts():
        SPAN.set("of the iterable")
        yield "a"

    SPAN.set("mine")
    client.encode(texts(), timeout=30)
    assert SPAN.get() == "of the iterable"
    SPAN.set("mine")
    client.encode(texts(), timeout=30, reader="thread")
    assert SPAN.get() == "mine"


def test_callbacks_run_where_the_caller_is(client, call, mode):
    note = Watch()
    SPAN.set("mine")
    call(client, "encode", iter("abc"), batch_size=1, timeout=30, on_done=lambda _: note())
    [(name, loop, span)] = note.places
    assert (name, loop is None, span) == ("MainThread", mode == "sync", "mine")


def test_a_deadline_ends_a_call_when_its_iterable_returns(make_server, connect_to, scheme):
    """In the middle of a batch: no item is asked for after that one."""
    server, block, asked = make_server(), threading.Event(), []

    def texts():
        for number in range(100):
            asked.append(number)
            if number == 3:
                timer.start()
                assert block.wait(20)
            yield str(number)

    client = connect_to(server, scheme)
    client.encode(["connected"])
    timer = threading.Timer(1.6, block.set)
    with pytest.raises(DeadlineError):
        client.encode(texts(), batch_size=32, timeout=1)
    timer.join()
    assert asked == [0, 1, 2, 3]


def test_a_deadline_that_passes_takes_back_an_async_iterable(make_server, connect_to, scheme):
    server = make_server()
    client = connect_to(server, scheme)
    closed = []

    async def texts():
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def main():
        await client.aencode(["connected"])
        with pytest.raises(DeadlineError):
            await client.aencode(texts(), batch_size=1, timeout=0.2)
        for _ in range(2000):
            if len(asyncio.all_tasks()) == 1:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(asyncio.all_tasks())

    asyncio.run(main())
    assert closed


def test_an_async_iterable_cannot_be_read_in_a_thread(client):
    async def texts():
        yield "a"

    with pytest.raises(InputValueError, match="reader='thread' reads a sync iterable"):
        asyncio.run(client.aencode(texts(), reader="thread"))
