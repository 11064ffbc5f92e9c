"""Requests are read, and their memory is estimated, alike in protobuf and in JSON."""

import pytest
from casdk.server.forms import BINARY, SNAKE, json_form, request_bytes
from casdk.wire.jina_pb2 import DataRequestProto
from casdk.wire.json_form import TooDeepError
from casdk.wire.values import DEEPEST
from google.protobuf.message import DecodeError


def _nested(levels):
    request = DataRequestProto()
    document = request.data.docs.docs.add(text="a")
    for _ in range(levels):
        document = document.chunks.add(text="a")
    return request


def test_a_message_weighs_what_its_documents_do():
    request = _nested(3)
    message = request.SerializeToString()
    documents, values, depth = BINARY.weigh(message)
    assert (documents, depth) == (4, 7)
    assert request_bytes(message, (documents, values, depth)) >= 4000 + 3 * len(message)
    read, count = BINARY.read(message)
    assert (read.data.docs.docs[0].text, count) == ("a", 4)
    assert read.data.docs.docs[0].chunks[0].parent_id == read.data.docs.docs[0].id


def test_documents_in_bytes_are_read_as_others_are():
    request = _nested(1)
    request.data.docs_bytes = request.data.docs.SerializeToString()
    assert BINARY.weigh(request.SerializeToString())[0] == 2
    assert BINARY.read(request.SerializeToString())[1] == 2


def test_what_google_reads_is_refused_a_little_earlier():
    BINARY.read(_nested(DEEPEST - 4).SerializeToString())
    assert BINARY.weigh(_nested(DEEPEST - 4).SerializeToString())[2] == DEEPEST
    with pytest.raises(DecodeError, match=f"nested {DEEPEST + 1} deep"):
        BINARY.weigh(_nested(DEEPEST - 3).SerializeToString())


def test_json_weighs_its_objects():
    assert SNAKE.weigh(b'{"data":[{"text":"a"},{}]}')[0] == 3
    request, count = SNAKE.read(b'{"data":[{"text":"a"},{}]}')
    assert (len(request.data.docs.docs), count) == (2, 2)
    with pytest.raises(TooDeepError, match="JSON nested 200 deep"):
        SNAKE.weigh(b"[" * 200)
    assert json_form("/index", camel=True).read(b"{}")[0].header.exec_endpoint == "/index"


def test_a_reply_in_json_takes_more():
    assert SNAKE.reply_bytes(b"", 10, 512) > 3 * BINARY.reply_bytes(b"", 10, 512) > 10 * 512 * 4
