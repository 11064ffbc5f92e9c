"""Where a call's items are read: what may run the caller's code on a worker, in order, while other calls go on."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from casdk import Client
from casdk.testing import FaultServer, embed

WIDTH = 8


@pytest.fixture
def served():
    """A fault server and a client of it."""
    with FaultServer(width=WIDTH) as server, Client(server.address("grpc")) as client:
        yield server, client


@pytest.fixture
def picture(images):
    """A function that makes a path of the caller's own type, which says where it is read, and waits there."""

    class Picture:
        def __init__(self, threads, read=None, go_on=None):
            self.threads, self.read, self.go_on = threads, read, go_on

        def __fspath__(self):
            self.threads.append(threading.current_thread().name)
            if self.read is not None:
                self.read.set()
                assert self.go_on.wait(20)
            return str(images["png"])

    return Picture


def test_the_callers_code_runs_on_a_worker_and_nowhere_else(served, call, picture, images):
    _, client = served
    threads = []
    found = call(client, "encode", ["a", picture(threads), "b"])
    expected = [embed(content, WIDTH) for content in ("a", images["png"].read_bytes(), "b")]
    np.testing.assert_array_equal(found, np.stack(expected))
    assert threads
    assert all(name.startswith("casdk-read") for name in threads)


def test_later_items_of_the_call_wait_and_other_calls_go_on(served, picture, images):
    server, client = served
    threads, read, go_on = [], threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as others:
        slow = others.submit(client.encode, ["a", picture(threads, read, go_on), "b", "c"], batch_size=1)
        assert read.wait(20)
        np.testing.assert_array_equal(client.encode(["other"]), embed("other", WIDTH)[None])
        assert {request.texts for request in server.requests} <= {("a",), ("other",)}
        go_on.set()
        rows = slow.result(20)
    expected = [embed(content, WIDTH) for content in ("a", images["png"].read_bytes(), "b", "c")]
    np.testing.assert_array_equal(rows, np.stack(expected))


@pytest.mark.parametrize("dedupe", [False, True])
def test_an_item_that_cannot_be_read_is_named_by_its_index(served, dedupe):
    class Broken:
        def __fspath__(self):
            raise OSError("no such thing")

    _, client = served
    found = client.encode(["a", "b", Broken(), "a"], batch_size=2, errors="return", dedupe=dedupe)
    assert [error.index for error in found.errors] == [2]
    assert "no such thing" in str(found.errors[0])
    np.testing.assert_array_equal(found.embeddings[[0, 1, 3]], np.stack([embed(text, WIDTH) for text in "aba"]))


def test_what_was_read_and_not_sent_when_a_call_ends_is_counted(served):
    """An iterator cannot be read a second time, so its items must not be lost."""
    server, client = served
    server.executor.poison = "poison".__eq__
    texts = iter(["poison", *(f"text {number}" for number in range(1000))])
    found = client.encode(texts, batch_size=1, prefetch=1, errors="return")
    assert [error.index for error in found.errors] == [0]
    assert len(found.embeddings) == 1001


def test_equal_items_are_sent_once_and_each_gets_its_row(served):
    server, client = served
    texts = ["a", "b", "a", "a", "c", "b"]
    rows = client.encode(texts, batch_size=2, dedupe=True)
    np.testing.assert_array_equal(rows, np.stack([embed(text, WIDTH) for text in texts]))
    assert sorted(text for request in server.requests for text in request.texts) == ["a", "b", "c"]


def test_items_that_cannot_be_compared_are_refused_alone(served):
    class Odd(str):
        def __eq__(self, other):
            raise ValueError("not compared")

        __hash__ = str.__hash__

    _, client = served
    found = client.encode([Odd("a"), Odd("a"), "b"], dedupe=True, errors="return")
    assert [error.index for error in found.errors] == [1]
    assert "comparing it with the others, for dedupe=True, raised ValueError: not compared" in str(found.errors[0])
