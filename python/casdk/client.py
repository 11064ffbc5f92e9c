"""`Client`: five verbs, each with an async twin. Every body here is "build a call, run it"."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Self, TypeAlias, Unpack, cast, overload

import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from casdk._calls.bulk_options import BulkDefaults, BulkOptions
from casdk._calls.options import (
    CallOptions,
    EncodeOptions,
    Known,
    ReplyOptions,
    ResultOptions,
    StreamOptions,
    read_options,
)
from casdk._calls.settings import ClientOptions, Profiled_co, Settings, make_coalescer, make_instruments, read_settings
from casdk._calls.signatures import takes
from casdk._columns import ArrowArray, ArrowStream, PandasColumn
from casdk._wording import EXITING
from casdk.config import TLS, Limits, Retry, Telemetry, Timeouts
from casdk.documents import Document, DocumentArray
from casdk.errors import ClosedError
from casdk.models import EncodeResult, Image, Profile, Response, Text
from casdk.servers import Pool, Server, ServerStatus

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    from casdk._calls import profiles, verbs
    from casdk._engine import waiting
    from casdk._transport.credentials import Credential
    from casdk.bulk import BulkResult, Named
else:
    from casdk._modules import Late

    verbs, profiles, waiting = map(Late, ("casdk._calls.verbs", "casdk._calls.profiles", "casdk._engine.waiting"))

__all__ = [
    "ArrowArray",
    "ArrowStream",
    "BulkOptions",
    "CallOptions",
    "Client",
    "EncodeOptions",
    "Item",
    "StreamOptions",
]

Item: TypeAlias = "str | os.PathLike[str] | bytes | NDArray[np.uint8] | PILImage | Text | Image"
"""What can be encoded, beside Documents."""
Column: TypeAlias = "ArrowStream | ArrowArray | PandasColumn"
Items: TypeAlias = "Iterable[Item]"
Documents: TypeAlias = "Iterable[Document]"
Mixture: TypeAlias = "Iterable[Item | Document] | Column"
AsyncItems: TypeAlias = "Items | AsyncIterable[Item]"
AsyncDocuments: TypeAlias = "Documents | AsyncIterable[Document]"
AsyncMixture: TypeAlias = "Mixture | AsyncIterable[Item | Document]"
NamedItems: TypeAlias = "Iterable[tuple[str, Item | Document]] | Named"
AsyncNamedItems: TypeAlias = "NamedItems | AsyncIterable[tuple[str, Item | Document]]"
Embeddings: TypeAlias = NDArray[np.float32]
Callback: TypeAlias = Callable[[Response], Any]
OF_EVERY_VERB: Final = (CallOptions, ReplyOptions)
OF_RANK: Final = Known(OF_EVERY_VERB, "source", tunes=False)
OF_INDEX: Final = Known(OF_EVERY_VERB, "idempotent_index")
OF_SEARCH: Final = Known(OF_EVERY_VERB, "limit")


class Client(Generic[Profiled_co]):
    """A CLIP server, from any number of threads, tasks and event loops at once.

    Making one opens nothing; the first call does. It is a context manager, sync and async.

    Args:
        server: ``scheme://host[:port]``; schemes ``grpc grpcs http https websocket websockets`` (``ws wss``), default
            ports 80 and, with TLS, 443. Or a list of several, as addresses or as `Server`.
        credential: Token sent as ``authorization`` with every request on every scheme, verbatim; or a callable, also an
            async one, that returns it and is asked again when the server refuses; or ``{"Authorization": token}``.
            ``CLIP_AUTH_TOKEN`` is used where none is given. A function runs on a worker and a coroutine on a loop of
            casdk's own, wherever the call comes from: what belongs to another loop cannot be awaited there.
        tls: How the secure schemes verify; the system's store by default.
        timeout: Seconds for each call in all; short for ``Timeouts(total=...)``.
        timeouts: Connecting, one request, a whole call.
        retry: When a failed request is sent again.
        limits: What is held in flight at once.
        proxy: ``http://[user:password@]host:port`` to go through; ``""`` for none. By default ``HTTPS_PROXY`` (secure
            schemes) or ``HTTP_PROXY``, else ``ALL_PROXY``, and ``NO_PROXY``, are read, and never changed.
        transport: Who speaks the protocols: ``"own"``, the default, is casdk itself, without threads; ``"libraries"``
            are grpcio, httpx and websockets, brought by ``casdk[libraries]``.
        coalesce: Merge concurrent `encode` calls of up to 32 items into requests of as many: ``True`` while requests
            are in flight, a number of milliseconds also waits that long. Texts without a ``batch_size`` travel in
            larger ones, up to 256, while each is answered within 10 ms. Errors and deadlines stay with their caller.
        local_files: ``False`` opens no file and asks the file system about no string: paths, ``PathLike``,
            ``Image(path)`` and a ``Document.uri`` that names a file are `NotAllowedError`. For services.
        pool: How several servers are used; see `Pool`.
        fetch_urls: ``False`` fetches nothing: ``http(s)://`` URLs, also of Documents, are `NotAllowedError`. Sentences,
            bytes, arrays and data URIs pass whatever either of them is.
        expect_space: What `space` has returned: a server of another vector space is a `ModelMismatchError`, before
            one of its rows is given to you. It is asked over each connection, before that is used.
        telemetry: ``True`` reports spans and metrics to OpenTelemetry's global providers, a `Telemetry` to its own,
            and sends the trace context to the server; needs ``casdk[otel]``. Off, nothing of it is imported.

    Raises:
        ConfigError: The address, or an option, cannot work.

    Example:
        >>> from casdk import Client
        >>> with Client("grpc://127.0.0.1:51000") as client:  # doctest: +SKIP
        ...     client.encode(["she smiled, with pain", "apple.png"]).shape
        (2, 512)
    """

    @overload
    def __init__(
        self: Client[Profile],
        server: str,
        credential: Credential | Mapping[str, str] | None = None,
        *,
        pool: None = None,
        **options: Unpack[ClientOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: Client[dict[str, Profile]],
        server: str | Sequence[str | Server],
        credential: Credential | Mapping[str, str] | None = None,
        *,
        pool: Pool | None = None,
        **options: Unpack[ClientOptions],
    ) -> None: ...
    def __init__(
        self,
        server: str | Sequence[str | Server],
        credential: Credential | Mapping[str, str] | None = None,
        *,
        pool: Pool | None = None,
        tls: TLS | None = None,
        timeout: float | None = None,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        limits: Limits | None = None,
        proxy: str | None = None,
        transport: Literal["own", "libraries"] | None = None,
        coalesce: bool | float = False,
        telemetry: bool | Telemetry = False,
        local_files: bool = True,
        fetch_urls: bool = True,
        expect_space: str | None = None,
    ) -> None:
        self._check()
        self._settings = read_settings(
            server,
            credential,
            pool=pool,
            tls=tls,
            timeout=timeout,
            timeouts=timeouts,
            retry=retry,
            limits=limits,
            proxy=proxy,
            transport=transport,
            coalesce=coalesce,
            telemetry=telemetry,
            local_files=local_files,
            fetch_urls=fetch_urls,
            expect_space=expect_space,
        )
        self._open()

    def _open(self) -> None:
        self._check()
        settings = self._settings
        settings.prepare()
        from casdk._calls.session import Session

        self._session = Session(settings, make_coalescer(settings), make_instruments(settings))
        self._finalizer = weakref.finalize(self, self._session.leave)
        self._finalizer.atexit = False

    def __getstate__(self) -> Settings:
        """Return the configuration; secrets stay where they are.

        Raises:
            ConfigError: The configuration holds a secret in clear, or telemetry's providers.
        """
        self._settings.check_portable()
        return self._settings

    def __setstate__(self, settings: Settings) -> None:
        self._settings = settings
        self._open()

    def __repr__(self) -> str:
        return f"Client({self._settings.shown})"

    @property
    def servers(self) -> list[ServerStatus]:
        """What the client knows of its servers now: state, last error and share of the requests of each.

        Example:
            >>> from casdk import Client
            >>> client = Client(["grpc://127.0.0.1:51000", "http://127.0.0.1:51001"])
            >>> [server.state for server in client.servers]
            ['ready', 'ready']
        """
        return self._session.way.statuses()

    # encode

    @overload
    def encode(
        self, content: Mixture, *, errors: Literal["return"], **options: Unpack[EncodeOptions]
    ) -> EncodeResult: ...
    @overload
    def encode(
        self, content: Mixture, *, return_responses: Literal[True], **options: Unpack[EncodeOptions]
    ) -> list[Response]: ...
    @overload
    def encode(
        self,
        content: Mixture,
        *,
        on_done: Callback,
        on_always: Callback | None = None,
        **options: Unpack[EncodeOptions],
    ) -> None: ...
    @overload
    def encode(self, content: Mixture, *, on_always: Callback, **options: Unpack[EncodeOptions]) -> None: ...
    @overload
    def encode(
        self,
        content: Mixture,
        *,
        errors: Literal["raise", "skip"] = "raise",
        result: Literal["arrow"],
        **options: Unpack[EncodeOptions],
    ) -> ArrowArray: ...
    @overload
    def encode(
        self,
        content: Column,
        *,
        errors: Literal["raise", "skip"] = "raise",
        result: None = None,
        **options: Unpack[EncodeOptions],
    ) -> Embeddings: ...
    @overload
    def encode(
        self,
        content: Documents,
        *,
        errors: Literal["raise", "skip"] = "raise",
        result: None = None,
        **options: Unpack[EncodeOptions],
    ) -> DocumentArray: ...
    @overload
    def encode(
        self,
        content: Items,
        *,
        errors: Literal["raise", "skip"] = "raise",
        result: None = None,
        **options: Unpack[EncodeOptions],
    ) -> Embeddings: ...
    @overload
    def encode(
        self,
        content: Mixture,
        *,
        errors: Literal["raise", "skip"] = "raise",
        result: None = None,
        **options: Unpack[EncodeOptions],
    ) -> Embeddings | DocumentArray: ...
    @takes(CallOptions, StreamOptions, EncodeOptions, ReplyOptions, ResultOptions)
    def encode(self, content: Any, **options: Any) -> Any:
        """Turn texts and images into embeddings.

        Args:
            content: Any iterable of ``str`` (a sentence, or an image's path, URL or data URI, by the rule of
                docs/moving.md), ``os.PathLike`` and ``bytes`` (images), ``ndarray [H, W, C] uint8``, ``PIL.Image``,
                `Text`, `Image`, `Document`, mixed as you like. A generator is read as far as requests are sent. Also
                a column of pandas, polars or Arrow, of texts or of anything else that can be encoded.
            **options: Those of `EncodeOptions` and what decides on the result, by name.

        Returns:
            ``[N, D] float32`` in input order; if every item is a Document, a `DocumentArray` of the same
            objects with ``.embedding`` set, views of one matrix. ``(0, 0)`` for no items.

        Raises:
            InputTypeError: ``content`` is one item, or no iterable.
            ItemError: An item cannot be encoded.
            TransportError: The server cannot be reached, retries included.
            DeadlineError: Time ran out.
            ServerError: The server answered with an error.
            ReplyError: The server's answer breaks the protocol.
            TypeError: An unknown option.
        """
        self._check()
        return waiting.run_call(verbs.encode(self._session, content, read_options(options)))

    @overload
    async def aencode(
        self, content: AsyncMixture, *, errors: Literal["return"], **options: Unpack[EncodeOptions]
    ) -> EncodeResult: ...
    @overload
    async def aencode(
        self, content: AsyncMixture, *, return_responses: Literal[True], **options: Unpack[EncodeOptions]
    ) -> list[Response]: ...
    @overload
    async def aencode(
        self,
        content: AsyncMixture,
        *,
        on_done: Callback,
        on_always: Callback | None = None,
        **options: Unpack[EncodeOptions],
    ) -> None: ...
    @overload
    async def aencode(
        self, content: AsyncMixture, *, on_always: Callback, **options: Unpack[EncodeOptions]
    ) -> None: ...
    @overload
    async def aencode(
        self,
        content: AsyncMixture,
        *,
        errors: Literal["raise", "skip"] = "raise",
        result: Literal["arrow"],
        **options: Unpack[EncodeOptions],
    ) -> ArrowArray: ...
    @overload
    async def aencode(
        self,
        content: Column,
        *,
        errors: Literal["raise", "skip"] = "raise",
        result: None = None,
        **options: Unpack[EncodeOptions],
    ) -> Embeddings: ...
    @overload
    async def aencode(
        self,
        content: AsyncDocuments,
        *,
        errors: Literal["raise", "skip"] = "raise",
        result: None = None,
        **options: Unpack[EncodeOptions],
    ) -> DocumentArray: ...
    @overload
    async def aencode(
        self,
        content: AsyncItems,
        *,
        errors: Literal["raise", "skip"] = "raise",
        result: None = None,
        **options: Unpack[EncodeOptions],
    ) -> Embeddings: ...
    @overload
    async def aencode(
        self,
        content: AsyncMixture,
        *,
        errors: Literal["raise", "skip"] = "raise",
        result: None = None,
        **options: Unpack[EncodeOptions],
    ) -> Embeddings | DocumentArray: ...
    @takes(CallOptions, StreamOptions, EncodeOptions, ReplyOptions, ResultOptions)
    async def aencode(self, content: Any, **options: Any) -> Any:
        """`encode`, asynchronously; ``content`` may be an async iterable, callbacks may be coroutine functions."""
        self._check()
        call = verbs.encode(self._session, content, read_options(options))
        return await waiting.run_call_async(call)

    # stream

    @overload
    def stream(
        self, content: Mixture, *, errors: Literal["return"], **options: Unpack[StreamOptions]
    ) -> Generator[EncodeResult, None, None]: ...
    @overload
    def stream(
        self, content: Column, *, errors: Literal["raise", "skip"] = "raise", **options: Unpack[StreamOptions]
    ) -> Generator[Embeddings, None, None]: ...
    @overload
    def stream(
        self, content: Documents, *, errors: Literal["raise", "skip"] = "raise", **options: Unpack[StreamOptions]
    ) -> Generator[DocumentArray, None, None]: ...
    @overload
    def stream(
        self, content: Items, *, errors: Literal["raise", "skip"] = "raise", **options: Unpack[StreamOptions]
    ) -> Generator[Embeddings, None, None]: ...
    @overload
    def stream(
        self, content: Mixture, *, errors: Literal["raise", "skip"] = "raise", **options: Unpack[StreamOptions]
    ) -> Generator[Embeddings | DocumentArray, None, None]: ...
    @takes(CallOptions, StreamOptions, ResultOptions, without=("result", *ReplyOptions.__annotations__))
    def stream(self, content: Any, **options: Any) -> Generator[Any, None, None]:
        """Yield `encode`'s result in pieces of ``batch_size`` items, in order, while the input is still being read.

        At most ``prefetch`` pieces are under way, so an endless generator runs in flat memory. Closing the generator
        takes back what is in flight.

        Args:
            content: As for `encode`.
            **options: Those of `EncodeOptions` but ``out``, and ``errors``, by name.

        Yields:
            ``[n, D] float32``; a `DocumentArray` where every item of the piece is a Document. With
            ``errors="return"`` an `EncodeResult`, whose ``start`` is the index of the piece's first item.

        Raises:
            InputError: The content is no iterable of items, or an option does not go with a stream; at once, before
                the first piece is asked for.
        """
        self._check()
        read = read_options(options)
        return verbs.open_pieces(self, waiting.run_pieces(verbs.stream(self._session, content, read).run), read)

    @overload
    def astream(
        self, content: AsyncMixture, *, errors: Literal["return"], **options: Unpack[StreamOptions]
    ) -> AsyncGenerator[EncodeResult, None]: ...
    @overload
    def astream(
        self, content: Column, *, errors: Literal["raise", "skip"] = "raise", **options: Unpack[StreamOptions]
    ) -> AsyncGenerator[Embeddings, None]: ...
    @overload
    def astream(
        self, content: AsyncDocuments, *, errors: Literal["raise", "skip"] = "raise", **options: Unpack[StreamOptions]
    ) -> AsyncGenerator[DocumentArray, None]: ...
    @overload
    def astream(
        self, content: AsyncItems, *, errors: Literal["raise", "skip"] = "raise", **options: Unpack[StreamOptions]
    ) -> AsyncGenerator[Embeddings, None]: ...
    @overload
    def astream(
        self, content: AsyncMixture, *, errors: Literal["raise", "skip"] = "raise", **options: Unpack[StreamOptions]
    ) -> AsyncGenerator[Embeddings | DocumentArray, None]: ...
    @takes(CallOptions, StreamOptions, ResultOptions, without=("result", *ReplyOptions.__annotations__))
    def astream(self, content: Any, **options: Any) -> AsyncGenerator[Any, None]:
        """`stream`, asynchronously."""
        self._check()
        read = read_options(options)
        pieces = waiting.run_pieces_async(verbs.stream(self._session, content, read).run)
        return verbs.open_pieces_async(self, pieces, read)

    # encode, onto a disk

    @takes(BulkOptions, defaults=BulkDefaults)
    def encode_to(
        self, target: str | os.PathLike[str], content: Mixture | NamedItems, **options: Unpack[BulkOptions]
    ) -> BulkResult:
        """Encode any number of items into files; a run that was killed, or stopped, goes on when it is called again.

        Args:
            target: ``NAME.npy``, a matrix ``[N, D]`` with NaN where an item failed, names and errors beside it; or a
                folder, whose name has no suffix (or ``s3://bucket/name``), for Parquet files or for a ``layout``.
            content: As for `encode`; or pairs of a name and an item; or what `casdk.bulk` reads. A run that goes on
                reads it again from the first item on, and compares it with what it was.
            **options: Those of `BulkOptions`, by name.

        Raises:
            BulkError: The run stopped, and the same call goes on where it did; or target or input are not what they
                were, and nothing was changed.
            InputError: The content is no iterable of items, or an option is none; nothing was done.
            ConfigError: The target's name says of no kind of target, or none for this content; or a library is missing.
        """
        self._check()
        from casdk.bulk.call import make_run

        return make_run(self, target, content, options).run()

    @takes(BulkOptions, defaults=BulkDefaults)
    async def aencode_to(
        self, target: str | os.PathLike[str], content: AsyncMixture | AsyncNamedItems, **options: Unpack[BulkOptions]
    ) -> BulkResult:
        """`encode_to`, asynchronously; ``content`` may be an async iterable."""
        self._check()
        from casdk.bulk.call import make_run

        return await make_run(self, target, content, options).arun()

    # rank

    @overload
    def rank(
        self,
        docs: Documents,
        *,
        source: str = "matches",
        return_responses: Literal[True],
        **options: Unpack[CallOptions],
    ) -> list[Response]: ...
    @overload
    def rank(
        self,
        docs: Documents,
        *,
        source: str = "matches",
        on_done: Callback,
        on_always: Callback | None = None,
        **options: Unpack[CallOptions],
    ) -> None: ...
    @overload
    def rank(
        self, docs: Documents, *, source: str = "matches", on_always: Callback, **options: Unpack[CallOptions]
    ) -> None: ...
    @overload
    def rank(self, docs: Documents, *, source: str = "matches", **options: Unpack[CallOptions]) -> DocumentArray: ...
    @takes(*OF_EVERY_VERB)
    def rank(self, docs: Any, *, source: str = "matches", **options: Any) -> Any:
        """Order each Document's matches by how well they go with it.

        Args:
            docs: Documents with content and ``.matches`` with content: texts for an image, images for a text, any mix.
            source: Attribute that holds the candidates: ``matches`` or ``chunks``.
            **options: Those of `CallOptions` and what decides on the result, by name.

        Returns:
            The same Documents; their candidates are the same objects in the order of
            ``scores['clip_score'].value`` (softmax over the query's candidates), highest first, with
            ``scores['clip_score_cosine']`` beside it.

        Raises:
            InputValueError: A Document without candidates, or a candidate without content; nothing was sent, unless
                an iterator came to it later.
            NotSupportedError: The flow does not rank at that endpoint.
        """
        self._check()
        return waiting.run_call(verbs.rank(self._session, docs, read_options(options, OF_RANK), source))

    @overload
    async def arank(
        self,
        docs: AsyncDocuments,
        *,
        source: str = "matches",
        return_responses: Literal[True],
        **options: Unpack[CallOptions],
    ) -> list[Response]: ...
    @overload
    async def arank(
        self,
        docs: AsyncDocuments,
        *,
        source: str = "matches",
        on_done: Callback,
        on_always: Callback | None = None,
        **options: Unpack[CallOptions],
    ) -> None: ...
    @overload
    async def arank(
        self, docs: AsyncDocuments, *, source: str = "matches", on_always: Callback, **options: Unpack[CallOptions]
    ) -> None: ...
    @overload
    async def arank(
        self, docs: AsyncDocuments, *, source: str = "matches", **options: Unpack[CallOptions]
    ) -> DocumentArray: ...
    @takes(*OF_EVERY_VERB)
    async def arank(self, docs: Any, *, source: str = "matches", **options: Any) -> Any:
        """`rank`, asynchronously."""
        self._check()
        call = verbs.rank(self._session, docs, read_options(options, OF_RANK), source, on_loop=True)
        return await waiting.run_call_async(call)

    # index

    @overload
    def index(
        self,
        content: Mixture,
        *,
        idempotent_index: bool = False,
        return_responses: Literal[True],
        **options: Unpack[CallOptions],
    ) -> list[Response]: ...
    @overload
    def index(
        self,
        content: Mixture,
        *,
        idempotent_index: bool = False,
        on_done: Callback,
        on_always: Callback | None = None,
        **options: Unpack[CallOptions],
    ) -> None: ...
    @overload
    def index(
        self,
        content: Mixture,
        *,
        idempotent_index: bool = False,
        on_always: Callback,
        **options: Unpack[CallOptions],
    ) -> None: ...
    @overload
    def index(
        self, content: Mixture, *, idempotent_index: bool = False, **options: Unpack[CallOptions]
    ) -> DocumentArray: ...
    @takes(*OF_EVERY_VERB)
    def index(self, content: Any, *, idempotent_index: bool = False, **options: Any) -> Any:
        """Store texts, images or Documents in the server's index.

        Args:
            content: As for `encode`. Ids and tags of Documents travel; what is no Document gets a fresh id.
            idempotent_index: The server's index replaces by id, so that a request may be sent again after its bytes
                left; by default it is not.
            **options: Those of `CallOptions` and what decides on the result, by name.

        Returns:
            The Documents, embeddings set.

        Raises:
            NotSupportedError: The flow has no indexer.
        """
        self._check()
        return waiting.run_call(verbs.index(self._session, content, read_options(options, OF_INDEX), idempotent_index))

    @overload
    async def aindex(
        self,
        content: AsyncMixture,
        *,
        idempotent_index: bool = False,
        return_responses: Literal[True],
        **options: Unpack[CallOptions],
    ) -> list[Response]: ...
    @overload
    async def aindex(
        self,
        content: AsyncMixture,
        *,
        idempotent_index: bool = False,
        on_done: Callback,
        on_always: Callback | None = None,
        **options: Unpack[CallOptions],
    ) -> None: ...
    @overload
    async def aindex(
        self,
        content: AsyncMixture,
        *,
        idempotent_index: bool = False,
        on_always: Callback,
        **options: Unpack[CallOptions],
    ) -> None: ...
    @overload
    async def aindex(
        self, content: AsyncMixture, *, idempotent_index: bool = False, **options: Unpack[CallOptions]
    ) -> DocumentArray: ...
    @takes(*OF_EVERY_VERB)
    async def aindex(self, content: Any, *, idempotent_index: bool = False, **options: Any) -> Any:
        """`index`, asynchronously."""
        self._check()
        call = verbs.index(self._session, content, read_options(options, OF_INDEX), idempotent_index)
        return await waiting.run_call_async(call)

    # search

    @overload
    def search(
        self,
        content: Mixture,
        *,
        limit: int = 10,
        return_responses: Literal[True],
        **options: Unpack[CallOptions],
    ) -> list[Response]: ...
    @overload
    def search(
        self,
        content: Mixture,
        *,
        limit: int = 10,
        on_done: Callback,
        on_always: Callback | None = None,
        **options: Unpack[CallOptions],
    ) -> None: ...
    @overload
    def search(
        self, content: Mixture, *, limit: int = 10, on_always: Callback, **options: Unpack[CallOptions]
    ) -> None: ...
    @overload
    def search(self, content: Mixture, *, limit: int = 10, **options: Unpack[CallOptions]) -> DocumentArray: ...
    @takes(*OF_EVERY_VERB)
    def search(self, content: Any, *, limit: int = 10, **options: Any) -> Any:
        """Find what is nearest in the server's index.

        Args:
            content: Queries, as for `encode`.
            limit: Matches per query, at least 1.
            **options: Those of `CallOptions` and what decides on the result, by name.

        Returns:
            The queries as Documents; ``.matches`` by ascending ``scores['cosine'].value`` (cosine distance).

        Raises:
            NotSupportedError: The flow has no indexer.
        """
        self._check()
        return waiting.run_call(verbs.search(self._session, content, read_options(options, OF_SEARCH), limit))

    @overload
    async def asearch(
        self,
        content: AsyncMixture,
        *,
        limit: int = 10,
        return_responses: Literal[True],
        **options: Unpack[CallOptions],
    ) -> list[Response]: ...
    @overload
    async def asearch(
        self,
        content: AsyncMixture,
        *,
        limit: int = 10,
        on_done: Callback,
        on_always: Callback | None = None,
        **options: Unpack[CallOptions],
    ) -> None: ...
    @overload
    async def asearch(
        self, content: AsyncMixture, *, limit: int = 10, on_always: Callback, **options: Unpack[CallOptions]
    ) -> None: ...
    @overload
    async def asearch(
        self, content: AsyncMixture, *, limit: int = 10, **options: Unpack[CallOptions]
    ) -> DocumentArray: ...
    @takes(*OF_EVERY_VERB)
    async def asearch(self, content: Any, *, limit: int = 10, **options: Any) -> Any:
        """`search`, asynchronously."""
        self._check()
        call = verbs.search(self._session, content, read_options(options, OF_SEARCH), limit)
        return await waiting.run_call_async(call)

    # space

    def space(
        self, model_name: str | None = None, *, timeout: float | UnsetType | None = UNSET, patience: float | None = None
    ) -> str:
        """Return what distinguishes the server's vector space from all others, to be stored beside vectors.

        The server encodes a fixed sentence and a fixed image, or the one of them that it can. Compare what is returned
        by ``expect_space=``, never by ``==``: the same model gives slightly other numbers on another machine.

        Args:
            model_name: Model to ask for, as in ``parameters={"model_name": ...}``, where the flow has several.
            timeout: Seconds for the call; ``None`` for as long as it takes, the client's own if not given.
            patience: Seconds that a server which has answered may be away; ``Retry.patience`` by default.

        Returns:
            At most 200 printable ASCII characters, without white space and quotes.

        Raises:
            ModelMismatchError: The client has an ``expect_space``, and the server is of another space.
            ItemError: The server encodes neither.
            CasdkError: As `encode`.
        """
        self._check()
        return str(waiting.run_call(verbs.space(self._session, model_name, timeout, patience)))

    async def aspace(
        self, model_name: str | None = None, *, timeout: float | UnsetType | None = UNSET, patience: float | None = None
    ) -> str:
        """`space`, asynchronously."""
        self._check()
        return str(await waiting.run_call_async(verbs.space(self._session, model_name, timeout, patience)))

    # profile

    def profile(
        self, content: Item | Document | None = None, *, timeout: float | UnsetType | None = UNSET, quiet: bool = False
    ) -> Profiled_co:
        """Show where the time of one request goes.

        Args:
            content: A text or an image to encode; nothing measures an empty call.
            timeout: Seconds for the call; ``None`` for as long as it takes, the client's own if not given.
            quiet: Do not print the tree.

        Returns:
            Every figure, in milliseconds; it also reads like upstream's dict (``p['Roundtrip']``). A client of a list
            of servers, or with a `Pool`, returns a ``dict[str, Profile]``, by address.
        """
        self._check()
        return cast(Profiled_co, profiles.run(self._session, content, timeout, quiet=quiet))

    async def aprofile(
        self, content: Item | Document | None = None, *, timeout: float | UnsetType | None = UNSET, quiet: bool = False
    ) -> Profiled_co:
        """`profile`, asynchronously."""
        self._check()
        return cast(Profiled_co, await profiles.run_async(self._session, content, timeout, quiet=quiet))

    # running and closing

    def _check(self, error: type[ClosedError] = ClosedError, said: str = EXITING) -> None:
        """Check that calls can still be made, before anything else: as an exit ends, the names of modules are None.

        Raises:
            ClosedError: Python is exiting.
        """
        if self._exiting():
            raise error(said)

    _exiting = staticmethod(sys.is_finalizing)

    def close(self) -> None:
        """Cancel calls that run, close every connection; the client cannot be used afterwards."""
        if self._exiting():
            return
        from casdk._engine.threads import our_threads

        self._finalizer.detach()
        if self._session.opened:
            if threading.get_ident() in our_threads:  # in a finalizer that Python happens to run there
                self._session.leave()
            else:
                waiting.run(lambda caller: self._session.aclose())
        self._session.closed = True

    async def aclose(self) -> None:
        """`close`, asynchronously."""
        if self._exiting():
            return
        self._finalizer.detach()
        if self._session.opened:
            await waiting.run_async(lambda caller: self._session.aclose())
        self._session.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
