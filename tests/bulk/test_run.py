"""A run: what it makes of good and bad items, where it goes on, and what it refuses."""

import asyncio
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pytest
from casdk import BulkError, Client, ConfigError, DeadlineError, Retry, Text, TransportError, bulk
from casdk._calls.space import SENTENCE
from casdk.bulk.call import make_run
from casdk.testing import ExecutorError, FaultServer, Gate, Hold, Refuse, embed
from other_model import OtherModel

TEXTS = [f"sentence {number}" for number in range(50)]
SMALL = {"shard_rows": 16, "batch_size": 4}
WIDTH = 8


def rows_of(target, count=None):
    """Return the matrix that a target holds, NaN where an item failed, and the names of its rows."""
    if target.suffix == ".npy":
        names = [json.loads(line) for line in target.with_suffix(".names.jsonl").read_text().splitlines()]
        return np.load(target), names
    table = pyarrow.dataset.dataset(target).to_table().to_pydict()
    width = len(next(row for row in table["embedding"] if row is not None))
    rows = np.array([[np.nan] * width if row is None else row for row in table["embedding"]], np.float32)
    assert [row is None for row in table["embedding"]] == [error is not None for error in table["error"]]
    return rows, table["name"]


def errors_of(target):
    """Return row, name and error of each failed item, as the target has them in one place."""
    if target.suffix == ".npy":
        lines = map(json.loads, target.with_suffix(".errors.jsonl").read_text().splitlines())
        return [(line["row"], line["name"], line["error"]) for line in lines]
    table = pyarrow.parquet.read_table(target / "_errors.parquet").to_pydict()
    return list(zip(table["row"], table["name"], table["error"], strict=True))


def is_canary(request):
    return request.texts in ((SENTENCE,), ("",))


@pytest.fixture(scope="module")
def peer():
    with FaultServer(width=WIDTH, poison=["poison"]) as server:
        yield server


@pytest.fixture(scope="module")
def client(peer):
    with Client(peer.address("grpc")) as client:
        yield client


@pytest.fixture
def encode_to(client, mode):
    """`Client.encode_to`, or its async twin on a loop of its own."""

    def encode_to(target, content, **options):
        if mode == "sync":
            return client.encode_to(target, content, **{**SMALL, **options})
        return asyncio.run(client.aencode_to(target, content, **{**SMALL, **options}))

    return encode_to


def test_rows_are_those_of_encode(target, encode_to):
    result = encode_to(target, TEXTS)
    rows, names = rows_of(target)
    np.testing.assert_array_equal(rows, np.stack([embed(text, WIDTH) for text in TEXTS]))
    assert names == TEXTS
    assert errors_of(target) == []
    assert (result.rows, result.failed, result.encoded, result.batch_size) == (50, 0, 50, 4)
    assert (result.target, result.seconds > 0) == (str(target), True)


def test_bad_items_are_written_down(target, encode_to):
    texts = ["", *TEXTS[:20], "poison", *TEXTS[20:30], "/no/such/photo.png"]
    result = encode_to(target, texts)
    assert (result.rows, result.failed) == (33, 3)
    rows, names = rows_of(target)
    assert names == texts
    assert [row for row in range(33) if np.isnan(rows[row]).all()] == [0, 21, 32]
    assert np.isfinite(np.delete(rows, [0, 21, 32], axis=0)).all()
    found = [(row, name, error.partition(":")[0]) for row, name, error in errors_of(target)]
    assert found == [
        (0, "", "EmptyItemError"),
        (21, "poison", "RejectedError"),
        (32, "/no/such/photo.png", "FileMissingError"),
    ]


def test_the_first_shard_may_fail_as_a_whole(target, encode_to):
    result = encode_to(target, ["/none.png"] * 18 + TEXTS[:4])
    assert (result.rows, result.failed) == (22, 18)
    rows, _ = rows_of(target)
    assert rows.shape == (22, WIDTH)
    assert np.isnan(rows[:18]).all()
    np.testing.assert_array_equal(rows[18], embed(TEXTS[0], WIDTH))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_are_normalized(target, client, dtype):
    client.encode_to(target, TEXTS, normalize=True, dtype=dtype, **SMALL)
    rows, _ = rows_of(target)
    expected = np.stack([embed(text, WIDTH) for text in TEXTS])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_array_equal(rows, expected.astype(dtype).astype(rows.dtype))


def test_no_items(target, client):
    assert client.encode_to(target, []).rows == 0
    assert client.encode_to(target, iter([])).encoded == 0


