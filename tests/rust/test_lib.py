"""The small functions of the extension against the standard library."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from casdk import Document
from casdk._rust import Kind, classify, decode_data_uri
from hypothesis import given
from hypothesis import strategies as st


def test_kinds_tell_types_apart() -> None:
    class Mine(str):
        pass

    items = ["a", "cat.png", b"", Document(), np.zeros(3), None, 1, Mine("a"), bytearray(), "\ud800"]
    assert list(classify(items)) == [
        *(Kind.TEXT, Kind.PATH, Kind.BLOB, Kind.DOCUMENT),
        *[Kind.UNCLEAR] * 5,
        Kind.TEXT,
    ]
    assert classify(tuple(items)) == classify(items)
    assert classify([]) == b""


@given(st.binary(max_size=60), st.booleans())
def test_data_uris_are_decoded(payload: bytes, is_base64: bool) -> None:
    from urllib.parse import quote_from_bytes

    data = ";base64," + base64.b64encode(payload).decode() if is_base64 else "," + quote_from_bytes(payload)
    assert decode_data_uri(f"data:image/png{data}") == ("image/png", payload)


def test_a_broken_data_uri_names_the_offset() -> None:
    with pytest.raises(ValueError, match="offset 24"):
        decode_data_uri("data:image/png;base64,AA=A")
