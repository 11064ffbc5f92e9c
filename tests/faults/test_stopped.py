"""The error of a stopped call has everything that was finished, whatever stopped it and whatever the verb."""

import asyncio
import gc
import itertools
import pickle
import random
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from casdk import (
    AuthError,
    CallbackError,
    CasdkError,
    ClosedError,
    DeadlineError,
    Document,
    DocumentArray,
    FileMissingError,
    NotDoneError,
    ReplyError,
    Retry,
    ServerError,
    TransportError,
)
from casdk.testing import Cut, Gate, Hold, Never, Refuse, Width
from stops import BATCH, DONE, ONCE, TEXTS, failing

two_schemes = pytest.mark.parametrize("pair", [("grpc", "sync"), ("http", "async")], indirect=True, ids="-".join)
"""For what is decided where no scheme is known."""
STOPS = {
    "refused": (Refuse.unauthenticated(), AuthError),
    "cut": (Cut("after"), TransportError),
    "in the middle": (Cut("middle", "reset"), TransportError),
    "another width": (Width(7), ReplyError),
}


@pytest.fixture
def scheme(pair):
    return pair[0]


@pytest.fixture
def mode(pair):
    return pair[1]


def check(error, server, scheme, total=20, attempts=1):
    assert (error.done, error.total, error.attempts) == (DONE, total, attempts)
    assert error.server == server.address(scheme)
    of = "" if total is None else f" of {total}"
    assert f"({DONE}{of} items were done)" in str(error)


def check_rows(partial, expected, read):
    assert partial.shape == (read, expected.shape[1])
    np.testing.assert_array_equal(partial[:DONE], expected[:DONE].astype(partial.dtype))
    assert np.isnan(partial[DONE:]).all()


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop.replace(" ", "-"))
def test_what_stops_a_call_carries_its_rows(make_server, connect_to, scheme, call, rows, stop):
    fault, kind = STOPS[stop]
    server = make_server(failing(fault))
    client = connect_to(server, scheme, retry=ONCE, timeout=30)
    with pytest.raises(kind) as caught:
        call(client, "encode", TEXTS, batch_size=BATCH, prefetch=1)
    check(caught.value, server, scheme)
    check_rows(caught.value.partial, rows(TEXTS), DONE + BATCH)


def test_attempts_are_those_of_the_request_that_failed(make_server, connect_to, scheme, call):
    server = make_server(failing(Cut("after")))
    client = connect_to(server, scheme, retry=Retry(attempts=3, backoff=0.001, patience=0), timeout=30)
    with pytest.raises(TransportError) as caught:
        call(client, "encode", TEXTS, batch_size=BATCH, prefetch=1)
    check(caught.value, server, scheme, attempts=3)


def test_a_deadline(make_server, connect_to, scheme, call, rows):
    server = make_server()
    client = connect_to(server, scheme)
    call(client, "encode", ["a"])  # on a busy machine, connecting may take all of the time
    server.play(failing(Never()))
    with pytest.raises(DeadlineError) as caught:
        call(client, "encode", TEXTS, batch_size=BATCH, prefetch=1, timeout=2)
    check(caught.value, server, scheme)
    check_rows(caught.value.partial, rows(TEXTS), DONE + BATCH)


def test_a_client_that_is_closed(make_server, connect_to, scheme, mode, rows):
    gate = Gate()
    server = make_server(failing(Hold(gate)))
    client = connect_to(server, scheme, timeout=30)

    def encode():
        options = {"batch_size": BATCH, "prefetch": 1}
        return client.encode(TEXTS, **options) if mode == "sync" else asyncio.run(client.aencode(TEXTS, **options))

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(encode)
        gate.wait_for(1)
        client.close()
        with pytest.raises(ClosedError, match="during the call") as caught:
            running.result(10)
    check(caught.value, server, scheme)
    check_rows(caught.value.partial, rows(TEXTS), DONE + BATCH)
    gate.open()


def test_a_bad_item(make_server, connect_to, scheme, call, rows):
    server = make_server()
    client = connect_to(server, scheme, timeout=30)
    content = [*TEXTS[:DONE], "missing.png", *TEXTS]
    with pytest.raises(FileMissingError) as caught:
        call(client, "encode", content, batch_size=BATCH, prefetch=1)
    check(caught.value, server, scheme, total=len(content), attempts=caught.value.attempts)
    check_rows(caught.value.partial, rows(content), DONE + BATCH)


