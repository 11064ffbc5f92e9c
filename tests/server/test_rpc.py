"""The gRPC port serves the services of a jina gateway, also to raw grpcio."""

import grpc
import pytest
from casdk.wire.jina_pb2 import DataRequestProto, JinaInfoProto, StatusProto
from google.protobuf.empty_pb2 import Empty


@pytest.fixture(params=["grpc", "grpcs"])
def opened(request, server, raw):
    with raw.channel(server, request.param) as channel:
        yield channel


def _call(channel, raw, messages, metadata=()):
    stream = channel.stream_stream(raw.STREAM, DataRequestProto.SerializeToString, DataRequestProto.FromString)
    return stream(iter(messages), metadata=metadata, timeout=raw.WAIT)


def _slow_then_quick(raw):
    slow = raw.request("/encode", {"text": "!!sleep:0.3"}, request_id="slow")
    return [slow, *(raw.request("/encode", {"text": "a"}, request_id=f"quick{at}") for at in range(3))]


def test_replies_come_as_they_are_done(opened, raw):
    replies = _call(opened, raw, _slow_then_quick(raw))
    assert [reply.header.request_id for reply in replies][-1] == "slow"
    assert replies.code() is grpc.StatusCode.OK


def test_replies_come_in_order_when_asked(opened, raw):
    replies = _call(opened, raw, _slow_then_quick(raw), [("__results_in_order__", "true")])
    assert [reply.header.request_id for reply in replies] == ["slow", "quick0", "quick1", "quick2"]


def test_prefetch_of_one_works_on_one_request_at_a_time(opened, raw):
    replies = _call(opened, raw, _slow_then_quick(raw), [("__prefetch__", "1")])
    assert [reply.header.request_id for reply in replies] == ["slow", "quick0", "quick1", "quick2"]


def test_a_failed_request_does_not_stop_the_stream(opened, raw):
    messages = [raw.request("/encode", {"text": text}, request_id=text) for text in ("a", "!!raise", "b")]
    replies = {reply.header.request_id: reply.header.status.code for reply in _call(opened, raw, messages)}
    assert replies == {"a": 0, "!!raise": 1, "b": 0}


def test_a_thousand_requests_on_one_stream(opened, raw):
    messages = (raw.request("/encode", {"text": f"t{at}"}, request_id=str(at)) for at in range(1000))
    assert {reply.header.request_id for reply in _call(opened, raw, messages)} == {str(at) for at in range(1000)}


def test_large_messages_pass(opened, raw):
    texts = [{"text": f"text {at}"} for at in range(3000)]
    (reply,) = _call(opened, raw, [raw.request("/encode", *texts)])
    assert reply.ByteSize() > 6_000_000
    assert all(made.HasField("embedding") for made in reply.data.docs.docs)


def test_a_deadline_holds(opened, raw):
    call = opened.unary_unary(raw.SINGLE, DataRequestProto.SerializeToString, DataRequestProto.FromString)
    with pytest.raises(grpc.RpcError) as failure:
        call(raw.request("/encode", {"text": "!!sleep:20"}), timeout=0.2)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("method", ["SINGLE", "STREAM"])
def test_garbage_is_an_invalid_argument(opened, raw, method):
    def ask():
        if method == "SINGLE":
            return opened.unary_unary(raw.SINGLE)(b"\xff\xff", timeout=raw.WAIT)
        return list(opened.stream_stream(raw.STREAM)(iter([b"\xff\xff"]), timeout=raw.WAIT))

    with pytest.raises(grpc.RpcError) as failure:
        ask()
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "no DataRequestProto" in failure.value.details()


def test_documents_may_come_serialized(opened, raw):
    asked = raw.request("/encode", {"text": "a", "id": "x"})
    asked.data.docs_bytes = asked.data.docs.SerializeToString()
    (reply,) = _call(opened, raw, [asked])
    assert [made.id for made in reply.data.docs.docs] == ["x"]
    assert reply.data.docs.docs[0].HasField("embedding")


def test_request_ids_are_echoed_whatever_they_are(opened, raw):
    messages = [raw.request("/", {"text": "a"}, request_id=given) for given in ("", "same", "same", "ü")]
    replies = _call(opened, raw, messages)
    assert sorted(reply.header.request_id for reply in replies) == ["", "same", "same", "ü"]


def test_the_other_services(opened, raw):
    def ask(method, parse):
        return opened.unary_unary(method, Empty.SerializeToString, parse)(Empty(), timeout=raw.WAIT)

    assert ask("/jina.JinaGatewayDryRunRPC/dry_run", StatusProto.FromString) == StatusProto()
    info = ask("/jina.JinaInfoRPC/_status", JinaInfoProto.FromString)
    assert info.jina["server"] == "casdk"
    assert dict(info.envs) == {}
    assert ask("/grpc.health.v1.Health/Check", bytes) == b"\x08\x01"
    with pytest.raises(grpc.RpcError) as failure:
        ask("/jina.JinaDiscoverEndpointsRPC/endpoint_discovery", bytes)
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
