"""The executor of the fault server: rows that anyone can compute, ranking, and an index in memory."""

import hashlib
import struct

import numpy as np
import pytest
from casdk.testing.executor import Executor, embed
from casdk.wire.jina_pb2 import DataRequestProto
from casdk.wire.values import array_of
from hypothesis import given
from hypothesis import strategies as st


@given(st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.binary()), st.integers(1, 40))
def test_a_row_is_what_its_docstring_says(content, width):
    data = content.encode() if isinstance(content, str) else content
    drawn = hashlib.shake_128(hashlib.blake2b(data, digest_size=32).digest()).digest(4 * width)
    expected = [number / 2**31 - 1 for number in struct.unpack(f"<{width}I", drawn)]
    np.testing.assert_array_equal(embed(content, width), np.array(expected, np.float32))


def request(endpoint, *texts, **parameters):
    made = DataRequestProto()
    made.header.request_id, made.header.exec_endpoint = "r", endpoint
    made.parameters.update(parameters)
    for text in texts:
        made.data.docs.docs.add(id=f"id of {text}", text=text)
    return made


def rows(reply):
    return [array_of(document.embedding) for document in reply.data.docs.docs]


def test_texts_and_bytes_are_encoded():
    made = request("/encode", "a")
    made.data.docs.docs.add(blob=b"bytes")
    reply = Executor(8).answer(made)
    np.testing.assert_array_equal(rows(reply), [embed("a", 8), embed(b"bytes", 8)])
    assert [route.executor for route in reply.routes] == ["gateway", "clip"]
    assert reply.header.status.code == 0
    assert not made.data.docs.docs[0].HasField("embedding")


@pytest.mark.parametrize(("text", "poison"), [("!!raise me", None), ("poison", "poison".__eq__)])
def test_an_exception_is_a_status_in_the_reply(text, poison):
    reply = Executor(8, poison).answer(request("/", "a", text))
    assert reply.header.status.code == 1
    assert reply.header.status.exception.name == "ValueError"
    assert f"boom: {text}" in reply.header.status.description
    assert [bool(route.status.code) for route in reply.routes] == [False, True]


def test_what_is_left_without_a_row_or_out():
    reply = Executor(8).answer(request("/", "!!noemb", "!!drop", "a"))
    assert [document.text for document in reply.data.docs.docs] == ["!!noemb", "a"]
    assert [document.HasField("embedding") for document in reply.data.docs.docs] == [False, True]


def test_an_index_finds_the_nearest_and_forgets_what_is_deleted():
    executor = Executor(8)
    executor.answer(request("/index", "a", "b", "c"))
    assert executor.indexed == 3
    executor.answer(request("/index", "a"))  # again: it is replaced
    assert executor.indexed == 3
    (found,) = executor.answer(request("/search", "b", limit=2)).data.docs.docs
    assert found.matches[0].text == "b"
    assert len(found.matches) == 2
    executor.answer(request("/delete", ids=["id of b"]))
    assert executor.indexed == 2
    (found,) = executor.answer(request("/search", "b", limit=3)).data.docs.docs
    assert sorted(match.text for match in found.matches) == ["a", "c"]
