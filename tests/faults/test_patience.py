"""A server that is away for a while is waited for: nothing is lost, and few requests reach it while it starts."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bars import end_of_bar
from casdk import (
    AuthError,
    Client,
    DeadlineError,
    Document,
    Limits,
    ProxyError,
    Retry,
    ServerError,
    TLSError,
    TransportError,
)
from casdk.testing import SCHEMES, ConnectProxy, Cut, DeadExecutor, ExecutorError, Refuse, Shut, certificates

SHORT = Retry(attempts=2, backoff=0.01, max_backoff=0.05)
"""As patient as by default; without patience, two attempts would be over at once."""
TRIES = 6
"""Times a server is asked for before it comes back; three times as often as there are attempts."""
AGAIN = "is sent again when the server is back"
TEXTS = [f"text {number}" for number in range(40)]
AWAY = {
    "unavailable, 503, 1012": {"script": [None, *[Refuse.unavailable()] * TRIES]},
    "502, 1011": {"script": [None, *[Refuse.gateway()] * TRIES]},
    "1001 and 1014": {"script": [None, *[Refuse(close=code) for code in (1001, 1014)] * (TRIES // 2)]},
    "its executor is": {"script": [None, *[DeadExecutor()] * TRIES]},
    "its executor is, says a reply": {"script": [None, *[ExecutorError("InternalNetworkError", "no clip")] * TRIES]},
    "closed at once": {"script": [None, Cut("after")], "connections": [None, *[Shut(0)] * TRIES]},
    "reset at once": {"script": [None, Cut("before")], "connections": [None, *[Shut(0, "reset")] * TRIES]},
}


class Lines(logging.Handler):
    """What was logged of calls, and a way to wait for it."""

    def __init__(self):
        super().__init__()
        self.found = []
        self._changed = threading.Condition()

    def emit(self, record):
        with self._changed:
            self.found.append((record.levelname, record.getMessage()))
            self._changed.notify_all()

    def count(self, level, words):
        return sum(found == level and words in line for found, line in tuple(self.found))

    def wait_for(self, level, words, count):
        with self._changed:
            assert self._changed.wait_for(lambda: self.count(level, words) >= count, 40)


@pytest.fixture
def lines():
    handler, logger = Lines(), logging.getLogger("casdk.calls")
    level, _ = logger.level, logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


CASES = [
    pytest.param(what, scheme, id=f"{what.replace(' ', '-')}-{scheme}")
    for what in AWAY
    for scheme in SCHEMES
    # Close codes of a websocket alone.
    if what != "1001 and 1014" or scheme.startswith("websocket")
]


@pytest.mark.parametrize(("what", "scheme"), CASES)
def test_a_server_that_is_away_for_longer_than_attempts_last(make_server, connect_to, scheme, rows, lines, what, tally):
    """In the words of each protocol; the log has a line when it goes, and one when it is back."""
    server = make_server(**AWAY[what])
    client = connect_to(server, scheme, retry=SHORT, limits=Limits(prefetch=1), timeout=20)
    np.testing.assert_array_equal(client.encode(TEXTS, batch_size=20), rows(TEXTS))
    lines.wait_for("INFO", f"{server.address(scheme)} answers again after ", 1)  # a thread of its own writes the log
    assert lines.count("DEBUG", AGAIN) >= TRIES
    assert lines.count("WARNING", f"{server.address(scheme)} is away: waiting for it, for 60 s at most: ") == 1
    assert lines.count("WARNING", "") == 1
    assert lines.count("INFO", f"{server.address(scheme)} answers again after ") == 1
    tally("patience: servers waited for")


def test_nobody_listens_for_a_while(make_server, connect_to, scheme, rows, lines):
    """Twice, under a window of four: one request at a time asks for the server, and the log says it once each time."""
    server = make_server()
    client = connect_to(server, scheme, retry=SHORT, limits=Limits(prefetch=4), timeout=60)
    client.encode(["a"])

    def texts():
        for turn in range(2):
            yield from TEXTS[20 * turn : 20 * turn + 18]
            server.down("reset" if turn else "close")
            yield from TEXTS[20 * turn + 18 : 20 * turn + 20]

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(client.encode, texts(), batch_size=2)
        for turn in range(2):
            lines.wait_for("DEBUG", AGAIN, (turn + 1) * TRIES)
            server.up()
        np.testing.assert_array_equal(found.result(), rows(TEXTS))
    lines.wait_for("INFO", "answers again", 2)
    assert lines.count("WARNING", "is away") == lines.count("WARNING", "") == 2
    assert lines.count("INFO", "answers again") == 2


def test_an_attempt_is_one_connection(make_server, connect_to, scheme, rows, lines):
    """No library connects by itself meanwhile, neither more often nor from another attempt's failure."""
    server = make_server()
    retry = Retry(attempts=2, backoff=0.2, max_backoff=0.2, jitter=0, patience=30)
    client = connect_to(server, scheme, retry=retry, limits=Limits(prefetch=1), timeout=60)
    client.encode(["a"])
    server.play_connections(Shut(0))
    server.disconnect()
    before = server.counters.accepted
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(client.encode, TEXTS, batch_size=10)
        lines.wait_for("DEBUG", AGAIN, TRIES)
        server.play_connections(None)
        np.testing.assert_array_equal(found.result(), rows(TEXTS))
    lines.wait_for("INFO", "answers again", 1)
    tries = lines.count("DEBUG", AGAIN)
    # The first try may have met the connection that was ended; the last one opened another.
    assert server.counters.accepted - before in (tries, tries + 1)