def test_a_finished_target_is_left_as_it_is(target, encode_to, held, peer):
    encode_to(target, TEXTS)
    before, asked = held(target.parent), peer.counters.documents
    assert encode_to(target, iter(TEXTS)).encoded == 0
    assert (held(target.parent), peer.counters.documents) == (before, asked)


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ([*TEXTS, "new"], {}, "has grown"),
        (TEXTS[:-1], {}, "has become shorter: it ends after 49 items"),
        ([*TEXTS[:20], "other", *TEXTS[21:]], {}, "item 20 is 'other' now, and was 'sentence 20'"),
        ([(text, text.encode()) for text in TEXTS], {}, "of the items 0 to 15, one has another content"),
        (TEXTS, {"batch_size": 8}, "begun with batch_size=4, and now it is 8"),
        (TEXTS, {"parameters": {"model_name": "other"}}, "begun with parameters"),
        (TEXTS, {"normalize": True}, "begun with normalize=False"),
    ],
)
def test_another_input_or_option_is_refused(target, client, content, options, said, held, peer):
    client.encode_to(target, TEXTS, **SMALL)
    before, asked = held(target.parent), peer.counters.documents
    with pytest.raises(BulkError, match=said) as caught:
        client.encode_to(target, content, **{**SMALL, **options})
    assert (held(target.parent), peer.counters.documents) == (before, asked)
    assert caught.value.target == str(target)
    assert "\n" not in str(caught.value)


def test_overwrite_begins_again(target, client):
    client.encode_to(target, TEXTS, **SMALL)
    assert client.encode_to(target, TEXTS[:20], overwrite=True, **SMALL).encoded == 20
    assert rows_of(target)[1] == TEXTS[:20]


def test_files_of_others_are_left_alone(target, client):
    other = target if target.suffix else target / "mine.txt"
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(b"mine")
    with pytest.raises(BulkError, match=f"{other.name} is there, and of no bulk run"):
        client.encode_to(target, TEXTS, **SMALL)
    assert other.read_bytes() == b"mine"
    if target.suffix:
        assert client.encode_to(target, TEXTS, overwrite=True, **SMALL).rows == 50
    else:
        with pytest.raises(BulkError, match=r"files that are not of a bulk run, as mine\.txt"):
            client.encode_to(target, TEXTS, overwrite=True, **SMALL)
        assert os.listdir(target) == ["mine.txt"]


def test_a_bad_item_may_stop_the_run(target, encode_to, held, tmp_path):
    texts = [*TEXTS[:21], "", *TEXTS[21:]]
    with pytest.raises(BulkError, match=r"item 21, '', cannot be encoded: EmptyItemError") as caught:
        encode_to(target, texts, errors="raise")
    assert caught.value.rows == 20
    with pytest.raises(BulkError, match="was begun before: resume=True"):
        encode_to(target, texts, resume=False)
    result = encode_to(target, texts)
    assert (result.rows, result.encoded, result.failed) == (51, 31, 1)
    check_undisturbed(encode_to, target, texts, held, tmp_path)


def test_what_comes_behind_a_bad_item_is_not_kept(target, encode_to):
    """On a loop several pieces are written at a time, and the bad item is in the midst of them."""
    texts, options = [*TEXTS[:5], "", *TEXTS[5:]], {"batch_size": 1, "shard_rows": 100}
    with pytest.raises(BulkError, match=r"item 5, '', cannot be encoded") as caught:
        encode_to(target, texts, errors="raise", **options)
    assert caught.value.rows == 5
    assert encode_to(target, texts, **options).encoded == 46
    rows, names = rows_of(target)
    assert names == texts
    assert np.isnan(rows[5]).all()
    np.testing.assert_array_equal(np.delete(rows, 5, 0), np.stack([embed(text, WIDTH) for text in TEXTS]))


def check_undisturbed(encode_to, target, texts, held, tmp_path):
    (tmp_path / "undisturbed").mkdir()
    encode_to(tmp_path / "undisturbed" / target.name, texts)
    assert held(target.parent) == held(tmp_path / "undisturbed")


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("error", [BrokenError, KeyboardInterrupt])
def test_what_the_input_raises_stops_the_run(target, client, held, tmp_path, error):
    def items():
        yield from TEXTS[:23]
        raise error

    with pytest.raises(error) as caught:
        client.encode_to(target, items(), **SMALL)
    [note] = caught.value.__notes__
    assert "the same call goes on from there" in note
    client.encode_to(target, TEXTS, **SMALL)
    check_undisturbed(lambda *call: client.encode_to(*call, **SMALL), target, TEXTS, held, tmp_path)


