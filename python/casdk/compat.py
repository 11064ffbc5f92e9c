"""`Client`, the drop-in for ``clip_client.Client``: its signatures, defaults and return types, none of its defects.

Documents go in and come out as docarray's (``pip install 'docarray<0.30'``), which is needed, and imported, only
where a call has to do with Documents. Every difference is listed in the documentation, ``docs/moving.md``.
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
PREFETCH = 100
MANY = 500
"""Items of which upstream warns, whether it shows a bar or not."""


class CallOptions(TypedDict, total=False):
    """Options of every verb but ``profile``; `casdk.Client`'s own (``timeout=``...) are taken, too.

    Attributes:
        batch_size: Items per request; 8, also for ``None``.
        show_progress: Show a bar.
        parameters: Sent to the executors, ``model_name`` selects the model. Never changed.
        on_done: Called with the `DataRequest` of each request that went well; the call then returns ``None``.
        on_error: Called with the `DataRequest` of each that failed, which then does not stop the call.
        on_always: Called with each `DataRequest`; the call then returns ``None``.
        prefetch: Requests in flight; 100, also for ``None``.
        timeout: Seconds for the whole call; ``None`` for as long as it takes.
        reader: Where a sync iterable is read: by its ``"caller"``, or in a ``"thread"`` of its own.
        check_images: Refuse what is not an image before it is sent.
        source: ``rank`` only: attribute that holds the candidates, ``matches`` or ``chunks``.
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
    """What a `DataRequest` carries."""

    def __init__(self, request: DataRequest) -> None:
        self._request = request

    @property
    def docs(self) -> Any:
        """``docarray.DocumentArray``."""
        return self._request.docs


class DataRequest:
    """The answer to one request, as upstream's callbacks read it.

    Attributes:
        response: The same as `casdk.Response`.
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
        """Which request."""
        return self.response.header

    @property
    def status(self) -> Status:
        """How it went."""
        return self.response.status

    @property
    def routes(self) -> tuple[Route, ...]:
        """The gateway and the executors it passed, with times."""
        return self.response.routes

    @property
    def parameters(self) -> dict[str, Any]:
        """The request's parameters, echoed."""
        return self.response.parameters

    def __repr__(self) -> str:
        return f"DataRequest({self.header.request_id!r})"


class Client:
    """A CLIP server, with the interface of ``clip_client.Client``.

    Args:
        server: ``scheme://host[:port]``; schemes ``grpc grpcs http https websocket websockets ws wss``.
        credential: ``{"Authorization": token}``; ``CLIP_AUTH_TOKEN`` is used where none is given.
        **kwargs: `casdk.Client`'s own (``timeout=``, ``tls=``...).

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
        """Order each Document's matches by how well they go with it.

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
            A ``docarray.DocumentArray``, embeddings set; of the same objects if Documents were given.
        """
        read = _read_for_documents(content, options)
        return _theirs(self._client.index(content, **read))

    async def aindex(self, content: Any, **options: Unpack[CallOptions]) -> Any:
        """`index`, asynchronously."""
        read = _read_for_documents(content, options)
        return _theirs(await self._client.aindex(content, **read))

    def search(self, content: Any, limit: int = 10, **options: Unpack[CallOptions]) -> Any:
        """Find what is nearest in the server's index.

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
        """Close every connection; upstream's has none of this, and need not be closed."""
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
    """Fill in upstream's defaults, hand its kind of response to callbacks, and warn of what upstream warns of.

    Of an input of unknown length upstream warns that the bar would not be accurate; here it is.
    """
    read = dict(options)
    if isinstance(content, Sized) and len(content) > MANY:
        warnings.warn(
            "Please ensure all the inputs are valid, otherwise the request will be aborted.",
            UserWarning,
            stacklevel=level,
        )
    for name, default in (("batch_size", BATCH_SIZE), ("prefetch", PREFETCH)):
        if read.get(name) is None:
            read[name] = default
    for name in ("on_done", "on_error", "on_always"):
        if callable(read.get(name)):
            read[name] = _handing(read[name])
    return read


def _read_for_documents(content: Any, options: Any) -> dict[str, Any]:
    read = _read(content, options, 4)
    if read.get("on_done") is None and read.get("on_always") is None:
        to_docarray(())  # before anything is sent: raises where docarray is missing
    return read


def _handing(callback: Callable[[DataRequest], Any]) -> Callable[[casdk.Response], Any]:
    return lambda response: callback(DataRequest(response))


def _is_nothing(content: Any) -> bool:
    return isinstance(content, Sized) and not isinstance(content, str | bytes | Mapping) and len(content) == 0


def _nothing(content: Any) -> Any:
    return collect([], content) if is_array(content) else []


def _theirs(result: Any) -> Any:
    return to_docarray(result) if isinstance(result, casdk.DocumentArray) else result
