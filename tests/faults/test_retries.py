"""A request is sent again only if that is safe and can help, and never without end."""

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from casdk import (
    AuthError,
    DeadlineError,
    Document,
    Limits,
    OverloadedError,
    RejectedError,
    Retry,
    ServerError,
    TransportError,
)
from casdk.testing import Babble, Cut, DeadExecutor, ExecutorError, Page, Refuse

QUICK = Retry(backoff=0.001, max_backoff=0.01)
PASSING = {
    "unavailable": Refuse.unavailable(),
    "overloaded": Refuse.overloaded(),
    "bad gateway": Refuse.gateway(),
    "gateway timeout, 1013": Refuse(grpc=14, http=504, close=1013),
    "restarting, 1012": Refuse(grpc=14, http=503, close=1012),
    "dead executor": DeadExecutor(),
    "closed before": Cut("before"),
    "closed after": Cut("after"),
    "closed in the middle": Cut("middle"),
    "reset before": Cut("before", "reset"),
    "reset after": Cut("after", "reset"),
    "reset in the middle": Cut("middle", "reset"),
    "half-closed": Cut("after", "half-close"),
}
TEXTS = [f"text {number}" for number in range(40)]


@pytest.mark.tls
@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.replace(" ", "-"))
def test_what_passes_is_sent_again(make_server, connect_to, scheme, call, rows, fault, tally):
    server = make_server([PASSING[fault]])
    client = connect_to(server, scheme, retry=QUICK, timeout=20)
    np.testing.assert_array_equal(call(client, "encode", ["a", "b"]), rows(["a", "b"]))
    assert server.counters.requests == 2
    tally("retries: faults injected")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Refuse.internal(), ServerError),
        (Refuse.unauthenticated(), AuthError),
        (Refuse(grpc=12, http=404, close=1003), ServerError),
        (Refuse(grpc=3, http=400, close=1007), ServerError),
    ],
    ids=["internal", "unauthenticated", "not there", "bad request"],
)
def test_what_does_not_pass_is_not(make_server, connect_to, scheme, call, fault, error):
    server = make_server(fault)
    client = connect_to(server, scheme, retry=QUICK, timeout=20)
    with pytest.raises(error) as caught:
        call(client, "encode", ["a"])
    assert type(caught.value) is error
    # Where the unary method is not there, the stream is tried.
    assert server.counters.requests <= (2 if fault.grpc == 12 and scheme.startswith("grpc") else 1)


@pytest.mark.parametrize("attempts", [1, 3])
def test_attempts_are_counted(make_server, connect_to, scheme, call, attempts):
    server = make_server(Refuse.unavailable())
    client = connect_to(server, scheme, retry=Retry(attempts=attempts, backoff=0.001), timeout=20)
    with pytest.raises(TransportError) as caught:
        call(client, "encode", ["a"])
    assert type(caught.value) is TransportError
    assert server.counters.requests == attempts


@pytest.mark.parametrize(
    ("status", "kind", "away"),
    [
        (429, OverloadedError, False),
        (502, TransportError, True),
        (503, TransportError, True),
        (504, TransportError, False),
    ],
)
@pytest.mark.parametrize("scheme", ["grpc", "grpcs", "http", "https"])
def test_a_proxy_that_has_lost_its_server(make_server, connect_to, scheme, call, rows, status, kind, away):
    """A request that got a proxy's page is sent again, on both protocols; an index is not, as it may be stored."""
    page = Page(status, "of nginx")
    server = make_server(page)
    client = connect_to(server, scheme, retry=Retry(attempts=1), timeout=20)
    with pytest.raises(kind, match=f"HTTP {status}") as caught:
        call(client, "encode", ["a"])
    assert type(caught.value) is kind
    assert (caught.value.retryable, caught.value.away) == (True, away)
    server.play([page])
    client = connect_to(server, scheme, retry=QUICK, timeout=20)
    np.testing.assert_array_equal(call(client, "encode", ["a"]), rows(["a"]))
    if status != 429:  # which refuses a request before anything is done with it
        server.play([page])
        with pytest.raises(kind):
            call(client, "index", ["a"])