@pytest.mark.tls
def test_nobody_listens_behind_a_proxy(make_server, connect_to, scheme, rows, lines):
    """The proxy says so: 502 to a request, or to being asked for a tunnel."""
    server = make_server()
    with ConnectProxy() as proxy:
        client = connect_to(server, scheme, retry=SHORT, proxy=proxy.url(), timeout=60)
        client.encode(["a"])
        server.down()
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(client.encode, TEXTS, batch_size=10)
            lines.wait_for("DEBUG", AGAIN, 4 + TRIES)
            server.up()
            np.testing.assert_array_equal(found.result(), rows(TEXTS))


def test_an_unknown_host_is_not_waited_for(scheme, lines):
    address = f"{scheme}://no-such-host.invalid:51000"
    retry = Retry(attempts=2, backoff=0.01, patience=30)
    with Client(address, retry=retry, timeout=20) as client, pytest.raises(TransportError) as caught:
        client.encode(["a", "b"], batch_size=1, prefetch=1)
    assert type(caught.value) is TransportError
    assert not caught.value.away
    assert lines.count("WARNING", "is away") == 0


def test_a_certificate_that_is_refused_is_not_waited_for(make_server, connect_to, lines):
    """The server came back with another one."""
    for scheme in ("grpcs", "https", "websockets"):
        server = make_server(certificate=certificates.self_signed())
        client = connect_to(server, scheme, retry=Retry(attempts=2, backoff=0.01, patience=30), timeout=20)
        with pytest.raises(TLSError) as caught:
            client.encode(["a", "b"], batch_size=1)
        assert not caught.value.away
    assert lines.count("WARNING", "") == 0


@pytest.mark.tls
@pytest.mark.parametrize("status", [403, 407, 404])
def test_a_proxy_that_refuses_is_not_waited_for(make_server, connect_to, scheme, lines, status):
    server = make_server()
    with ConnectProxy(status=status) as proxy:
        client = connect_to(server, scheme, retry=Retry(patience=30), proxy=proxy.url(), timeout=20)
        # Over http there is no tunnel: but for 407, it may be the server who says it.
        kind = {403: AuthError, 404: ServerError}.get(status, ProxyError) if scheme == "http" else ProxyError
        with pytest.raises(kind) as caught:
            client.encode(["a", "b"], batch_size=1)
        assert type(caught.value) is kind
    assert lines.count("WARNING", "") == 0


def test_many_calls_say_it_once(make_server, connect_to, scheme, rows, lines):
    server = make_server()
    client = connect_to(server, scheme, retry=SHORT, timeout=60)
    client.encode(["a"])
    server.down()
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(client.encode, TEXTS, batch_size=10) for _ in range(8)]
        lines.wait_for("DEBUG", AGAIN, 8 * TRIES)
        server.up()
        for call in calls:
            np.testing.assert_array_equal(call.result(), rows(TEXTS))
    lines.wait_for("INFO", "answers again", 1)
    assert lines.count("WARNING", "is away") == 1
    assert lines.count("INFO", "answers again") == 1


def test_the_bar_says_that_it_waits(make_server, connect_to, scheme, rows, lines, screen):
    server = make_server()
    client = connect_to(server, scheme, retry=SHORT, timeout=60)
    client.encode(["a"])

    def texts():
        yield from TEXTS[:20]
        server.down()
        yield from TEXTS[20:]

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(client.encode, texts(), batch_size=10, show_progress=True)
        lines.wait_for("DEBUG", AGAIN, 2 * TRIES)
        server.up()
        np.testing.assert_array_equal(found.result(), rows(TEXTS))
    end_of_bar()
    shown = screen.getvalue()
    assert "waiting for the server" in shown
    assert "waiting" not in shown[shown.rindex("encode") :]


