"""The edge where replies become errors, Documents and Responses: against google protobuf, which writes the replies."""

import numpy as np
import pytest
from casdk import (
    DataURIError,
    Document,
    DownloadError,
    EmptyItemError,
    FileMissingError,
    FileUnreadableError,
    ItemTooLargeError,
    ItemTypeError,
    NotAllowedError,
    NotAnImageError,
    OverloadedError,
    ServerError,
    TransportError,
)
from casdk._transport.codecs import failure_of, read_documents, read_error, read_response, read_status, scan
from casdk.wire.docarray_pb2 import NamedScoreProto
from casdk.wire.jina_pb2 import DataRequestProto, StatusProto
from casdk.wire.values import put_array
from hypothesis import given
from hypothesis import strategies as st

FAILURES = {
    "missing": FileMissingError,
    "unreadable": FileUnreadableError,
    "not_image": NotAnImageError,
    "not_allowed": NotAllowedError,
    "data_uri": DataURIError,
    "too_large": ItemTooLargeError,
    "empty": EmptyItemError,
    "type": ItemTypeError,
    "not_fetched": DownloadError,
}


def failed(name="", description="", executor="", **exception):
    """Return the scanned reply of a request that failed."""
    reply = DataRequestProto()
    reply.header.request_id = "r"
    status = reply.header.status
    status.code, status.description = StatusProto.ERROR, description
    status.exception.name, status.exception.executor = name, executor
    status.exception.args.extend(exception.get("args", ()))
    status.exception.stacks.extend(exception.get("stacks", ()))
    return scan("proto", reply.SerializeToString())


@pytest.mark.parametrize("kind", FAILURES)
def test_each_failure_of_the_packer_is_an_error_of_its_own(kind):
    error = failure_of(kind, 3, "item", "the reason", None)
    assert type(error) is FAILURES[kind]
    assert (error.index, error.item) == (3, "item")
    assert "the reason" in str(error)


def test_a_password_in_a_reason_is_not_shown():
    reason = "HTTPS://user:s3cret@host/cat.png and http://s3cret@other/ were not fetched, a@b was"
    error = failure_of("not_fetched", 0, "item", reason, None)
    assert "s3cret" not in str(error)
    assert "HTTPS://***@host/cat.png and http://***@other/ were not fetched, a@b was" in str(error)


def test_no_more_of_a_foreign_reason_is_shown_than_fits():
    error = failure_of("not_fetched", 0, "item", "x" * 5_000 + "\x1b[31m", None)
    assert len(str(error)) < 1_200
    assert "\x1b" not in str(error)


def test_a_reply_without_a_failure_is_no_error():
    reply = DataRequestProto()
    reply.data.docs.docs.add(text="a")
    assert read_error(scan("proto", reply.SerializeToString())) is None


def test_an_executors_exception_is_in_the_error():
    error = read_error(failed("ValueError", "boom", "clip", args=["boom"], stacks=["Traceback"]))
    assert type(error) is ServerError
    assert str(error) == "boom"
    assert (error.name, error.executor, error.request_id) == ("ValueError", "clip", "r")
    assert (error.arguments, error.stacks) == (("boom",), ("Traceback",))
    assert (error.retryable, error.for_item) == (False, True)


@pytest.mark.parametrize(
    ("name", "description", "retryable", "for_item"),
    [
        ("MemoryError", "no memory", True, False),
        ("ConnectionResetError", "gone", True, False),
        ("RuntimeError", "CUDA error: out of memory", False, False),
        ("RuntimeError", "can't start new thread", False, False),
        ("RuntimeError", "wrong size", False, True),
    ],
)
def test_which_exceptions_say_nothing_about_the_items(name, description, retryable, for_item):
    error = read_error(failed(name, description))
    assert type(error) is ServerError
    assert (error.retryable, error.for_item) == (retryable, for_item)


@pytest.mark.parametrize("name", ["InternalNetworkError", "<class 'jina.excepts.InternalNetworkError'>"])
def test_a_gateway_without_its_executor_is_no_server(name):
    error = read_error(failed(name, "no connection to deployment clip"))
    assert type(error) is TransportError
    assert (error.retryable, error.sent) == (True, True)


def test_a_busy_server_and_one_that_takes_less_are_told_by_their_names():
    busy = read_error(failed("BusyError", "no memory is left", "gateway"))
    assert type(busy) is OverloadedError
    assert busy.retryable
    large = read_error(failed("TooLargeError", "too much", "gateway"))
    assert type(large) is ServerError
    assert (large.too_large, large.sent) == (True, False)
    assert type(read_error(failed("BusyError", "said by an executor", "clip"))) is ServerError


def test_an_error_without_words_gets_a_message():
    assert str(read_error(failed())) == "the server failed without a word"
    assert str(read_error(failed("KeyError"))) == "KeyError"
    assert len(str(read_error(failed("KeyError", "x" * 10_000)))) < 2_100


def test_a_status_that_travels_alone():
    sent = StatusProto(code=StatusProto.ERROR, description="not ready")
    assert (read_status("proto", sent.SerializeToString()).code) == 1
    assert read_status("proto", sent.SerializeToString()).description == "not ready"
    assert read_status("proto", b"").code == 0


numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=4),
    row=st.lists(numbers, min_size=1, max_size=5),
    score=numbers,
)
def test_documents_come_as_protobuf_wrote_them(texts, row, score):
    reply = DataRequestProto()
    expected = np.array(row, np.float32)
    for text in texts:
        document = reply.data.docs.docs.add(text=text)
        put_array(document.embedding, expected)
        document.matches.add(text=text).scores["cosine"].CopyFrom(NamedScoreProto(value=score, op_name="cos"))
    found = read_documents(scan("proto", reply.SerializeToString()).documents())
    assert [document.text for document in found] == texts
    for document in found:
        np.testing.assert_array_equal(document.embedding, expected)
        (match,) = document.matches
        assert type(match) is Document
        assert match.text == document.text
        assert (match.scores["cosine"].value, match.scores["cosine"].op_name) == (np.float32(score), "cos")


def test_a_response_has_all_that_a_reply_carries():
    reply = DataRequestProto()
    reply.header.request_id = "of the reply"
    reply.header.exec_endpoint = "/encode"
    reply.parameters.update({"a": [1, None, {"b": "c"}]})
    route = reply.routes.add(executor="clip")
    route.start_time.FromNanoseconds(10**18)
    route.end_time.FromNanoseconds(10**18 + 5 * 10**6)
    reply.data.docs.docs.add(text="a")
    stamps = (0.0, 0.5, 0.75, 1.0, 3.0, 3.5)
    response = read_response(scan("proto", reply.SerializeToString()), "mine", stamps, connecting=0.25)
    assert (response.header.request_id, response.header.exec_endpoint) == ("mine", "/encode")
    assert response.status.code == 0
    assert response.parameters == {"a": [1.0, None, {"b": "c"}]}
    (found,) = response.routes
    assert (found.executor, found.end_ns - found.start_ns) == ("clip", 5 * 10**6)
    assert [document.text for document in response.docs] == ["a"]