def ask_for_a_wait(scheme, words, turns=None):
    """Return the rules of a server that refuses, and says for how long: a websocket can say it in its handshake only.

    Args:
        scheme: How it is asked.
        words: Of its Retry-After, or of gRPC's trailer for that, which is in milliseconds.
        turns: Times that it refuses, if not always.
    """
    if scheme.startswith("websocket"):
        answer = f"HTTP/1.1 429 Too Many Requests\r\nRetry-After: {words}\r\nContent-Length: 0\r\n\r\n"
        fault = Babble(answer.encode("latin-1"), close=True)
        return {"connections": [fault] * turns if turns else fault}
    refusal = Refuse.overloaded(retry_after=words)
    return {"script": [refusal] * turns if turns else refusal}


def test_retry_after_is_honoured(make_server, connect_to, scheme, call, rows, stopwatch):
    rules = ask_for_a_wait(scheme, "300" if scheme.startswith("grpc") else "0.3", turns=1)
    client = connect_to(make_server(**rules), scheme, retry=QUICK, timeout=20)
    with stopwatch() as watch:
        np.testing.assert_array_equal(call(client, "encode", ["a"]), rows(["a"]))
    assert watch.seconds >= 0.3


@pytest.mark.parametrize(
    "words", ["0", "-7", "0.01", "Wed, 21 Oct 2015 07:28:00 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"]
)
@pytest.mark.parametrize("scheme", ["http", "https", "websocket", "websockets"])
def test_a_wait_that_is_over_is_none(make_server, connect_to, scheme, rows, words):
    client = connect_to(make_server(**ask_for_a_wait(scheme, words, turns=1)), scheme, retry=QUICK, timeout=20)
    np.testing.assert_array_equal(client.encode(["a"]), rows(["a"]))


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("3600", 3600.0),
        ("9" * 400, math.inf),
        ("1e400", math.inf),
        ("inf", math.inf),
        ("nan", None),
        ("-inf", None),
        ("soon", None),
        ("120, 60", None),
        ("1_0", None),
        ("\xb2", None),
    ],
    ids=lambda value: str(value)[:8],
)
@pytest.mark.parametrize("scheme", ["http", "https", "websocket", "websockets"])
def test_a_wait_that_is_too_long_or_no_number_ends_the_request(make_server, connect_to, scheme, words, seconds):
    """With what was asked, in the server's words; a call without a deadline would not come back."""
    server = make_server(**ask_for_a_wait(scheme, words))
    client = connect_to(server, scheme, timeout=20)
    with pytest.raises(OverloadedError) as caught:
        client.encode(["a", "b"], batch_size=1, prefetch=1)
    assert caught.value.retry_after == seconds
    assert repr(words) in str(caught.value)
    assert server.counters.accepted == 1
    assert server.counters.requests == (0 if scheme.startswith("websocket") else 1)


@pytest.mark.parametrize(
    ("words", "seconds", "said"),
    [
        ("3600000", 3600.0, "'3600000'"),
        (str(2**63 - 1), (2**63 - 1) / 1000, f"'{2**63 - 1}'"),
        ("-1", None, "'-1'"),
        ("9" * 400, math.inf, "'999"),
        ("soon", None, "'soon'"),
    ],
    ids=lambda value: str(value)[:8],
)
@pytest.mark.parametrize(
    ("refusal", "kind"), [(Refuse.overloaded, OverloadedError), (Refuse.unavailable, TransportError)]
)
@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_the_same_of_a_pushback(make_server, connect_to, scheme, refusal, kind, words, seconds, said, own):
    """gRPC's name for it; below 0 it says never, and what is no 64-bit integer grpcio reads for nobody.

    Then it does not show the code that came with it either, and what became of the request is not known.
    """
    if not own and (words == "soon" or len(words) > 100):
        kind, seconds, said = TransportError, None, "no number"
    server = make_server(refusal(retry_after=words))
    with pytest.raises(kind, match="grpc-retry-pushback-ms") as caught:
        connect_to(server, scheme, timeout=20).encode(["a", "b"], batch_size=1, prefetch=1)
    assert type(caught.value) is kind
    assert caught.value.retry_after == seconds
    assert said in str(caught.value)
    assert server.counters.requests == 1


@pytest.mark.parametrize("patience", [None, 7200.0, 100.0])
@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_date_is_honoured_as_a_number_is(make_server, connect_to, call, patience, status):
    """With every status that asks for another attempt."""
    then = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    server = make_server(Refuse(http=status, retry_after=then))
    client = connect_to(server, "http", retry=Retry(patience=patience))
    refused = OverloadedError if status == 429 else TransportError
    ends = DeadlineError if patience == 7200.0 else refused
    with pytest.raises(ends) as caught:
        call(client, "encode", ["a"], timeout=0.2 if ends is DeadlineError else 20)
    assert type(caught.value) is ends
    if ends is refused:
        assert 3500 < caught.value.retry_after < 3601
        assert then in str(caught.value)


