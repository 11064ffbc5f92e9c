"""What travels to worker processes, here without their engines: those have environments of their own, `ecosystem/`."""

import multiprocessing
import pickle
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from casdk import Client, ConfigError, EmptyItemError, InputTypeError, InputValueError
from casdk.interop.batches import BatchEncoder
from casdk.testing import FaultServer

TEXTS = ["she smiled", "with pain", "a control room"]
NUMBERED = [f"text {number}" for number in range(40)]


@pytest.fixture
def encoder(connect):
    """A function with BatchEncoder's options that returns one, unpickled as in a worker."""

    def make(**options):
        return pickle.loads(pickle.dumps(BatchEncoder(connect("grpc"), "text", **options)))

    return make


BATCHES = {
    "pandas": (pd.DataFrame, lambda batch: np.stack(batch["embedding"])),
    "polars": (pl.DataFrame, lambda batch: batch["embedding"].to_numpy()),
    "pyarrow": (pa.table, lambda batch: np.stack(batch["embedding"].to_numpy())),
    "mapping": (dict, lambda batch: batch["embedding"]),
    "mapping of arrays": (
        lambda columns: {name: np.array(column) for name, column in columns.items()},
        lambda batch: batch["embedding"],
    ),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_every_kind_of_batch(encoder, expected, kind):
    make, rows = BATCHES[kind]
    batch = make({"text": TEXTS, "n": [1, 2, 3]})
    encoded = encoder(batch_size=2)(batch)
    assert type(encoded) is type(batch)
    assert list(encoded["n"]) == list(batch["n"])
    np.testing.assert_array_equal(rows(encoded), expected(TEXTS))
    assert "embedding" not in getattr(batch, "column_names", batch)  # a batch is not changed in place


@pytest.mark.parametrize("kind", BATCHES)
def test_nulls(encoder, kind):
    make, _ = BATCHES[kind]
    batch = make({"text": ["a", None, "b"]})
    with pytest.raises(EmptyItemError, match="item 1"):
        encoder()(batch)
    column = encoder(errors="return")(batch)["embedding"]
    if isinstance(column, np.ndarray):
        assert np.isnan(column).all(axis=1).tolist() == [False, True, False]
    else:
        assert [row is None for row in (column.to_pylist() if hasattr(column, "to_pylist") else column.to_list())] == [
            False,
            True,
            False,
        ]


def test_a_column_is_replaced(encoder):
    table = encoder(into="text")(pa.table({"n": [1], "text": ["a"]}))
    assert table.column_names == ["n", "text"]
    assert table.schema.field("text").type == pa.list_(pa.float32(), 512)


def test_a_pandas_index_stays(encoder):
    frame = encoder()(pd.DataFrame({"text": TEXTS}, index=["x", "y", "z"]))
    assert frame["embedding"].loc["y"].shape == (512,)


@pytest.mark.parametrize("batch", [["a"], "a", None, 3])
def test_what_is_no_batch(encoder, batch):
    with pytest.raises(InputTypeError, match=f"not {type(batch).__name__}"):
        encoder()(batch)


def test_rows_stay_in_their_places():
    with pytest.raises(InputValueError, match="errors must be 'raise' or 'return'"):
        BatchEncoder(Client("grpc://127.0.0.1:1"), "text", errors="skip")


def test_a_secret_does_not_travel():
    with pytest.raises(ConfigError, match="cannot be pickled"):
        BatchEncoder(Client("grpc://127.0.0.1:1", "s3cret"), "text")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_one_connection_per_process(method):
    with FaultServer(width=8) as server:
        encoder = BatchEncoder(Client(server.address("websocket")), "text")
        with multiprocessing.get_context(method).Pool(2) as pool:
            batches = pool.map(encoder, [{"text": [text]} for text in NUMBERED], chunksize=1)
            pool.close()
            pool.join()
        with Client(server.address("grpc")) as client:
            rows = client.encode(NUMBERED)
        np.testing.assert_array_equal(np.concatenate([batch["embedding"] for batch in batches]), rows)
        assert {request.scheme for request in server.requests} == {"websocket", "grpc"}
        assert len({request.connection for request in server.requests if request.scheme == "websocket"}) <= 2


def test_one_connection_for_all_threads_and_encoders():
    with FaultServer(width=8) as server:
        encoders = [pickle.loads(pickle.dumps(BatchEncoder(Client(server.address("grpc")), "text"))) for _ in range(4)]
        threads = [threading.Thread(target=encoder, args=({"text": NUMBERED},)) for encoder in encoders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.counters.connected == 1


WORKER = """
import logging, sys
from casdk import Client
from casdk.interop.batches import BatchEncoder

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
encoder = BatchEncoder(Client(sys.argv[1]), "text")
encoder({"text": ["a"]})
print("the end")
"""


def test_closed_when_the_process_ends(server):
    run = subprocess.run(
        [sys.executable, "-c", WORKER, server.address("websocket")], capture_output=True, text=True, check=True
    )
    opened, end, closed = run.stdout.splitlines()
    assert "is open" in opened
    assert end == "the end"
    assert "closed (0 requests" in closed
    assert run.stderr == ""
