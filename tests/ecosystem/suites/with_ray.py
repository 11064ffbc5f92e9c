"""Ray: a column of a dataset is encoded, and Ray's tasks make a bulk run, also when one of them dies."""

import logging

import numpy as np
import pytest
import ray
from casdk import BulkError, bulk
from casdk.interop import ray as casdk_ray
from casdk.interop.batches import BatchEncoder


@pytest.fixture(scope="module", autouse=True)
def engine():
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture
def sentences(texts):
    return [text for text in texts if not text.endswith(".png")] * 20


def by_number(dataset, column):
    rows = sorted(dataset.take_all(), key=lambda row: row["n"])
    return np.stack([row[column] for row in rows])


def test_a_dataset(client, sentences):
    dataset = ray.data.from_items([{"text": text, "n": n} for n, text in enumerate(sentences)])
    embedded = casdk_ray.encode(dataset, client, "text", into="row", batch_size=16)
    np.testing.assert_array_equal(by_number(embedded, "row"), client.encode(sentences))


@pytest.mark.parametrize("kind", ["numpy", "pandas", "pyarrow"])
def test_each_kind_of_batch(client, sentences, kind):
    dataset = ray.data.from_items([{"text": text, "n": n} for n, text in enumerate(sentences)])
    embedded = dataset.map_batches(BatchEncoder(client, "text").__call__, batch_format=kind, batch_size=32)
    np.testing.assert_array_equal(by_number(embedded, "embedding"), client.encode(sentences))


def test_nulls(client):
    dataset = ray.data.from_items([{"text": text} for text in ("a", None, "b")])
    rows = casdk_ray.encode(dataset, client, "text", errors="return").take_all()
    assert sorted(row["embedding"] is None for row in rows) == [False, False, True]


def test_a_bulk_run(client, captions, bulk_options, single, files, tmp_path):
    (tmp_path / "captions.txt").write_text("\n".join(captions))
    result = casdk_ray.encode_to(client, tmp_path / "rows", bulk.lines(tmp_path / "captions.txt"), **bulk_options)
    assert (result.rows, result.encoded) == (300, 300)
    assert files(tmp_path / "rows") == single
    assert casdk_ray.encode_to(client, tmp_path / "rows", captions, **bulk_options).encoded == 0


def test_a_bulk_run_begun_here_and_ended_by_tasks_of_which_one_dies(
    client, deadly, bulk_options, single, files, begin, tmp_path
):
    begin(tmp_path / "rows")
    result = casdk_ray.encode_to(client, tmp_path / "rows", deadly, tasks=3, **bulk_options)
    assert (tmp_path / "has-died").exists()
    assert result.rows == 300
    assert files(tmp_path / "rows") == single


def test_a_bulk_run_begun_by_tasks_and_ended_here(client, captions, bulk_options, single, files, tmp_path):
    with pytest.raises(BulkError, match=r"^item \d+, '!!raise', cannot be encoded"):
        casdk_ray.encode_to(
            client, tmp_path / "rows", [*captions[:250], "!!raise"], tasks=2, retries=0, errors="raise", **bulk_options
        )
    client.encode_to(tmp_path / "rows", captions, **bulk_options)
    assert files(tmp_path / "rows") == single
