"""The types of columns; mypy and pyright check this file in `make lint`, and nothing runs it."""

from typing import Any, assert_type

import numpy as np
import pandas as pd
import polars as pl
from casdk import ArrowArray, ArrowStream, Client, Document, DocumentArray, EncodeResult
from numpy.typing import NDArray

Rows = NDArray[np.float32]

client = Client("grpc://127.0.0.1:51000", telemetry=True)


def columns(
    frame: pd.DataFrame, texts: "pd.Series[str]", index: "pd.Index[str]", table: pl.DataFrame, array: ArrowArray
) -> None:
    rows: Rows = client.encode(frame["text"])  # a Series[Any], of which mypy says no more than Any
    assert rows.shape
    assert_type(client.encode(texts, batch_size=8), Rows)
    assert_type(client.encode(index), Rows)
    assert_type(client.encode(table["text"]), Rows)
    assert_type(client.encode(array), Rows)
    assert_type(client.encode(texts, errors="skip"), Rows)
    assert_type(client.encode(texts, errors="return"), EncodeResult)
    assert_type(client.encode(table["text"], errors="return").to_arrow(), ArrowArray)


async def acolumns(texts: "pd.Series[str]", stream: ArrowStream) -> None:
    assert_type(await client.aencode(texts), Rows)
    assert_type(await client.aencode(stream), Rows)
    assert_type(await client.aencode(stream, result="arrow"), ArrowArray)


def arrow(texts: list[str], table: pl.DataFrame, documents: list[Document], mixture: list[str | Document]) -> None:
    assert_type(client.encode(texts, result="arrow"), ArrowArray)
    assert_type(client.encode(table["text"], result="arrow", errors="skip", dtype="float16"), ArrowArray)
    assert_type(client.encode(documents, result="arrow"), ArrowArray)
    assert_type(client.encode(texts, result=None), Rows)
    assert_type(client.encode(documents, result=None), DocumentArray)
    assert_type(client.encode(mixture, result=None), Rows | DocumentArray)


def out(array: ArrowArray) -> tuple[int, Any]:
    pl.Series(array)
    return len(array), array.__arrow_c_array__()
