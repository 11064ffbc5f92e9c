"""The code of the caller's items runs on workers, never on the engine, and delays only its own call."""

import asyncio
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import Any

import numpy as np
import pytest
from casdk import DeadlineError, Document, DocumentArray, Image, ItemError, Text
from casdk.testing import Never
from PIL import Image as Pillow
from places import SPAN, Watch

PIXELS = np.zeros((2, 2, 3), np.uint8)


def items(note) -> dict[str, Any]:
    """Items of every kind that run code of the caller's, by what is run."""

    class Array:
        def __array__(self, dtype=None, copy=None):
            note()
            return PIXELS

    class Interface:
        @property
        def __array_interface__(self):
            note()
            return PIXELS.__array_interface__

    class Tensor(Array):
        def detach(self):
            note()
            return self

        def cpu(self):
            return self

    class Path:
        def __fspath__(self):
            note()
            return "/no/such/file.png"

    class Picture(Pillow.Image):
        def save(self, *arguments, **options):
            note()
            return super().save(*arguments, **options)

    class Words(str):
        __slots__ = ()

        def __str__(self):
            note()
            return "other words"

        def __hash__(self):
            note()
            return hash("words")

        def __eq__(self, other):
            note()
            return False

        def __getattribute__(self, name):
            note()
            return super().__getattribute__(name)

    class Pretender:
        @property
        def __class__(self):
            note()
            return Document

    class Bytes(bytes):
        def __bytes__(self):
            note()
            return b"other bytes"

        def __len__(self):
            note()
            return super().__len__()

    class Sized(Document):
        @property
        def text(self):
            note()
            return "a sentence"

    class Found(Document):
        @property
        def uri(self):
            note()
            return ""

    class Tags(Mapping):
        def __getitem__(self, key):
            note()
            return 1

        def __iter__(self):
            note()
            return iter("ab")

        def __len__(self):
            note()
            return 2

    class Nested(DocumentArray):
        def __iter__(self):
            note()
            return super().__iter__()

        def __len__(self):
            note()
            return super().__len__()

    class Number(int):
        def __float__(self):
            note()
            return 1.0

        def __index__(self):
            note()
            return 1

    picture = Picture()
    picture.__dict__.update(Pillow.new("RGB", (2, 2)).__dict__)
    return {
        "__array__": Array(),
        "__array_interface__": Interface(),
        "detach": Tensor(),
        "__fspath__": Path(),
        "PIL": picture,
        "a class": Pretender(),
        "an array in an Image": Image(Array()),
        "a path in an Image": Image(Path()),
        "a text of a class": Words("words"),
        "a text in a Text": Text(Words("words")),
        "bytes of a class": Bytes(b"bytes"),
        "a Document's text": Sized(),
        "a Document's uri": Found(text="a"),
        "a Document's tensor": Document(tensor=Array()),
        "a Document's tags": Document(text="a", tags=Tags()),
        "a Document's matches": Document(text="a", matches=Nested(DocumentArray([Document(text="b")]))),
        "a Document's weight": Document(text="a", weight=Number(1)),
    }


KINDS = list(items(lambda: None))
SILENT = {"a text of a class", "a text in a Text", "bytes of a class", "a Document's matches"}
"""Kinds whose own code need not be run: their builtin type tells what they are, or it does not travel."""


@pytest.fixture(params=["grpc", "http"])
def client(request, connect):
    """Both forms of messages: what packs them is what looks at Documents."""
    return connect(request.param)


@pytest.mark.parametrize("verb", ["encode", "index", "search", "stream"])
@pytest.mark.parametrize("kind", KINDS)
def test_items_are_read_on_a_worker(client, call, mode, verb, kind):
    """And in a copy of the caller's context."""
    note = Watch()
    SPAN.set("mine")
    item = items(note)[kind]
    with suppress(ItemError):  # there is no such file
        list(call(client, verb, ["a", item], batch_size=1))
    ran = {name.partition("_")[0] for name, _, _ in note.places}
    # A sync caller looks at what it gave when the call begins and ends, in its own thread.
    assert ran <= {"casdk-read", "casdk-pack", *({"MainThread"} if mode == "sync" else set())}
    assert ran or kind in SILENT - ({"a Document's matches"} if verb == "index" else set())
    assert {span for _, _, span in note.places} <= {"mine"}


