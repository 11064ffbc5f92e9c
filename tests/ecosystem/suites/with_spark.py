import shutil

import numpy as np
import pytest
from casdk.interop.spark import udf
from pyspark.sql import SparkSession


@pytest.fixture(scope="module")
def spark():
    if shutil.which("java") is None:
        pytest.skip("Spark needs java")
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
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
