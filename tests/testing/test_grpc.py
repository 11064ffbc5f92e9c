"""gRPC as grpcio reads it: the stream beside the unary call, a dry run, and what the server does not have."""

import grpc
import pytest
from casdk.testing import FaultServer, Never
from casdk.wire.jina_pb2 import DataRequestProto, StatusProto

STREAM = "/jina.JinaRPC/Call"
SINGLE = "/jina.JinaSingleDataRequestRPC/process_single_data"
DRY_RUN = "/jina.JinaGatewayDryRunRPC/dry_run"


@pytest.fixture
def opened():
    """A function from FaultServer's options to the server and a channel of grpcio's to it."""
    things = []

    def open_(**options):
        server = FaultServer(width=8, **options).start()
        channel = grpc.insecure_channel(server.address("grpc").partition("://")[2])
        things.append((server, channel))
        return server, channel

    yield open_
    for server, channel in things:
        channel.close()
        server.stop()


def test_a_stream_answers_each_request(opened, request_for):
    _, channel = opened()
    call = channel.stream_stream(STREAM, DataRequestProto.SerializeToString, DataRequestProto.FromString)
    replies = list(call(iter([request_for("a"), request_for("b", "c")]), timeout=20))
    assert sorted(document.text for reply in replies for document in reply.data.docs.docs) == ["a", "b", "c"]


def test_an_old_server_knows_no_unary_call(opened, request_for):
    _, channel = opened(unary=False)
    call = channel.unary_unary(SINGLE, DataRequestProto.SerializeToString, DataRequestProto.FromString)
    with pytest.raises(grpc.RpcError) as failure:
        call(request_for("a"), timeout=20)
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("unready", ["", "no executor"])
def test_a_dry_run_says_whether_the_flow_is_ready(opened, unready):
    _, channel = opened(unready=unready)
    status = channel.unary_unary(DRY_RUN, response_deserializer=StatusProto.FromString)(b"", timeout=20)
    assert (bool(status.code), status.description) == (bool(unready), unready)


def test_where_none_is_known_it_is_not_implemented(opened):
    _, channel = opened(unready=None)
    with pytest.raises(grpc.RpcError) as failure:
        channel.unary_unary(DRY_RUN)(b"", timeout=20)
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_large_message_and_its_reply_pass_the_windows_of_http2(opened, request_for):
    server, channel = opened()
    call = channel.unary_unary(SINGLE, DataRequestProto.SerializeToString, DataRequestProto.FromString)
    made = request_for("x" * 1_000_000)
    assert call(made, timeout=20).data.docs.docs[0].text == "x" * 1_000_000
    assert server.requests[0].nbytes == made.ByteSize()


def test_a_call_that_is_taken_back_is_counted(opened, request_for):
    server, channel = opened()
    server.play(Never())
    call = channel.unary_unary(SINGLE, DataRequestProto.SerializeToString, DataRequestProto.FromString)
    waiting = call.future(request_for("a"), timeout=20)
    server.wait_for(lambda counters: counters.running == 1)
    waiting.cancel()
    server.wait_for(lambda counters: counters.taken_back == 1)
