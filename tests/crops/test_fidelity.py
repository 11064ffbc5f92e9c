"""``images="jpeg95"`` and ``"webp90"``: each call measures on its first images what the loss costs."""

import asyncio
import json
import logging
import re
from types import SimpleNamespace

import numpy as np
import pytest
from casdk import Client, Document, Text
from casdk._calls.batches import Batch, Request
from casdk._calls.cropping import CroppedBatch, Crops, Pair
from casdk._calls.fidelity import FidelityMeasurement, least_cosine
from casdk._calls.outcome import Sent
from casdk._calls.sample import FEWEST_IMAGES, SAMPLE_IMAGES, Verdict
from casdk._calls.tasks import Tasks
from casdk._content.canary import Proof
from casdk._content.inputs import Sources
from casdk._engine.logging import flush
from casdk._rust import Kind, scan
from casdk.cli import main
from casdk.errors import ServerError
from casdk.testing import TcpProxy
from clip_models import PHOTOS, jpegs

MANY = SAMPLE_IMAGES + PHOTOS


@pytest.fixture(scope="module")
def photos():
    """More than a call measures: each photo goes once with loss, too."""
    return [jpegs()[at % len(jpegs())] for at in range(MANY)]


@pytest.fixture(scope="module")
def rows(client, photos):
    return client.encode(photos)


def said(caplog):
    assert flush(20)
    return [record.message for record in caplog.records if "smallest cosine" in record.message]


@pytest.mark.parametrize("images", ["jpeg95", "webp90"])
def test_the_first_images_go_without_loss_and_the_others_with(client, photos, rows, images, caplog):
    with caplog.at_level(logging.INFO, "casdk.calls"):
        exact = client.encode(photos, images="exact", errors="return")
        lossy = client.encode(photos, images=images, errors="return", min_fidelity=0.99)
    np.testing.assert_array_equal(lossy.embeddings[:SAMPLE_IMAGES], rows[:SAMPLE_IMAGES])
    others = slice(SAMPLE_IMAGES, None)
    assert (lossy.embeddings[others] != rows[others]).any()
    cosines = [least_cosine(rows[at : at + 1], lossy.embeddings[at : at + 1]) for at in range(MANY)]
    assert lossy.fidelity == pytest.approx(min(cosines), abs=1e-6)  # the others are the same photos
    assert 0.99 < lossy.fidelity < 1
    assert lossy.cropped == exact.cropped == MANY
    assert exact.fidelity is None
    [line] = said(caplog)
    assert f"crops as {images}: of {SAMPLE_IMAGES} images" in line
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.soak
def test_each_measured_image_goes_both_ways_once(clip, photos):
    with TcpProxy(int(clip.address("grpc").rpartition(":")[2])) as proxy, Client(proxy.address("grpc")) as client:

        def weigh(count, **options):
            before = proxy.counters.to_server
            client.encode([*photos, *photos][:count], **options)
            return proxy.counters.to_server - before

        client.encode(photos[:1], images="exact")  # which asks the server
        exact = weigh(SAMPLE_IMAGES, images="exact")
        assert weigh(SAMPLE_IMAGES, images="jpeg95") == pytest.approx(exact, rel=0.02)
        lossy = weigh(2 * SAMPLE_IMAGES, images="jpeg95", min_fidelity=0.99) - exact
    # 32 with loss to be measured, and 32 with loss whose rows are the caller's.
    assert 0.4 * exact < lossy < 2 * 0.85 * exact


def test_what_is_asked_and_measured_is_counted_as_sent(clip, photos):
    options = {"images": "jpeg95", "min_fidelity": 0.99, "errors": "return"}
    with TcpProxy(int(clip.address("grpc").rpartition(":")[2])) as proxy, Client(proxy.address("grpc")) as client:
        result = client.encode(photos, **options)
        went = proxy.counters.to_server
        pieces = list(client.stream(photos, batch_size=8, **options))
        streamed = proxy.counters.to_server - went
    of_pieces = sum(piece.sent_bytes for piece in pieces)
    assert result.sent_bytes <= went < 1.01 * result.sent_bytes + 2000
    assert of_pieces <= streamed < 1.01 * of_pieces + 2000
    assert went - streamed > 1_500_000  # what the server was asked first, once


def test_too_much_loss_is_not_sent(client, photos, rows, caplog):
    result = client.encode(photos, images="jpeg95", min_fidelity=1.0, errors="return")
    np.testing.assert_array_equal(result.embeddings, rows)
    assert 0.99 < result.fidelity < 1
    assert flush(20)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "below min_fidelity=1: all go without loss" in caplog.text


