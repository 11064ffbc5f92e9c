"""The index keeps what it has confirmed, replaces by id, and finds the nearest rows."""

import contextlib
import sqlite3

import numpy as np
import pytest
from casdk.server.index import FILE, Index
from hypothesis import given
from hypothesis import strategies as st

DIM = 8


@pytest.fixture
def index(tmp_path):
    index = Index(tmp_path, "encoder", DIM)
    yield index
    index.close()


def _rows(seed, count):
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def _fill(index, rows):
    index.put([(f"d{at}", b"%d" % at, row) for at, row in enumerate(rows)])


@pytest.mark.parametrize("limit", [1, 7, 100, 10_000])
def test_nearest_is_numpys(index, limit):
    rows, query = _rows(1, 200), _rows(2, 1)[0]
    _fill(index, rows)
    cosines = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
    expected = np.argsort(1 - cosines, kind="stable")[:limit]

    found = index.nearest(query, limit, 1 << 20)
    assert [int(document) for document, _ in found] == expected.tolist()
    assert np.allclose([distance for _, distance in found], (1 - cosines)[expected], atol=1e-5)


def test_a_document_put_again_is_replaced(index):
    rows = _rows(1, 3)
    _fill(index, rows)
    index.put([("d1", b"new", rows[0])])
    assert index.status()["total_docs"] == 3
    assert {document for document, _ in index.nearest(rows[0], 2, 1 << 20)} == {b"0", b"new"}


def test_equal_distances_keep_the_order_of_arrival(index):
    row = _rows(1, 1)[0]
    index.put([(str(at), b"%d" % at, row) for at in range(20)])
    assert [int(document) for document, _ in index.nearest(row, 20, 1 << 20)] == list(range(20))


def test_zeros_are_at_distance_one(index):
    rows = _rows(1, 2)
    _fill(index, [rows[0], np.zeros(DIM, np.float32)])
    assert [distance for _, distance in index.nearest(rows[0], 2, 1 << 20)] == pytest.approx([0, 1], abs=1e-6)
    assert [distance for _, distance in index.nearest(np.zeros(DIM, np.float32), 2, 1 << 20)] == [1, 1]


def test_deleted_documents_are_gone(index):
    rows = _rows(1, 5)
    _fill(index, rows)
    index.delete(["d0", "d3", "unknown"])
    assert index.known([f"d{at}" for at in range(5)]) == {"d1", "d2", "d4"}
    assert sorted(document for document, _ in index.nearest(rows[0], 10, 1 << 20)) == [b"1", b"2", b"4"]


def test_a_row_of_another_width_stores_nothing(index):
    with pytest.raises(ValueError, match="'b' has an embedding of 3 numbers; the index holds 8"):
        index.put([("a", b"", _rows(1, 1)[0]), ("b", b"", np.zeros(3, np.float32))])
    assert index.status()["total_docs"] == 0
    with pytest.raises(ValueError, match="the query has 3 numbers"):
        index.nearest(np.zeros(3, np.float32), 1, 1 << 20)


def test_it_is_there_after_reopening(tmp_path):
    rows = _rows(1, 5)
    first = Index(tmp_path / "deep" / "er", "encoder", DIM)
    _fill(first, rows)
    first.close()
    second = Index(tmp_path / "deep" / "er", "encoder", DIM)
    assert second.nearest(rows[4], 1, 1 << 20)[0][0] == b"4"
    second.close()


@pytest.mark.parametrize(("encoder", "dim"), [("other", DIM), ("encoder", 4)])
def test_rows_of_two_encoders_are_not_mixed(tmp_path, encoder, dim):
    Index(tmp_path, "encoder", DIM).close()
    with pytest.raises(ValueError, match="holds rows of 8 numbers of the encoder 'encoder'"):
        Index(tmp_path, encoder, dim)


def test_one_server_at_a_time(tmp_path, index):
    with pytest.raises(ValueError, match="another server uses the workspace"):
        Index(tmp_path, "encoder", DIM)


def test_a_file_that_is_no_index_is_refused(tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database" * 1000)
    with pytest.raises(ValueError, match="cannot use the index"):
        Index(tmp_path, "encoder", DIM)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans(), st.integers(0, 50)), max_size=30))
def test_it_is_a_dict_of_rows(tmp_path_factory, steps):
    index = Index(tmp_path_factory.mktemp("index"), "encoder", DIM)
    rows, kept = _rows(3, 51), {}
    try:
        for key, delete, at in steps:
            if delete:
                index.delete([key])
                kept.pop(key, None)
            else:
                index.put([(key, key.encode() + b"%d" % at, rows[at])])
                kept[key] = key.encode() + b"%d" % at
        assert {document for document, _ in index.nearest(rows[0], 100, 1 << 20)} == set(kept.values())
        assert index.known(list("abcde")) == set(kept)
    finally:
        index.close()


def _directory(file):
    file.unlink()
    file.mkdir()


def _dangling(file):
    file.unlink()
    file.symlink_to("/nowhere/index.sqlite")


def _other_tables(file):
    file.unlink()
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("create table documents (other)")


def _overwritten(page):
    def overwrite(file):
        with file.open("r+b") as opened:
            opened.seek(page * 4096)
            opened.write(b"\xff" * 4096)

    return overwrite


BROKEN = {
    "no database": lambda file: file.write_bytes(b"no database" * 1000),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:4096]),
    "a directory": _directory,
    "a link that leads nowhere": _dangling,
    "other tables": _other_tables,
    **{f"page {page} overwritten": _overwritten(page) for page in range(3)},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_index_is_named(tmp_path, name):
    index = Index(tmp_path, "encoder", DIM)
    _fill(index, _rows(1, 2000))
    index.close()
    BROKEN[name](tmp_path / FILE)
    with pytest.raises(ValueError, match=rf"^cannot use the index {tmp_path / FILE}: "):
        Index(tmp_path, "encoder", DIM)


def test_a_full_disk_is_said_and_keeps_what_there_was(tmp_path):
    index = Index(tmp_path, "encoder", DIM)
    _fill(index, _rows(1, 10))
    index._database.execute("pragma max_page_count=12")
    with pytest.raises(OSError, match=rf"^cannot write the index {tmp_path / FILE}: database or disk is full"):
        _fill(index, _rows(2, 5000))
    assert index.status()["total_docs"] == 10
    index.delete(["d0"])
    assert index.status()["total_docs"] == 9
    index.close()
