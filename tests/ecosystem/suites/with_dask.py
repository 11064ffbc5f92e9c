"""dask: a column of a frame is encoded, and dask's tasks make a bulk run, also when a worker dies."""

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from casdk import BulkError, bulk
from casdk.interop import dask as casdk_dask
from casdk.interop.batches import BatchEncoder
from distributed import LocalCluster


@pytest.fixture(params=["threads", "processes"])
def scheduler(request):
    with dask.config.set(scheduler=request.param, num_workers=2):
        yield request.param


@pytest.fixture
def sentences(texts):
    return [text for text in texts if not text.endswith(".png")] * 20


def test_a_frame(client, sentences, scheduler):
    frame = dd.from_pandas(pd.DataFrame({"text": sentences, "n": range(len(sentences))}), npartitions=4)
    embedded = casdk_dask.encode(frame, client, "text", into="row", batch_size=8)
    assert list(embedded.columns) == ["text", "n", "row"]
    done = embedded.compute()
    assert done["n"].tolist() == list(range(len(sentences)))
    np.testing.assert_array_equal(np.stack(done["row"]), client.encode(sentences))


def test_a_cluster_with_one_client_per_worker(client, sentences):
    def clients_here():
        from casdk.interop import batches

        return len(batches._clients)

    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster, cluster.get_client() as us:
        frame = dd.from_pandas(pd.DataFrame({"text": sentences}), npartitions=8)
        embedded = casdk_dask.encode(frame, client, "text").compute()
        found = us.run(clients_here)
    np.testing.assert_array_equal(np.stack(embedded["embedding"]), client.encode(sentences))
    assert len(found) == 2
    assert set(found.values()) <= {0, 1}
    assert any(found.values())


def test_nothing_is_encoded_before_it_is_asked_for(texts):
    from casdk import Client

    frame = dd.from_pandas(pd.DataFrame({"text": texts}), npartitions=1)
    casdk_dask.encode(frame, Client("grpc://127.0.0.1:1"), "text")


def test_nulls(client, scheduler):
    frame = dd.from_pandas(pd.DataFrame({"text": ["a", None, "b"]}), npartitions=1)
    rows = casdk_dask.encode(frame, client, "text", errors="return").compute()["embedding"]
    assert rows.isna().tolist() == [False, True, False]


def test_a_bag_of_batches(client, sentences, scheduler):
    batches = [{"text": sentences[start : start + 10]} for start in range(0, len(sentences), 10)]
    found = dask.compute(*[dask.delayed(BatchEncoder(client, "text"))(batch) for batch in batches])
    np.testing.assert_array_equal(np.concatenate([batch["embedding"] for batch in found]), client.encode(sentences))


def test_a_bulk_run(client, captions, bulk_options, single, files, tmp_path, scheduler):
    result = casdk_dask.encode_to(client, tmp_path / "rows", captions, tasks=3, **bulk_options)
    assert (result.rows, result.encoded) == (300, 300)
    assert files(tmp_path / "rows") == single


def test_a_bulk_run_begun_here_and_ended_on_a_cluster_where_a_worker_dies(
    client, deadly, bulk_options, single, files, begin, tmp_path
):
    begin(tmp_path / "rows")
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, cluster.get_client():
        result = casdk_dask.encode_to(client, tmp_path / "rows", deadly, **bulk_options)
    assert (tmp_path / "has-died").exists()
    assert result.rows == 300
    assert files(tmp_path / "rows") == single


def test_a_bulk_run_begun_by_tasks_and_ended_here(client, captions, bulk_options, single, files, tmp_path, scheduler):
    (tmp_path / "short.txt").write_text("\n".join(captions[:-1]))
    source = bulk.lines(tmp_path / "short.txt")
    with pytest.raises(BulkError, match=r"item \d+, '!!raise', cannot be encoded"):
        casdk_dask.encode_to(
            client, tmp_path / "rows", [*captions[:250], "!!raise"], tasks=2, errors="raise", **bulk_options
        )
    result = client.encode_to(tmp_path / "rows", captions, **bulk_options)
    assert result.encoded < 100
    assert files(tmp_path / "rows") == single
    assert casdk_dask.encode_to(client, tmp_path / "rows", captions, **bulk_options).encoded == 0
    with pytest.raises(BulkError, match="the input has become shorter"):
        casdk_dask.encode_to(client, tmp_path / "rows", source, **bulk_options)
