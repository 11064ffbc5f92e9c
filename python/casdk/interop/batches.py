"""Encodes a column of a batch in the worker processes of an engine.

`BatchEncoder` is a function that can be pickled. `casdk.interop.ray`, ``dask`` and ``spark`` pass it to their engines,
and Hugging Face's ``Dataset.map(..., batched=True)`` takes it directly.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Mapping
from multiprocessing.util import Finalize
from typing import Any, Literal

from casdk.client import Client
from casdk.errors import InputTypeError, InputValueError
from casdk.models import EncodeResult

__all__ = ["BatchEncoder"]

_clients: dict[tuple[int, bytes], Client] = {}
"""Clients by process id and pickled settings; a forked child makes its own."""


def client_of(settings: bytes) -> Client:
    """Return this process's client for pickled settings; the first call makes it, and the process's end closes it."""
    key = os.getpid(), settings
    client = _clients.get(key)
    if client is None:
        made = pickle.loads(settings)
        client = _clients.setdefault(key, made)
        if client is made:
            # This also runs in the children of multiprocessing, in which functions of `atexit` do not run.
            Finalize(client, client.close, exitpriority=10)
    return client


class BatchEncoder:
    """Adds a column of embeddings to a batch; a function that can be pickled.

    All encoders of the same client share one connection per process, whichever threads run them.

    Args:
        client: A client of the server, of which only the configuration is pickled. Its credential must be a function of
            a module, or ``CLIP_AUTH_TOKEN`` in the environment of the workers.
        column: Name of the column to encode: texts, or any other items that `Client.encode` accepts.
        into: Name of the new column, or of the column to replace.
        errors: ``"raise"``, or ``"return"`` for null (NaN where there is no null) if an item cannot be encoded.
        **options: The `EncodeOptions` of each call.

    Raises:
        ConfigError: The client holds a secret as a string, which must not be pickled.

    Examples:
        >>> from casdk import Client
        >>> from casdk.interop.batches import BatchEncoder
        >>> encode = BatchEncoder(Client("grpc://127.0.0.1:51000"), "text")
        >>> encode({"text": ["an apple", "a pear"]})["embedding"][0].shape
        (512,)
        >>> dataset.map(encode, batched=True)  # doctest: +SKIP
    """

    def __init__(
        self,
        client: Client,
        column: str,
        *,
        into: str = "embedding",
        errors: Literal["raise", "return"] = "raise",
        **options: Any,
    ) -> None:
        if errors not in ("raise", "return"):
            raise InputValueError(f"errors must be 'raise' or 'return', not {errors!r}: rows must stay in their places")
        self.column = column
        self.into = into
        self._settings = pickle.dumps(client)
        self._options = {**options, "errors": errors}

    def encode(self, items: Iterable[Any]) -> EncodeResult:
        """Encode items in this process.

        Returns:
            The rows, and the errors of the items without a row.
        """
        found = client_of(self._settings).encode(items, **self._options)
        return found if isinstance(found, EncodeResult) else EncodeResult(embeddings=found)

    def __call__(self, batch: Any) -> Any:
        """Return the batch with its embeddings.

        Args:
            batch: A pandas or polars ``DataFrame``, a pyarrow ``Table``, or a mapping from names to columns.

        Returns:
            The same kind of batch. The embeddings are a FixedSizeList in Arrow, an Array in polars, an ndarray
            ``[N, D]`` in a mapping, and objects, one ndarray ``[D]`` each, in pandas.

        Raises:
            InputTypeError: The batch is none of these.
        """
        kind = type(batch).__module__.partition(".")[0]
        if kind == "pandas":
            return batch.assign(**{self.into: self.series(batch[self.column])})
        if kind == "polars":
            return batch.with_columns(batch[self.column].__class__(self.into, self._arrow(batch[self.column])))
        if kind == "pyarrow":
            place = batch.schema.get_field_index(self.into)
            rows = self._arrow(batch[self.column])
            return batch.append_column(self.into, rows) if place < 0 else batch.set_column(place, self.into, rows)
        if isinstance(batch, Mapping):
            rows = self.encode(batch[self.column]).embeddings
            # datasets adds the returned columns to its own, and would decode every image that is returned.
            return {self.into: rows} if kind == "datasets" else {**batch, self.into: rows}
        raise InputTypeError(f"a batch must be a DataFrame, a Table or a mapping, not {type(batch).__name__}")

    def _arrow(self, column: Any) -> Any:
        return self.encode(column).to_arrow()

    def series(self, texts: Any) -> Any:
        """Return a pandas column of embeddings, one ndarray ``[D]`` each, for a pandas column."""
        found = self.encode(texts)
        rows: list[Any] = list(found.embeddings)
        for error in found.errors:
            rows[error.index] = None
        return type(texts)(rows, index=texts.index, dtype=object)
