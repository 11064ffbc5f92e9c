"""A bulk run finds out how large its requests had better be, once: the manifest keeps it."""

import asyncio
import json
from itertools import islice

import numpy as np
import pyarrow.dataset
import pytest
from casdk import BulkError, Client, Image, Text, bulk
from casdk._calls import pieces, tuning
from casdk.bulk.call import open_target
from casdk.bulk.regrouping import hand_out
from casdk.testing import FaultServer, Refuse, embed

WIDTH = 8
TEXTS = [f"sentence {number}" for number in range(6000)]


@pytest.fixture
def peer():
    with FaultServer(width=WIDTH) as server:
        yield server


@pytest.fixture
def client(peer):
    with Client(peer.address("grpc")) as client:
        yield client


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """A trial ends with its window, so that a search has room in a few thousand items."""
    monkeypatch.setattr(tuning, "TRIAL_SECONDS", 1e-6)
    monkeypatch.setattr(tuning, "FIRST_ITEMS", 64)


def texts_until(peer, place):
    """Yield all texts; from one of them on the server fails for good."""
    for number, text in enumerate(TEXTS):
        if number == place:
            peer.play(Refuse.internal())
        yield text


def manifest_of(target):
    return json.loads(target.with_suffix(".casdk.json").read_text())


def sizes(peer):
    """Items of each request so far, without the two by which a run asks for the vector space."""
    found = [len(request.texts) for request in peer.requests]
    return [size for size in found if size > 1]


def last_size(peer):
    """Items of the last full request: the rest comes last, and two requests in flight may come in either order."""
    return max(sizes(peer)[-2:])


def test_what_was_found_is_kept_and_no_item_is_sent_twice(client, peer, mode, tmp_path):
    target, options = tmp_path / "rows.npy", {"shard_rows": 4500}
    if mode == "sync":
        result = client.encode_to(target, iter(TEXTS), **options)
    else:
        result = asyncio.run(client.aencode_to(target, iter(TEXTS), **options))
    np.testing.assert_array_equal(np.load(target), np.stack([embed(text, WIDTH) for text in TEXTS]))
    assert sum(sizes(peer)) == len(TEXTS)
    manifest = manifest_of(target)
    assert manifest["settings"]["batch_size"] == result.batch_size == last_size(peer)
    assert 1 <= manifest["prefetch"] <= 32
    assert client.encode_to(target, iter(TEXTS), **options).batch_size == result.batch_size
    with pytest.raises(BulkError, match="begun with batch_size="):
        client.encode_to(target, iter(TEXTS), batch_size=33, **options)


def test_a_run_that_goes_on_takes_what_was_found(client, peer, tmp_path):
    target, options = tmp_path / "rows.npy", {"shard_rows": 4500}
    with pytest.raises(BulkError) as stopped:
        client.encode_to(target, texts_until(peer, 5500), **options)
    assert stopped.value.rows >= 4500
    found, before = manifest_of(target), len(peer.requests)
    peer.play(None)
    result = client.encode_to(target, TEXTS, **options)
    assert manifest_of(target)["prefetch"] == found["prefetch"]
    assert result.batch_size == found["settings"]["batch_size"]
    assert max(len(request.texts) for request in list(peer.requests)[before:]) <= result.batch_size
    np.testing.assert_array_equal(np.load(target), np.stack([embed(text, WIDTH) for text in TEXTS]))


def test_a_run_that_ends_before_anything_was_found_searches_anew(client, peer, tmp_path):
    target = tmp_path / "rows.npy"
    peer.play(Refuse.internal())
    with pytest.raises(BulkError):
        client.encode_to(target, iter(TEXTS))
    assert "prefetch" not in manifest_of(target)
    peer.play(None)
    client.encode_to(target, iter(TEXTS))
    assert "prefetch" in manifest_of(target)


@pytest.mark.parametrize("options", [{}, {"batch_size": None}, {"batch_size": "auto"}])
def test_few_items_are_sent_as_ever(client, peer, tmp_path, options, held):
    target = tmp_path / "rows.npy"
    client.encode_to(target, TEXTS[:100], **options)
    assert set(sizes(peer)) == {32, 4}
    before = held(tmp_path)
    client.encode_to(target, TEXTS[:100], batch_size=32, overwrite=True)
    assert held(tmp_path) == before


def test_a_target_that_was_begun_with_a_number_stays_with_it(client, peer, tmp_path):
    target = tmp_path / "rows.npy"
    client.encode_to(target, TEXTS, batch_size=48)
    assert client.encode_to(target, TEXTS).batch_size == 48
    assert set(sizes(peer)) == {48}


@pytest.fixture
def pictured():
    """Rows of an image and its caption."""
    picture = b"\x89PNG\r\n\x1a\n"
    rows = [(text, (Image(picture + text.encode()), Text(text)), "") for text in TEXTS]
    return bulk.Named(lambda: iter(rows), len(rows), ("image", "text"))


def rows_of(folder):
    """Return names and matrices of a folder, by the columns that have them."""
    table = pyarrow.dataset.dataset(folder).to_table()
    columns = {name: np.array(table[name].to_pylist(), np.float32) for name in table.column_names[1:-1]}
    return table["name"].to_pylist(), columns


