"""Columns of the real pandas, polars and pyarrow in, Arrow columns out, against plain lists."""

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from casdk import Document, EmptyItemError, InputTypeError, InputValueError, ItemTypeError
from casdk._columns import SLICE_ROWS, Column, column_of, to_arrow
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

TEXTS = ["she smiled", "with pain", "a control room", "ünïcödé 🦀"]


class Exported:
    """A column of an unknown library, which exports itself through Arrow's C interface."""

    def __init__(self, array):
        self._array = array

    def __arrow_c_array__(self, requested_schema=None):
        return self._array.__arrow_c_array__(requested_schema)


class Streamed:
    def __init__(self, column):
        self._column = column

    def __arrow_c_stream__(self, requested_schema=None):
        return self._column.__arrow_c_stream__(requested_schema)


def chunked(texts):
    return pa.chunked_array([texts[:1], [], texts[1:]], pa.string())


COLUMNS = {
    "pandas": lambda texts: pd.DataFrame({"text": texts})["text"],
    "pandas object": lambda texts: pd.Series(texts, dtype=object),
    "pandas arrow": lambda texts: pd.Series(texts, dtype=pd.ArrowDtype(pa.large_string())),
    "pandas category": lambda texts: pd.Series(texts, dtype="category"),
    "pandas index": lambda texts: pd.Index(texts),
    "pandas array": lambda texts: pd.array(texts, dtype="string"),
    "pandas filtered": lambda texts: pd.Series(["x", *texts], index=range(7, 8 + len(texts))).iloc[1:],
    "polars": lambda texts: pl.DataFrame({"text": texts})["text"],
    "polars categorical": lambda texts: pl.Series(texts, dtype=pl.Categorical),
    "pyarrow": lambda texts: pa.array(texts, pa.string()),
    "pyarrow chunks": chunked,
    "pyarrow view": lambda texts: pa.array(texts, pa.string_view()),
    "pyarrow dictionary": lambda texts: pa.array(texts, pa.string()).dictionary_encode(),
    "pyarrow column": lambda texts: pa.table({"text": texts})["text"],
    "pyarrow slice": lambda texts: pa.array(["x", *texts, "y"]).slice(1, len(texts)),
    "array exporter": lambda texts: Exported(pa.array(texts, pa.string())),
    "stream exporter": lambda texts: Streamed(chunked(texts)),
    "polars exporter": lambda texts: Streamed(pl.Series(texts)),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_is_a_list_of_its_items(kind):
    column = column_of(COLUMNS[kind](TEXTS))
    assert len(column) == len(TEXTS)
    assert list(column) == TEXTS


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_null_is_none(kind):
    assert list(column_of(COLUMNS[kind](["a", None, "b"]))) == ["a", None, "b"]


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_is_encoded(connect, expected, kind):
    np.testing.assert_array_equal(connect("grpc").encode(COLUMNS[kind](TEXTS)), expected(TEXTS))


def test_columns_on_every_scheme_and_twin(client, call, expected):
    np.testing.assert_allclose(call(client, "encode", pd.Series(TEXTS)), expected(TEXTS), rtol=1e-6)
    np.testing.assert_allclose(np.concatenate(list(call(client, "stream", pl.Series(TEXTS)))), expected(TEXTS), 1e-6)


def test_columns_in_other_verbs(connect):
    client = connect("grpc")
    stored = client.index(pl.Series(TEXTS))
    assert [document.text for document in stored] == TEXTS
    found = client.search(pd.Series(TEXTS), limit=1)
    assert [query.matches[0].text for query in found] == TEXTS


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_null_is_an_error_of_its_item(connect, expected, kind):
    client, column = connect("grpc"), COLUMNS[kind](["a", None, "b"])
    with pytest.raises(EmptyItemError, match=r"item 1: is None \(null\)"):
        client.encode(column)
    result = client.encode(column, errors="return")
    assert [error.index for error in result.errors] == [1]
    np.testing.assert_array_equal(result.embeddings[[0, 2]], expected(["a", "b"]))
    assert np.isnan(result.embeddings[1]).all()
    np.testing.assert_array_equal(client.encode(column, errors="skip"), expected(["a", "b"]))


@pytest.mark.parametrize("make", [pd.Series, pl.Series, pa.array])
def test_a_long_column_is_read_in_slices(make):
    texts = [f"text {number}" for number in range(2 * SLICE_ROWS + 3)]
    assert list(column_of(make(texts))) == texts


@pytest.mark.parametrize("make", [pd.Series, pl.Series, pa.array])
def test_images_of_a_column(connect, expected, images, make):
    data = images["png"].read_bytes()
    np.testing.assert_array_equal(connect("grpc").encode(make([data, data])), expected([images["png"]] * 2))


def test_what_else_a_pandas_column_holds(connect, images):
    documents = [Document(text="a"), Document(uri=str(images["png"]))]
    array = connect("grpc").encode(pd.Series(documents))
    assert list(map(id, array)) == list(map(id, documents))
    assert documents[1].embedding.shape == (512,)


def test_numbers_are_no_items(connect):
    with pytest.raises(ItemTypeError, match="item 0: a int cannot be encoded"):
        connect("grpc").encode(pl.Series([1, 2]))


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"text": TEXTS}),
        pl.DataFrame({"text": TEXTS}),
        pa.table({"text": TEXTS}),
        pa.record_batch({"text": TEXTS}),
        pa.table({"text": TEXTS}).to_reader(),
        Streamed(pa.table({"text": TEXTS})),
    ],
    ids=lambda table: f"{type(table).__module__.partition('.')[0]}.{type(table).__name__}",
)
def test_a_table_is_refused(connect, table):
    with pytest.raises(InputTypeError, match=r"one column, not a whole .*df\['text'\]"):
        connect("grpc").encode(table)


