"""Columns of Parquet files: texts and images, row by row, and what is wrong with a file said by its name."""

import sys

import pyarrow as pa
import pyarrow.parquet
import pytest
from casdk import BulkError, ConfigError, Image, InputValueError, Text, bulk
from casdk.bulk.tables import BATCH_ROWS
from hypothesis import given
from hypothesis import strategies as st


def write(path, **columns):
    pyarrow.parquet.write_table(pa.table(columns), path)
    return str(path)


def entries(path, columns="item", name=None):
    return list(bulk.parquet(path, columns=columns, name=name).entries())


def test_texts_of_several_files_are_named_by_file_and_row(tmp_path):
    later = write(tmp_path / "b.parquet", item=["three"])
    first = write(tmp_path / "a.parquet", item=["one", "two.png"])
    found = bulk.parquet(tmp_path / "*.parquet", columns="item")
    assert found.total == 3
    assert list(found) == [(f"{first}:0", Text("one")), (f"{first}:1", Text("two.png")), (f"{later}:0", Text("three"))]
    assert [content for _, _, content in found.entries()] == ["one", "two.png", "three"]


@pytest.mark.parametrize(
    ("values", "called"),
    [([7, None], "7"), (["seven", None], "seven"), (pa.array([b"7\xff", None]), "7\\xff")],
)
def test_names_are_a_column_of_their_own(tmp_path, values, called):
    path = write(tmp_path / "a.parquet", item=["one", "two"], **{"a.id": values})
    assert [name for name, _, _ in entries(path, name="a.id")] == [called, f"{path}:1"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_strings_of_every_kind_are_sentences(tmp_path, kind):
    path = write(tmp_path / "a.parquet", item=pa.array(["one", None], kind))
    (_, one, _), (_, nothing, content) = entries(path)
    assert one == Text("one")
    assert (str(nothing.cause), content) == ("column 'item' has a null here", "")


def test_images_are_bytes_or_structs_of_bytes_and_path(tmp_path):
    (tmp_path / "a.png").write_bytes(b"image")
    place = str(tmp_path / "a.png")
    structs = [{"bytes": b"image", "path": "lost.png"}, {"bytes": None, "path": place}, {"bytes": None, "path": None}]
    found = entries(write(tmp_path / "a.parquet", item=structs))
    assert [item.source for _, item, _ in found[:2]] == [b"image", place]
    assert "has a null here" in str(found[2][1].cause)
    plain = entries(write(tmp_path / "b.parquet", item=pa.array([b"image", b"imagf"], pa.large_binary())))
    assert isinstance(plain[0][1], Image)
    assert plain[0][2] == found[0][2] != plain[1][2]
    before = found[1][2]
    (tmp_path / "a.png").write_bytes(b"another image")
    assert entries(tmp_path / "a.parquet")[1][2] != before


def test_a_string_that_is_no_utf8_fails_alone(tmp_path):
    broken = pa.array([b"one", b"\xff\xfe", b"two"]).view(pa.string())
    found = entries(write(tmp_path / "a.parquet", item=broken))
    assert [type(item).__name__ for _, item, _ in found] == ["Text", "Unreadable", "Text"]
    assert "utf-8" in found[1][2]


@given(st.lists(st.integers(0, 3 * BATCH_ROWS), min_size=1, max_size=3), st.integers(1, 2 * BATCH_ROWS))
def test_rows_come_in_order_whatever_the_files_and_their_groups(tmp_path_factory, sizes, group):
    folder, expected = tmp_path_factory.mktemp("tables"), []
    for number, size in enumerate(sizes):
        texts = [f"{number} {row}" for row in range(size)]
        pyarrow.parquet.write_table(
            pa.table({"item": pa.array(texts, pa.string())}), folder / f"{number}.parquet", row_group_size=group
        )
        expected += texts
    found = bulk.parquet(folder / "*.parquet", columns="item")
    assert [item.text for _, item in found] == expected
    assert found.total == len(expected)


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"caption": ["a"], "id": [1]}, {}, r"a\.parquet has no column 'item'; its columns are caption, id"),
        ({"item": ["a"]}, {"name": "id"}, r"a\.parquet has no column 'id'; its columns are item"),
        ({"item": [7]}, {}, r"a\.parquet: column 'item' holds int64, and has to hold strings"),
        ({"item": [{"text": "a"}]}, {}, r"a\.parquet: column 'item' holds struct<text: string>"),
    ],
)
def test_a_column_that_is_missing_or_holds_something_else_is_refused(tmp_path, columns, options, said):
    write(tmp_path / "a.parquet", **columns)
    with pytest.raises(InputValueError, match=said):
        entries(tmp_path / "*.parquet", **options)


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    write(tmp_path / "a.parquet", item=["a"])
    (tmp_path / "b.parquet").write_text("no table")
    with pytest.raises(InputValueError, match=r"b\.parquet cannot be read as a Parquet file"):
        entries(tmp_path / "*.parquet")
    with pytest.raises(InputValueError, match=r"is a folder: write .*\*\.parquet"):
        entries(tmp_path)
    with pytest.raises(InputValueError, match="no file is called"):
        entries(tmp_path / "c.parquet")


def test_a_file_that_is_broken_further_on_stops_the_run(tmp_path, encoder):
    path = tmp_path / "a.parquet"
    texts = [f"sentence {row}" for row in range(2 * BATCH_ROWS)]
    pyarrow.parquet.write_table(pa.table({"item": texts}), path, row_group_size=BATCH_ROWS, use_dictionary=False)
    whole = path.read_bytes()
    start = pyarrow.parquet.read_metadata(path).row_group(1).column(0).data_page_offset
    path.write_bytes(whole[:start] + b"\xff" * 64 + whole[start + 64 :])
    with pytest.raises(BulkError, match=rf"a\.parquet cannot be read beyond row {BATCH_ROWS}"):
        encoder.encode_to(tmp_path / "rows.npy", bulk.parquet(path, columns="item"), shard_rows=BATCH_ROWS)
    path.write_bytes(whole)
    result = encoder.encode_to(tmp_path / "rows.npy", bulk.parquet(path, columns="item"), shard_rows=BATCH_ROWS)
    assert (result.rows, result.encoded, result.failed) == (2 * BATCH_ROWS, BATCH_ROWS, 0)


def test_pyarrow_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r'pip install "casdk\[arrow\]"'):
        entries(tmp_path / "a.parquet")
