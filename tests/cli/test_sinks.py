"""Files of rows: read back by NumPy, pyarrow and json; whole or not there."""

import json
import stat

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from casdk.cli.sinks import open_sink
from casdk.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

FORMS = (".npy", ".jsonl", ".parquet")


def rows_of(count, width=3, dtype="float32"):
    return np.arange(count * width, dtype=dtype).reshape(count, width) / 7


def read(path):
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".jsonl":
        return np.array([json.loads(line)["embedding"] for line in path.read_text().splitlines()])
    return np.stack(pyarrow.parquet.read_table(path)["embedding"].to_numpy())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_come_back(tmp_path, form, dtype):
    path = tmp_path / f"rows{form}"
    rows = rows_of(5, dtype=dtype)
    with open_sink(str(path), dtype) as sink:
        sink.write([0, 2], ["a", "b"], rows[:2])
        sink.write([], [], rows[:0])
        sink.write([3, 4, 5], ["c", "d", "e"], rows[2:])
    assert (sink.rows, sink.width) == (5, 3)
    assert np.array_equal(read(path).astype(dtype), rows)
    assert stat.S_IMODE(path.stat().st_mode) & 0o400
    assert list(tmp_path.iterdir()) == [path]


@given(sizes=st.lists(st.integers(0, 300), max_size=6), width=st.integers(1, 40))
def test_a_matrix_in_any_pieces(tmp_path_factory, sizes, width):
    path = tmp_path_factory.mktemp("npy") / "rows.npy"
    rows = rows_of(sum(sizes), width)
    start = 0
    with open_sink(str(path), "float32") as sink:
        for size in sizes:
            sink.write(range(start, start + size), ["x"] * size, rows[start : start + size])
            start += size
    found = np.load(path)
    assert found.dtype == np.float32
    assert np.array_equal(found, rows if len(rows) else np.zeros((0, 0), np.float32))


@pytest.mark.parametrize("form", [".jsonl", ".parquet"])
def test_each_row_has_its_item_and_position(tmp_path, form):
    path = tmp_path / f"rows{form}"
    with open_sink(str(path), "float32") as sink:
        sink.write([1, 4], ["näme", '"x"'], rows_of(2))
    if form == ".jsonl":
        table = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        read = pyarrow.parquet.read_table(path)
        assert read.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 3)
        table = read.to_pylist()
    assert [(row["index"], row["item"]) for row in table] == [(1, "näme"), (4, '"x"')]


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_left_of_a_file_that_failed(tmp_path, form):
    path = tmp_path / f"rows{form}"
    path.write_bytes(b"the last one")

    def fail():
        with open_sink(str(path), "float32") as sink:
            sink.write([0], ["a"], rows_of(1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"the last one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("form", FORMS)
def test_no_rows(tmp_path, form):
    path = tmp_path / f"rows{form}"
    with open_sink(str(path), "float32"):
        pass
    assert path.exists()
    if form == ".parquet":
        assert pyarrow.parquet.read_table(path).num_rows == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [("rows.csv", r"\.npy, \.jsonl, \.parquet"), ("rows", "ends in"), ("no/rows.npy", "no such directory")],
)
def test_a_target_that_cannot_be(tmp_path, name, reason):
    with pytest.raises(ConfigError, match=reason):
        open_sink(str(tmp_path / name), "float32")


def test_parquet_without_pyarrow(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"casdk\[arrow\]"):
        open_sink(str(tmp_path / "rows.parquet"), "float32")
