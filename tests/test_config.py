import msgspec
import pytest
from casdk import TLS, ConfigError, Limits, Retry, Timeouts


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (TLS, {"cert": "c.pem"}, "belong together"),
        (TLS, {"key": "k.pem"}, "belong together"),
        (TLS, {"ca": "ca.pem", "verify": False}, "contradict"),
        (Timeouts, {"connect": 0}, "connect must be more than 0"),
        (Timeouts, {"total": -1}, "total must be more than 0"),
        (Retry, {"attempts": 0}, "attempts must be at least 1"),
        (Retry, {"backoff": -1.0}, "backoff must not be negative"),
        (Retry, {"backoff": 9.0, "max_backoff": 1.0}, "max_backoff"),
        (Retry, {"jitter": 2.0}, "jitter"),
        (Retry, {"budget": 1.5}, "budget"),
        (Limits, {"prefetch": 0}, "prefetch must be at least 1"),
        (Limits, {"max_inflight_bytes": 0}, "max_inflight_bytes must be at least 1"),
    ],
)
def test_refused(kind, options, says):
    with pytest.raises(ConfigError, match=says):
        kind(**options)


@pytest.mark.parametrize("kind", [TLS, Timeouts, Retry, Limits])
def test_frozen_and_strict(kind):
    with pytest.raises(TypeError):
        kind(nonsense=1)
    with pytest.raises(AttributeError):
        setattr(kind(), kind.__struct_fields__[0], 1)


def test_nothing_waits_without_a_limit():
    waits = msgspec.structs.asdict(Timeouts())
    assert waits.pop("total") is None
    assert all(seconds > 0 for seconds in waits.values())


def test_a_key_is_never_shown():
    shown = repr(TLS(cert=b"-----BEGIN CERT", key=b"-----BEGIN secret"))
    assert "secret" not in shown
    assert "k.pem" not in repr(TLS(cert="c.pem", key="k.pem"))
    assert "server_name='x'" in repr(TLS(server_name="x"))


def test_no_redirects_is_a_choice():
    assert Limits(redirects=0).redirects == 0


def test_only_the_window_may_be_left_to_the_client():
    assert Limits().prefetch is None
    for name in set(Limits.__struct_fields__) - {"prefetch"}:
        with pytest.raises(TypeError):
            Limits(**{name: None})
