"""Files of rows, read back by NumPy, pyarrow and json: complete under their names, or as far as written in a part."""

import json
import os
import stat

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from casdk.cli.sinks import open_sink
from casdk.errors import ConfigError

FORMS = (".jsonl", ".parquet")


def rows_of(count, width=3, dtype="float32"):
    return np.arange(count * width, dtype=dtype).reshape(count, width) / 7


def read(path):
    if ".jsonl" in path.suffixes:
        return np.array([json.loads(line)["embedding"] for line in path.read_text().splitlines()])
    return np.stack(pyarrow.parquet.read_table(path)["embedding"].to_numpy())


def names_of(path):
    """The items' names."""
    if ".jsonl" in path.suffixes:
        return [json.loads(line)["item"] for line in path.read_text().splitlines()]
    return pyarrow.parquet.read_table(path)["item"].to_pylist()


def listed(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_come_back(tmp_path, form, dtype):
    path = tmp_path / f"rows{form}"
    rows = rows_of(5, dtype=dtype)
    with open_sink(str(path), dtype) as sink:
        sink.write(0, ["a", "b"], rows[:2])
        sink.write(2, [], rows[:0])
        sink.write(2, ["c", "d", "e"], rows[2:])
    assert (sink.rows, sink.width) == (5, 3)
    assert np.array_equal(read(path).astype(dtype), rows)
    assert names_of(path) == [*"abcde"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o400
    assert listed(tmp_path) == {path.name}


@pytest.mark.parametrize("form", FORMS)
def test_bad_items(tmp_path, form):
    path = tmp_path / f"rows{form}"
    rows = rows_of(4)
    rows[[1, 3]] = np.nan
    with open_sink(str(path), "float32") as sink:
        sink.write(0, ["a", "b"], np.empty((2, 0), np.float32), {0, 1})
        sink.write(2, ["c", "d", "e", "f"], rows, {1, 3})
    assert sink.rows == 2
    assert np.array_equal(read(path), rows[[0, 2]])
    assert names_of(path) == ["c", "e"]


@pytest.mark.parametrize("form", FORMS)
def test_each_row_has_its_item_and_position(tmp_path, form):
    path = tmp_path / f"rows{form}"
    with open_sink(str(path), "float32") as sink:
        sink.write(1, ["näme", "", "", '"x"'], rows_of(4), [1, 2])
    if form == ".jsonl":
        table = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        read = pyarrow.parquet.read_table(path)
        assert read.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 3)
        table = read.to_pylist()
    assert [(row["index"], row["item"]) for row in table] == [(1, "näme"), (4, '"x"')]


@pytest.mark.parametrize("form", FORMS)
def test_what_there_is_of_a_file_that_failed_is_kept(tmp_path, form):
    """Beside the last one of that name, which stays; of what an earlier run left, nothing does."""
    path, part = tmp_path / f"rows{form}", tmp_path / f"rows{form}.part"
    path.write_bytes(b"the last one")
    part.write_bytes(b"what an earlier run left" * 1000)

    def fail():
        with open_sink(str(path), "float32") as sink:
            sink.write(0, ["a", "b"], rows_of(2))
            sink.write(2, ["c"], rows_of(1))
            raise RuntimeError

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert caught.value.__notes__ == [f"the 3 rows before it are in {part}"]
    assert path.read_bytes() == b"the last one"
    assert np.array_equal(read(part), np.concatenate([rows_of(2), rows_of(1)]))
    assert names_of(part) == ["a", "b", "c"]
    assert listed(tmp_path) == {path.name, part.name}


@pytest.mark.parametrize("form", FORMS)
def test_a_run_that_did_nothing_leaves_what_an_earlier_one_kept(tmp_path, form):
    path, part = tmp_path / f"rows{form}", tmp_path / f"rows{form}.part"
    for _ in range(2):

        def fail():
            with open_sink(str(path), "float32") as sink:
                sink.write(0, ["bad"], np.empty((1, 0), np.float32), [0])
                raise RuntimeError

        with pytest.raises(RuntimeError) as caught:
            fail()
        assert not hasattr(caught.value, "__notes__")
        assert listed(tmp_path) == ({part.name} if part.exists() else set())
        part.write_bytes(b"kept")
    assert part.read_bytes() == b"kept"


@pytest.mark.parametrize("form", FORMS)
def test_two_runs_do_not_write_one_file(tmp_path, form):
    path = tmp_path / f"rows{form}"
    with open_sink(str(path), "float32") as sink:
        sink.write(0, ["a"], rows_of(1))
        with pytest.raises(ConfigError, match="being written by another process"):
            open_sink(str(path), "float32").__enter__()
        sink.write(1, ["b"], rows_of(1))
    assert len(read(path)) == 2


@pytest.mark.parametrize("form", FORMS)
def test_a_name_that_is_no_text(tmp_path, form):
    odd = os.fsdecode(b"caf\xe9.png")
    path = tmp_path / f"rows{form}"
    with open_sink(str(path), "float32") as sink:
        sink.write(0, [odd], rows_of(1))
    assert names_of(path) == ["caf\\xe9.png" if form == ".parquet" else odd]


@pytest.mark.parametrize("size", [9, 4096, 9000])
def test_row_groups_are_of_a_size_that_readers_like(tmp_path, size):
    path = tmp_path / "rows.parquet"
    with open_sink(str(path), "float32") as sink:
        for start in range(0, size, 9):
            sink.write(start, ["x"] * min(9, size - start), rows_of(size)[start : start + 9])
    metadata = pyarrow.parquet.ParquetFile(path).metadata
    assert metadata.num_rows == size
    assert metadata.num_row_groups == -(-size // 4104)
    assert np.array_equal(read(path), rows_of(size))


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
    [("rows.csv", r"\.npy, \.jsonl, \.parquet"), ("rows", "ends in"), ("no/rows.jsonl", "no such directory")],
)
def test_a_target_that_cannot_be(tmp_path, name, reason):
    with pytest.raises(ConfigError, match=reason):
        open_sink(str(tmp_path / name), "float32")


def test_parquet_without_pyarrow(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"casdk\[arrow\]"):
        open_sink(str(tmp_path / "rows.parquet"), "float32")
