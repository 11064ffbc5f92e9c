"""Whatever a server says, the answer is a typed error in time, in bounded memory, or the right rows."""

import numpy as np
import psutil
import pytest
from casdk import CasdkError, ProtocolMismatchError, Retry
from casdk.testing import (
    AddDocument,
    Babble,
    DeepNesting,
    DropDocument,
    Duplicate,
    EndlessHeaders,
    Garbage,
    HugeLength,
    NoEmbedding,
    NotFinite,
    TextReply,
    Trickle,
    Truncate,
    Width,
    WrongId,
)

ONCE = Retry(attempts=1)
LIES = {
    "one document more": {"script": AddDocument()},
    "one document less": {"script": DropDocument()},
    "no embedding": {"script": NoEmbedding()},
    "truncated": {"script": Truncate()},
    "garbage": {"script": Garbage()},
    "4 GB announced": {"script": HugeLength()},
    "nested deeply": {"script": DeepNesting()},
    "text": {"script": TextReply()},
    "endless headers": {"connections": EndlessHeaders()},
    "another protocol": {"connections": Babble()},
    "slow bytes": {"script": Trickle(1, 0.05)},
}


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.replace(" ", "-"))
def test_a_typed_error(make_server, connect_to, scheme, lie, stopwatch, figure):
    server = make_server(**LIES[lie])
    client = connect_to(server, scheme, retry=ONCE, timeout=5)
    before = psutil.Process().memory_info().rss
    with stopwatch() as watch, pytest.raises(CasdkError):
        client.encode(["a", "b"])
    assert watch.seconds < 6
    grown = (psutil.Process().memory_info().rss - before) / 2**20
    assert grown < 64
    figure("hostile: memory grown by a lie, MiB", round(grown, 1))


@pytest.mark.parametrize("fault", [Duplicate(), WrongId("0" * 32)], ids=["repeated", "unknown"])
def test_request_ids(make_server, connect_to, scheme, rows, fault):
    """A repeated or unknown id either changes nothing or is an error; it never crosses rows."""
    client = connect_to(make_server([fault]), scheme, retry=ONCE, timeout=2)
    try:
        np.testing.assert_array_equal(client.encode(["a", "b"]), rows(["a", "b"]))
    except CasdkError as error:
        assert str(error)
    np.testing.assert_array_equal(client.encode(["c"], timeout=20), rows(["c"]))


def test_a_width_that_changes(make_server, connect_to, scheme):
    client = connect_to(make_server([None, Width(7)]), scheme, retry=ONCE, timeout=5)
    with pytest.raises(CasdkError, match="7"):
        client.encode(["a", "b"], batch_size=1, prefetch=1)


def test_numbers_that_are_none(make_server, connect_to, scheme):
    """NaN is a float: it comes through as it was sent, and nothing else is touched."""
    client = connect_to(make_server([NotFinite()]), scheme, retry=ONCE, timeout=5)
    try:
        found = client.encode(["a", "b"])
    except CasdkError as error:
        assert str(error)
    else:
        assert not np.isfinite(found).all()
        assert found.shape == (2, 32)


PLAIN = ("grpc", "http", "websocket")


@pytest.mark.parametrize("spoken", PLAIN)
@pytest.mark.parametrize("listening", PLAIN)
def test_a_wrong_port_is_named(make_server, connect_to, spoken, listening):
    """HTTP on a gRPC port, and the other way round."""
    if "grpc" not in {spoken, listening} or spoken == listening:
        pytest.skip("a gateway may serve both here")
    port = make_server().port(listening)

    class Place:
        def address(self, scheme):
            return f"{scheme}://127.0.0.1:{port}"

    with pytest.raises(ProtocolMismatchError, match=r"grpc://|http://|gRPC|HTTP/1\.1"):
        connect_to(Place(), spoken, retry=ONCE, timeout=5).encode(["a"])