def test_an_image_and_its_caption_stay_in_one_request(client, peer, pictured, mode, tmp_path):
    target, options = tmp_path / "rows", {"shard_rows": 4500, "prefetch": 2}
    if mode == "sync":
        result = client.encode_to(target, pictured, **options)
    else:
        result = asyncio.run(client.aencode_to(target, pictured, **options))
    assert {request.texts[::2] for request in peer.requests if len(request.texts) > 1} == {
        ("",) * (size // 2) for size in sizes(peer)
    }
    assert len(set(sizes(peer)[:-1])) > 2
    manifest = json.loads((target / "_casdk.json").read_text())
    assert manifest["settings"]["batch_size"] == result.batch_size == last_size(peer) / 2
    assert manifest["prefetch"] == 2
    names, columns = rows_of(target)
    assert (names, result.encoded) == (TEXTS, len(TEXTS))
    np.testing.assert_array_equal(columns["text_embedding"], [embed(text, WIDTH) for text in TEXTS])
    assert client.encode_to(target, pictured, **options).batch_size == result.batch_size


def test_few_pairs_are_sent_as_ever(client, peer, pictured, tmp_path):
    few = bulk.Named(lambda: islice(pictured.entries(), 100), 100, pictured.holds)
    assert client.encode_to(tmp_path / "rows", few).batch_size == 32
    assert set(sizes(peer)) == {64, 8}


@pytest.mark.parametrize("finish", ["merge", "one run", "others"])
def test_each_run_that_makes_a_share_finds_its_own(client, peer, tmp_path, finish):
    """What each has found may differ, and rows are those of one run all the same."""
    target, options = tmp_path / "rows", {"shard_rows": 2500, "prefetch": 2}
    client.encode_to(target, TEXTS, shard=(0, 2), **options)
    assert max(sizes(peer)) == 32  # of 3,500 rows nothing is found out
    found = client.encode_to(target, iter(TEXTS), shard=(1, 2), **options).batch_size
    assert len(set(sizes(peer))) > 2
    if finish == "merge":
        assert bulk.merge(target).batch_size == found
    elif finish == "others":
        assert hand_out(str(target), 3)
        for index in range(3):
            client.encode_to(target, TEXTS, shard=(index, 3), **options)
        bulk.merge(target)
    assert client.encode_to(target, TEXTS, **options).batch_size == found
    client.encode_to(tmp_path / "one", TEXTS, batch_size=32, **options)
    parts = [path.name for path in sorted((tmp_path / "one").glob("part-*"))]
    assert [(target / name).read_bytes() for name in parts] == [
        (tmp_path / "one" / name).read_bytes() for name in parts
    ]
    manifest = json.loads((target / "_casdk.json").read_text())
    assert (manifest["settings"]["batch_size"], manifest["prefetch"]) == (found, 2)


def test_runs_that_a_folder_is_handed_out_to_keep_what_was_found(client, peer, tmp_path):
    """Batch size and window, in the manifest of the whole as well once the runs are joined."""
    target, options = tmp_path / "rows", {"shard_rows": 2500}
    with pytest.raises(BulkError):
        client.encode_to(target, texts_until(peer, 2700), **options)
    found = json.loads((target / "_casdk.json").read_text())
    assert hand_out(str(target), 2)
    peer.play(None)
    sent = len(sizes(peer))
    results = [client.encode_to(target, TEXTS, shard=(index, 2), **options) for index in range(2)]
    assert {result.batch_size for result in results} == {found["settings"]["batch_size"]}
    assert max(sizes(peer)[sent:]) == found["settings"]["batch_size"]
    manifests = [json.loads(path.read_text()) for path in sorted(target.glob("_casdk.*-of-2.json"))]
    bulk.merge(target)
    manifests.append(json.loads((target / "_casdk.json").read_text()))
    assert [manifest["prefetch"] for manifest in manifests] == [found["prefetch"]] * 3


def test_what_a_search_has_done_is_kept_if_the_run_stops(client, peer, tmp_path):
    target = tmp_path / "rows.npy"
    with pytest.raises(BulkError) as stopped:
        client.encode_to(target, texts_until(peer, 2000))
    assert stopped.value.rows
    kept = manifest_of(target)
    peer.play(None)
    result = client.encode_to(target, TEXTS)
    assert result.encoded == len(TEXTS) - stopped.value.rows
    assert manifest_of(target).get("prefetch") == kept.get("prefetch")
    np.testing.assert_array_equal(np.load(target), np.stack([embed(text, WIDTH) for text in TEXTS]))


def test_a_run_that_stops_at_an_error_keeps_each_request_before_it(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "QUICK_SECONDS", 60.0)  # else requests are joined only if the machine is quick
    texts = [f"text {number}" for number in range(400)]
    texts[391] = ""
    with pytest.raises(BulkError):
        encoder.encode_to(tmp_path / "rows.npy", texts, batch_size=4, errors="raise")
    [manifest] = open_target(tmp_path / "rows.npy", "float32").read_manifests()
    assert manifest.rows == 388