def test_a_server_that_is_gone_stops_the_run(target, encode_to, client, peer, tmp_path, held):
    def refuse(request):
        return Refuse.unavailable() if "sentence 30" in request.texts else None

    with FaultServer(refuse, width=WIDTH) as server, Client(server.address("grpc"), retry=Retry(attempts=1)) as other:
        with pytest.raises(BulkError, match="the same call goes on from there") as caught:
            other.encode_to(target, TEXTS, patience=0.05, prefetch=1, **SMALL)
        assert isinstance(caught.value.__cause__, TransportError)
        assert caught.value.rows == 28
        assert server.counters.documents < 50
    assert encode_to(target, TEXTS).encoded == 22
    check_undisturbed(encode_to, target, TEXTS, held, tmp_path)


def test_time_may_run_out(target):
    gate = Gate()
    held_back = lambda request: Hold(gate) if "sentence 4" in request.texts else None  # noqa: E731
    with FaultServer(held_back, width=WIDTH) as server:
        with Client(server.address("grpc")) as client, pytest.raises(BulkError) as caught:
            client.encode_to(target, TEXTS, timeout=0.3, **SMALL)
        gate.open()
    assert isinstance(caught.value.__cause__, DeadlineError)


def test_a_run_that_is_asked_to_stop_keeps_what_is_in_flight(target, client, held, tmp_path):
    run = None

    def items():
        for number, text in enumerate(TEXTS):
            if number == 26:
                run.stop(SystemExit(7))
            yield text

    run = make_run(client, target, items(), SMALL)
    with pytest.raises(SystemExit) as caught:
        run.run()
    assert caught.value.code == 7
    result = client.encode_to(target, TEXTS, **SMALL)
    assert result.encoded in (22, 26)  # 26 or 28 were read, of which whole requests are kept
    check_undisturbed(lambda *call: client.encode_to(*call, **SMALL), target, TEXTS, held, tmp_path)


async def test_a_task_that_is_cancelled_keeps_what_has_come(target, held, tmp_path):
    gate = Gate()
    held_back = lambda request: Hold(gate) if "sentence 40" in request.texts else None  # noqa: E731
    with FaultServer(held_back, width=WIDTH) as server:
        async with Client(server.address("grpc")) as client:
            running = asyncio.create_task(client.aencode_to(target, TEXTS, **SMALL))
            await asyncio.to_thread(gate.wait_for, 1)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            gate.open()
            assert (await client.aencode_to(target, TEXTS, **SMALL)).encoded <= 18
            assert rows_of(target)[1] == TEXTS


async def test_an_async_iterable(target, client):
    async def items():
        for text in TEXTS:
            yield (f"name of {text}", text)

    assert (await client.aencode_to(target, items(), **SMALL)).encoded == 50
    assert (await client.aencode_to(target, items(), **SMALL)).encoded == 0
    assert rows_of(target)[1][:2] == ["name of sentence 0", "name of sentence 1"]
    with pytest.raises(ConfigError, match="aencode_to"):
        client.encode_to(target, items(), **SMALL)


def begin(client, target):
    """Leave a target with 20 of its 50 rows."""
    run = make_run(client, target, iter([*TEXTS[:20], None]), {**SMALL, "errors": "raise"})
    with pytest.raises(BulkError):
        run.run()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (OtherModel(WIDTH), "it encodes the same sentence in another direction"),
        (OtherModel(9), "its rows have 9 numbers"),
    ],
)
def test_another_model_is_refused(target, client, encode_to, other, said, held, tmp_path):
    begin(client, target)
    before = held(target.parent)
    with (
        FaultServer(lambda request: other, width=WIDTH) as server,
        Client(server.address("grpc")) as others,
        pytest.raises(BulkError, match=f"the server holds another model than the one .* begun with: {said}") as caught,
    ):
        others.encode_to(target, TEXTS, **SMALL)
    assert sorted(request.texts for request in server.requests) == [("",), (SENTENCE,)]
    assert held(target.parent) == before
    assert "\n" not in str(caught.value)
    result = encode_to(target, TEXTS)
    assert (result.encoded, result.space) == (30, client.space())
    check_undisturbed(encode_to, target, TEXTS, held, tmp_path)


def test_a_model_of_another_width_within_a_run_is_refused(target):
    def change(request):
        return OtherModel(WIDTH + 1) if "sentence 16" in request.texts else None

    said = r"have 9 numbers now, and .* has 8: another model"
    with FaultServer(change, width=WIDTH) as server, Client(server.address("grpc")) as client:
        with pytest.raises(BulkError, match=said) as caught:
            client.encode_to(target, TEXTS, **SMALL)
        assert caught.value.rows == 16


def test_the_space_is_that_of_the_model_and_asked_once(target, mode):
    named = {**SMALL, "parameters": {"model_name": "big"}}
    with FaultServer(width=WIDTH) as server, Client(server.address("grpc")) as client:
        if mode == "sync":
            first, again = (client.encode_to(target, TEXTS, **named) for _ in range(2))
        else:
            first, again = (asyncio.run(client.aencode_to(target, TEXTS, **named)) for _ in range(2))
        assert [request.endpoint for request in server.requests if is_canary(request)] == ["/encode/big"] * 2
        assert first.space == again.space == client.space("big")


