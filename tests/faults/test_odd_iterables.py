"""Iterables and callbacks of odd kinds are used as a Python loop uses them, and their errors are raised."""

import asyncio
import collections
import functools
import itertools
import threading
from unittest.mock import AsyncMock, MagicMock

import numpy as np
import pytest
from casdk import CallbackError, Client, DeadlineError
from odd import OwnError, alike, turns_of


class OwnBaseError(BaseException):
    """What ends more than a call."""


@pytest.fixture(scope="module")
def turns(server, expected):
    yield from turns_of(lambda scheme: Client(server.address(scheme)), expected)


class Anew:
    """An iterator that begins anew whenever it is asked for one, as some loaders of data do."""

    def __init__(self, texts):
        self.texts = texts

    def __iter__(self):
        self.left = list(self.texts)
        return self

    def __next__(self):
        if not self.left:
            raise StopIteration
        return self.left.pop(0)


class Itself:
    """An iterator of itself."""

    left = 3

    def __iter__(self):
        return self

    def __next__(self):
        self.left -= 1
        if self.left < 0:
            raise StopIteration
        return self


class Hinting:
    def __init__(self, hint):
        self.hint = hint

    def __length_hint__(self):
        if isinstance(self.hint, type):
            raise self.hint
        return self.hint

    def __iter__(self):
        return iter("abc")


class Shrinking:
    length = 10

    def __len__(self):
        self.length -= 1
        return self.length

    def __iter__(self):
        return iter("abc")


def nested(turn):
    for text in "abc":
        assert turn.client.encode([text]).shape == (1, 512)
        yield text


def encoding_at_its_end(turn):
    try:
        yield from "abc"
    finally:
        turn.client.encode(["d"])


ITERABLES = {
    "begins anew": lambda turn: Anew("abc"),
    "a hint that raises": lambda turn: Hinting(OwnError),
    "a hint of 2**62": lambda turn: Hinting(2**62),
    "a hint of -1": lambda turn: Hinting(-1),
    "a hint that is a text": lambda turn: Hinting("x"),
    "a length that shrinks": lambda turn: Shrinking(),
    "encodes in between": nested,
    "encodes in its finally": encoding_at_its_end,
    "a chain": lambda turn: itertools.chain("a", ["b", "c"]),
    "a tee": lambda turn: itertools.tee(iter("abc"))[1],
    "a deque": lambda turn: collections.deque("abc"),
    "values": lambda turn: {1: "a", 2: "b", 3: "c"}.values(),
    "texts of numpy": lambda turn: np.array(["a", "b", "c"]),
    "a chararray": lambda turn: np.char.array(["a", "b", "c"]),
    "objects of numpy": lambda turn: np.array(["a", "b", "c"], object),
    "a sentinel": lambda turn: iter(iter(["a", "b", "c", "end"]).__next__, "end"),
}


@pytest.mark.parametrize("kind", ITERABLES)
@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"batch_size": 2, "reader": "thread"}], ids=repr)
def test_odd_iterables_are_read_as_a_loop_reads_them(turns, kind, options):
    assert alike(turns, lambda turn: turn.encode(ITERABLES[kind](turn), **options)) == ["a", "b", "c"]

    def streamed(turn):
        return [turn.name_of(row) for piece in turn.call("stream", ITERABLES[kind](turn), **options) for row in piece]

    assert alike(turns, streamed) == ["a", "b", "c"]


def test_an_iterator_of_itself(turns):
    assert alike(turns, lambda turn: turn.encode(Itself(), batch_size=2)) == ["ItemTypeError"] * 3


RAISED = [
    *(OwnError, TypeError, TimeoutError, RecursionError, MemoryError, StopAsyncIteration, GeneratorExit, OwnBaseError),
    *(KeyboardInterrupt, SystemExit, asyncio.CancelledError, ExceptionGroup),
]


@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"reader": "thread"}], ids=repr)
@pytest.mark.parametrize("at", [0, 1, 3])
def test_what_an_iterable_raises_passes_as_it_is(turns, raised, options, at):
    """At every place, and the client goes on."""
    error = raised("mine", [ValueError()]) if raised is ExceptionGroup else raised("mine")

    def texts():
        yield from "abc"[:at]
        raise error

    for turn in turns:
        with pytest.raises(raised) as caught:
            turn.encode(texts(), **options)
        assert "mine" in str(caught.value)
        assert turn.encode(["a"]) == ["a"]


@pytest.mark.parametrize("at", [0, 1, 3])
def test_what_an_async_iterable_raises_passes_as_it_is(turns, at):
    async def texts(error):
        for text in "abc"[:at]:
            yield text
        raise error

    for turn in turns:
        for raised in (OwnError, GeneratorExit, OwnBaseError, TimeoutError):
            if turn.mode == "async":
                with pytest.raises(raised):
                    turn.encode(texts(raised()), batch_size=1)
        assert turn.encode(["a"]) == ["a"]


