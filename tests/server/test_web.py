"""The http port serves the paths of a jina gateway, also to raw httpx."""

import gzip
import json

import httpx
import numpy as np
import pytest
from casdk.server.access import Access
from casdk.server.encoders import Features
from casdk.server.memory import Pressure
from casdk.server.web import WebApp

FIELDS = (
    "id parent_id granularity adjacency blob tensor mime_type text weight uri tags offset location embedding modality "
    "evaluations scores chunks matches"
)


@pytest.fixture(params=["http", "https"])
def http(request, server, raw):
    with httpx.Client(verify=raw.trust(server), base_url=server.address(request.param), timeout=raw.WAIT) as http:
        yield http


def test_a_reply_has_the_form_of_the_wire(http):
    asked = {"data": [{"text": "hi", "id": "a"}], "execEndpoint": "/encode", "parameters": {"k": 1, "s": "x"}}
    answer = http.post("/post", json=asked)
    assert answer.headers["content-type"] == "application/json"
    reply = answer.json()
    assert list(reply) == ["header", "parameters", "routes", "data"]
    request_id = reply["header"].pop("requestId")
    assert len(request_id) == 32
    assert reply["header"] == {"status": None, "execEndpoint": "/encode", "targetExecutor": ""}
    assert reply["parameters"] == {"k": 1.0, "s": "x"}
    assert [sorted(route) for route in reply["routes"]] == [["endTime", "executor", "startTime", "status"]] * 2
    assert all(route["startTime"].endswith("+00:00") for route in reply["routes"])
    (made,) = reply["data"]
    assert list(made) == FIELDS.split()
    assert np.array_equal(np.array(made.pop("embedding"), np.float32), Features().encode_texts(["hi"])[0])
    assert {key: value for key, value in made.items() if value is not None} == {
        "id": "a",
        "mime_type": "text/plain",
        "text": "hi",
    }


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"docs": [{"text": "a", "unknown": 1, "weight": None}]}, "exec_endpoint": "/encode"},
        {"data": [{"text": "a"}], "header": {"exec_endpoint": "/rank"}, "exec_endpoint": "/encode"},
    ],
)
def test_the_forms_that_jina_takes(http, body):
    reply = http.post("/post", json=body).json()
    assert reply["header"]["execEndpoint"] == "/encode"
    assert len(reply["data"][0]["embedding"]) == 512


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"data": null}', b'{"parameters": null, "data": []}'])
def test_an_empty_body_is_an_empty_request(http, body):
    reply = http.post("/post", content=body).json()
    assert (reply["header"]["execEndpoint"], reply["data"]) == ("/", [])


def test_paths_of_their_own(http):
    assert http.post("/index", json={"data": [{"text": "paths", "id": "p"}]}).json()["data"][0]["id"] == "p"
    found = http.post("/search", json={"data": [{"text": "paths"}], "parameters": {"limit": 1}}).json()
    assert [match["id"] for match in found["data"][0]["matches"]] == ["p"]
    assert found["header"]["execEndpoint"] == "/search"
    http.request("PUT", "/update", json={"data": [{"text": "paths now", "id": "p"}]})
    found = http.post("/search", json={"data": [{"text": "paths now"}], "parameters": {"limit": 1}}).json()
    assert found["data"][0]["matches"][0]["text"] == "paths now"
    http.request("DELETE", "/delete", json={"data": [{"id": "p"}]})
    found = http.post("/search", json={"data": [{"text": "paths now"}]}).json()
    assert "p" not in [match["id"] for match in found["data"][0]["matches"] or ()]


def test_a_failure_is_a_200(http):
    answer = http.post("/post", json={"data": [{"text": "!!raise"}], "execEndpoint": "/encode"})
    status = answer.json()["header"]["status"]
    assert answer.status_code == 200
    assert (status["code"], status["description"]) == (1, "ValueError('boom: !!raise')")
    assert answer.json()["routes"][1]["status"] == status


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"{bad", []),
        (b'"text"', []),
        (b'{"data": 5}', ["data"]),
        (b'{"data": [5]}', ["data", 0]),
        (b'{"data": [{"text": "a"}, {"text": 5}]}', ["data", 1, "text"]),
        (b'{"data": [{"blob": "_-"}]}', ["data", 0, "blob"]),
        (b'{"data": [{"tensor": [[1, 2], [3]]}]}', ["data", 0, "tensor"]),
        (b'{"data": [{"tensor": ["a"]}]}', ["data", 0, "tensor"]),
        (b'{"data": [{"granularity": -1}]}', ["data", 0, "granularity"]),
        (b'{"data": [{"weight": "heavy"}]}', ["data", 0, "weight"]),
        (b'{"data": [{"location": ["a"]}]}', ["data", 0, "location"]),
        (b'{"data": [{"matches": [{"id": 1}]}]}', ["data", 0, "matches", 0, "id"]),
        (b'{"data": [{"scores": {"s": {"value": "x"}}}]}', ["data", 0, "scores"]),
        (b'{"parameters": [1]}', ["parameters"]),
        (b'{"execEndpoint": 1}', ["execEndpoint"]),
    ],
)
def test_what_is_no_request_is_a_422_that_says_where(http, body, place):
    answer = http.post("/post", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    (detail,) = answer.json()["detail"]
    assert detail["loc"] == ["body", *place]
    assert detail["msg"]


def test_deeply_nested_json_is_refused(http):
    answer = http.post("/post", content=b'{"data":' + b"[" * 100_000)
    assert answer.status_code == 422


def test_what_there_is_to_look_at(http):
    assert http.get("/").json() == {}
    assert http.get("/dry_run").json() == {"code": 0, "description": "", "exception": None}
    assert http.get("/status").json()["jina"]["server"] == "casdk"
    paths = http.get("/openapi.json").json()["paths"]
    assert {path for path, methods in paths.items() if "post" in methods} == {"/post", "/index", "/search"}


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/encode", 404), ("GET", "/post", 405)])
def test_other_paths_and_methods(http, method, path, status):
    assert http.request(method, path).status_code == status


def test_a_compressed_body_is_refused(http):
    body = gzip.compress(json.dumps({"data": []}).encode())
    assert http.post("/post", content=body, headers={"content-encoding": "gzip"}).status_code == 400


def test_pages_of_other_sites_are_kept_out(http):
    own = str(http.base_url).rstrip("/")
    for origin, status in ((own, 200), ("https://evil.example", 403), ("null", 403)):
        assert http.post("/post", json={}, headers={"origin": origin}).status_code == status


def test_a_websocket_does_not_open_here(server, raw):
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with pytest.raises(InvalidStatus):
        connect(server.address("http").replace("http", "ws"))


@pytest.mark.parametrize("path", ["/post", "/index", "/search"])
async def test_who_has_no_memory_is_busy(path):
    """As it is over grpc and a websocket: nothing was begun, so whoever asked may ask again."""
    pressure, sent = Pressure(1), []
    pressure.high.set()
    app = WebApp(None, Access(None), 1000, pressure)

    async def receive():
        return {"type": "http.request", "body": b"{}"}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": path, "headers": []}, receive, send)
    assert sent[0]["status"] == 429
    assert (b"retry-after", b"1") in sent[0]["headers"]