@pytest.mark.parametrize("retry", [Retry(patience=30, attempts=1), Retry(patience=30)], ids=["one attempt", "five"])
def test_patience_that_is_given_holds_from_the_first_request(make_server, connect_to, scheme, rows, lines, retry):
    """A client may be made before its server listens."""
    server = make_server()
    server.down()
    client = connect_to(server, scheme, retry=retry, timeout=30)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(client.encode, ["a"])
        lines.wait_for("WARNING", "is away: waiting for it, for 30 s at most", 1)
        server.up()
        np.testing.assert_array_equal(found.result(), rows(["a"]))


@pytest.mark.parametrize("why", ["never answered", "one request", "one attempt", "no patience"])
def test_who_does_not_wait(make_server, connect_to, scheme, lines, why):
    """A mistyped port fails as fast as ever, and so does what has nothing to lose."""
    server = make_server()
    quick = {"backoff": 0.01, "max_backoff": 0.05}
    retry = {"one attempt": Retry(attempts=1), "no patience": Retry(patience=0, **quick)}.get(why, Retry(**quick))
    client = connect_to(server, scheme, retry=retry, timeout=20)
    if why != "never answered":
        client.encode(["a"])
    server.down()
    with pytest.raises(TransportError) as caught:
        client.encode(["b"] if why == "one request" else ["b", "c"], batch_size=1)
    assert caught.value.away
    assert lines.count("WARNING", "is away") == 0


@pytest.mark.parametrize("own", [True, False])
def test_a_call_may_have_a_patience_of_its_own(make_server, own):
    """It takes the place of the client's, and holds for a server that has answered: one that never did may be none."""
    server = make_server([None, *[Refuse.unavailable()] * TRIES], width=8)
    impatient = Retry(attempts=1, backoff=0.01, max_backoff=0.05, patience=None if own else 0.0)
    with Client(server.address("grpc"), retry=impatient) as client:
        client.encode(["first"])
        assert client.encode(["second"], patience=30.0).shape == (1, 8)
    absent = make_server([Refuse.unavailable()] * TRIES, width=8)
    with Client(absent.address("grpc"), retry=impatient) as client, pytest.raises(TransportError):
        client.encode(["first"], patience=30.0)


def test_a_deadline_ends_patience(make_server, connect_to, scheme):
    server = make_server()
    client = connect_to(server, scheme, retry=SHORT)
    client.encode(["a"])
    server.down()
    with pytest.raises(DeadlineError):
        client.encode(["b", "c"], batch_size=1, timeout=0.3)


def test_patience_ends(make_server, connect_to, scheme, lines):
    server = make_server()
    client = connect_to(server, scheme, retry=Retry(attempts=2, backoff=0.01, max_backoff=0.05, patience=0.3))
    client.encode(["a"])
    server.down()
    with pytest.raises(TransportError) as caught:
        client.encode(["b", "c"], batch_size=1)
    assert caught.value.away
    lines.wait_for("WARNING", "is away: waiting for it, for 0.3 s at most", 1)


@pytest.mark.parametrize("fault", [Cut("after"), Cut("middle", "reset"), DeadExecutor(), Refuse(14, 502, 1012)])
def test_an_index_that_may_have_arrived_is_not_sent_twice(make_server, connect_to, scheme, fault):
    """However patient its client is; a proxy's 502 and a gateway's 503 do not tell what its server had done."""
    server = make_server([None, fault])
    client = connect_to(server, scheme, retry=Retry(patience=30), limits=Limits(prefetch=1), timeout=20)
    with pytest.raises(TransportError) as caught:
        client.index([Document(text=text) for text in "abcd"], batch_size=1)
    assert type(caught.value) is TransportError
    assert caught.value.away
    assert server.counters.requests == 2


def test_an_index_waits_for_a_server_that_does_not_listen(make_server, connect_to, scheme, lines):
    server = make_server()
    server.down()
    retry = Retry(attempts=2, backoff=0.01, max_backoff=0.05, patience=30)
    client = connect_to(server, scheme, retry=retry, timeout=30)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(client.index, [Document(text=text) for text in "abcd"], batch_size=1, prefetch=1)
        lines.wait_for("DEBUG", AGAIN, TRIES)
        server.up()
        done.result()
    assert server.executor.indexed == 4
    assert [request.texts for request in server.requests if request.endpoint == "/index"] == [
        (text,) for text in "abcd"
    ]
