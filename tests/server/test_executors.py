"""The executors encode, rank, index and search, between the request and the encoder."""

import base64
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from casdk.server import serve
from casdk.server.encoders import Features
from casdk.server.executors import EncodeExecutor, IndexExecutor, on
from casdk.server.images import ImageReader
from casdk.server.index import Index
from casdk.server.memory import BusyError, Memory
from casdk.wire.docarray_pb2 import DocumentArrayProto, DocumentProto
from PIL import Image


def test_without_index_everything_encodes(raw):
    with serve(schemes=["grpc"], index=False) as served, raw.channel(served) as channel:
        for endpoint in ("/index", "/search", "/delete"):
            reply = raw.single(channel, raw.request(endpoint, {"text": "a"}))
            assert [route.executor for route in reply.routes] == ["gateway", "encoder"]
            assert reply.data.docs.docs[0].HasField("embedding")
            assert not reply.data.docs.docs[0].matches


def test_a_data_uri_is_no_fetch(server, raw):
    picture = raw.png(9, 9)
    uri = "data:image/png;base64," + base64.b64encode(picture).decode()
    with raw.channel(server) as channel:
        for form, ok in (({"uri": uri}, True), ({"uri": uri[:-3] + "!"}, False), ({"uri": "data:image/png"}, False)):
            assert (raw.single(channel, raw.request("/", form)).header.status.code == 0) is ok


@pytest.fixture
def encoder():
    """An executor that encodes, at most 100 pixels of an image."""
    with ThreadPoolExecutor(2) as workers:
        images = ImageReader(100, Memory(1 << 20, "decoding images"), None)
        yield lambda **how: EncodeExecutor(Features(), images, workers, **how)


def documents(*forms):
    return DocumentArrayProto(docs=[DocumentProto(**form) for form in forms]).docs


async def test_texts_and_images_get_their_rows_and_nothing_gets_none(encoder, raw):
    picture = raw.png(9, 9)
    given = documents({"text": "a"}, {}, {"blob": picture})
    await encoder()("/", given, {})
    features = Features()
    np.testing.assert_array_equal(raw.row(given[0]), features.encode_texts(["a"])[0])
    assert not given[1].HasField("embedding")
    with Image.open(io.BytesIO(picture)) as image:
        np.testing.assert_array_equal(raw.row(given[2]), features.encode_images([image])[0])


async def test_an_image_beyond_the_limit_leaves_the_documents_as_they_came(encoder, raw):
    given = documents({"text": "a"}, {"blob": raw.png(11, 10)})
    with pytest.raises(ValueError, match="document 1: an image of 11 x 10 pixels exceeds the limit of 100 pixels"):
        await encoder()("/", given, {})
    assert not given[0].HasField("embedding")


@pytest.mark.parametrize("count", [1, 31, 32, 33, 70])
async def test_however_many_there_are_each_gets_its_own(encoder, raw, count):
    given = documents(*({"text": f"text {number}"} for number in range(count)))
    await encoder()("/encode", given, {})
    expected = Features().encode_texts([f"text {number}" for number in range(count)])
    np.testing.assert_array_equal(np.stack([raw.row(document) for document in given]), expected)


def test_what_only_an_indexer_can_answer_is_left_to_it(encoder):
    endpoints = {"/index", "/search", "/delete", "/status", "/encode", "/rank"}
    assert {endpoint for endpoint in endpoints if encoder().serves(endpoint)} == endpoints
    assert {endpoint for endpoint in endpoints if not encoder(indexed=True).serves(endpoint)} == {"/delete", "/status"}


async def test_texts_misbehave_only_where_they_may(encoder):
    for chaos in (False, True):
        given = documents({"text": "!!noemb"}, {"text": "!!drop"}, {"text": "a"})
        await encoder(chaos=chaos)("/", given, {})
        assert [document.text for document in given] == (["!!noemb", "a"] if chaos else ["!!noemb", "!!drop", "a"])
        assert given[0].HasField("embedding") is not chaos
    with pytest.raises(ValueError, match="boom: !!raise"):
        await encoder(chaos=True)("/", documents({"text": "!!raise"}), {})


async def test_an_indexer_finds_what_it_was_given(tmp_path, encoder):
    features = Features()
    indexer = IndexExecutor(Index(tmp_path, features.name, features.dim))
    try:
        stored = documents({"id": "1", "text": "a cat"}, {"id": "2", "text": "a dog"})
        await encoder()("/index", stored, {})
        await indexer("/index", stored, {})
        asked = documents({"text": "a dog"}, {"text": "a cat"})
        await encoder()("/search", asked, {})
        await indexer("/search", asked, {"limit": 1})
        assert [[match.id for match in document.matches] for document in asked] == [["2"], ["1"]]
    finally:
        indexer.close()


async def test_without_a_thread_the_server_is_busy():
    threads = ThreadPoolExecutor(1)
    assert await on(threads, threading.get_ident) != threading.get_ident()
    threads.shutdown()
    with pytest.raises(BusyError, match="no thread takes this: cannot schedule new futures after shutdown"):
        await on(threads, threading.get_ident)
