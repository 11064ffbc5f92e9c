"""`Client`, a drop-in replacement for ``clip_client.Client``: the same signatures, defaults and return types.

It wraps `casdk.Client` for programs that change one import. Its Documents are docarray's (``pip install
'docarray<0.30'``), which is imported only by calls with Documents. ``docs/moving.md`` lists every difference.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sized
from types import TracebackType
from typing import Any, Literal, TypedDict, Unpack

import casdk
from casdk.documents.docarray import collect, to_docarray
from casdk.documents.recognise import is_array
from casdk.models import Header, Route, Status

__all__ = ["CallOptions", "Client", "Data", "DataRequest"]

BATCH_SIZE = 8
"""Items per request, the default of ``clip_client``."""
PREFETCH_REQUESTS = 100
"""Requests in flight, the default of ``clip_client``."""
WARNED_ITEMS = 500
"""``clip_client`` warns of more items than this, with and without a bar."""


class CallOptions(TypedDict, total=False):
    """Options of every verb except ``profile``, including some of `casdk.Client`'s own (``timeout=``...).

    Attributes:
        batch_size: Items per request; 8, also for ``None``.
        show_progress: Show a bar.
        parameters: Sent to the executors, ``model_name`` selects the model. Never changed.
        on_done: Called with the `DataRequest` of each request that went well; the call then returns ``None``.
        on_error: Called with the `DataRequest` of each failed request, which then does not stop the call.
        on_always: Called with each `DataRequest`; the call then returns ``None``.
        prefetch: Requests in flight; 100, also for ``None``.
        timeout: Seconds for the whole call; ``None`` for no limit.
        reader: Where a sync iterable is read: on the ``"caller"``'s thread, or on a ``"thread"`` of its own.
        check_images: Whether to refuse items that are no images before they are sent.
        source: For ``rank`` only: the attribute that holds the candidates, ``matches`` or ``chunks``.
    """

    batch_size: int | None
    show_progress: bool
    parameters: Mapping[str, Any] | None
    on_done: Callable[[DataRequest], Any] | None
    on_error: Callable[[DataRequest], Any] | None
    on_always: Callable[[DataRequest], Any] | None
    prefetch: int | None
    timeout: float | None
    reader: Literal["caller", "thread"]
    check_images: bool
    source: str


class Data:
    """The documents of a `DataRequest`, as ``request.data.docs``."""

    def __init__(self, request: DataRequest) -> None:
        self._request = request

    @property
    def docs(self) -> Any:
        """``docarray.DocumentArray``."""
        return self._request.docs


class DataRequest:
    """The answer to one request, with the attributes that callbacks of ``clip_client`` use.

    Attributes:
        response: The same answer as a `casdk.Response`.
    """

    def __init__(self, response: casdk.Response) -> None:
        self.response = response
        self._docs: Any = None

    @property
    def docs(self) -> Any:
        """The documents that came back, a ``docarray.DocumentArray``.

        Raises:
            ImportError: docarray 0.21 is missing.
        """
        if self._docs is None:
            self._docs = to_docarray(self.response.docs)
        return self._docs

    @property
    def data(self) -> Data:
        """``request.data.docs`` is ``request.docs``."""
        return Data(self)

    @property
    def header(self) -> Header:
        """The request that it answers."""
        return self.response.header

    @property
    def status(self) -> Status:
        """How the request ended."""
        return self.response.status

    @property
    def routes(self) -> tuple[Route, ...]:
        """The gateway and the executors that the request passed, with times."""
        return self.response.routes

    @property
    def parameters(self) -> dict[str, Any]:
        """The request's parameters, as the server sent them back."""
        return self.response.parameters

    def __repr__(self) -> str:
        return f"DataRequest({self.header.request_id!r})"


