"""The options of bulk runs: each value is checked, those of streams as a stream checks them."""

import numpy as np
import pytest
from casdk import InputTypeError, InputValueError
from casdk._calls.bulk_options import OF_STREAMS, BulkDefaults, BulkOptions, read_bulk_options
from casdk._calls.options import StreamOptions


def test_defaults():
    given, of_streams = read_bulk_options({})
    assert given == BulkDefaults()
    assert of_streams["batch_size"] == 32
    assert set(of_streams) == set(OF_STREAMS) <= {*StreamOptions.__annotations__, "timeout"}
    assert set(BulkDefaults.__struct_fields__) == set(BulkOptions.__annotations__)


@pytest.mark.parametrize(("given", "first"), [("auto", 32), (None, 32), (8, 8)])
def test_streams_begin_with_a_number(given, first):
    read, of_streams = read_bulk_options({"batch_size": given})
    assert (read.batch_size, of_streams["batch_size"]) == (given, first)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("resume", 1, InputTypeError),
        ("overwrite", "no", InputTypeError),
        ("normalize", None, InputTypeError),
        ("update", 1, InputTypeError),
        ("retry_errors", "yes", InputTypeError),
        ("hash", "sha", InputTypeError),
        ("report", True, InputTypeError),
        ("shard_rows", True, InputTypeError),
        ("shard_rows", 1.5, InputTypeError),
        ("shard_rows", 0, InputValueError),
        ("errors", "skip", InputValueError),
        ("layout", "parquet", InputValueError),
        ("layout", 7, InputValueError),
        ("batch_size", 0, InputValueError),
        ("batch_size", "many", InputTypeError),
        ("dtype", "int8", InputValueError),
        ("patience", -1, InputValueError),
        ("timeout", "1", InputTypeError),
        ("show_progress", None, InputTypeError),
        ("images", "crop", InputValueError),
        ("min_fidelity", 0.9, InputValueError),
        ("min_fidelity", 2, InputValueError),
        ("min_fidelity", "high", InputTypeError),
    ],
)
def test_a_value_that_cannot_be(name, value, error):
    with pytest.raises(error, match=name):
        read_bulk_options({name: value})


def test_a_layout_decides_what_its_rows_are():
    given, of_streams = read_bulk_options({"layout": "clip-retrieval"})
    assert (given.normalize, of_streams["dtype"]) == (True, "float16")
    assert read_bulk_options({"layout": "clip-retrieval", "dtype": np.float16, "normalize": True})[0].normalize
    for other in ({"dtype": "float32"}, {"normalize": False}):
        with pytest.raises(InputValueError, match="leave out dtype and normalize"):
            read_bulk_options({"layout": "clip-retrieval", **other})