def test_a_call_of_few_images_measures_nothing(client, photos, rows, caplog):
    with caplog.at_level(logging.INFO, "casdk.calls"):
        result = client.encode(["a text", *photos[:SAMPLE_IMAGES], Text("another")], images="jpeg95", errors="return")
    np.testing.assert_array_equal(result.embeddings[1:-1], rows[:SAMPLE_IMAGES])
    assert (result.fidelity, result.cropped, said(caplog)) == (None, SAMPLE_IMAGES, [])


def test_a_stream_measures_once(client, photos, rows, caplog):
    with caplog.at_level(logging.INFO, "casdk.calls"):
        pieces = list(client.stream(photos, images="jpeg95", batch_size=8, errors="return", min_fidelity=0.99))
    found = np.concatenate([piece.embeddings for piece in pieces])
    np.testing.assert_array_equal(found[:SAMPLE_IMAGES], rows[:SAMPLE_IMAGES])
    assert len(said(caplog)) == 1
    known = [piece.fidelity for piece in pieces]
    assert known[: SAMPLE_IMAGES // 8] == [None] * 4
    assert len(set(known[4:])) == 1
    assert 0.99 < known[-1] < 1


async def test_on_a_loop_with_bad_items_among_them(clip, photos, rows):
    items = [photos[0], b"no image", *photos[1:], "missing.png"]
    async with Client(clip.address("http")) as client:
        result = await client.aencode(items, images="webp90", batch_size=16, errors="return", min_fidelity=0.9)
    assert [error.index for error in result.errors] == [1, len(items) - 1]
    good = np.delete(result.embeddings, [1, len(items) - 1], axis=0)
    assert 0.9 < result.fidelity < 1
    assert least_cosine(rows, good) > 0.9


def test_rank_measures_by_rows_of_its_own(client, photos, caplog):
    def documents():
        return [
            Document(text="?", matches=[Document(id=str(at), blob=photo) for at, photo in enumerate(photos[:40])])
            for _ in range(3)
        ]

    with caplog.at_level(logging.INFO, "casdk.calls"):
        exact = client.rank(documents(), images="exact")
        lossy = client.rank(documents(), images="jpeg95", min_fidelity=0.99)
    assert len(said(caplog)) == 1
    scores = [
        [{match.id: match.scores["clip_score_cosine"].value for match in document.matches} for document in ranked]
        for ranked in (exact, lossy)
    ]
    assert scores[0][0] == scores[1][0]
    assert scores[0][2] != scores[1][2]
    assert scores[0][2] == pytest.approx(scores[1][2], abs=0.05)


def test_callbacks_get_responses_and_the_log_the_cosine(client, photos, caplog):
    done = []
    with caplog.at_level(logging.INFO, "casdk.calls"):
        client.encode(photos, images="jpeg95", min_fidelity=0.99, on_done=done.append)
    assert sum(len(response.docs) for response in done) == MANY
    assert len(said(caplog)) == 1


def test_the_prompt_says_the_cosine(clip, photos, tmp_path, capfd):
    paths = []
    for at, photo in enumerate(photos):
        paths.append(tmp_path / f"{at:03}.jpg")
        paths[-1].write_bytes(photo)
    options = ["--images", "jpeg95", "--min-fidelity", "0.99", "-o", str(tmp_path / "rows.jsonl")]
    assert main(["encode", clip.address("grpc"), *map(str, paths), *options]) == 0
    assert re.fullmatch(
        r"casdk: crops as jpeg95: the smallest cosine that was measured is 0\.99\d{4}\n", capfd.readouterr().err
    )


def test_merged_calls_are_too_short_to_have_loss(clip, photos, rows):
    with Client(clip.address("grpc"), coalesce=True) as client:
        result = client.encode(photos[:20], images="jpeg95", errors="return")
    np.testing.assert_array_equal(result.embeddings, rows[:20])
    assert result.fidelity is None


@pytest.mark.parametrize(
    ("exact", "lossy", "cosine"),
    [
        ([[1, 0], [0, 2]], [[3, 0], [0, 1]], 1.0),
        ([[1, 0], [1, 0]], [[1, 0], [1, 1]], 0.5**0.5),
        ([[1, 0], [np.nan, 0]], [[2, 0], [1, 1]], 1.0),
        ([[1, 0], [1, 0]], [[2, 0], [np.nan, 1]], None),
        ([[np.nan, 0]], [[1, 1]], None),
        ([[1, 0]], [[0, 0]], 0.0),
    ],
)
def test_the_least_cosine(exact, lossy, cosine):
    found = least_cosine(np.array(exact, np.float32), np.array(lossy, np.float32))
    assert found == (None if cosine is None else pytest.approx(cosine))


class Croppers:
    """Stands for what makes crops: of each image, in both ways if that is tried."""

    async def crop(self, items, kinds, fetched, crops):
        pairs = [Pair(at, b"exact", b"lossy %d" % items[at]) for at in range(len(items))] if crops.tried else []
        return CroppedBatch([crops.written] * len(items), kinds, [1] * len(items), pairs)


REQUEST_ID = "0123456789abcdef" * 2


def measurement_of(encode, candidates=None):
    crops = Crops(Proof(224, frozenset()), Sources(), 1 << 20, candidates)
    return FidelityMeasurement(Croppers(), crops, "jpeg95", Verdict(0.9), encode, Sent())


def batch_of(*numbers):
    return Batch(list(numbers), list(numbers), bytes([Kind.BLOB]) * len(numbers))


def answer_of(batch):
    """A reply with a row of ones for each image."""
    data = [{"id": f"{REQUEST_ID[:24]}{at:08x}", "embedding": [1.0] * 3} for at in range(len(batch))]
    said = {"header": {"requestId": REQUEST_ID, "status": None}, "routes": [], "data": data}
    return SimpleNamespace(reply=scan("json", json.dumps(said).encode()))


async def send(measurement, batch, *, answered=True):
    await measurement.crop(batch, None)
    measurement.leave(Request(batch, REQUEST_ID), answer_of(batch) if answered else None)


async def measure(measurement):
    """Measure, as a call does that has read another image."""
    tasks = Tasks(pytest.fail)
    measurement.begin(tasks, 0.0)
    measurement.begin(tasks, 0.0)  # it is under way
    assert len(tasks.running) == 1
    await asyncio.gather(*tasks.running.values())


async def encode_nothing(pictures, *, patience):
    raise ServerError("it has no decoder for them")


@pytest.mark.parametrize(("candidates", "exact"), [(None, 0), ("matches", SAMPLE_IMAGES)])
async def test_the_first_images_are_measured_in_whatever_order_they_come(candidates, exact):
    asked = []

    async def encode(pictures, *, patience):
        asked.extend(pictures)
        return np.ones((len(pictures), 3), np.float32)

    measurement = measurement_of(encode, candidates)
    measurement.sample.read(batch_of(*range(50)))
    await send(measurement, batch_of(*range(20, 30)), answered=False)
    await send(measurement, batch_of(*range(25, 40)))
    await send(measurement, batch_of(*range(25)))
    assert asked == []
    await measure(measurement)
    # Rows that a reply has are not asked for again.
    assert asked == [b"lossy %d" % at for at in range(SAMPLE_IMAGES)] + [b"exact"] * exact
    assert (await measurement.crop(batch_of(40), None)).items == ["jpeg95"]
    assert measurement._sent.fidelity == 1.0
    assert measurement._verdict == Verdict(0.9, fidelity=1.0, written="jpeg95", first=SAMPLE_IMAGES, has_begun=True)


async def test_more_images_go_without_loss_if_too_few_were_answered():
    measurement = measurement_of(encode_nothing)
    measurement.sample.read(batch_of(*range(100)))
    await send(measurement, batch_of(*range(FEWEST_IMAGES - 1)))
    assert measurement.sample.end == SAMPLE_IMAGES
    await measure(measurement)
    assert measurement.sample.end == 2 * SAMPLE_IMAGES
    assert (await measurement.crop(batch_of(32), None)).items == ["exact"]


async def test_a_server_that_fails_on_crops_with_loss_gets_none(caplog):
    measurement = measurement_of(encode_nothing)
    measurement.sample.read(batch_of(*range(SAMPLE_IMAGES + 1)))
    await send(measurement, batch_of(*range(SAMPLE_IMAGES)))
    await measure(measurement)
    assert (await measurement.crop(batch_of(40), None)).items == ["exact"]
    assert flush(20)
    assert "the server failed on crops as jpeg95, so all go without loss" in caplog.text
    assert (measurement._sent.fidelity, measurement._verdict.written) == (None, "exact")
