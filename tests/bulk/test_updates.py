"""An update of a folder: what is new is encoded, what is gone is left out, and all other shards keep their bytes."""

import asyncio
import os
import shutil

import numpy as np
import pyarrow.dataset
import pytest
from casdk import BulkError, Client, ConfigError, bulk
from casdk.testing import FaultServer, embed

from .stopped_runs import StoppedRuns

SMALL = {"shard_rows": 4, "batch_size": 2}
WIDTH = 8
TEXTS = [f"sentence {number}" for number in range(10)]


@pytest.fixture(scope="module")
def peer():
    with FaultServer(width=WIDTH) as server:
        yield server


@pytest.fixture(scope="module")
def client(peer):
    with Client(peer.address("grpc")) as client:
        yield client


@pytest.fixture
def update(client, mode, tmp_path):
    """An update of the folder ``rows`` to what it is given, by either API."""

    def update(content, **options):
        all_options = {**SMALL, "update": True, **options}
        if mode == "sync":
            return client.encode_to(tmp_path / "rows", content, **all_options)
        return asyncio.run(client.aencode_to(tmp_path / "rows", content, **all_options))

    return update


def rows_of(folder):
    table = pyarrow.dataset.dataset(folder).to_table().to_pydict()
    return dict(zip(table["name"], table["embedding"], strict=True))


def counts(result):
    return result.rows, result.encoded, result.reencoded, result.dropped


def test_items_that_are_new_or_gone(update, tmp_path, held, peer):
    assert counts(update(TEXTS)) == (10, 10, 0, 0)
    before, asked = held(tmp_path / "rows"), peer.counters.documents
    assert counts(update(iter(TEXTS))) == (10, 0, 0, 0)
    assert (held(tmp_path / "rows"), peer.counters.documents) == (before, asked)
    now = ["first", *TEXTS[:5], *TEXTS[6:], "last"]
    assert counts(update(now)) == (11, 2, 0, 1)
    found = rows_of(tmp_path / "rows")
    assert sorted(found) == sorted(now)
    for name, row in found.items():
        np.testing.assert_array_equal(np.float32(row), embed(name, WIDTH))
    after = held(tmp_path / "rows")
    assert {name for name in before if before[name] != after[name]} == {"part-00001.parquet", "_casdk.json"}
    assert set(after) - set(before) == {"part-00003.parquet"}
    assert counts(update(reversed(now))) == (11, 0, 0, 0)
    assert held(tmp_path / "rows") == after


