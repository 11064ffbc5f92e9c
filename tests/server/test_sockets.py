"""The websocket port answers protobuf and JSON frames in parallel, and closes with the right code."""

import json

import httpx
import pytest
from casdk.wire.jina_pb2 import DataRequestProto
from websockets.exceptions import ConnectionClosed, InvalidStatus


@pytest.fixture(params=["websocket", "websockets"])
def secure(request):
    return request.param


def _binary(opened, messages):
    for message in messages:
        opened.send(message.SerializeToString())
    opened.send(b"\x00")
    return [DataRequestProto.FromString(frame) for frame in opened]


@pytest.mark.parametrize("subprotocols", [None, ["bytes"]])
def test_replies_come_as_they_are_done_and_the_end_is_clean(server, raw, secure, subprotocols):
    slow = raw.request("/encode", {"text": "!!sleep:0.3"}, request_id="slow")
    quick = raw.request("/encode", {"text": "a"}, request_id="quick")
    failing = raw.request("/encode", {"text": "!!raise"}, request_id="failing")
    with raw.socket(server, secure, subprotocols=subprotocols) as opened:
        assert opened.subprotocol is None
        replies = _binary(opened, [slow, quick, failing])
        assert replies[-1].header.request_id == "slow"
        assert {reply.header.request_id: reply.header.status.code for reply in replies} == {
            "slow": 0,
            "quick": 0,
            "failing": 1,
        }
        assert opened.close_code == 1000


def test_many_requests_on_one_connection(server, raw, secure):
    with raw.socket(server, secure) as opened:
        replies = _binary(opened, (raw.request("/", {"text": "t"}, request_id=str(at)) for at in range(500)))
    assert {reply.header.request_id for reply in replies} == {str(at) for at in range(500)}


def test_large_frames_pass(server, raw, secure):
    with raw.socket(server, secure) as opened:
        (reply,) = _binary(opened, [raw.request("/", *({"text": f"t{at}"} for at in range(3000)))])
    assert len(reply.data.docs.docs) == 3000


def test_text_frames_are_json_in_snake_case(server, raw, secure):
    with raw.socket(server, secure) as opened:
        opened.send(json.dumps({"data": [{"text": "a", "id": "x"}], "execEndpoint": "/encode"}))
        reply = json.loads(opened.recv(raw.WAIT))
        opened.send(json.dumps({"data": [{"text": "!!raise"}], "exec_endpoint": "/encode"}))
        failed = json.loads(opened.recv(raw.WAIT))
        opened.send("{}")
        with pytest.raises(ConnectionClosed):
            opened.recv(raw.WAIT)
        assert opened.close_code == 1000
    assert reply["header"].keys() == {"request_id", "exec_endpoint", "target_executor"}
    assert len(reply["data"][0]["embedding"]) == 512
    assert reply["routes"][1]["executor"] == "encoder"
    assert reply["routes"][1]["start_time"].endswith("Z")
    assert failed["header"]["status"]["exception"]["name"] == "ValueError"


@pytest.mark.parametrize(
    ("frame", "reason"), [(b"\xff\xff", "no DataRequestProto"), ("{bad", "JSON"), ('{"data": 5}', "data")]
)
def test_garbage_closes_the_connection_and_says_why(server, raw, secure, frame, reason):
    with raw.socket(server, secure) as opened:
        opened.send(frame)
        with pytest.raises(ConnectionClosed):
            opened.recv(raw.WAIT)
        assert opened.close_code == 1007
        assert reason in opened.close_reason


def test_a_client_that_leaves_does_no_harm(server, raw, secure):
    with raw.socket(server, secure) as opened:
        opened.send(raw.request("/", {"text": "!!sleep:30"}).SerializeToString())
    with raw.socket(server, secure) as opened:
        assert len(_binary(opened, [raw.request("/", {"text": "a"})])) == 1


def test_dry_run_is_a_path(server, raw, secure):
    with raw.socket(server, secure, "/dry_run", subprotocols=["bytes"]) as opened:
        assert opened.recv(raw.WAIT) == b""
        with pytest.raises(ConnectionClosed):
            opened.recv(raw.WAIT)
        assert opened.close_code == 1000


def test_pages_of_other_sites_are_kept_out(server, raw, secure):
    with pytest.raises(InvalidStatus) as refusal:
        raw.socket(server, secure, origin="https://evil.example")
    assert refusal.value.response.status_code == 403


def test_there_are_no_other_paths(server, raw, secure):
    with pytest.raises(InvalidStatus) as refusal:
        raw.socket(server, secure, "/other")
    assert refusal.value.response.status_code == 404


def test_http_is_only_for_health(server):
    address = server.address("websocket").replace("websocket", "http")
    assert httpx.get(address).json() == {}
    assert httpx.post(f"{address}/post", json={}).status_code == 404
