"""Each fault of a request, as other clients see it: it changes what it says, and nothing else."""

import grpc
import httpx
import pytest
from casdk.testing import (
    AddDocument,
    Cut,
    Delay,
    DropDocument,
    Duplicate,
    EntityTooLarge,
    ExecutorError,
    FaultServer,
    Garbage,
    Page,
    Refuse,
    Reorder,
    Stale,
    Trickle,
    WrongId,
)
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

FAILURES = (grpc.RpcError, httpx.HTTPError, ConnectionClosed)


def texts(reply):
    return [document.text for document in reply.data.docs.docs]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Delay(0.01), ["a", "b"]),
        (Trickle(64, 0.0001), ["a", "b"]),
        (Reorder(1), ["a", "b"]),
        (AddDocument(2), ["a", "b", "uninvited", "uninvited"]),
        (DropDocument(0), ["b"]),
        (DropDocument(-1), ["a"]),
        (DropDocument(7), ["a", "b"]),
        ((DropDocument(-1), AddDocument()), ["a", "uninvited"]),
    ],
    ids=str,
)
def test_what_comes_back(ask, request_for, fault, expected):
    with FaultServer([fault], width=8) as server:
        assert sorted(texts(ask(server, request_for("a", "b")))) == sorted(expected)
        assert texts(ask(server, request_for("a", "b"))) == ["a", "b"]


def test_a_document_without_its_neighbours_ids(ask, request_for):
    with FaultServer(DropDocument(0, rename=True), width=8) as server:
        assert [document.id for document in ask(server, request_for("a", "b")).data.docs.docs] == [""]


def test_an_answer_to_a_request_that_nobody_made(ask, request_for):
    with FaultServer(WrongId("of nobody"), width=8) as server:
        assert ask(server, request_for("a")).header.request_id == "of nobody"


def test_an_executor_that_raises_returns_what_it_was_sent(ask, request_for):
    with FaultServer(ExecutorError("MemoryError", "none left"), width=8) as server:
        reply = ask(server, request_for("a"))
    assert texts(reply) == ["a"]
    status = reply.header.status
    assert (status.code, status.exception.name) == (1, "MemoryError")
    assert "none left" in status.description


CODES = {
    "unavailable": (grpc.StatusCode.UNAVAILABLE, 503, 1012),
    "overloaded": (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, 1013),
    "unauthenticated": (grpc.StatusCode.UNAUTHENTICATED, 401, 1008),
    "gateway": (grpc.StatusCode.UNAVAILABLE, 502, 1011),
    "internal": (grpc.StatusCode.INTERNAL, 500, 1002),
}


def code_of(failure):
    """Return the code of a failure, in the words of the library that raised it."""
    if isinstance(failure, grpc.RpcError):
        return failure.code()
    return failure.response.status_code if isinstance(failure, httpx.HTTPError) else failure.rcvd.code


@pytest.mark.parametrize("kind", CODES)
def test_a_refusal_has_its_code_in_each_protocol(ask, request_for, kind):
    with FaultServer(getattr(Refuse, kind)()) as server, pytest.raises(FAILURES) as failure:
        ask(server, request_for("a"))
    place = ["ask_grpc", "ask_http", "ask_websocket"].index(ask.__name__)
    assert code_of(failure.value) == CODES[kind][place]
    assert server.counters.replies == 0


def test_a_wait_is_asked_for(ask, request_for):
    with FaultServer(Refuse.overloaded(retry_after=7)) as server, pytest.raises(FAILURES) as failure:
        ask(server, request_for("a"))
    if ask.__name__ == "ask_http":
        assert failure.value.response.headers["retry-after"] == "7"
    if ask.__name__ == "ask_grpc":
        assert dict(failure.value.trailing_metadata())["grpc-retry-pushback-ms"] == "7000"


@pytest.mark.parametrize(("limit", "refused"), [(10, True), (10_000, False)])
def test_a_limit_is_one_of_bytes(ask, request_for, limit, refused):
    with FaultServer(EntityTooLarge(limit), width=8) as server:
        if not refused:
            assert texts(ask(server, request_for("a"))) == ["a"]
            return
        with pytest.raises(FAILURES) as failure:
            ask(server, request_for("a"))
    if ask.__name__ == "ask_http":
        assert code_of(failure.value) == 413
        assert "413 Request Entity Too Large" in failure.value.response.text
    if ask.__name__ == "ask_websocket":
        assert code_of(failure.value) == 1009


def test_a_page_is_a_page(ask, request_for):
    page = Page(502, "Bad Gateway")
    with FaultServer(page) as server, pytest.raises(FAILURES) as failure:
        ask(server, request_for("a"))
    if ask.__name__ == "ask_http":
        assert failure.value.response.text == page.html
        assert failure.value.response.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("at", ["before", "after", "middle"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_connection_that_is_cut_brings_no_reply(ask, request_for, at, how):
    with FaultServer(Cut(at, how), width=8) as server:
        with pytest.raises((*FAILURES, OSError)):
            ask(server, request_for("a"))
        assert server.wait_for(lambda counters: counters.open == 0).replies == 0


def test_bytes_that_are_no_message_come_in_correct_framing():
    with FaultServer(Garbage(b"no message")) as server:
        answer = httpx.post(f"{server.address('http')}/post", json={"data": [{"text": "a"}]})
    assert (answer.status_code, answer.content) == (200, b"no message")


def test_a_reply_that_is_stale_is_that_of_the_request_before():
    with FaultServer(Stale(), width=8) as server, httpx.Client(base_url=server.address("http")) as client:
        said = [client.post("/post", json={"data": [{"text": text}]}).json()["data"][0]["text"] for text in "abc"]
    assert said == ["a", "a", "b"]


def test_a_reply_that_comes_twice(request_for):
    with (
        FaultServer(Duplicate(), width=8) as server,
        connect(server.address("websocket").replace("websocket", "ws", 1), subprotocols=["bytes"]) as opened,
    ):
        opened.send(request_for("a").SerializeToString())
        assert opened.recv(20) == opened.recv(20)