def test_files_that_have_changed(update, images, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate([*images.values()] * 2):
        shutil.copy(image, folder / f"{number:02}{image.suffix}")
    paths = sorted(folder.iterdir())
    assert counts(update(bulk.files(str(folder / "*")))) == (len(paths), len(paths), 0, 0)
    os.utime(paths[1], ns=(1, 1))
    paths[2].unlink()
    shutil.copy(paths[0], folder / f"new{paths[0].suffix}")
    assert counts(update(bulk.files(str(folder / "*")))) == (len(paths), 2, 1, 1)
    assert sorted(rows_of(tmp_path / "rows")) == sorted(map(str, folder.iterdir()))
    assert update(bulk.files(str(folder / "*"))).encoded == 0


def test_images_in_a_store(update, bucket, images):
    bucket.put("a.png", images["png"].read_bytes())
    assert update(bulk.files(f"{bucket.url}/*.png")).failed == 0
    bucket.put("b.png", images["png"].read_bytes())
    result = update(bulk.files(f"{bucket.url}/*.png"))
    assert (counts(result), result.failed) == ((2, 1, 0, 0), 0)


def test_what_is_read_of_other_sources(update):
    rows = [(f"name {number}", text) for number, text in enumerate(TEXTS)]
    update(rows)
    assert counts(update([*rows[:3], ("name 3", "another text"), *rows[4:]])) == (10, 1, 1, 0)
    assert counts(update([*rows[:3], ("name 3", "another text"), *rows[4:]])) == (10, 0, 0, 0)


def test_all_may_go_and_come_back(update, tmp_path):
    update(TEXTS)
    assert counts(update([])) == (0, 0, 0, 10)
    assert counts(update(TEXTS[:6])) == (6, 6, 0, 0)
    assert sorted(rows_of(tmp_path / "rows")) == TEXTS[:6]


def test_an_item_may_be_there_several_times(update, tmp_path):
    update(["a", "b", "a", "a", "c"])
    assert counts(update(["a", "c", "a", "d"])) == (4, 1, 0, 2)
    table = pyarrow.dataset.dataset(tmp_path / "rows").to_table()
    assert table["name"].to_pylist() == ["a", "a", "c", "d"]


def test_failed_items_may_be_tried_again(update, peer):
    peer.executor.poison = lambda text: text == "sentence 3"
    try:
        assert update(TEXTS).failed == 1
        assert counts(update(TEXTS)) == (10, 0, 0, 0)
    finally:
        peer.executor.poison = None
    result = update(TEXTS, retry_errors=True)
    assert (counts(result), result.failed) == ((10, 1, 1, 0), 0)


def test_errors_are_in_one_place_again(update, tmp_path):
    update(["", *TEXTS])
    update(["", *TEXTS[1:], "/no/such.png"])
    table = pyarrow.parquet.read_table(tmp_path / "rows" / "_errors.parquet").to_pydict()
    names = pyarrow.dataset.dataset(tmp_path / "rows").to_table()["name"].to_pylist()
    assert table["name"] == ["", "/no/such.png"]
    assert [names[row] for row in table["row"]] == table["name"]


def test_a_run_without_update_says_what_to_do(update, client, tmp_path, held):
    update(TEXTS)
    with pytest.raises(BulkError, match=r"has grown.*update=True takes that into a folder"):
        client.encode_to(tmp_path / "rows", [*TEXTS, "new"], **SMALL)
    update([*TEXTS, "new"])
    before = held(tmp_path / "rows")
    with pytest.raises(BulkError, match=r"was updated, .* update=True compares it"):
        client.encode_to(tmp_path / "rows", [*TEXTS, "new"], **SMALL)
    assert held(tmp_path / "rows") == before


def test_what_is_stopped_keeps_what_has_come(tmp_path):
    target, options = tmp_path / "rows", {"shard_rows": 100, "batch_size": 2, "prefetch": 1, "update": True}
    new = [f"new {number}" for number in range(40)]
    with StoppedRuns().served(WIDTH) as runs:
        runs.run(target, TEXTS, options)
        with pytest.raises(SystemExit) as caught:
            runs.run(target, iter(new), options, text="new 12")
        assert "the same call goes on" in caught.value.__notes__[0]
        result = runs.run(target, new, options)
    assert (result.rows, result.dropped) == (40, 10)
    assert result.encoded <= 26
    assert sorted(rows_of(target)) == sorted(new)


class Stopped:
    """Runs into a folder by either API, each of which may be stopped at the request with the text ``last``."""

    def __init__(self, runs, mode, folder):
        self._runs, self._mode, self.folder = runs, mode, folder

    def update(self, content, *, last=None):
        return self.run(content, last=last, update=True)

    def run(self, content, *, last=None, update=False):
        options = {"shard_rows": 16, "batch_size": 2, "prefetch": 1, "update": update}
        return self._runs.run(self.folder, content, options, text=last, mode=self._mode)


@pytest.fixture
def stopped(mode, tmp_path):
    with StoppedRuns().served(WIDTH) as runs:
        yield Stopped(runs, mode, tmp_path / "rows")


NEW = [f"new {number}" for number in range(50)]


@pytest.mark.parametrize("named", [False, True])
def test_what_is_stopped_has_the_bytes_of_what_was_not(stopped, tmp_path, held, named):
    """With names of their own, contents are compared as well."""

    def content(texts):
        return [(f"name of {text}", text) for text in texts] if named else texts

    stopped.update(content(TEXTS))
    shutil.copytree(stopped.folder, tmp_path / "undisturbed")
    now, encoded = content([*NEW[:9], *TEXTS[3:], *NEW[9:]]), 0
    for last in (NEW[2], NEW[6], NEW[15], NEW[21], NEW[44]):
        with pytest.raises(SystemExit):
            stopped.update(now, last=last)
        rows = pyarrow.dataset.dataset(stopped.folder, format="parquet").count_rows()
        assert rows < len(now)
    encoded = stopped.update(now).encoded
    assert 0 < encoded <= 8
    folder, stopped.folder = stopped.folder, tmp_path / "undisturbed"
    assert counts(stopped.update(now)) == (57, 50, 0, 3)
    assert held(folder) == held(tmp_path / "undisturbed")
    assert len([name for name in held(folder) if name.startswith("part-")]) == 5


@pytest.mark.parametrize("change", ["reversed", "cut", "gone"])
def test_what_is_stopped_goes_on_with_another_input(stopped, change):
    stopped.update(TEXTS)
    with pytest.raises(SystemExit):
        stopped.update([*TEXTS, *NEW], last=NEW[6])
    then = {"reversed": [*NEW, *TEXTS][::-1], "cut": [*TEXTS, *NEW[:4]], "gone": TEXTS}[change]
    result = stopped.update(then)
    assert (result.rows, result.failed) == (len(then), 0)
    assert sorted(rows_of(stopped.folder)) == sorted(then)
    assert result.encoded <= (44 if change == "reversed" else 0)
    assert stopped.update(then).encoded == 0
    assert not list(stopped.folder.glob("_begun-*"))


def test_one_that_was_only_begun_is_gone_on_with(stopped):
    with pytest.raises(SystemExit):
        stopped.run(TEXTS, last=TEXTS[6])
    result = stopped.run([*TEXTS[1:], "new"], update=True)
    assert (result.rows, result.dropped) == (10, 1)
    assert result.encoded <= 5
    assert sorted(rows_of(stopped.folder)) == sorted([*TEXTS[1:], "new"])


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("rows", {"shard": (0, 2)}, "a folder that is whole"),
        ("rows", {"overwrite": True}, "choose one"),
    ],
)
def test_what_cannot_be_updated(client, tmp_path, target, options, said):
    with pytest.raises(ConfigError, match=said):
        client.encode_to(tmp_path / target, TEXTS, update=True, **options)
    assert list(tmp_path.iterdir()) == []
