"""Spark: a pandas UDF from a column to its embeddings, run by Spark's Python workers over one connection each."""

from collections.abc import Iterator
from typing import Any, Literal

from casdk._extras import missing_extra
from casdk.client import Client
from casdk.interop.batches import BatchEncoder

__all__ = ["udf"]


def udf(client: Client, *, errors: Literal["raise", "return"] = "raise", **options: Any) -> Any:
    """Return a function from a column to its embeddings, ``array<float>``.

    Args:
        client: A client of the server; its configuration travels.
        errors: ``"raise"``, or ``"return"``: null for what cannot be encoded.
        **options: `EncodeOptions` of each call.

    Example:
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
