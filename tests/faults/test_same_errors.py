"""The same fault is the same error on every scheme: the tests cause each row of the table in docs/errors.md."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import casdk
import grpc
import numpy as np
import pytest
from casdk import AuthError, Document, OverloadedError, Retry, Timeouts, TransportError
from casdk._transport.address import SCHEMES
from casdk.testing import (
    Babble,
    ConnectProxy,
    Cut,
    DeadExecutor,
    ExecutorError,
    Fault,
    FaultServer,
    Gate,
    Hold,
    Never,
    Page,
    Refuse,
    TextReply,
    certificates,
)
from casdk.testing.executor import fail

pytestmark = pytest.mark.tls
ONCE = Retry(attempts=1)
TWICE = Retry(attempts=2, backoff=0.001, patience=0)
IN_TIME = {"timeouts": Timeouts(total=20)}
PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
FAMILIES = ("grpc", "http", "websocket")


def read_table():
    """Return the rows of the page: the fault, what each family says, class, retryable and sent."""
    section = PAGE.read_text().partition("### The same fault on every scheme")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def named(codes, family):
    """Return the scripted faults of the codes that a cell names."""
    for code in codes:
        if code.startswith("HTTP "):
            yield code, {"script": Page(int(code[5:]), "of nginx")}
        elif family == "grpc":
            yield code, {"script": Refuse(grpc=grpc.StatusCode[code].value[0])}
        elif family == "http":
            yield code, {"script": Refuse(http=int(code))}
        else:
            yield code, {"script": Refuse(close=int(code))}


class Elsewhere:
    """The port of another scheme on a server."""

    def __init__(self, server, listening):
        self.ca, self._port = server.ca, server.port(listening)

    def address(self, scheme):
        return f"{scheme}://127.0.0.1:{self._port}"


@contextmanager
def nobody_listens(scheme):
    with FaultServer() as server:
        server.down()
        yield server, IN_TIME


@contextmanager
def no_tls(scheme):
    with FaultServer() as server:
        yield Elsewhere(server, "grpc" if scheme == "grpcs" else "http"), IN_TIME


def behind_a_proxy(status):
    @contextmanager
    def place(scheme):
        with FaultServer() as server, ConnectProxy(status=status) as proxy:
            yield server, {**IN_TIME, "proxy": proxy.url()}

    return place


def scripted(**rules):
    options = rules.pop("options", IN_TIME)

    @contextmanager
    def place(scheme):
        with FaultServer(**rules) as server:
            yield server, options

    return place


@dataclass(frozen=True, slots=True)
class ByTheGateway(Fault):
    """The embedded server's own refusal, where it answers with a status and not in the protocol's words."""

    name: str

    def change(self, reply, exchange):
        fail(reply, RuntimeError("refused"), self.name)
        reply.header.status.exception.executor = "gateway"


SSH = scripted(connections=Babble(b"SSH-2.0-OpenSSH_9.6\r\n"))
PLACES = {
    "nobody listens": [nobody_listens],
    "the connection ends under the request": [scripted(script=Cut("after")), scripted(script=Cut("before", "reset"))],
    "its executor is dead": [
        scripted(script=DeadExecutor()),
        scripted(script=ExecutorError("<class 'jina.excepts.InternalNetworkError'>", "no connection to clip")),
    ],
    "it has too much to do (1)": [scripted(script=ByTheGateway("BusyError"))],
    "it answers with what is no reply": [scripted(script=TextReply())],
    "it does not answer in time": [scripted(script=Never(), options={"timeouts": Timeouts(read=0.3, total=20)})],
    "the proxy wants a credential": [behind_a_proxy(407)],
    "the proxy opens no tunnel (3)": [behind_a_proxy(502)],
    "the certificate is not trusted": [scripted(certificate=certificates.self_signed())],
    "the port speaks no TLS": [no_tls],
    "another protocol is on the port": [SSH],
}


def cases():
    for fault, *says, kind, retryable, sent in read_table():
        for scheme in SCHEMES:
            family = SCHEMES[scheme].channel
            cell = says[FAMILIES.index(family)]
            words = re.findall(r"`([^`]+)`", cell)
            if only := [word for word in words if word in SCHEMES]:
                if scheme not in only:
                    continue
                words = []
            ways = [(str(number), place) for number, place in enumerate(PLACES.get(fault, []))]
            ways += [(code, scripted(**rules)) for code, rules in named(words, family)]
            assert ways, f"{fault}: {cell}"
            meant = [{"yes": True, "no": False, "-": None}[cell.split(",")[0]] for cell in (retryable, sent)]
            if family == "http" and sent.endswith("over http yes"):
                meant[1] = True
            for way, place in ways:
                name = f"{fault}-{way}-{scheme}".replace(" ", "-")
                yield pytest.param(scheme, place, getattr(casdk, kind.strip("`")), *meant, id=name)


CASES = list(cases())


def test_the_table_has_what_protocols_say():
    """Each word of a protocol stands in one row alone, but for 1011, of which the page says why it cannot."""
    table = read_table()
    for column in (1, 2, 3):
        words = [word for row in table for word in re.findall(r"`([^`]+)`", row[column]) if word not in SCHEMES]
        assert sorted(set(words)) == sorted(word for at, word in enumerate(words) if word not in words[:at])
        assert {word for word in words if words.count(word) > 1} <= {"1011"}
    said = {word for row in table for column in (1, 2, 3) for word in re.findall(r"`([^`]+)`", row[column])}
    assert said >= {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL", "UNIMPLEMENTED", "INVALID_ARGUMENT"}
    assert said >= {"502", "503", "504", "429", "500", "404", "400", "1012", "1013"}


@pytest.mark.parametrize(("scheme", "place", "kind", "retryable", "sent"), CASES)
def test_a_row_of_the_table(connect_to, scheme, place, kind, retryable, sent, tally, own):
    """The error itself; and an index is sent again only where the page says that nothing can have been stored."""
    if not own and place is SSH and scheme.startswith("http"):
        pytest.skip("httpx waits for the end of a head, however it begins")
    with place(scheme) as (server, options):
        client = connect_to(server, scheme, retry=ONCE, **options)
        with pytest.raises(kind) as caught:
            client.encode(["a"])
        client.close()
        error = caught.value
        assert type(error) is kind
        assert (getattr(error, "retryable", None), getattr(error, "sent", None)) == (retryable, sent)
        client = connect_to(server, scheme, retry=TWICE, **options)
        with pytest.raises(kind) as caught:
            client.index(["a"])
        client.close()
        assert type(caught.value) is kind
        assert caught.value.attempts == (2 if retryable and (not sent or kind is OverloadedError) else 1)
    tally("errors: faults that are the same error on each scheme")


REFUSED = [
    pytest.param(int(code), kind.strip("`"), retryable == "yes", id=code)
    for _, _, cell, _, kind, retryable, _ in read_table()
    for code in re.findall(r"`(\d+)`", cell)
]


@pytest.mark.parametrize("scheme", ["websocket", "websockets"])
@pytest.mark.parametrize(("status", "kind", "retryable"), [*REFUSED, pytest.param(407, "ProxyError", False, id="407")])
def test_a_handshake_that_is_refused(make_server, connect_to, scheme, status, kind, retryable):
    """It means what the status means over http, while nothing of the request was sent."""
    if 400 <= status < 500 and kind == "ServerError":
        kind = "ProtocolMismatchError"
    answer = b"HTTP/1.1 %d Refused\r\nContent-Length: 0\r\n\r\n" % status
    client = connect_to(make_server(connections=Babble(answer, close=True)), scheme, retry=ONCE, timeout=20)
    with pytest.raises(getattr(casdk, kind)) as caught:
        client.index(["a"])
    error = caught.value
    assert type(error) is getattr(casdk, kind)
    assert (error.retryable, error.sent, list(error.unconfirmed)) == (retryable, False, [])


@pytest.mark.parametrize("scheme", ["websocket", "websockets"])
def test_handshakes_that_are_refused_are_counted(make_server, connect_to, scheme):
    """They are a load on the server, although nothing of a request was sent: a dying one is not stormed by them."""
    answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    server = make_server(connections=Babble(answer, close=True))
    retry = Retry(attempts=5, backoff=0, max_backoff=0, budget=0.2)
    client = connect_to(server, scheme, retry=retry, timeout=20)
    for _ in range(100):
        with pytest.raises(TransportError):
            client.encode(["a"])
    assert server.counters.accepted <= 100 * 1.2 + 100


@pytest.mark.parametrize("scheme", ["websocket", "websockets"])
@pytest.mark.parametrize(("fault", "kind"), [(Refuse.overloaded(), OverloadedError), (Refuse(close=1008), AuthError)])
def test_a_close_code_does_not_say_whom_it_refuses(make_server, connect_to, scheme, fault, kind):
    """Where several requests were in flight, the server may have begun with the others: none is stored twice."""
    gate = Gate()
    server = make_server()
    client = connect_to(server, scheme, credential=lambda: "token", retry=TWICE, timeout=20)
    client.encode(["larger than any that follows, since such a request is sent by itself"])
    server.play(lambda request: fault if request.texts == ("refused",) else Hold(gate))
    with ThreadPoolExecutor(2) as pool:
        begun = pool.submit(client.index, [Document(text="begun")])
        gate.wait_for(1)
        refused = pool.submit(client.index, [Document(text="refused")])
        with pytest.raises(kind) as first:
            begun.result()
        with pytest.raises(kind) as second:
            refused.result()
    assert type(first.value) is type(second.value) is kind
    assert first.value is not second.value
    assert first.value.shared
    assert list(first.value.unconfirmed) == [0]
    assert [request.texts for request in server.requests][1:] == [("begun",), ("refused",)]


def test_what_is_too_large_for_the_embedded_server_is_halved(make_server, connect_to, scheme, rows):
    """No item is to blame for it, as none is where a proxy takes less."""
    server = make_server(lambda request: ByTheGateway("TooLargeError") if len(request.texts) > 1 else None)
    client = connect_to(server, scheme, retry=ONCE, timeout=20)
    np.testing.assert_array_equal(client.encode(["a", "b"]), rows(["a", "b"]))
    assert [request.texts for request in server.requests] == [("a", "b"), ("a",), ("b",)]
