"""`Client`: public signatures and docstrings. Each method makes a call of `casdk._calls.verbs` and runs it."""

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

    from casdk._calls import direct, profiles, verbs
    from casdk._engine import waiting
    from casdk._transport.credentials import Credential
    from casdk.bulk import BulkResult, Named
else:
    from casdk._modules import Late

    direct, verbs, profiles = map(Late, ("casdk._calls.direct", "casdk._calls.verbs", "casdk._calls.profiles"))
    waiting = Late("casdk._engine.waiting")

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
    """A client of one CLIP server, or of several, for any number of threads, tasks and event loops at once.

    The first call opens the connection. A client is a context manager, sync and async.

    Args:
        server: ``scheme://host[:port]``, schemes ``grpc grpcs http https websocket websockets`` (``ws wss``), default
            port 80, or 443 for the secure schemes. A list of addresses or `Server` makes a pool of servers.
        credential: Token that is sent verbatim as ``authorization`` with every request, on every scheme; or
            ``{"Authorization": token}``; or a function that returns the token, called again when the server refuses it;
            or such a coroutine function, which runs on an event loop of casdk's. ``CLIP_AUTH_TOKEN`` by default.
        pool: How several servers are used.
        tls: How the secure schemes verify the server; by default with the system's trusted authorities.
        timeout: Seconds for each whole call; short for ``Timeouts(total=...)``.
        timeouts: Limits, in seconds, for connecting, one request and a whole call.
        retry: When a failed request is sent again.
        limits: How much may be in flight at once.
        proxy: ``http://[user:password@]host:port`` of a proxy, or ``""`` for none. By default the client reads
            ``HTTPS_PROXY`` (secure schemes) or ``HTTP_PROXY``, else ``ALL_PROXY``, and ``NO_PROXY``.
        transport: What speaks the protocols: ``"own"``, the default, is casdk itself, without further threads;
            ``"libraries"`` are grpcio, httpx and websockets, which ``casdk[libraries]`` installs.
        coalesce: Merge concurrent `encode` calls of up to 32 items into requests of up to 32 items. ``True`` merges the
            calls that are made while requests are in flight; a number also waits so many milliseconds for more calls.
            Texts without a ``batch_size`` are merged into requests of up to 256 items while the server answers each
            within 10 ms. Each caller gets its own errors and deadlines.
        telemetry: ``True`` reports spans and metrics to OpenTelemetry's global providers, a `Telemetry` to its own, and
            both send the trace context to the server. Needs ``casdk[otel]``. By default OpenTelemetry is not imported.
        local_files: ``False``, for services, opens no file and does not look up any string on the disk: paths,
            ``PathLike``, ``Image(path)`` and a ``Document.uri`` that names a file raise `NotAllowedError`.
        fetch_urls: ``False``, for services, downloads nothing: ``http(s)://`` URLs, also of Documents, raise
            `NotAllowedError`. Sentences, bytes, arrays and data URIs are always allowed.
        expect_space: A text that `space` has returned. If a server has another vector space, calls raise
            `ModelMismatchError` before they return any of its rows. Each connection is checked before it is used.

    Raises:
        ConfigError: The address, or an option, cannot work.

    Examples:
        >>> from casdk import Client
        >>> with Client("grpc://127.0.0.1:51000") as client:
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
        """Return the configuration, to be pickled; it never contains a secret.

        Raises:
            ConfigError: The configuration holds a secret as a string, or telemetry's providers.
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
        """The state, the last error and the share of the requests of each server, as the client knows them now.

        Examples:
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
            content: Any iterable of ``str`` (a sentence, or an image's path, URL or data URI; docs/moving.md has the
                rule), ``os.PathLike`` and ``bytes`` (images), ``ndarray [H, W, C] uint8``, ``PIL.Image``, `Text`,
                `Image` and `Document`, mixed as you like. A generator is read only as fast as requests are sent. A
                column of pandas, polars or Arrow is an iterable, too.
            **options: The fields of `EncodeOptions` and `ResultOptions`, by name.

        Returns:
            ``[N, D] float32`` in input order, ``[0, 0]`` for no items. If every item is a Document, a `DocumentArray`
            of the same objects with ``.embedding`` set, each a view of one matrix.

        Raises:
            InputTypeError: ``content`` is a single item, or not iterable.
            ItemError: An item cannot be encoded.
            TransportError: The server cannot be reached, even after retries.
            DeadlineError: The time limit has passed.
            ServerError: The server answered with an error.
            ReplyError: The server's answer breaks the protocol.
            TypeError: An option is unknown.

        Examples:
            >>> from casdk import Client
            >>> client = Client("grpc://127.0.0.1:51000")
            >>> client.encode(["an apple", "apple.png"], batch_size=8).shape
            (2, 512)
        """
        self._check()
        return direct.run_directly(verbs.encode(self._session, content, read_options(options)), content)

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
        return await waiting.run_call_async(verbs.encode(self._session, content, read_options(options)))

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

        At most ``prefetch`` pieces are in flight, so an endless generator needs no more memory. Closing the generator
        cancels the requests in flight.

        Args:
            content: As for `encode`.
            **options: The fields of `StreamOptions`, and ``errors``, by name.

        Yields:
            ``[n, D] float32``, or a `DocumentArray` if every item of the piece is a Document. With
            ``errors="return"`` an `EncodeResult`, whose ``start`` is the index of the piece's first item.

        Raises:
            InputError: The content is not an iterable of items, or an option is not for streams. It is raised at once,
                and not with the first piece.

        Examples:
            >>> from casdk import Client
            >>> client = Client("grpc://127.0.0.1:51000")
            >>> [piece.shape for piece in client.stream((f"apple {n}" for n in range(40)), batch_size=16)]
            [(16, 512), (16, 512), (8, 512)]
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

    # encode, into files

    @takes(BulkOptions, defaults=BulkDefaults)
    def encode_to(
        self, target: str | os.PathLike[str], content: Mixture | NamedItems, **options: Unpack[BulkOptions]
    ) -> BulkResult:
        """Encode any number of items into files; if the run is killed or stopped, the same call continues it.

        Args:
            target: ``NAME.npy`` for a matrix ``[N, D]``, NaN for failed items, with names and errors in files beside
                it; or a folder, whose name has no suffix (also ``s3://bucket/name``), for Parquet files or a
                ``layout``.
            content: As for `encode`; or pairs of a name and an item; or a source of `casdk.bulk`. A run that continues
                reads it again from the first item, and compares it with what the target was made of.
            **options: The fields of `BulkOptions`, by name.

        Raises:
            BulkError: The run stopped, and the same call continues it; or the target or the input has changed, and
                nothing was touched.
            InputError: The content is not an iterable of items, or an option has a wrong value; nothing was done.
            ConfigError: The target's name is not one of a target, or of none that can hold this content; or a
                library is missing.

        Examples:
            >>> from casdk import Client, bulk
            >>> client = Client("grpc://127.0.0.1:51000")
            >>> result = client.encode_to("photos.npy", bulk.files("photos/*"))
            >>> result.rows == result.encoded, result.failed
            (True, 0)
            >>> client.encode_to("photos.npy", bulk.files("photos/*")).encoded  # all rows are there already
            0
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
        """Sort each Document's matches by how well they fit it.

        Args:
            docs: Documents with content and with ``.matches`` that have content: texts for an image, images for a text,
                or any mix.
            source: Attribute that holds the candidates: ``matches`` or ``chunks``.
            **options: The fields of `CallOptions` and `ReplyOptions`, by name.

        Returns:
            The same Documents. Their candidates are the same objects, sorted by ``scores['clip_score'].value`` (softmax
            over the query's candidates), highest first; ``scores['clip_score_cosine']`` has the cosine.

        Raises:
            InputValueError: A Document has no candidates, or a candidate no content. Nothing was sent, unless an
                iterator reached that Document later.
            NotSupportedError: The flow does not rank at that endpoint.

        Examples:
            >>> from casdk import Client, Document
            >>> client = Client("grpc://127.0.0.1:51000")
            >>> query = Document(text="a red apple", matches=[Document(text="a room"), Document(text="an apple")])
            >>> client.rank([query])[0].matches[0].text
            'an apple'
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
            content: As for `encode`. Documents are stored with their ids and tags; any other item gets a random id.
            idempotent_index: Whether the server's index replaces documents by id. If so, a request may be sent again
                even if its bytes may have reached the server; by default it is not.
            **options: The fields of `CallOptions` and `ReplyOptions`, by name.

        Returns:
            The Documents, with ``.embedding`` set.

        Raises:
            NotSupportedError: The flow has no indexer.

        Examples:
            >>> from casdk import Client, Document
            >>> client = Client("grpc://127.0.0.1:51000")
            >>> client.index([Document(id="smile", text="she smiled, with pain")])[0].embedding.shape
            (512,)
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
        """Find the nearest documents of the server's index.

        Args:
            content: Queries, as for `encode`.
            limit: Number of matches per query, at least 1.
            **options: The fields of `CallOptions` and `ReplyOptions`, by name.

        Returns:
            The queries as Documents; ``.matches`` are sorted by ascending ``scores['cosine'].value``, a distance.

        Raises:
            NotSupportedError: The flow has no indexer.

        Examples:
            >>> from casdk import Client, Document
            >>> client = Client("grpc://127.0.0.1:51000")
            >>> _ = client.index([Document(id="smile", text="she smiled, with pain")])
            >>> client.search(["she smiled, with pain"], limit=1)[0].matches[0].id
            'smile'
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
        """Return a text that identifies the server's vector space, to be stored beside vectors.

        The server encodes a fixed sentence and a fixed image, or the one of them that it supports. Compare the text
        with ``expect_space=``, never with ``==``: the same model gives slightly different numbers on another machine.

        Args:
            model_name: Name of the model, as in ``parameters={"model_name": ...}``, if the flow has several.
            timeout: Seconds for the call, ``None`` for no limit; the client's own timeout by default.
            patience: Seconds that a server which has answered may be away; ``Retry.patience`` by default.

        Returns:
            At most 200 printable ASCII characters, without white space and quotes.

        Raises:
            ModelMismatchError: The server's space is not the client's ``expect_space``.
            ItemError: The server encodes neither the sentence nor the image.

        Examples:
            >>> from casdk import Client
            >>> space = Client("grpc://127.0.0.1:51000").space()
            >>> Client("grpc://127.0.0.1:51000", expect_space=space).encode(["an apple"]).shape
            (1, 512)
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
        """Measure and print where the time of one request goes.

        Args:
            content: A text or an image to encode; ``None`` measures an empty request.
            timeout: Seconds for the call, ``None`` for no limit; the client's own timeout by default.
            quiet: Whether to print nothing.

        Returns:
            The times in milliseconds; they can also be read as from ``clip_client``'s dict (``p['Roundtrip']``). A
            client of a list of servers, or with a `Pool`, returns a ``dict[str, Profile]`` by address.

        Examples:
            >>> from casdk import Client
            >>> profile = Client("grpc://127.0.0.1:51000").profile("an apple", quiet=True)
            >>> profile.network + profile.server <= profile.roundtrip + 0.001  # milliseconds
            True
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

    def _check(self, error: type[ClosedError] = ClosedError, message: str = EXITING) -> None:
        """Check first of all that Python is not exiting: at the end of an exit, the names in modules are None.

        Raises:
            ClosedError: Python is exiting.
        """
        if self._exiting():
            raise error(message)

    _exiting = staticmethod(sys.is_finalizing)

    def close(self) -> None:
        """Cancel running calls and close every connection; the client cannot be used afterwards."""
        if self._exiting():
            return
        from casdk._engine.threads import our_threads

        self._finalizer.detach()
        if self._session.opened:
            # A finalizer that closes the client may run on any thread, also on one of casdk's own.
            if threading.get_ident() in our_threads:
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
