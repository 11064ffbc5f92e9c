"""Callbacks and responses of every verb: one body over six schemes x {sync, async}."""

import asyncio
import threading
from time import perf_counter

import numpy as np
import pytest
from casdk import TLS, CallbackError, Client, Document, RejectedError, Response, Retry
from casdk.testing import Cut, DeadExecutor, FaultServer, Garbage, Refuse


class Watch:
    """Callbacks that remember what they got, and where they ran."""

    def __init__(self, mode):
        self.mode = mode
        self.done, self.error, self.always = [], [], []
        self.places = set()

    def here(self):
        return (threading.get_ident(), asyncio.get_running_loop() if self.mode == "async" else None)

    def hook(self, name):
        kept = getattr(self, name)

        def note(response):
            self.places.add(self.here())
            kept.append(response)

        return note

    @property
    def hooks(self):
        return {f"on_{name}": self.hook(name) for name in ("done", "error", "always")}


VERBS = {
    "encode": lambda: [f"text {i}" for i in range(10)],
    "rank": lambda: [Document(text=f"q{i}", matches=[Document(text="a"), Document(text="b")]) for i in range(10)],
    "index": lambda: [Document(text=f"text {i}") for i in range(10)],
    "search": lambda: [f"text {i}" for i in range(10)],
}


@pytest.mark.parametrize("verb", VERBS)
def test_callbacks(client, mode, verb):
    watch = Watch(mode)

    def sync():
        return getattr(client, verb)(VERBS[verb](), batch_size=3, **watch.hooks), {watch.here()}

    async def twin():
        return await getattr(client, f"a{verb}")(VERBS[verb](), batch_size=3, **watch.hooks), {watch.here()}

    result, here = sync() if mode == "sync" else asyncio.run(twin())
    assert result is None
    assert watch.places == here
    assert watch.error == []
    assert len(watch.done) == len(watch.always) == 4
    assert {id(r) for r in watch.done} == {id(r) for r in watch.always}
    assert len({r.header.request_id for r in watch.done}) == 4
    assert sorted(len(r.docs) for r in watch.done) == [1, 3, 3, 3]
    for response in watch.done:
        assert type(response) is Response
        assert response.ok
        assert response.data.docs is response.docs
        assert response.routes[0].executor == "gateway"
        assert response.routes[0].seconds > 0
        if verb != "rank":
            assert response.docs.embeddings.shape == (len(response.docs), 512)
        if verb == "search":
            assert response.parameters["limit"] == 10


@pytest.mark.parametrize("one", ["on_done", "on_always"])
def test_one_callback_is_enough(client, call, one):
    got = []
    assert call(client, "encode", ["a", "b", "c"], batch_size=2, **{one: got.append}) is None
    assert sorted(len(response.docs) for response in got) == [1, 2]


def test_callbacks_may_be_coroutine_functions(client):
    got = []

    async def on_done(response):
        await asyncio.sleep(0)
        got.append(response)

    asyncio.run(client.aencode(["a", "b", "c"], batch_size=2, on_done=on_done))
    assert len(got) == 2


def test_on_error_keeps_the_call_from_raising(client, call, mode, expected):
    watch = Watch(mode)
    texts = ["a", "b", "!!raise here", "c", "d", "e"]
    rows = call(client, "encode", texts, batch_size=2, on_error=watch.hook("error"))
    (failed,) = watch.error
    assert not failed.ok
    assert failed.status.name == "ValueError"
    assert "boom: !!raise here" in failed.status.description
    np.testing.assert_array_equal(rows[[0, 1, 4, 5]], expected(["a", "b", "d", "e"]))
    assert np.isnan(rows[2:4]).all()


def test_what_was_lost_has_an_error_or_a_piece_of_its_own(client, call, mode, expected):
    """An item whose request failed is not taken for a good one, and later pieces do not wait for it for ever."""
    watch = Watch(mode)
    texts = ["a", "!!raise here", "b"]
    got = call(client, "encode", texts, batch_size=1, errors="return", on_error=watch.hook("error"))
    (error,) = got.errors
    assert (error.index, error.item, got.ok) == (1, "!!raise here", False)
    assert error.cause.name == "ValueError"
    first, lost, last = call(client, "stream", iter(texts), batch_size=1, on_error=watch.hook("error"))
    np.testing.assert_array_equal([first[0], last[0]], expected(["a", "b"]))
    assert np.isnan(lost).all()
    assert len(watch.error) == 2


