"""The options of a server: impossible ones are refused, and missing ones are filled in."""

import pytest
from casdk._transport.address import SCHEMES
from casdk.server.settings import DEFAULT_PORTS, LARGEST_MESSAGE_BYTES, MIB, Settings
from hypothesis import given
from hypothesis import strategies as st

PORTS = {"http": 0}


def test_each_scheme_has_a_port_of_its_own():
    assert sorted(DEFAULT_PORTS) == sorted(SCHEMES)
    assert len(set(DEFAULT_PORTS.values())) == len(SCHEMES)
    assert list(DEFAULT_PORTS.values()) == sorted(DEFAULT_PORTS.values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ports": {}}, "no scheme to serve"),
        ({"ports": {"http": 0, "ftp": 0}}, "no scheme 'ftp'; there are grpc, http"),
        ({"cert": "cert.pem"}, "come together"),
        ({"key": "key.pem"}, "come together"),
        ({"host": ""}, "no host to listen on"),
        ({"token": ""}, "an empty token protects nothing"),
        ({"token": "s3cret "}, "no client can send a token with white space"),
        ({"token": " s3cret"}, "no client can send a token with white space"),
        ({"token": "s3\x00cret"}, "or with control characters"),
        ({"token": "s3\ncret"}, "or with control characters"),
        ({"grace": -0.1}, "grace must be a number of seconds from 0 to 86400"),
        ({"grace": 86_401}, "grace must be"),
        ({"grace": float("nan")}, "grace must be"),
        ({"grace": float("inf")}, "grace must be"),
        ({"threads": 0}, "must be at least 1"),
        ({"max_message": 0}, "must be at least 1"),
        ({"max_pixels": 0}, "must be at least 1"),
        ({"max_memory": 64 * MIB - 1}, "max_memory must be at least 67108864 bytes"),
        ({"max_memory": 150 * MIB, "max_message": 10 * MIB + 1}, "take max_memory of at least 157286415"),
    ],
)
def test_what_cannot_work_is_refused(changes, words):
    with pytest.raises(ValueError, match=words) as refusal:
        Settings(**{"ports": PORTS} | changes)
    assert "s3" not in str(refusal.value)


def test_what_just_works():
    Settings(ports=PORTS, grace=0, threads=1, max_pixels=1, max_memory=64 * MIB)
    Settings(ports=PORTS, grace=86_400, max_memory=150 * MIB, max_message=10 * MIB)
    assert "s3cret" not in repr(Settings(ports=PORTS, token="s3cret"))


@given(st.integers(64 * MIB, 1 << 40), st.integers(1, 1 << 40) | st.none())
def test_a_message_is_never_larger_than_its_memory_allows(memory, message):
    if message is not None and message > memory // 15:
        message = memory // 15
    settings = Settings(ports=PORTS, max_memory=memory, max_message=message)
    assert settings.message_bytes == min(message or memory // 15, LARGEST_MESSAGE_BYTES)
    shares = (settings.image_memory, settings.request_memory, settings.reply_memory, settings.little_memory)
    assert sum(shares) <= memory
    assert 3 * settings.message_bytes <= settings.request_memory
