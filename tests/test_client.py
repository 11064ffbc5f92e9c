"""A client checks its options when it is made, shows no secret, can be pickled, and sends its credential everywhere."""

import gc
import inspect
import pickle
import threading

import numpy as np
import pytest
from casdk import TLS, Client, ClosedError, ConfigError, Limits, Timeouts
from casdk._calls.settings import ClientOptions
from casdk.server import serve


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tls": TLS()}, "secure scheme"),
        ({"timeout": 1, "timeouts": Timeouts()}, "not both"),
        ({"credential": {"Authentication": "x"}}, "'Authentication'"),
        ({"credential": "tök"}, "printable ASCII"),
        ({"credential": ""}, "not empty"),
        ({"credential": 7}, "must be a str"),
        ({"coalesce": -1}, "coalesce"),
        ({"limits": 3}, r"limits must be a casdk\.Limits, not int"),
        ({"timeouts": 5}, r"timeouts must be a casdk\.Timeouts, not int"),
        ({"retry": 5}, r"retry must be a casdk\.Retry, not int"),
        ({"proxy": "nonsense"}, "proxy"),
    ],
)
def test_what_cannot_work_is_refused_at_once(options, says):
    with pytest.raises(ConfigError, match=says) as caught:
        Client("grpc://127.0.0.1:1", **options)
    assert "tök" not in str(caught.value)


def test_options_are_told_to_type_checkers_as_they_are():
    parameters = inspect.signature(Client.__init__).parameters
    decides = {"self", "server", "credential", "pool"}
    annotations = {name: one.annotation for name, one in parameters.items() if name not in decides}
    assert annotations == {name: hint.__forward_arg__ for name, hint in ClientOptions.__annotations__.items()}


def test_unknown_option():
    with pytest.raises(TypeError):
        Client("grpc://127.0.0.1:1", tracing=True)


def test_a_secret_is_never_shown():
    client = Client("grpcs://127.0.0.1:1", credential="s3cret", tls=TLS(cert=b"-----BEGIN", key=b"-----BEGIN s3cret"))
    assert repr(client) == "Client('grpcs://127.0.0.1:1')"
    assert "s3cret" not in repr(vars(client))


@pytest.mark.parametrize(
    "options",
    [
        {"credential": "s3cret"},
        {"tls": TLS(cert=b"-----BEGIN", key=b"-----BEGIN s3cret")},
        {"proxy": "http://me:s3cret@h:1"},
    ],
)
def test_a_secret_does_not_travel_in_a_pickle(options):
    with pytest.raises(ConfigError, match="cannot be pickled") as caught:
        pickle.dumps(Client("grpcs://127.0.0.1:1", **options))
    assert "s3cret" not in str(caught.value)


def test_a_client_travels_as_its_configuration(client):
    again = pickle.loads(pickle.dumps(client))
    with again:
        np.testing.assert_array_equal(again.encode(["hello"]), client.encode(["hello"]))
    assert repr(again) == repr(client)


@pytest.mark.parametrize("options", [{"limits": Limits(prefetch=1)}, {"coalesce": True}])
def test_closed(connect, options):
    client = connect("grpc", **options)
    client.encode(["hello"])
    client.close()
    client.close()
    with pytest.raises(ClosedError):
        client.encode(["hello"])


def test_an_ipv6_literal():
    with serve(host="::1", index=False) as served:
        for scheme, address in served.addresses.items():
            assert "//[::1]:" in address
            with Client(address, tls=TLS(ca=served.ca) if scheme.endswith("s") else None) as client:
                assert client.encode(["hello"]).shape == (1, 512)


async def test_context_managers(connect):
    async with connect("http") as client:
        assert (await client.aencode(["hello"])).shape == (1, 512)
    with connect("websocket") as client:
        assert client.encode(["hello"]).shape == (1, 512)  # inside a running loop, as in a notebook


def test_a_client_that_nobody_closed_goes_quietly(server):
    client = Client(server.address("websocket"))
    client.encode(["hello"])
    session = client._session
    del client
    gc.collect()
    done = threading.Event()
    session._engine.post(lambda: session._engine.loop.call_later(0.2, done.set))
    assert done.wait(10)
    assert session.closed


@pytest.fixture(scope="module")
def guarded():
    with serve(token="s3cret", index=False) as served:
        yield served


def credentials():
    asked = []

    def rotating():
        asked.append(1)
        return "s3cret" if len(asked) > 1 else "stale"

    async def asynchronous():
        return "s3cret"

    return {"str": "s3cret", "mapping": {"Authorization": "s3cret"}, "function": rotating, "coroutine": asynchronous}


@pytest.mark.parametrize("kind", credentials())
def test_credentials_on_every_scheme_and_verb(guarded, scheme, kind):
    tls = TLS(ca=guarded.ca) if scheme.endswith("s") else None
    with Client(guarded.address(scheme), credentials()[kind], tls=tls) as client:
        assert client.encode(["hello"]).shape == (1, 512)
        assert client.profile(quiet=True).roundtrip > 0


def test_token_of_the_environment(guarded, scheme, monkeypatch):
    monkeypatch.setenv("CLIP_AUTH_TOKEN", "s3cret")
    tls = TLS(ca=guarded.ca) if scheme.endswith("s") else None
    with Client(guarded.address(scheme), tls=tls) as client:
        assert client.encode(["hello"]).shape == (1, 512)


@pytest.mark.parametrize("credential", [None, "wr0ng"])
def test_refused_credential(guarded, scheme, credential):
    tls = TLS(ca=guarded.ca) if scheme.endswith("s") else None
    with Client(guarded.address(scheme), credential, tls=tls) as client, pytest.raises(PermissionError) as caught:
        client.encode(["hello"])
    assert "wr0ng" not in str(caught.value)