@pytest.mark.parametrize("kind", KINDS)
def test_items_that_take_their_time_hold_up_no_other_call(client, call, mode, kind):
    """Nor the deadline of their own."""
    release, entered = threading.Event(), threading.Event()

    def block():
        if threading.current_thread().name.startswith("casdk"):
            entered.set()
            release.wait(50)

    item = items(Watch(block))[kind]
    failed = []

    def slow():
        for seconds in (0.2, 2.0, 20.0):  # on a busy machine, the time may be over before the item is looked at
            try:
                call(client, "encode", ["a", item], batch_size=1, timeout=seconds, errors="skip")
            except BaseException as error:
                failed.append(error)
            if entered.is_set() or kind in SILENT:
                break

    client.encode(["connected"])
    thread = threading.Thread(target=slow)
    thread.start()
    try:
        if kind not in SILENT:
            assert entered.wait(20)
        assert client.encode(["another"], timeout=15).shape == (1, 512)
        assert client.encode([PIXELS], timeout=15).shape == (1, 512)
        thread.join(20)
        assert not thread.is_alive()
        if kind not in SILENT:
            assert {type(error) for error in failed} == {DeadlineError}
    finally:
        release.set()
        thread.join(20)


HOSTILE = {
    "__array__": "__array__",
    "__array_interface__": "__array_interface__",
    "detach": "detach",
    "__fspath__": "__fspath__",
    "PIL": "PIL",
    "a Document's text": "a Document's text",
    "a Document's uri": "a Document's uri",
    "a Document's tensor": "a Document's tensor",
    "a Document's tags": "a Document's tags",
    "a Document's weight": "a Document's weight",
    "a class": "a class",
}


class OwnError(Exception):
    """What the caller's code raises; it cannot even be shown."""

    def __str__(self):
        raise RuntimeError("not shown")

    __repr__ = __str__


@pytest.mark.parametrize("raised", [OwnError, ValueError, TypeError, StopIteration, MemoryError, RecursionError])
def test_what_an_item_raises_is_its_error(scheme, connect, call, raised):
    def fail():
        if threading.current_thread().name.startswith("casdk"):
            raise raised

    client = connect(scheme)
    made = items(Watch(fail))
    content = ["a", *(made[kind] for kind in HOSTILE), "b"]
    found = call(client, "encode", content, errors="return")
    assert [error.index for error in found.errors] == list(range(1, len(content) - 1))
    for error in found.errors:
        assert error.item is content[error.index]
        assert type(error.cause) is raised
        assert str(error)
    assert np.isfinite(found.embeddings[[0, -1]]).all()
    with pytest.raises(ItemError) as caught:
        call(client, "encode", content)
    assert (caught.value.index, type(caught.value.cause)) == (1, raised)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
@pytest.mark.parametrize("kind", ["__array__", "a Document's text"])
def test_what_ends_more_than_an_item_reaches_the_caller(client, call, kind, raised):
    def end():
        if threading.current_thread().name.startswith("casdk"):
            raise raised

    with pytest.raises(raised):
        call(client, "encode", ["a", items(Watch(end))[kind]])
    assert client.encode(["still here"]).shape == (1, 512)


class Compared:
    """Equal to no other item, and says where it was asked."""

    def __init__(self, note, on="both"):
        self.note = note
        self.on = on

    def __hash__(self):
        if self.on != "eq":
            self.note()
        return hash("a")

    def __eq__(self, other):
        if self.on != "hash":
            self.note()
        return False

    def __fspath__(self):
        return "/no/such/file.png"


def test_items_are_compared_on_a_worker(client, call):
    note = Watch()
    content = ["a", "b", Compared(note), "a", "b", "c", "a"]
    found = call(client, "encode", content, batch_size=2, dedupe=True, errors="return")
    assert [error.index for error in found.errors] == [2]
    assert {name.partition("_")[0] for name, _, _ in note.places} == {"casdk-read"}
    assert (found.embeddings[[0, 0]] == found.embeddings[[3, 6]]).all()


@pytest.mark.parametrize("on", ["hash", "eq"])
def test_an_item_that_cannot_be_compared_is_an_error_of_its_own(client, call, on):
    def fail():
        raise OwnError

    content = ["a", "b", Compared(fail, on), "a", "c"]
    found = call(client, "encode", content, batch_size=2, dedupe=True, errors="return")
    [error] = found.errors
    assert (error.index, type(error.cause), error.item) == (2, OwnError, content[2])
    assert np.isfinite(found.embeddings[[0, 1, 3, 4]]).all()


def test_an_array_over_the_limit_is_refused_before_it_is_copied(connect, call, scheme):
    from casdk import Limits
    from casdk.errors import ItemTooLargeError

    class Huge:
        """600 MB by what it says of itself; nobody may ask for them."""

        nbytes = 600_000_000

        def __array__(self, dtype=None, copy=None):
            raise AssertionError("asked for")

    client = connect(scheme, limits=Limits(max_item_bytes=1000))
    wide = np.broadcast_to(np.uint8(0), (20_000, 20_000, 3))  # 1.2 GB that take no memory
    content = [Huge(), wide, Document(tensor=wide), bytearray(1001), memoryview(bytes(1001))[::2], "a"]
    content.append(Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)))
    found = call(client, "encode", content, errors="return")
    too_large = [error.index for error in found.errors if type(error) is ItemTooLargeError]
    assert too_large == [0, 1, 2, 3, 6]
    assert [error.index for error in found.errors] == [0, 1, 2, 3, 4, 6]  # half a kilobyte of zeros is no image