def test_a_target_stays_without_a_space_if_it_was_begun_without(target, client, encode_to):
    def fail(request):
        return ExecutorError(name="ValueError", description="no encoder for it") if is_canary(request) else None

    with FaultServer(fail, width=WIDTH) as server, Client(server.address("grpc")) as other:
        begin(other, target)
        assert server.counters.documents >= 22
    result = encode_to(target, TEXTS)
    assert (result.encoded, result.space) == (30, None)


def test_a_server_that_is_away_is_asked_for_its_space_later(target):
    def refuse(request):
        return Refuse.unavailable() if 1 <= request.number <= 3 else None

    with (
        FaultServer(refuse, width=WIDTH) as server,
        Client(server.address("grpc"), retry=Retry(attempts=1, backoff=0.01)) as client,
    ):
        client.encode(["a"])  # patience is for a server that has answered
        result = client.encode_to(target, TEXTS, patience=60, **SMALL)
        assert all(is_canary(request) for request in list(server.requests)[1:4])
        assert (result.encoded, result.space) == (50, client.space())


def test_a_second_run_on_the_same_target_is_refused(target, client):
    def items():
        with pytest.raises(BulkError, match="is being written by another process"):
            client.encode_to(target, TEXTS, **SMALL)
        yield from TEXTS

    assert client.encode_to(target, items(), **SMALL).rows == 50


def test_a_full_disk_stops_the_run(target, client, held, tmp_path):
    """In the midst of the second shard; what was there of a matrix before is kept."""
    import resource
    import signal

    def filling():
        yield from TEXTS[:20]
        resource.setrlimit(resource.RLIMIT_FSIZE, (900, before[1]))
        yield from TEXTS[20:]

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(BulkError, match=r"File too large; .* holds \d+ rows, and the same call goes on") as caught:
            client.encode_to(target, filling(), **SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.rows >= 16
    assert client.encode_to(target, TEXTS, **SMALL).encoded == 50 - caught.value.rows
    check_undisturbed(lambda *call: client.encode_to(*call, **SMALL), target, TEXTS, held, tmp_path)


@pytest.mark.soak
async def test_a_server_that_is_away_for_thirty_seconds(held, tmp_path):
    """It is waited for, and the files are those of runs from which it was never away."""
    targets, gone = [tmp_path / "out" / name for name in ("rows.npy", "rows")], []
    (tmp_path / "out").mkdir()
    with FaultServer(width=WIDTH) as server:
        back = threading.Timer(30, server.up)

        async def items():
            for number, text in enumerate(TEXTS):
                if number == 20 and not gone:
                    gone.append(time.monotonic())
                    await asyncio.to_thread(server.down)
                    back.start()
                yield text

        async with Client(server.address("grpc")) as client:
            runs = [client.aencode_to(target, items(), **SMALL) for target in targets]
            assert [result.rows for result in await asyncio.gather(*runs)] == [50, 50]
            assert time.monotonic() - gone[0] >= 30
            back.join()
            (tmp_path / "undisturbed").mkdir()
            for target in targets:
                await client.aencode_to(tmp_path / "undisturbed" / target.name, TEXTS, **SMALL)
    assert held(tmp_path / "out") == held(tmp_path / "undisturbed")


def test_what_was_cut_or_removed_is_noticed(target, client):
    client.encode_to(target, TEXTS, **SMALL)
    file = target if target.suffix else target / "part-00001.parquet"
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(BulkError, match=f"has {len(data) - 1} bytes, and the manifest of .* says {len(data)}"):
        client.encode_to(target, TEXTS, **SMALL)
    file.unlink()
    with pytest.raises(BulkError, match="is gone"):
        client.encode_to(target, TEXTS, **SMALL)


def test_an_item_that_failed_is_not_tried_again(target, client, peer):
    client.encode_to(target, ["", *TEXTS], **SMALL)
    before = peer.counters.documents
    assert client.encode_to(target, ["", *TEXTS], **SMALL).failed == 1
    assert peer.counters.documents == before


def test_files_that_change_are_noticed(target, encoder, photos):
    encoder.encode_to(target, bulk.files(photos), **SMALL)
    changed = sorted(Path(photos).parent.iterdir())[5]
    os.utime(changed, ns=(1, 1))
    with pytest.raises(BulkError, match="of the items 0 to 15, one has another content"):
        encoder.encode_to(target, bulk.files(photos), **SMALL)


def test_a_text_is_what_it_is_told_to_be(target, client):
    assert client.encode_to(target, [Text("photo.png")]).failed == 0
