"""Spark: a column is encoded by a pandas UDF, and Spark's tasks make a bulk run, also when one of them dies."""

import shutil

import numpy as np
import pytest
from casdk import BulkError, ConfigError
from casdk.interop.spark import encode_to, udf
from pyspark.sql import SparkSession


@pytest.fixture(scope="module")
def spark():
    if shutil.which("java") is None:
        pytest.skip("Spark needs java")
    # Two tasks at a time, each made up to 4 times.
    builder = SparkSession.builder.master("local[2,4]").config("spark.ui.enabled", "false")
    session = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", 16).getOrCreate()
    yield session
    session.stop()


def test_a_column(client, texts, spark):
    sentences = [text for text in texts if not text.endswith(".png")] * 20
    frame = spark.createDataFrame([(n, text) for n, text in enumerate(sentences)], ["n", "text"]).repartition(3)
    rows = frame.withColumn("embedding", udf(client)("text")).orderBy("n").collect()
    np.testing.assert_array_equal([row.embedding for row in rows], client.encode(sentences))


def test_nulls(client, spark):
    frame = spark.createDataFrame([("a",), (None,), ("b",)], "text string")
    rows = frame.withColumn("embedding", udf(client, errors="return")("text")).collect()
    assert sorted(row.embedding is None for row in rows) == [False, False, True]


def test_a_bulk_run(client, captions, bulk_options, single, files, tmp_path, spark):
    result = encode_to(client, tmp_path / "rows", captions, **bulk_options)
    assert (result.rows, result.encoded) == (300, 300)
    assert files(tmp_path / "rows") == single


def test_a_bulk_run_begun_here_and_ended_by_tasks_of_which_one_dies(
    client, deadly, bulk_options, single, files, begin, tmp_path, spark
):
    begin(tmp_path / "rows")
    result = encode_to(client, tmp_path / "rows", deadly, tasks=3, **bulk_options)
    assert (tmp_path / "has-died").exists()
    assert result.rows == 300
    assert files(tmp_path / "rows") == single


def test_a_bulk_run_begun_by_tasks_and_ended_here(client, captions, bulk_options, single, files, tmp_path, spark):
    with pytest.raises(BulkError, match=r"^item \d+, '!!raise', cannot be encoded"):
        encode_to(client, tmp_path / "rows", [*captions[:250], "!!raise"], tasks=2, errors="raise", **bulk_options)
    client.encode_to(tmp_path / "rows", captions, **bulk_options)
    assert files(tmp_path / "rows") == single


def test_a_session_is_needed(client, captions, tmp_path, monkeypatch):
    monkeypatch.setattr(SparkSession, "getActiveSession", classmethod(lambda kind: None))
    with pytest.raises(ConfigError, match="there is no active SparkSession"):
        encode_to(client, tmp_path / "rows", captions)