@two_schemes
def test_a_callback_that_raises(make_server, connect_to, scheme, call):
    """What it was called with is its own; the Responses so far are handed over."""
    server = make_server()
    client = connect_to(server, scheme, timeout=30)
    seen = []

    def note(response):
        seen.append(response)
        if len(seen) == 3:
            raise ValueError("enough")

    with pytest.raises(CallbackError) as caught:
        call(client, "encode", TEXTS, batch_size=BATCH, prefetch=1, on_done=note, return_responses=True)
    error = caught.value
    assert (error.done, error.total, error.partial) == (DONE, len(TEXTS), None)
    assert error.responses == seen
    assert error.__cause__.__traceback__.tb_frame.f_code is note.__code__


@two_schemes
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_callers_own_matrix(make_server, connect_to, scheme, call, rows, dtype):
    server = make_server(failing(Cut("after")))
    client = connect_to(server, scheme, retry=ONCE, timeout=30)
    out = np.full((len(TEXTS) + 3, 32), 5, dtype)
    with pytest.raises(TransportError) as caught:
        call(client, "encode", TEXTS, batch_size=BATCH, prefetch=1, out=out)
    partial = caught.value.partial
    check_rows(partial, rows(TEXTS), DONE + BATCH)
    assert partial.base is out
    assert partial.dtype == dtype
    assert (out[DONE + BATCH :] == 5).all()


@two_schemes
def test_a_matrix_that_is_too_small(make_server, connect_to, scheme, call, rows):
    client = connect_to(make_server(), scheme, timeout=30)
    out = np.empty((DONE, 32), np.float32)
    with pytest.raises(ValueError, match=f"out has {DONE} rows") as caught:
        call(client, "encode", iter(TEXTS), batch_size=BATCH, prefetch=1, out=out)
    assert caught.value.done == DONE
    np.testing.assert_array_equal(caught.value.partial, rows(TEXTS[:DONE]))
    content = [*TEXTS[:BATCH], *TEXTS[:BATCH], *TEXTS[: 2 * BATCH]]
    with pytest.raises(ValueError, match=f"out has {DONE} rows") as caught:
        call(client, "encode", iter(content), batch_size=BATCH, prefetch=1, out=out, dedupe=True)
    assert caught.value.partial.base is out
    np.testing.assert_array_equal(caught.value.partial, rows(content[:DONE]))


@two_schemes
@pytest.mark.parametrize("options", [{"dtype": "float16"}, {"result": "arrow"}, {"errors": "skip"}], ids=str)
def test_options(make_server, connect_to, scheme, call, rows, options):
    server = make_server(failing(Cut("after")))
    client = connect_to(server, scheme, retry=ONCE, timeout=30)
    with pytest.raises(TransportError) as caught:
        call(client, "encode", TEXTS, batch_size=BATCH, prefetch=1, **options)
    assert caught.value.partial.dtype == options.get("dtype", "float32")
    check_rows(caught.value.partial, rows(TEXTS), DONE + BATCH)


@two_schemes
def test_dedupe(make_server, connect_to, scheme, call, rows):
    """What repeats a row has it, too; what repeats an item that was not done has none."""
    content = ["a", "b", "a", "c", "a", "b", "d", "d", "a", "e", "d", "e"]
    server = make_server(failing(Cut("after"), good=2))
    client = connect_to(server, scheme, retry=ONCE, timeout=30)
    with pytest.raises(TransportError) as caught:
        call(client, "encode", content, batch_size=4, prefetch=1, dedupe=True)
    error = caught.value
    good = [at for at, text in enumerate(content) if text != "e"]
    assert (error.done, error.total) == (len(good), len(content))
    np.testing.assert_array_equal(error.partial[good], rows([content[at] for at in good]))
    assert np.isnan(error.partial[[9, 11]]).all()


@two_schemes
def test_dedupe_and_errors_returned(make_server, connect_to, scheme, call, rows):
    content = ["a", "missing.png", "a", "c", "c", "missing.png", "d", "a", "d", "e", "a", "e"]
    server = make_server(failing(Cut("after"), good=2))
    client = connect_to(server, scheme, retry=ONCE, timeout=30)
    found = call(client, "encode", content, batch_size=4, prefetch=1, dedupe=True, errors="return")
    assert [(error.index, error.item) for error in found.errors] == [
        (1, "missing.png"),
        (5, "missing.png"),
        (9, "e"),
        (11, "e"),
    ]
    assert [error.cause is found.stopped for error in found.errors] == [False, False, True, True]
    assert found.stopped.done == 8
    np.testing.assert_array_equal(found.embeddings[[0, 2, 7, 10]], rows(["a"] * 4))