@pytest.mark.parametrize("content", [TEXTS, tuple(TEXTS), set(TEXTS), np.array(TEXTS), iter(TEXTS)])
def test_other_content_is_no_column(content):
    assert column_of(content) is None


def test_an_empty_column(connect):
    assert connect("grpc").encode(pl.Series([], dtype=pl.String)).shape == (0, 0)


# out


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2)), st.data())
def test_an_arrow_column_is_the_rows(rows, data):
    bad = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    column = to_arrow(rows, bad)
    column.validate(full=True)
    assert column.type == pa.list_(pa.float32(), rows.shape[1])
    assert column.null_count == len(bad)
    whole = [None if number in bad else row for number, row in enumerate(rows.tolist())]
    np.testing.assert_equal(column.to_pylist(), whole)
    assert column.values.to_numpy(zero_copy_only=True).ctypes.data == rows.ctypes.data


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_result_arrow(client, call, expected, dtype):
    column = call(client, "encode", pl.Series(TEXTS), result="arrow", dtype=dtype)
    assert isinstance(column, pa.FixedSizeListArray)
    assert column.type.list_size == 512
    rows = np.stack(column.to_numpy(zero_copy_only=False))
    assert rows.dtype == dtype
    np.testing.assert_allclose(rows, expected(TEXTS), rtol=1e-3 if dtype == "float16" else 1e-6, atol=1e-7)


def test_other_libraries_take_it_over(connect, expected):
    column = connect("grpc").encode(TEXTS, result="arrow")
    assert hasattr(column, "__arrow_c_array__")
    series = pl.Series("embedding", Exported(column))  # through the C interface alone
    assert series.dtype == pl.Array(pl.Float32, 512)
    np.testing.assert_array_equal(series.to_numpy(), expected(TEXTS))
    table = pa.table({"text": TEXTS}).append_column("embedding", column)
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 512)


def test_documents_get_theirs_too(connect, expected):
    documents = [Document(text=text) for text in TEXTS]
    column = connect("grpc").encode(documents, result="arrow")
    np.testing.assert_array_equal(np.stack(column.to_numpy(zero_copy_only=False)), expected(TEXTS))
    np.testing.assert_array_equal(documents[1].embedding, expected(TEXTS)[1])


def test_nulls_out_where_nulls_went_in(connect, expected):
    client = connect("grpc")
    column = client.encode(["a", None, "b"], errors="return").to_arrow()
    assert column.is_null().to_pylist() == [False, True, False]
    np.testing.assert_array_equal(np.stack([column[0].values, column[2].values]), expected(["a", "b"]))
    assert len(client.encode(["a", None, "b"], errors="skip", result="arrow")) == 2


def test_no_items(connect):
    column = connect("grpc").encode([], result="arrow")
    column.validate(full=True)
    assert len(column) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"result": "pandas"}, "'arrow' or None"),
        ({"result": "arrow", "errors": "return"}, r"\.to_arrow\(\)"),
        ({"result": "arrow", "return_responses": True}, "return_responses"),
        ({"result": "arrow", "on_done": print}, "on_done"),
    ],
)
def test_what_arrow_does_not_go_with(connect, options, says):
    with pytest.raises(InputValueError, match=says):
        connect("grpc").encode(["a"], **options)


def test_a_stream_is_no_column(connect):
    with pytest.raises(InputValueError, match="result= does not go with a stream"):
        next(connect("grpc").stream(["a"], result="arrow"))


WITHOUT = """
import sys
sys.modules["pyarrow"] = None
import numpy, polars
from casdk import Client, ConfigError, EncodeResult
from casdk._columns import column_of, to_arrow

class Streamed:
    def __arrow_c_stream__(self, requested_schema=None):
        raise AssertionError

assert list(column_of(polars.Series(["a", None]))) == ["a", None]
def encode():
    # The server is not even asked: its rows would be lost in the end.
    Client("grpc://127.0.0.1:9").encode(["a"], result="arrow")

for act in (
    encode, lambda: column_of(Streamed()), lambda: EncodeResult(embeddings=numpy.zeros((1, 1))).to_arrow()
):
    try:
        act()
    except ConfigError as error:
        assert 'pip install "casdk[arrow]"' in str(error)
    else:
        sys.exit("no error")
"""


def test_without_pyarrow():
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)


def test_a_column_does_not_run_ahead(connect):
    class Slow(Column):
        read = 0

        def __iter__(self):
            for item in super().__iter__():
                Slow.read += 1
                yield item

    stream = connect("grpc").stream(Slow(pl.Series(["a"] * 5000), "polars"), batch_size=10, prefetch=2)
    next(stream)
    assert Slow.read <= 100
    stream.close()
