"""Dask: a column of embeddings for a dask ``DataFrame``, encoded by its workers over one connection each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from casdk.interop.batches import BatchEncoder

if TYPE_CHECKING:
    from casdk.client import Client

__all__ = ["encode"]


def encode(frame: Any, client: Client, column: str, **options: Any) -> Any:
    """Return the frame with its embeddings, lazily as dask has it; objects, one ndarray ``[D]`` per row.

    Args:
        frame: A ``dask.dataframe.DataFrame``.
        client: A client of the server; its configuration travels.
        column: What to encode.
        **options: Of `BatchEncoder`.
    """
    function = BatchEncoder(client, column, **options)
    # Without a meta, dask would find the columns out by encoding made-up texts.
    meta = frame._meta.assign(**{function.into: frame._meta[column].astype(object)})
    return frame.map_partitions(function, meta=meta)