def test_a_dying_server_is_not_stormed(make_server, connect_to, scheme, figure):
    """100 repeats are free, then a fifth of the requests may be."""
    server = make_server(Refuse.unavailable())
    client = connect_to(server, scheme, retry=Retry(attempts=5, backoff=0, max_backoff=0, budget=0.2), timeout=30)
    calls = 200
    for _ in range(calls):
        with pytest.raises(TransportError):
            client.encode(["a"])
    requests = server.counters.requests
    assert calls <= requests <= calls * 1.2 + 100
    figure("retries: requests of 200 calls to a dying server", requests)


def test_only_what_was_not_answered_is_sent_again(make_server, connect_to, scheme, call, rows):
    """Batches one at a time: each fault costs one more request, of that batch."""
    faults = [None, Cut("after"), None, None, Refuse.unavailable(), Cut("middle"), None]
    server = make_server(faults)
    client = connect_to(server, scheme, retry=QUICK, limits=Limits(prefetch=1), timeout=20)
    np.testing.assert_array_equal(call(client, "encode", TEXTS, batch_size=5), rows(TEXTS))
    seen = [request.texts[0] for request in server.requests]
    assert [seen.count(TEXTS[start]) for start in range(0, 40, 5)] == [1, 2, 1, 3, 1, 1, 1, 1]


@pytest.mark.tls
@pytest.mark.parametrize("at", ["after", "middle"])
def test_index_is_not_sent_twice(make_server, connect_to, scheme, call, at):
    server = make_server([Cut(at)])
    client = connect_to(server, scheme, retry=QUICK, timeout=20)
    with pytest.raises(TransportError):
        call(client, "index", [Document(id="a" * 32, text="a")])
    assert server.counters.requests == 1
    assert server.executor.indexed == 1


def test_index_is_sent_twice_where_the_user_says_so(make_server, connect_to, scheme, call):
    server = make_server([Cut("after")])
    client = connect_to(server, scheme, retry=QUICK, timeout=20)
    call(client, "index", [Document(id="a" * 32, text="a")], idempotent_index=True)
    assert [request.endpoint for request in server.requests][:2] == ["/index", "/index"]
    assert server.executor.indexed == 1


@pytest.mark.tls
def test_index_is_sent_again_while_nothing_left(make_server, connect_to, scheme, call):
    """A port where no server listens took nothing."""
    server = make_server()
    server.down()
    client = connect_to(server, scheme, retry=Retry(attempts=100, backoff=0.01, max_backoff=0.02), timeout=20)

    def documents():
        yield Document(id="a" * 32, text="a")
        server.up()
        yield Document(id="b" * 32, text="b")

    call(client, "index", documents(), batch_size=1)
    assert server.executor.indexed == 2


def test_a_status_of_the_executors_is_not_the_connections(make_server, connect_to, scheme, call):
    server = make_server(ExecutorError("RuntimeError", "out of memory"))
    client = connect_to(server, scheme, retry=QUICK, timeout=20)
    with pytest.raises(RejectedError, match="out of memory") as caught:
        call(client, "encode", ["a"])
    assert type(caught.value.cause) is ServerError
    assert server.counters.requests == 1


@pytest.mark.parametrize("times", [10, pytest.param(50, marks=pytest.mark.soak)])
def test_a_run_of_many_restarts(make_server, connect_to, scheme, rows, figure, tally, times):
    """Kill and restart the server during a run: the rows are those of a quiet run."""
    server = make_server()
    client = connect_to(server, scheme, retry=Retry(backoff=0.001, max_backoff=0.02), timeout=170)
    client.encode(["a"])  # until it has had an answer, a client has no patience
    restarts, every = 0, 400
    total = times * every

    def texts():
        nonlocal restarts
        for number in range(total):
            if number % every == every // 2:
                server.restart("reset" if restarts % 2 else "close")
                restarts += 1
            yield f"text {number}"

    # With fewer items in flight than between two restarts, no request meets more of them than it has attempts.
    found = client.encode(texts(), batch_size=32, prefetch=8)
    assert restarts == times
    np.testing.assert_array_equal(found, rows([f"text {number}" for number in range(total)]))
    tally("restarts: injected", restarts)
    tally("restarts: rows lost", int((~np.isfinite(found)).any(axis=1).sum()))
    figure(f"restarts: extra requests in {total // 32}", server.counters.requests - total // 32)
