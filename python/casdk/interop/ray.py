"""Ray Data: a column of embeddings for a ``Dataset``, encoded by Ray's workers over one connection each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from casdk.interop.batches import BatchEncoder

if TYPE_CHECKING:
    from casdk.client import Client

__all__ = ["encode"]


def encode(dataset: Any, client: Client, column: str, *, batch_size: int = 1024, **options: Any) -> Any:
    """Return the dataset with its embeddings, lazily as Ray has it; a FixedSizeList column.

    Args:
        dataset: A ``ray.data.Dataset``.
        client: A client of the server; its configuration travels.
        column: What to encode.
        batch_size: Rows a worker is handed at a time; it sends them in requests of its own.
        **options: Of `BatchEncoder`.
    """
    function = BatchEncoder(client, column, **options)
    return dataset.map_batches(function.__call__, batch_size=batch_size, batch_format="pyarrow")