@pytest.mark.parametrize("verb", ["rank", "index", "search"])
def test_on_error_keeps_the_other_documents_of_every_verb(client, call, mode, verb):
    watch = Watch(mode)
    documents = [Document(text=text, matches=[Document(text="m")]) for text in ("a", "!!raise here", "b")]
    got = call(client, verb, documents, batch_size=1, on_error=watch.hook("error"))
    assert all(one is other for one, other in zip(got, documents, strict=True))
    assert len(watch.error) == 1
    if verb == "rank":
        assert ["clip_score" in document.matches[0].scores for document in got] == [True, False, True]
    else:
        assert [document.embedding is not None for document in got] == [True, False, True]


def test_all_three_see_what_is_theirs(client, call, mode):
    watch = Watch(mode)
    assert call(client, "encode", ["a", "b", "!!raise here", "c", "d"], batch_size=2, **watch.hooks) is None
    assert (len(watch.done), len(watch.error), len(watch.always)) == (2, 1, 3)
    assert {id(r) for r in watch.always} == {id(r) for r in watch.done + watch.error}


LOST = {
    "refused": Refuse.unavailable(),
    "not let in": Refuse.unauthenticated(),
    "without an executor": DeadExecutor(),
    "cut off": Cut("after"),
    "nonsense": Garbage(),
}


@pytest.mark.parametrize("fault", LOST)
def test_a_request_that_fails_on_the_way_is_told_of_once(scheme, call, mode, fault):
    """By both callbacks, the last one that is under way, too."""
    watch = Watch(mode)
    with FaultServer(LOST[fault]) as server:
        tls = TLS(ca=server.ca) if scheme.endswith("s") else None
        with Client(server.address(scheme), tls=tls, retry=Retry(attempts=1), timeout=20) as client:
            assert call(client, "encode", ["a"] * 6, batch_size=1, **watch.hooks) is None
    assert (len(watch.done), len(watch.error), len(watch.always)) == (0, 6, 6)
    assert {id(response) for response in watch.error} == {id(response) for response in watch.always}
    assert all(response.status.code == 1 and response.status.description for response in watch.error)


@pytest.mark.parametrize("which", ["on_done", "on_error", "on_always"])
def test_a_callback_that_raises_stops_the_call(client, call, which):
    class OwnError(Exception):
        pass

    def raises(response):
        raise OwnError("mine")

    with pytest.raises(CallbackError, match="OwnError: mine") as caught:
        call(client, "encode", ["!!raise here"] if which == "on_error" else ["a"], **{which: raises})
    assert type(caught.value.__cause__) is OwnError
    assert call(client, "encode", ["still works"]).shape == (1, 512)


def test_a_callback_that_runs_out_of_something_stops_the_call(client, call):
    with pytest.raises(CallbackError) as caught:
        call(client, "encode", ["a"], on_done=lambda response: next(iter(())))
    assert type(caught.value.__cause__) is StopIteration


def test_a_coroutine_function_is_no_callback_of_a_sync_call(client):
    async def on_done(response):
        raise AssertionError("never runs")

    with pytest.raises(CallbackError, match="aencode"):
        client.encode(["a"], on_done=on_done)


def test_without_on_error_the_servers_error_is_raised(client, call):
    got = []
    query = Document(text="!!raise here", matches=[Document(text="a")])
    with pytest.raises(RejectedError, match="boom"):
        call(client, "rank", [query], on_done=got.append)
    assert got == []


@pytest.mark.parametrize("verb", VERBS)
def test_return_responses(client, call, verb):
    content = VERBS[verb]()
    responses = call(client, verb, content, batch_size=3, return_responses=True)
    assert [type(response) for response in responses] == [Response] * 4
    assert [len(response.docs) for response in responses] == [3, 3, 3, 1]
    texts = [document.text for response in responses for document in response.docs]
    assert texts == [item if isinstance(item, str) else item.text for item in content]
    if verb == "rank":
        assert all("clip_score" in match.scores for r in responses for d in r.docs for match in d.matches)


def test_rank_cuts_requests_by_query(client, call):
    """The server compares all queries of a request with all its candidates: N times N for N queries."""
    responses = call(client, "rank", VERBS["rank"](), return_responses=True)
    assert [len(response.docs) for response in responses] == [1] * 10


def test_timings_lie_within_the_call(client, call):
    began = perf_counter()
    [response] = call(client, "encode", ["a", "b"], return_responses=True)
    wall = perf_counter() - began
    timings = response.timings
    assert min(timings.queued, timings.packed, timings.sent, timings.scanned) > 0
    assert [name for name, _ in timings.executors] == [route.executor for route in response.routes[1:]]
    assert 0 < timings.executing <= timings.server
    assert timings.total <= wall


@pytest.mark.parametrize("name", ["on_done", "on_error", "on_always"])
def test_a_callback_must_be_callable(client, call, name):
    with pytest.raises(TypeError, match=name):
        call(client, "encode", ["a"], **{name: "print"})