def test_errors_returned(make_server, connect_to, scheme, call, rows):
    server = make_server(failing(Cut("after")))
    client = connect_to(server, scheme, retry=ONCE, timeout=30)
    found = call(client, "encode", ["missing.png", *TEXTS[1:]], batch_size=BATCH, prefetch=1, errors="return")
    assert isinstance(found.stopped, TransportError)
    assert not found.ok
    assert (found.stopped.done, found.stopped.total) == (DONE - 1, len(TEXTS))
    assert found.stopped.partial is found.embeddings
    assert [error.index for error in found.errors] == [0, *range(DONE, DONE + BATCH)]
    assert [error.item for error in found.errors] == ["missing.png", *TEXTS[DONE : DONE + BATCH]]
    assert isinstance(found.errors[0], FileMissingError)
    assert all(type(error) is NotDoneError and error.cause is found.stopped for error in found.errors[1:])
    np.testing.assert_array_equal(found.embeddings[1:DONE], rows(TEXTS[1:DONE]))
    assert np.isnan(found.embeddings[[0, *range(DONE, DONE + BATCH)]]).all()
    assert len(found.embeddings) == DONE + BATCH
    again = pickle.loads(pickle.dumps(found))
    assert str(again.stopped) == str(found.stopped)
    assert again.stopped.done == DONE - 1


def test_errors_returned_where_nothing_was_done(make_server, connect_to, scheme, call):
    client = connect_to(make_server(Cut("after")), scheme, retry=ONCE, timeout=30)
    with pytest.raises(TransportError) as caught:
        call(client, "encode", TEXTS, batch_size=BATCH, errors="return")
    assert (caught.value.done, caught.value.total, caught.value.partial) == (0, len(TEXTS), None)


@two_schemes
def test_one_goes_on_from_what_is_there(make_server, connect_to, scheme, call, rows):
    """Also from a generator, which cannot be read a second time: every item it gave is done, or in the errors."""
    # Drawn at random: every fourth request would be the first one of each call, if each call had four of them.
    drawn = random.Random(0)
    server = make_server(lambda request: Cut("after") if drawn.random() < 0.4 else None)
    client = connect_to(server, scheme, retry=ONCE)
    texts = [f"text {number}" for number in range(200)]
    source, found, stops = iter(texts), {}, 0
    while True:
        read = []
        content = (read.append(text) or text for text in source)
        try:
            result = call(client, "encode", content, batch_size=3, errors="return")
        except TransportError:  # nothing was done
            todo = read
        else:
            assert len(result.embeddings) == len(read)
            todo = [error.item for error in result.errors]
            good = set(range(len(read))) - {error.index for error in result.errors}
            found |= {read[at]: result.embeddings[at] for at in good}
            if result.stopped is None:
                break
        stops += 1
        source = itertools.chain(todo, source)
    assert stops > 2
    np.testing.assert_array_equal(np.stack([found[text] for text in texts]), rows(texts))


def test_a_profile(make_server, connect_to, scheme, call):
    server = make_server(Cut("after"))
    with pytest.raises(TransportError) as caught:
        call(connect_to(server, scheme, retry=ONCE, timeout=30), "profile", "a")
    assert (caught.value.done, caught.value.total, caught.value.attempts) == (0, 1, 1)
    assert caught.value.server == server.address(scheme)


def make_documents():
    return [Document(id=f"{number:032x}", text=text) for number, text in enumerate(TEXTS)]


@two_schemes
@pytest.mark.parametrize("kind", [list, DocumentArray, iter], ids=["list", "array", "generator"])
@pytest.mark.parametrize("verb", ["encode", "index", "search", "rank"])
def test_documents_keep_what_they_have(make_server, connect_to, scheme, call, rows, verb, kind):
    documents = make_documents()
    if verb == "rank":
        for document in documents:
            document.matches = [Document(text="a"), Document(text="b")]
    server = make_server(failing(Cut("after")))
    client = connect_to(server, scheme, retry=ONCE, timeout=30)
    with pytest.raises(TransportError) as caught:
        call(client, verb, kind(documents), batch_size=BATCH, prefetch=1)
    error = caught.value
    assert (error.done, error.total) == (DONE, None if kind is iter else len(TEXTS))
    assert error.partial is None
    assert len(error.documents) == DONE + BATCH
    assert all(ours is theirs for ours, theirs in zip(error.documents, documents, strict=False))
    if verb == "rank":
        assert [bool(document.matches[0].scores) for document in documents] == [True] * DONE + [False] * 12
    else:
        np.testing.assert_array_equal([document.embedding for document in documents[:DONE]], rows(TEXTS[:DONE]))
        assert all(document.embedding is None for document in documents[DONE:])
    again = pickle.loads(pickle.dumps(error))
    assert [document.id for document in again.documents] == [document.id for document in documents[: DONE + BATCH]]


