"""The settings of a client: each field is checked when it is made, and none allows an endless wait."""

import math
import pathlib
from decimal import Decimal

import msgspec
import numpy as np
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
        (Limits, {"requests_per_second": 0}, "requests_per_second must be more than 0 a second"),
        (Limits, {"items_per_second": 1e-9}, "items_per_second must be from 1e-06 to 1e\\+09 a second"),
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


def test_the_window_and_the_pace_may_be_left_to_the_client():
    left = {"prefetch", "requests_per_second", "items_per_second"}
    assert {getattr(Limits(), name) for name in left} == {None}
    for name in set(Limits.__struct_fields__) - left:
        with pytest.raises(ConfigError, match=name):
            Limits(**{name: None})


def repr_of(options):
    return "-".join(options)


class Hostile:
    """Neither a number nor a path, and cannot be shown."""

    def __repr__(self):
        raise RuntimeError("not shown")

    def __fspath__(self):
        raise RuntimeError("no path")


NO_NUMBERS = [
    *("1", b"1", [1], {}, object(), Hostile(), True, 1j, Decimal(1), np.array([1, 2]), np.datetime64("2020-01-01")),
    *(math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("inf"), 10**400, -1, -0.5),
]
FIELDS = [(kind, name) for kind in (Timeouts, Retry, Limits) for name in kind.__struct_fields__]


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=[f"{kind.__name__}.{name}" for kind, name in FIELDS])
def test_what_is_no_number_of_use_is_refused_when_it_is_given(kind, name):
    for value in NO_NUMBERS:
        with pytest.raises(ConfigError, match=f"{kind.__name__}: {name}"):
            kind(**{name: value})


@pytest.mark.parametrize("name", ["connect", "read", "download"])
def test_no_single_wait_is_longer_than_grpc_counts(name):
    assert getattr(Timeouts(**{name: 1_000_000}), name) == 1_000_000
    with pytest.raises(ConfigError, match=f"{name} must be at most 1e"):
        Timeouts(**{name: 2_000_000})


def test_numbers_of_numpy_are_numbers():
    assert Timeouts(connect=np.float32(2), total=np.int64(3)).total == 3
    assert Limits(requests=np.int32(2)).requests == 2
    assert Retry(attempts=np.int64(1), jitter=np.float16(0.5)).jitter == 0.5


def test_a_call_may_be_given_any_time_that_ends():
    assert Timeouts(total=1e300).total == 1e300


@pytest.mark.parametrize(
    "options",
    [
        *({"ca": source} for source in (7, object(), ["ca.pem"], bytearray(b"x"), Hostile(), "a\0b", "\ud800.pem")),
        {"cert": 7, "key": "k.pem"},
        {"cert": "c.pem", "key": Hostile()},
        *({"server_name": name} for name in (7, b"host", "", "\ud800", "a b", "a\n", "a." + "b" * 64)),
        *({"verify": verify} for verify in (0, None, "no", Hostile())),
    ],
    ids=repr_of,
)
def test_tls_of_a_wrong_kind_is_refused_when_it_is_given(options):
    with pytest.raises(ConfigError, match=r"TLS: (ca|cert|key|server_name|verify)"):
        TLS(**options)


def test_a_path_of_any_class_is_read_when_it_is_given():
    class Elsewhere:
        def __fspath__(self):
            return "ca.pem"

    assert TLS(ca=Elsewhere()) == TLS(ca=pathlib.Path("ca.pem")) == TLS(ca="ca.pem")
    assert TLS(server_name="bücher.example").server_name == "bücher.example"
