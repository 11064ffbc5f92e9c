"""The small functions of the extension against the standard library."""

from __future__ import annotations

import base64
import os
import re
import threading

import numpy as np
import pytest
from casdk import Document
from casdk._rust import classify, decode_data_uri, new_id, sniff
from hypothesis import given
from hypothesis import strategies as st
from oracle import (
    PNG,
)


def test_ids_are_hex_and_never_the_same() -> None:
    ids: set[str] = set()

    def draw() -> None:
        ids.update(new_id() for _ in range(5000))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 20_000
    assert all(re.fullmatch("[0-9a-f]{32}", drawn) for drawn in ids)


def test_a_forked_child_draws_other_ids() -> None:
    new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 32).decode() != new_id()
    os.close(reading)
    os.close(writing)


def test_verdicts_tell_types_apart() -> None:
    class Mine(str):
        pass

    items = ["a", "cat.png", b"", Document(), np.zeros(3), None, 1, Mine("a"), bytearray(), "\ud800"]
    assert classify(items) == b"TPBO????" + b"?T"
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


def test_images_are_known_by_their_magic() -> None:
    assert sniff(PNG) == "png"
    assert sniff(b"hello") is None
