"""One call from its first item to its result: what it logs, where its result is made, and how it ends early."""

import asyncio
import gc
import logging
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from casdk import Client, DeadlineError, Document, Retry, ServerError, TransportError
from casdk._calls.options import DEFAULTS
from casdk._calls.verbs import encode
from casdk._engine.logging import flush
from casdk._engine.waiting import run
from casdk.testing import EntityTooLarge, FaultServer, Gate, Hold, Refuse, embed

WIDTH = 8


@pytest.fixture
def serve():
    """A function from a script to a server that plays it, and a client of it."""
    started = []

    def serve(script=None, **options):
        server = FaultServer(script, width=WIDTH).start()
        started.append((server, Client(server.address("grpc"), **options)))
        return started[-1]

    yield serve
    for server, client in started:
        client.close()
        server.stop()


def said(caplog, name="casdk.calls"):
    assert flush(20)
    return [record.getMessage() for record in caplog.records if record.name == name]


def test_a_call_logs_one_line_at_its_end(serve, caplog):
    server, client = serve()
    with caplog.at_level(logging.DEBUG, "casdk.calls"):
        client.encode(["a", "b", "c"], batch_size=2)
    (line,) = said(caplog)
    assert line.startswith(f"encode at {server.address('grpc')}: 3 of 3 items done in ")


def test_a_call_has_so_few_attributes_that_it_needs_no_dict():
    """CPython keeps up to 30 of them in the object itself; with more, each call would pay for a dict."""
    with Client("grpc://127.0.0.1:1") as client:
        call = encode(client._session, ["a"], DEFAULTS)
    later = {"caller"}  # set when the call runs
    assert len(vars(call).keys() | later) <= 30


def test_each_failure_is_logged_with_what_becomes_of_it(serve, caplog):
    _, client = serve([Refuse.overloaded()], retry=Retry(attempts=2, backoff=0.001, max_backoff=0.001))
    with caplog.at_level(logging.WARNING, "casdk.calls"):
        client.encode(["a"])
    (line,) = said(caplog)
    assert "of 1 items from item 0 failed on attempt 1, and is sent again in" in line
    caplog.clear()
    _, client = serve(Refuse.internal())
    with caplog.at_level(logging.DEBUG, "casdk.calls"), pytest.raises(ServerError):
        client.encode(["a"])
    assert "failed on attempt 1 for good: " in said(caplog)[0]


def test_a_request_that_was_too_large_is_halved_and_its_size_is_not_tried_again(serve, caplog):
    texts = ["x" * 300 + str(number) for number in range(16)]
    server, client = serve(EntityTooLarge(2500, by="server"))
    with caplog.at_level(logging.INFO, "casdk.calls"):
        rows = client.encode(texts)
    np.testing.assert_array_equal(rows, np.stack([embed(text, WIDTH) for text in texts]))
    assert "and is halved, as it is too large: " in said(caplog)[0]
    requests = server.counters.requests
    client.encode(texts)
    sizes = [request.nbytes for request in list(server.requests)[requests:]]
    assert all(size <= 2500 for size in sizes)


def test_a_deadline_says_what_was_done(serve):
    gate = Gate()
    server, client = serve(lambda request: Hold(gate) if "late" in request.texts else None)
    client.encode(["b"])  # on a busy machine, connecting may take all of the time
    with pytest.raises(DeadlineError, match="the call's time ran out") as caught:
        client.encode(["a", "late"], batch_size=1, timeout=2)
    error = caught.value
    assert (error.done, error.total) == (1, 2)
    assert error.server == server.address("grpc")
    np.testing.assert_array_equal(error.partial[0], embed("a", WIDTH))
    assert np.isnan(error.partial[1]).all()
    gate.open()
    np.testing.assert_array_equal(client.encode(["b"]), embed("b", WIDTH)[None])
    server.wait_for(lambda counters: counters.running == 0)


class Noted(Document):
    """A Document of the caller's own, which notes where it gets its embedding."""

    threads = []

    def __setattr__(self, name, value):
        if name == "embedding":
            Noted.threads.append(threading.current_thread().name)
        super().__setattr__(name, value)


@pytest.mark.parametrize(("count", "on_worker"), [(3, False), (1001, True)])
def test_a_large_result_is_made_where_it_blocks_no_loop(serve, count, on_worker):
    _, client = serve()
    documents = [Noted(text="a") for _ in range(count)]
    Noted.threads.clear()
    asyncio.run(client.aencode(documents))
    assert len(Noted.threads) == count
    assert {name.startswith("casdk-read") for name in Noted.threads} == {on_worker}
    assert (threading.current_thread().name in Noted.threads) is not on_worker


def test_a_call_that_is_over_holds_nothing(serve):
    class Held(str):
        pass

    _, client = serve([None, Refuse.internal()])
    kept = []

    def ask():
        item = Held("a")
        kept.append(weakref.ref(item))
        return client.encode([item])

    assert ask().shape == (1, WIDTH)
    assert kept[0]() is None
    with pytest.raises(ServerError):
        ask()
    gc.collect()
    assert kept[1]() is None


def test_a_call_of_a_client_that_is_closed_meanwhile_ends(serve):
    gate = Gate()
    _, client = serve(Hold(gate))
    caught = []

    def ask():
        try:
            client.encode(["a"])
        except Exception as error:
            caught.append((type(error).__name__, str(error)))

    thread = threading.Thread(target=ask)
    thread.start()
    gate.wait_for(1)
    client.close()
    thread.join(20)
    assert caught == [("ClosedError", "the client was closed during the call")]


def test_responses_are_returned_instead_of_rows_in_the_order_of_the_items(serve):
    _, client = serve()
    responses = client.encode(["a", "b", "c"], batch_size=1, return_responses=True)
    assert [response.docs[0].text for response in responses] == ["a", "b", "c"]


def test_a_lost_batch_is_reported_and_all_other_items_are_done(serve):
    lost, done = [], []
    _, client = serve(lambda request: Refuse.internal() if "b" in request.texts else None, retry=Retry(attempts=1))
    client.encode(["a", "b", "c"], batch_size=1, on_error=lost.append, on_done=done.append)
    assert len(lost) == 1
    assert sorted(response.docs[0].text for response in done) == ["a", "c"]


def test_an_executor_that_is_away_is_an_outage(serve):
    _, client = serve(Refuse.unavailable(), retry=Retry(attempts=1))
    with pytest.raises(TransportError) as caught:
        client.encode(["a"])
    assert (caught.value.attempts, caught.value.done, caught.value.total) == (1, 0, 1)


@pytest.mark.parametrize(("options", "tasks"), [({}, 0), ({"timeout": 60}, 1), ({"batch_size": 1}, 1)])
def test_a_call_of_one_request_has_no_task_while_it_waits_for_its_reply(serve, options, tasks):
    gate = Gate()
    server, client = serve(lambda request: None if request.texts == ("first",) else Hold(gate))
    client.encode(["first"])

    async def count(caller):
        return len(asyncio.all_tasks())

    before = run(count)
    with ThreadPoolExecutor(1) as others:
        call = others.submit(client.encode, ["a", "b"], **options)
        gate.wait_for(2 if "batch_size" in options else 1)
        assert run(count) - before == tasks
        gate.open()
        np.testing.assert_array_equal(call.result(20), np.stack([embed("a", WIDTH), embed("b", WIDTH)]))
    assert server.counters.documents == 3
