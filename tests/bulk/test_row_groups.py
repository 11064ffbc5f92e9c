"""Row groups that are written here, as pyarrow and polars read them."""

import numpy as np
import polars
import pyarrow
import pyarrow.parquet
import pytest
from casdk.bulk.disk import Checksum, checksum_of
from casdk.bulk.large_part import LargePart
from casdk.bulk.row_blocks import RowBlocks
from casdk.bulk.row_groups import Group, Matrix, RowGroups
from hypothesis import given, settings
from hypothesis import strategies as st

NUMBERS = np.random.default_rng(7).standard_normal((64, 130)).astype(np.float32)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
COLUMNS = [["embedding"], ["image_embedding", "text_embedding"]]


def schema_of(columns, width, dtype):
    matrix = pyarrow.list_(pyarrow.from_numpy_dtype(np.dtype(dtype)), width)
    fields = [("name", pyarrow.string()), *((column, matrix) for column in columns), ("error", pyarrow.string())]
    return pyarrow.schema(fields)


def block_of(rows):
    """Return a block that has these rows."""
    blocks = RowBlocks(rows.shape[1], rows.dtype, len(rows) + 1)
    blocks.begin(0)
    blocks.add(rows)
    return blocks.take()


@st.composite
def groups(draw, columns, width, dtype):
    """Return a row group, and the table that it is."""
    names = draw(st.lists(NAMES, min_size=1, max_size=12))
    places = st.sets(st.integers(0, len(names) - 1))
    errors = {row: draw(NAMES) for row in draw(places)}
    matrices, columns_read = [], []
    for _ in columns:
        nulls = sorted(draw(places))
        rows = [row for row in range(len(names)) if row not in nulls]
        values = NUMBERS[rows, :width].astype(dtype)
        matrices.append(Matrix(values if nulls or draw(st.booleans()) else block_of(values), nulls))
        there = dict(zip(rows, values, strict=True))
        columns_read.append([there.get(row) for row in range(len(names))])
    table = [names, *columns_read, [errors.get(row) for row in range(len(names))]]
    schema = schema_of(columns, width, dtype)
    return Group(names, matrices, errors), pyarrow.table(
        [pyarrow.array(column, field.type) for column, field in zip(table, schema, strict=True)], schema=schema
    )


def write(path, schema, written):
    part = LargePart(path)
    part.checksum = Checksum()
    into = RowGroups(pyarrow, part, schema)
    for group in written:
        into.add(group)
    into.close()
    part.sync()
    part.close()
    return part.checksum.text


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("columns", COLUMNS)
@settings(max_examples=20)
@given(data=st.data(), width=st.sampled_from([1, 2, 130]))
def test_others_read_what_is_written(tmp_path_factory, columns, dtype, data, width):
    path = tmp_path_factory.mktemp("groups") / "rows.parquet"
    made = data.draw(st.lists(groups(columns, width, dtype), max_size=3))
    schema = schema_of(columns, width, dtype)
    assert write(path, schema, [group for group, _ in made]) == checksum_of(path)
    whole = pyarrow.concat_tables([table for _, table in made] or [schema.empty_table()])
    read = pyarrow.parquet.read_table(path)
    read.validate(full=True)
    assert read.equals(whole)
    assert pyarrow.parquet.ParquetFile(path).num_row_groups == len(made)
    frame = polars.read_parquet(path)
    for column in ("name", "error"):
        assert frame[column].to_list() == whole[column].to_pylist()
    for column in columns:
        assert frame[column].to_list() == polars.from_arrow(whole[column]).to_list()


def test_the_footer_is_that_of_pyarrow(tmp_path):
    """What readers decide by: names and types of the columns, and where names lie."""
    schema = schema_of(["embedding"], 2, "float16")
    names, values = ["b", "a", "ç"], NUMBERS[:3, :2].astype(np.float16)
    write(tmp_path / "own", schema, [Group(names, [Matrix(values, [])], {})])
    column = pyarrow.array([*values], schema.field("embedding").type)
    table = pyarrow.table([names, column, pyarrow.nulls(3, pyarrow.string())], schema=schema)
    pyarrow.parquet.write_table(table, tmp_path / "theirs", use_dictionary=False, compression="zstd")
    own, theirs = (pyarrow.parquet.ParquetFile(tmp_path / name) for name in ("own", "theirs"))
    assert own.schema.equals(theirs.schema)
    assert own.schema_arrow.equals(theirs.schema_arrow, check_metadata=True)
    assert own.metadata.metadata == theirs.metadata.metadata
    for place in range(3):
        ours, other = (file.metadata.row_group(0).column(place) for file in (own, theirs))
        assert (ours.path_in_schema, ours.physical_type, ours.num_values) == (
            *(other.path_in_schema, other.physical_type, other.num_values),
        )
    said = own.metadata.row_group(0).column(0).statistics
    assert (said.min, said.max, said.null_count) == ("a", "ç", 0)


def test_names_too_long_for_statistics_are_in_none(tmp_path):
    group = Group(["a", "b" * 300], [Matrix(np.zeros((2, 2), np.float32), [])], {})
    write(tmp_path / "rows", schema_of(["embedding"], 2, "float32"), [group])
    said = pyarrow.parquet.read_metadata(tmp_path / "rows").row_group(0).column(0).statistics
    assert not said.has_min_max
    assert pyarrow.parquet.read_table(tmp_path / "rows")["name"][1].as_py() == "b" * 300
