"""Spark: a pandas UDF from a column to its embeddings, and bulk runs that Spark's tasks make, in its Python workers."""

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, Unpack

from casdk._calls.bulk_options import BulkOptions
from casdk._extras import missing_extra
from casdk.bulk import BulkResult
from casdk.client import Client
from casdk.errors import BulkError, ConfigError
from casdk.interop._bulk_tasks import ShareTask, encode_in_tasks
from casdk.interop.batches import BatchEncoder

__all__ = ["encode_to", "udf"]

OUR_ERROR: Final = re.compile(r"^casdk\.errors\.\w+: (.*)$", re.MULTILINE)
"""Finds the message of an error of casdk's in the traceback of a worker."""


def udf(client: Client, *, errors: Literal["raise", "return"] = "raise", **options: Any) -> Any:
    """Return a function from a column to its embeddings, ``array<float>``.

    Args:
        client: A client of the server; its configuration is pickled for the workers.
        errors: ``"raise"``, or ``"return"`` for null if an item cannot be encoded.
        **options: `EncodeOptions` of each call.

    Examples:
        >>> frame.withColumn("embedding", udf(client)("text"))  # doctest: +SKIP
    """
    try:
        import pandas as pd
        from pyspark.sql.functions import pandas_udf  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise missing_extra("casdk.interop.spark", "spark", error) from error

    encoder = BatchEncoder(client, "", errors=errors, **options)

    def encode(columns: Iterator[pd.Series]) -> Iterator[pd.Series]:
        yield from map(encoder.series, columns)

    return pandas_udf(encode, "array<float>")


def encode_to(
    client: Client,
    target: str | os.PathLike[str],
    content: Any,
    *,
    tasks: int | None = None,
    **options: Unpack[BulkOptions],
) -> BulkResult:
    """Run `Client.encode_to` in tasks of the active ``SparkSession``; the folder is byte for byte that of a single run.

    Spark repeats a failed task as often as ``spark.task.maxFailures`` says; the task continues where it stopped.

    Args:
        client: A client of the server; its configuration is pickled for the workers.
        target: A folder that all workers see.
        content: A source of `casdk.bulk`, a list, or anything else that every task can unpickle and read from its first
            item; paths are those that the workers see.
        tasks: Number of tasks, each of which makes a share of the shards; by default Spark's ``defaultParallelism``,
            which a session of Spark Connect does not report.
        **options: The fields of `BulkOptions`, except ``shard`` and ``show_progress``.

    Raises:
        BulkError: A task failed for good, and the same call continues there; or the target or the input has changed.
        InputError: The content cannot be pickled, or an option has a wrong value.
        ConfigError: An option is for single runs, or there is no active session.
    """
    try:
        import pandas as pd
        from pyspark import cloudpickle  # pyright: ignore[reportMissingImports]
        from pyspark.errors import PythonException  # pyright: ignore[reportMissingImports]
        from pyspark.sql import SparkSession  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise missing_extra("casdk.interop.spark", "spark", error) from error
    session = SparkSession.getActiveSession()
    if session is None:
        raise ConfigError("there is no active SparkSession: make one first")

    def run(task: ShareTask) -> Iterable[int]:
        def make(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
            for frame in frames:
                yield pd.DataFrame({"encoded": [task(int(index)) for index in frame["id"]]})

        # each number is a partition of its own
        numbers = session.range(0, task.shares, 1, task.shares)
        try:
            return [row.encoded for row in numbers.mapInPandas(make, "encoded long").collect()]
        except PythonException as error:
            if found := OUR_ERROR.search(str(error)):
                raise BulkError(found[1]) from error
            raise

    tasks = session.sparkContext.defaultParallelism if tasks is None else tasks
    return encode_in_tasks(client, target, content, options, tasks=tasks, dumps=cloudpickle.dumps, run=run)
