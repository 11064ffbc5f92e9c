"""``images="exact"`` against servers: one that prepares images as clip_server does, and some that do not."""

import base64
import logging

import casdk
import numpy as np
import pytest
from casdk import Client, Document, Image
from casdk._engine.logging import flush
from casdk.testing import FaultServer, Never, TcpProxy
from clip_models import file, photo

SIDE = 224


def both(client, items, **options):
    original = client.encode(items, errors="return", **options)
    exact = client.encode(items, errors="return", images="exact", **options)
    return original, exact


def test_rows_are_those_of_the_originals_bit_for_bit(client, jpeg, tmp_path, web):
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg)
    url = web(path)
    items = [
        str(path),
        path,
        path.as_uri(),
        url,
        jpeg,
        "data:image/jpeg;base64," + base64.b64encode(jpeg).decode(),
        np.asarray(photo()),
        np.asarray(photo())[:, :, :1],
        photo(),
        Image(path),
        Document(uri=str(path)),
        Document(uri=url),
        Document(blob=jpeg),
        Document(tensor=np.asarray(photo())),
        file(photo().convert("CMYK")),
        file(photo().quantize(200), "PNG"),
        file(photo().convert("L"), "PNG"),
    ]
    client.encode([jpeg], images="exact")  # which asks the server
    original, exact = both(client, items)
    np.testing.assert_array_equal(exact.embeddings, original.embeddings)
    assert (original.cropped, exact.cropped) == (0, len(items))
    assert exact.ok
    assert exact.sent_bytes < original.sent_bytes / 5


def test_what_is_smaller_or_not_proven_goes_as_it_is(client, jpeg):
    items = [
        file(photo(90, 70)),  # smaller than its crop
        file(photo(), "TIFF"),
        file(photo(200, 90), "GIF", save_all=True, append_images=[photo(200, 90, 2)]),
        np.asarray(photo().convert("RGBA")),
        "a sentence",
        Document(text="a sentence"),
        jpeg,
    ]
    original, exact = both(client, items)
    np.testing.assert_array_equal(exact.embeddings, original.embeddings)
    assert exact.cropped == 1


def test_errors_are_those_of_originals(client, jpeg, tmp_path):
    items = [jpeg, str(tmp_path / "missing.jpg"), b"no image", jpeg[:3000], tmp_path / "missing.png"]
    original, exact = both(client, items)
    assert [(type(error), error.index, error.reason) for error in exact.errors] == [
        (type(error), error.index, error.reason) for error in original.errors
    ]
    assert exact.cropped == 1


def test_the_server_is_asked_once_for_each_model(clip, jpeg, caplog):
    with Client(clip.address("grpc")) as client, caplog.at_level(logging.INFO, "casdk.calls"):
        for model in ("", "", "other", "other"):
            client.encode([jpeg], images="exact", parameters={"model_name": model} if model else None)
        client.encode([jpeg], images="exact", image_size=SIDE)
    assert flush(20)
    said = [record.message for record in caplog.records if "give the rows of originals" in record.message]
    assert len(said) == 3
    assert all(f"{SIDE} x {SIDE} pixels" in message and "JPEG RGB" in message for message in said)


def test_a_size_that_is_not_the_models_is_found_out(clip, jpeg, caplog):
    with Client(clip.address("grpc")) as client:
        for _ in range(2):
            result = client.encode([jpeg], images="exact", image_size=336, errors="return")
    assert result.cropped == 0
    assert flush(20)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "crops of 336 x 336 pixels" in caplog.text


def test_a_server_that_prepares_images_in_its_own_way_gets_originals(server, jpeg, caplog):
    with Client(server.address("grpc")) as client:
        client.encode([jpeg], images="exact")
        original, exact = both(client, [jpeg, file(photo(seed=2))])
    np.testing.assert_array_equal(exact.embeddings, original.embeddings)
    assert exact.cropped == 0
    assert exact.sent_bytes == original.sent_bytes
    assert flush(20)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "all images are sent as they are" in caplog.text


def test_over_http_and_in_pieces(clip, jpeg):
    items = [jpeg, file(photo(seed=2)), "a sentence", file(photo(seed=3)), file(photo(60, 50))]
    with Client(clip.address("http")) as client:
        rows = client.encode(items)
        pieces = list(client.stream(items, images="exact", batch_size=2, errors="return"))
    np.testing.assert_array_equal(np.concatenate([piece.embeddings for piece in pieces]), rows)
    assert [piece.cropped for piece in pieces] == [2, 1, 0]
    assert all(piece.sent_bytes > 0 for piece in pieces)


async def test_on_a_loop(clip, jpeg):
    async with Client(clip.address("grpc")) as client:
        result = await client.aencode([jpeg], images="exact", errors="return")
    assert result.cropped == 1


def test_search_and_rank_send_crops_and_index_sends_pictures(clip, jpeg):
    other = file(photo(seed=4))
    with TcpProxy(int(clip.address("grpc").rpartition(":")[2])) as proxy, Client(proxy.address("grpc")) as client:

        def weigh(verb, *arguments, **options):
            before = proxy.counters.to_server
            getattr(client, verb)(*arguments, images="exact", **options)
            return proxy.counters.to_server - before

        client.encode([jpeg], images="exact")  # which asks the server
        pictures = [Document(id="a", blob=jpeg), Document(id="b", blob=other)]
        assert weigh("index", pictures) > len(jpeg) + len(other)
        query = [Document(blob=jpeg)]
        assert weigh("search", query, limit=1) < len(jpeg) / 2
        assert query[0].blob == jpeg
        assert query[0].matches[0].id == "a"
        question = Document(text="?", matches=[Document(blob=jpeg), Document(blob=other)])
        known = {match.id: match.scores["clip_score"].value for match in client.rank([question])[0].matches}
        assert weigh("rank", [question]) < len(jpeg)
        assert {match.id: match.scores["clip_score"].value for match in question.matches} == known
        assert {match.blob for match in question.matches} == {jpeg, other}


def test_a_document_keeps_its_id_and_its_picture(client, jpeg):
    documents = [Document(id="mine", blob=jpeg, tags={"a": 1})]
    answers = client.encode(documents, images="exact", return_responses=True)
    assert [document.id for document in answers[0].docs] == ["mine"]
    assert documents[0].blob == jpeg


def test_classes_of_the_callers_own_are_not_run(client, jpeg):
    class Mine(Document):
        @property
        def content_type(self):
            raise AssertionError

    result = client.encode([Mine(blob=jpeg)], images="exact", errors="return")
    assert (result.ok, result.cropped) == (True, 0)


def test_the_calls_time_holds_for_the_proof_too(jpeg):
    with (
        FaultServer(lambda request: [Never()]) as faulty,
        Client(faulty.address("grpc")) as client,
        pytest.raises(casdk.DeadlineError) as caught,
    ):
        client.encode([jpeg], images="exact", timeout=0.3)
    assert (caught.value.done, caught.value.partial) == (0, None)


def test_merged_calls_send_crops_too(clip, jpeg):
    with Client(clip.address("grpc"), coalesce=True) as client:
        result = client.encode([jpeg], images="exact", errors="return")
        np.testing.assert_array_equal(result.embeddings, client.encode([jpeg]))
    assert result.sent_bytes is None