def test_one_generator_in_two_calls_at_once(turns):
    """Each item goes to one of them; Python raises an error in a call that asks while the iterator runs."""
    for turn in turns:
        running, outcomes = threading.Event(), []

        def texts(running=running):
            running.set()
            for number in range(200):
                yield f"text {number}"

        shared = texts()

        def read(turn=turn, shared=shared, outcomes=outcomes):
            try:
                outcomes.append(len(turn.call("encode", shared, batch_size=4)))
            except ValueError as error:
                outcomes.append(str(error))

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        counts = [found for found in outcomes if isinstance(found, int)]
        assert {found for found in outcomes if isinstance(found, str)} <= {"generator already executing"}
        assert sum(counts) == 200 if len(counts) == 2 else sum(counts) <= 200


def test_an_endless_iterable_ends_at_the_deadline(turns):
    for turn in turns:
        with pytest.raises(DeadlineError) as caught:
            turn.call("encode", itertools.repeat("a"), timeout=0.2)
        rows = caught.value.partial
        done = rows[np.isfinite(rows).all(1)]
        assert len(done) == caught.value.done > 0
        assert {turn.name_of(row) for row in done} == {"a"}


def test_an_iterable_that_closes_its_client(turns):
    for turn in turns:
        own = turn.again()

        def texts(own=own):
            yield "a"
            own.client.close()
            yield "b"

        assert alike([own], lambda own: own.encode(texts(own))) == "ClosedError"


class Uncallable:
    @property
    def __call__(self):
        raise OwnError


class Unlike:
    """A callback that answers nothing but its call."""

    def __bool__(self):
        raise OwnError

    __len__ = __hash__ = __eq__ = __bool__

    def __call__(self, response):
        return None


class Proxy:
    @property
    def __class__(self):
        raise OwnError


class Unshowable(Exception):  # noqa: N818
    def __str__(self):
        raise OwnError

    __repr__ = __str__


def raising(error):
    def callback(response):
        raise error

    return callback


def changing(response):
    response.docs.clear()
    response.parameters.clear()


async def waiting(response):
    await asyncio.sleep(0)


CALLED = {
    "a partial": lambda turn: functools.partial(lambda more, response: None, 1),
    "a class": lambda turn: type("Own", (), {"__init__": lambda self, response: None}),
    "answers nothing else": lambda turn: Unlike(),
    "a mock": lambda turn: MagicMock(),
    "a builtin": lambda turn: [].append,
    "changes the response": lambda turn: changing,
    "encodes": lambda turn: lambda response: turn.client.encode(["d"]),
    "returns a generator": lambda turn: lambda response: (text for text in "a"),
    "returns an async generator": lambda turn: lambda response: aiter(turn_of(response)),
}
FAILING = {
    "cannot be called": (lambda: Uncallable(), OwnError),
    "takes nothing": (lambda: lambda: None, TypeError),
    "raises": (lambda: raising(OwnError()), OwnError),
    "raises StopIteration": (lambda: raising(StopIteration(1)), StopIteration),
    "cannot be shown": (lambda: raising(Unshowable()), Unshowable),
    "returns what raises": (lambda: lambda response: Proxy(), OwnError),
}


async def turn_of(response):
    yield response


@pytest.mark.parametrize("name", ["on_done", "on_always"])
@pytest.mark.parametrize("kind", CALLED)
def test_odd_callbacks_are_called(turns, kind, name):
    assert (
        alike(turns, lambda turn: turn.call("encode", ["a", "b"], batch_size=1, **{name: CALLED[kind](turn)})) is None
    )


@pytest.mark.parametrize("name", ["on_done", "on_always"])
@pytest.mark.parametrize("kind", FAILING)
def test_what_a_callback_raises(turns, kind, name):
    make, cause = FAILING[kind]
    for turn in turns:
        with pytest.raises(CallbackError) as caught:
            turn.call("encode", ["a", "b"], batch_size=1, **{name: make()})
        assert type(caught.value.__cause__) is cause, turn
        assert str(caught.value)


@pytest.mark.parametrize(
    "make", [lambda: waiting, lambda: functools.partial(waiting), AsyncMock], ids=["function", "partial", "mock"]
)
def test_coroutine_functions_are_callbacks_of_async_calls(turns, make):
    for turn in turns:
        if turn.mode == "async":
            assert turn.call("encode", ["a"], on_done=make()) is None
        else:
            with pytest.raises(CallbackError, match="needs the async twin"):
                turn.call("encode", ["a"], on_done=make())


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, GeneratorExit, OwnBaseError, asyncio.CancelledError])
def test_what_ends_more_than_a_call_passes(turns, raised):
    for turn in turns:
        with pytest.raises(raised):
            turn.call("encode", ["a", "b"], batch_size=1, on_done=raising(raised()))
        assert turn.encode(["a"]) == ["a"]