class Client:
    """A client of a CLIP server, with the interface of ``clip_client.Client``.

    Args:
        server: ``scheme://host[:port]``; schemes ``grpc grpcs http https websocket websockets ws wss``.
        credential: ``{"Authorization": token}``; by default ``CLIP_AUTH_TOKEN`` is read.
        **kwargs: Further options of `casdk.Client` (``timeout=``, ``tls=``...).

    Raises:
        ConfigError: A ``ValueError``: the address or the credential cannot work.
        TypeError: An unknown keyword.
    """

    def __init__(self, server: str, credential: Any = {}, **kwargs: Any) -> None:  # noqa: B006 - upstream's default
        self._client = casdk.Client(server, credential, **kwargs)

    def encode(self, content: Any, **options: Unpack[CallOptions]) -> Any:
        """Turn texts and images into embeddings.

        Args:
            content: An iterable of ``str`` or of ``docarray.Document``.
            **options: `CallOptions`.

        Returns:
            ``[N, D] float32`` for strings; a ``docarray.DocumentArray`` of the same objects, ``.embedding`` set, for
            Documents; for nothing ``[]``, or an empty ``DocumentArray``.
        """
        read = _read(content, options)
        if _is_nothing(content):
            return _nothing(content)
        return self._client.encode(content, **read)

    async def aencode(self, content: Any, **options: Unpack[CallOptions]) -> Any:
        """`encode`, asynchronously."""
        read = _read(content, options)
        if _is_nothing(content):
            return _nothing(content)
        return await self._client.aencode(content, **read)

    def rank(self, docs: Any, **options: Unpack[CallOptions]) -> Any:
        """Sort each Document's matches by how well they fit it.

        Args:
            docs: ``docarray.Document`` with content and ``.matches``.
            **options: `CallOptions`.

        Returns:
            A ``docarray.DocumentArray`` of the same objects; matches have ``scores['clip_score']``.
        """
        read = _read_for_documents(docs, options)
        return _theirs(self._client.rank(docs, **read))

    async def arank(self, docs: Any, **options: Unpack[CallOptions]) -> Any:
        """`rank`, asynchronously."""
        read = _read_for_documents(docs, options)
        return _theirs(await self._client.arank(docs, **read))

    def index(self, content: Any, **options: Unpack[CallOptions]) -> Any:
        """Store texts, images or Documents in the server's index.

        Args:
            content: As for `encode`.
            **options: `CallOptions`.

        Returns:
            A ``docarray.DocumentArray`` with embeddings, of the same objects if the items are Documents.
        """
        read = _read_for_documents(content, options)
        return _theirs(self._client.index(content, **read))

    async def aindex(self, content: Any, **options: Unpack[CallOptions]) -> Any:
        """`index`, asynchronously."""
        read = _read_for_documents(content, options)
        return _theirs(await self._client.aindex(content, **read))

    def search(self, content: Any, limit: int = 10, **options: Unpack[CallOptions]) -> Any:
        """Find the nearest documents of the server's index.

        Args:
            content: Queries, as for `encode`.
            limit: Matches per query.
            **options: `CallOptions`.

        Returns:
            A ``docarray.DocumentArray`` of the queries; ``.matches`` by ascending ``scores['cosine']``.
        """
        read = _read_for_documents(content, options)
        return _theirs(self._client.search(content, limit=limit, **read))

    async def asearch(self, content: Any, limit: int = 10, **options: Unpack[CallOptions]) -> Any:
        """`search`, asynchronously."""
        read = _read_for_documents(content, options)
        return _theirs(await self._client.asearch(content, limit=limit, **read))

    def profile(self, content: str | None = "") -> dict[str, float]:
        """Print, and return, where the time of one request goes, in milliseconds.

        Args:
            content: A text or an image; ``''`` measures an empty call.
        """
        return dict(self._client.profile(content or None).items())

    def close(self) -> None:
        """Close every connection. ``clip_client`` has no such method, so calling it is optional."""
        self._client.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._client)


def _read(content: Any, options: Any, level: int = 3) -> dict[str, Any]:
    """Return options with ``clip_client``'s defaults and its kind of response for callbacks, and give its warnings.

    ``clip_client`` also warns that the bar is not accurate for an input of unknown length. Here it is accurate.
    """
    read = dict(options)
    if isinstance(content, Sized) and len(content) > WARNED_ITEMS:
        warnings.warn(
            "Please ensure all the inputs are valid, otherwise the request will be aborted.",
            UserWarning,
            stacklevel=level,
        )
    for name, default in (("batch_size", BATCH_SIZE), ("prefetch", PREFETCH_REQUESTS)):
        if read.get(name) is None:
            read[name] = default
    for name in ("on_done", "on_error", "on_always"):
        if callable(read.get(name)):
            read[name] = _handing(read[name])
    return read


def _read_for_documents(content: Any, options: Any) -> dict[str, Any]:
    read = _read(content, options, 4)
    if read.get("on_done") is None and read.get("on_always") is None:
        to_docarray(())  # if docarray is missing, this raises an error before anything is sent
    return read


def _handing(callback: Callable[[DataRequest], Any]) -> Callable[[casdk.Response], Any]:
    return lambda response: callback(DataRequest(response))


def _is_nothing(content: Any) -> bool:
    return isinstance(content, Sized) and not isinstance(content, str | bytes | Mapping) and len(content) == 0


def _nothing(content: Any) -> Any:
    return collect([], content) if is_array(content) else []


def _theirs(result: Any) -> Any:
    return to_docarray(result) if isinstance(result, casdk.DocumentArray) else result