def test_a_credential_is_asked_for_on_a_worker(make_server, connect_to, scheme):
    server, note, release, entered = make_server(), Watch(), threading.Event(), threading.Event()

    def credential():
        note()
        entered.set()
        release.wait(20)
        return "token"

    client, other = connect_to(server, scheme, credential=credential), connect_to(server, scheme)
    thread = threading.Thread(target=client.encode, args=(["a"],))
    thread.start()
    try:
        assert entered.wait(10)
        assert len(other.encode(["b"], timeout=5)) == 1
    finally:
        release.set()
        thread.join(20)
    assert {name.partition("_")[0] for name, _, _ in note.places} == {"casdk-read"}


def test_a_loop_is_not_held_up_by_the_documents_of_a_rank(connect):
    """Where all of them are looked at before one is sent."""
    note = Watch()

    class Noted(Document):
        @property
        def text(self):
            note()
            return "a"

    documents = [Noted(matches=[Noted()]) for _ in range(3)]
    asyncio.run(connect("grpc").arank(documents))
    assert {name.partition("_")[0] for name, _, _ in note.places} <= {"casdk-read", "casdk-pack"}


def test_enums_and_numpys_texts_are_texts(client, call, expected):
    words = Enum("Words", {"ONE": "a red apple"}, type=str)
    rows = call(client, "encode", [words.ONE, np.str_("a pear")])
    np.testing.assert_array_equal(rows, expected(["a red apple", "a pear"]))


def blocking(block, base, name, answer):
    """A class of which one method, or the property ``text``, blocks."""

    def run(*_, **__):
        block()
        return answer

    return type("Blocking", (base,), {name: property(run) if name == "text" else run})


FOREIGN = {
    "a class": lambda block: blocking(block, Document, "text", "a")(),
    "a tensor": lambda block: Document(tensor=blocking(block, object, "__array__", PIXELS)()),
    "tags": lambda block: Document(text="a", tags=blocking(block, dict, "__len__", 1)(b=1)),
    "a number": lambda block: Document(text="a", weight=blocking(block, int, "__float__", 1.0)(1)),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_documents_whose_code_blocks_hold_up_no_others(client, connect, call, images, kind):
    """Not of the same client, and without a deadline: they are packed where such code runs, and no others are."""
    release, entered = threading.Event(), threading.Semaphore(0)

    def block():
        if threading.current_thread().name.startswith("casdk"):
            entered.release()
            release.wait(20)

    other = connect("grpc")
    client.encode(["connected"])
    calls = [
        threading.Thread(target=client.encode, args=([FOREIGN[kind](block)],), kwargs={"batch_size": 1})
        for _ in range(4)
    ]
    for thread in calls:
        thread.start()
    try:
        for _ in calls:
            assert entered.acquire(timeout=10)
        plain = [Document(uri=str(images["png"])), Document(blob=images["png"].read_bytes(), tags={"a": [1, "b"]})]
        plain.append(Document(tensor=PIXELS))
        for one in (client, other):
            assert len(call(one, "encode", plain, timeout=5)) == 3
            assert len(call(one, "encode", [images["png"], PIXELS, "a"], timeout=5)) == 3
    finally:
        release.set()
        for thread in calls:
            thread.join(20)
    assert not any(thread.is_alive() for thread in calls)


@pytest.mark.parametrize("scheme", ["grpcs", "http", pytest.param("websocket", marks=pytest.mark.soak)])
def test_a_large_picture_holds_up_no_other_call(make_server, connect_to, scheme, figure):
    """While it is encoded, which no scheme knows of, calls of another thread keep their deadlines."""
    client, other = connect_to(make_server(), scheme), connect_to(make_server(Never()), scheme)
    noise = np.random.default_rng(0).integers(0, 255, (500, 500, 3), np.uint8)
    picture = Pillow.fromarray(np.tile(noise, (10, 10, 1)))
    assert picture.size == (5000, 5000)
    client.encode(["connected"])
    overruns, found = [], []
    encoding = threading.Thread(target=lambda: found.append(client.encode([picture])))
    encoding.start()
    while encoding.is_alive():
        begun = time.monotonic()
        with pytest.raises(DeadlineError):
            other.encode(["a"], timeout=0.1)
        overruns.append(time.monotonic() - begun - 0.1)
    encoding.join()
    assert len(found[0]) == 1
    figure("deadline beside a picture of 5000 x 5000: worst overrun, ms", round(max(overruns) * 1000, 1))
    # The first of them would have taken as long as the picture, if that held it up.
    assert len(overruns) > 3