@two_schemes
@pytest.mark.parametrize("verb", ["index", "search"])
def test_what_the_documents_were_made_of(make_server, connect_to, scheme, call, rows, verb):
    """Of texts, the Documents are ours: nobody else has their ids and matches."""
    server = make_server(failing(Cut("after")))
    client = connect_to(server, scheme, retry=ONCE, timeout=30)
    with pytest.raises(TransportError) as caught:
        call(client, verb, TEXTS, batch_size=BATCH, prefetch=1)
    error = caught.value
    check_rows(error.partial, rows(TEXTS), DONE + BATCH)
    assert [document.text for document in error.documents] == TEXTS[: DONE + BATCH]
    np.testing.assert_array_equal(error.documents[:DONE].embeddings, rows(TEXTS[:DONE]))


@two_schemes
def test_errors_returned_for_documents(make_server, connect_to, scheme, call, rows):
    documents = make_documents()
    client = connect_to(make_server(failing(Cut("after"))), scheme, retry=ONCE, timeout=30)
    found = call(client, "encode", documents, batch_size=BATCH, prefetch=1, errors="return")
    assert [error.item is documents[error.index] for error in found.errors] == [True] * BATCH
    np.testing.assert_array_equal([document.embedding for document in documents[:DONE]], rows(TEXTS[:DONE]))
    assert found.stopped.partial is None


# what passes as it is


class TheirError(Exception):
    pass


@two_schemes
@pytest.mark.parametrize("raised", [TheirError, KeyboardInterrupt, "an error of ours"], ids=str)
def test_what_the_iterable_raises_passes_as_it_is(make_server, connect_to, scheme, call, raised):
    """Also an error of casdk's, of another call inside it: that call's rows are not this one's."""
    client = connect_to(make_server(), scheme, timeout=30)
    error = raised() if isinstance(raised, type) else TransportError("of another call")
    error.done = 77
    before = dict(vars(error))

    def content():
        yield from TEXTS
        raise error

    with pytest.raises(type(error)) as caught:
        call(client, "encode", content(), batch_size=BATCH, prefetch=1)
    assert caught.value is error
    assert vars(error) == before


# what an error keeps


class Item(str):
    """A text one can see the end of."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("verb", ["encode", "stream", "index"])
@pytest.mark.parametrize("fault", [Cut("after"), Width(7)], ids=["cut", "reply"])
def test_an_error_keeps_the_partial_matrix_and_nothing_else(make_server, connect_to, scheme, mode, verb, fault):
    """No frame of the call, no item of the caller's, and no cycle that would wait for a garbage collection."""
    server = make_server(failing(fault))
    client = connect_to(server, scheme, retry=ONCE)
    alive, changed = set(), threading.Condition()

    def gone(name):
        with changed:
            alive.discard(name)
            changed.notify_all()

    def nothing_is_left():
        with changed:  # a worker thread, or the engine's, may hold something a moment longer
            return changed.wait_for(lambda: not alive, 10)

    def make(text):
        item = Item(text)
        alive.add(text)
        weakref.finalize(item, gone, text)
        return item

    def content():
        for text in TEXTS:
            yield make(text)

    def fail():
        try:
            return list(getattr(client, verb)(content(), batch_size=BATCH, prefetch=1))
        except CasdkError as error:
            return error

    async def fail_asynchronously():
        try:
            if verb == "stream":
                return [piece async for piece in client.astream(content(), batch_size=BATCH, prefetch=1)]
            return await getattr(client, f"a{verb}")(content(), batch_size=BATCH, prefetch=1)
        except CasdkError as error:
            return error

    client.encode(["a text"])
    server.play(failing(fault))
    gc.collect()
    gc.disable()
    try:
        error = fail() if mode == "sync" else asyncio.run(fail_asynchronously())
        error.documents = None  # of an index, they are what it made of the items
        assert nothing_is_left()
        ends = {"error": error} if error.partial is None else {"error": error, "rows": error.partial}
        alive |= ends.keys()
        for name, end in ends.items():
            weakref.finalize(end, gone, name)
        del error, ends, end
        assert nothing_is_left()
    finally:
        gc.enable()


@two_schemes
def test_an_item_error_keeps_no_call(make_server, connect_to, scheme, call):
    """Of a call that went on to its end: the server's error is the cause, and its frames would keep the call."""
    client = connect_to(make_server(poison={TEXTS[5]}), scheme, timeout=30)
    found = call(client, "encode", iter(map(Item, TEXTS)), batch_size=BATCH, errors="return")
    [error] = found.errors
    assert isinstance(error.cause, ServerError)
    assert (error.__traceback__, error.cause.__traceback__, error.cause.__context__) == (None, None, None)
