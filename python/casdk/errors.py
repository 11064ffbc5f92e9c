"""The one error tree.

    CasdkError
    ├── ConfigError (ValueError)            an address, option or credential that cannot work
    │   └── ModelMismatchError              a server holds another model than it should: .servers
    ├── ClosedError (RuntimeError)          the client was closed
    ├── InputError
    │   ├── InputTypeError (TypeError)      content of a type that cannot be encoded, a bare str
    │   ├── InputValueError (ValueError)    content of the right type that cannot be used
    │   └── ItemError                       one item failed: .index .item .cause
    │       ├── FileMissingError (FileNotFoundError)
    │       ├── FileUnreadableError (OSError)   directory, device, FIFO, no permission
    │       ├── NotAllowedError (PermissionError)  a file or a URL that this client must not read
    │       ├── NotAnImageError (ValueError)
    │       ├── DataURIError (ValueError)
    │       ├── ItemTooLargeError (ValueError)
    │       ├── EmptyItemError (ValueError)
    │       ├── ItemTypeError (TypeError)
    │       ├── DownloadError (ConnectionError)
    │       ├── RejectedError               the server fails on this item, or the item is too large for it
    │       ├── NoEmbeddingError            the server answered without a row for this item
    │       └── NotDoneError                the call was stopped before this item was done
    ├── TransportError (ConnectionError)    refused, reset, closed; 502, 503, 504, UNAVAILABLE
    │   ├── TLSError
    │   ├── ProxyError
    │   └── ProtocolMismatchError           the port speaks another protocol
    ├── DeadlineError (TimeoutError)        the time limit of a call, or of one wait, has passed
    ├── ServerError                         the server answered with an error
    │   ├── AuthError (PermissionError)
    │   ├── OverloadedError                 429, RESOURCE_EXHAUSTED, a websocket closed with 1013
    │   └── NotSupportedError               the flow has no executor for that verb
    ├── ReplyError (ValueError)             an answer that breaks the protocol
    ├── BulkError                           a bulk run stopped, or was refused
    └── CallbackError                       the caller's callback raised an exception

Every room raises these errors. Their data are attributes, and ``__str__`` makes the text of them. An error that stops a
call carries what the call had finished; `casdk._calls.run` sets these attributes, in one place for all verbs.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from casdk.documents import DocumentArray
    from casdk.models import Response

__all__ = [
    "AuthError",
    "BulkError",
    "CallbackError",
    "CasdkError",
    "ClosedError",
    "ConfigError",
    "DataURIError",
    "DeadlineError",
    "DownloadError",
    "EmptyItemError",
    "FileMissingError",
    "FileUnreadableError",
    "InputError",
    "InputTypeError",
    "InputValueError",
    "ItemError",
    "ItemTooLargeError",
    "ItemTypeError",
    "ModelMismatchError",
    "NoEmbeddingError",
    "NotAllowedError",
    "NotAnImageError",
    "NotDoneError",
    "NotSupportedError",
    "OverloadedError",
    "ProtocolMismatchError",
    "ProxyError",
    "RejectedError",
    "ReplyError",
    "ServerError",
    "TLSError",
    "TransportError",
]


class CasdkError(Exception):
    """The base class of all errors of casdk.

    An error that stopped a call says how far the call came and carries its finished results. If no call was running
    (a wrong option, a closed client), these attributes have their defaults.

    Attributes:
        code: Status with which the server or its proxy refused, as the protocol writes it, such as ``"503"`` or
            ``"UNAVAILABLE"``; for a websocket also the close code, such as ``"1012"``. ``""`` if there was none.
        partial: Rows ``[M, D]``, float32 or the call's ``dtype``, of the M items that were read, NaN for items without
            a row. With ``out=`` a view of that matrix. For a stream, the rows that were finished and not yet returned.
            ``None`` if every item is a Document, which keeps its embedding, if no row has come yet, so that D is not
            known, and if callbacks get the replies.
        start: Index of the first row of ``partial``: 0, or for a stream the number of items that it has returned.
        documents: If the call returns Documents, those of the M items that were read; the ones that were done have
            their results. ``None`` if the call returns rows, and if callbacks get the replies.
        responses: With ``return_responses=True``, the Responses so far, in input order; otherwise ``None``.
        done: Number of items with a result: the finite rows of ``partial`` or the finished Documents. For a stream it
            includes the returned items; for an `index` it is the number of items that were certainly stored.
        total: Number of all items, if known.
        attempts: How often the request that ended the call was sent. If no request ended it (its time ran out, the
            client was closed), the highest number among the unanswered requests.
        server: The server's address, ``scheme://host:port``; ``""`` if no call was running.
        unconfirmed: For an `index`, the ascending indices of the items that may have been stored: they were sent, and
            no answer confirms it. ``None`` for the other verbs.
    """

    code: str = ""
    partial: NDArray[Any] | None = None
    start: int = 0
    documents: DocumentArray | None = None
    responses: list[Response] | None = None
    done: int = 0
    total: int | None = None
    attempts: int = 0
    server: str = ""
    unconfirmed: Sequence[int] | None = None

    def _how_far(self) -> str:
        """Return a suffix for the message that says how far the call came; ``""`` if nothing was done."""
        of = "" if self.total is None else f" of {self.total}"
        if self.unconfirmed is None:
            return f" ({self.done}{of} items were done)" if self.done else ""
        if not self.done and not self.unconfirmed:
            return ""
        stored = f"{self.done}{of} items were stored"
        if not self.unconfirmed:
            return f" ({stored})"
        first, last, count = self.unconfirmed[0], self.unconfirmed[-1], len(self.unconfirmed)
        which = f"item {first}" if count == 1 else f"{count} more, from item {first} to item {last},"
        return f" ({stored}; {which} may have been)"

    def __str__(self) -> str:
        return super().__str__() + self._how_far()

    def __repr__(self) -> str:
        # The arguments are left out: an item may be an image of many megabytes.
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: value if name == "partial" else _portable(value) for name, value in self.__dict__.items()}
        return type(self), self._arguments(), state

    def _arguments(self) -> tuple[Any, ...]:
        """Return the constructor arguments for a copy with the same text."""
        return self.args

    def __copy__(self) -> Self:
        copied = type(self)(*self._arguments())
        copied.__dict__.update(self.__dict__)
        copied.__cause__ = self.__cause__
        return copied


def _portable(value: Any) -> Any:
    """Return a value if it can be pickled and unpickled, otherwise ``None``.

    An error must always reach another process, but the caller's item may be anything, such as a ``memoryview``, and so
    may the exception of a library.
    """
    if isinstance(value, str | int | float | None):
        return value
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        return None
    return value


class ConfigError(CasdkError, ValueError):
    """An address, an option or a credential that cannot work."""


class ModelMismatchError(ConfigError):
    """A server has another vector space than ``expect_space``, or than another server of the pool.

    The call has returned none of its rows and has sent nothing to its index. With ``transport="libraries"``, an
    ``index`` may be sent over another connection than the one that was checked; ``unconfirmed`` then lists its items.

    Attributes:
        servers: Addresses of the servers that differ from each other, or of the one that differs from
            ``expect_space``.
    """

    def __init__(self, message: str, servers: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.servers: tuple[str, ...] = tuple(servers)


class ClosedError(CasdkError, RuntimeError):
    """The client was closed before or during the call."""


class InputError(CasdkError):
    """Something is wrong with the arguments or the content of a call."""


class InputTypeError(InputError, TypeError):
    """Content of a type that cannot be encoded, or a single ``str`` instead of an iterable."""


class InputValueError(InputError, ValueError):
    """Content of the right type that cannot be used."""


class ItemError(InputError):
    """One item failed.

    Attributes:
        index: Position of the item in the content, from 0.
        item: The caller's item.
        reason: What was wrong and what to do, in one sentence.
        cause: The exception that was the reason, if there was one.

    If ``item`` or ``cause`` cannot be pickled, it is ``None`` in an unpickled copy.
    """

    def __init__(self, index: int, item: object, reason: str, cause: BaseException | None = None) -> None:
        super().__init__(index, item, reason, cause)
        self.index = index
        self.item = item
        self.reason = reason
        self.cause = cause

    def _arguments(self) -> tuple[Any, ...]:
        # The item and the cause are part of the state, where values that cannot be pickled are left out.
        return self.index, None, self.reason

    def __str__(self) -> str:
        return f"item {self.index}: {self.reason}{self._how_far()}"


class FileMissingError(ItemError, FileNotFoundError):
    """The image file does not exist."""


class FileUnreadableError(ItemError, OSError):
    """The image path is a directory, a device or a FIFO, or may not be read."""


class NotAllowedError(ItemError, PermissionError):
    """The item names a file or a URL, and the client was made with ``local_files=False`` or ``fetch_urls=False``."""


class NotAnImageError(ItemError, ValueError):
    """The bytes are not those of an image format that CLIP servers read."""


class DataURIError(ItemError, ValueError):
    """The data URI is broken."""


class ItemTooLargeError(ItemError, ValueError):
    """The item is larger than ``Limits.max_item_bytes``."""


class EmptyItemError(ItemError, ValueError):
    """The item has no content, so a server would return no embedding for it."""


class ItemTypeError(ItemError, TypeError):
    """The item is of a type, shape or dtype that cannot be sent."""


class DownloadError(ItemError, ConnectionError):
    """The image behind a URL could not be fetched."""


class RejectedError(ItemError):
    """The server fails whenever this item is in the batch, or the item is too large for the server."""


class NoEmbeddingError(ItemError):
    """The server answered without an embedding for this item."""


class NotDoneError(ItemError):
    """The item was read, but ``cause`` stopped the call before the item was done."""


class TransportError(CasdkError, ConnectionError):
    """The server, or an executor behind it, could not be reached, or the connection broke.

    This covers refused and reset connections, and the answers of a proxy or gateway whose server is not there:
    UNAVAILABLE over gRPC, 502, 503 and 504 over HTTP, and the corresponding close codes of a websocket.

    Attributes:
        retryable: Whether sending the request again can help.
        sent: Whether bytes of the request may have reached the server.
        away: Whether the server seems to be away for a while, for example restarting. A call then waits for it as long
            as `Retry.patience` says. The same as ``retryable`` by default.
        retry_after: Seconds that the server, or a proxy before it, asked to wait; ``inf`` if that was more than a float
            can hold, ``None`` if it did not ask. If it asked for longer than a call waits (see `Retry`), or for
            something that is no number of seconds, the call ends at once.
        blameless: Whether the connection was ended because of another request that was in flight on it.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = True,
        sent: bool = True,
        away: bool | None = None,
        retry_after: float | None = None,
        blameless: bool = False,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.sent = sent
        self.away: bool = retryable if away is None else away
        self.retry_after = retry_after
        self.blameless = blameless


class TLSError(TransportError):
    """The TLS handshake failed, or the certificate was refused."""


class ProxyError(TransportError):
    """The proxy refused or broke the connection, or wants a credential of its own (407)."""


class ProtocolMismatchError(TransportError):
    """The port speaks another protocol than the scheme of the address."""


class DeadlineError(CasdkError, TimeoutError):
    """The time limit of the call, or of one wait for the server, has passed.

    Args:
        message: What took too long.
        done: Number of items that were finished.
        total: Number of all items, if known.
    """

    def __init__(self, message: str, *, done: int = 0, total: int | None = None) -> None:
        super().__init__(message)
        self.done = done
        self.total = total

    def _how_far(self) -> str:
        # The message of a deadline also says so if nothing was done.
        if self.done or self.unconfirmed:
            return super()._how_far()
        return f" (0{'' if self.total is None else f' of {self.total}'} items were done)"


class ServerError(CasdkError):
    """The server answered with an error.

    Attributes:
        name: Class name of the exception on the server, such as ``ValueError``; ``''`` if unknown.
        arguments: Arguments of that exception, as strings.
        stacks: Lines of the server's traceback.
        executor: The executor that raised it.
        request_id: Id of the failed request.
        retryable: Whether sending the request again can help.
        retry_after: Seconds that the server asked to wait; ``inf`` if that was more than a float can hold, ``None`` if
            it did not ask.
        for_item: Whether the executor failed on an item of the batch, so that splitting the batch can help.
        sent: Whether bytes of the request may have reached the server.
        away: ``False``, because the server has answered.
        shared: Whether a websocket was closed with several requests in flight, so that it is unknown which request the
            server refused and whether it has begun with the others.
        too_large: Whether the request or its reply is larger than the server or a proxy accepts, so that splitting the
            batch can help.
    """

    away: bool = False

    def __init__(
        self,
        message: str,
        *,
        name: str = "",
        arguments: tuple[str, ...] = (),
        stacks: tuple[str, ...] = (),
        executor: str = "",
        request_id: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
        for_item: bool = False,
        sent: bool = True,
        shared: bool = False,
        too_large: bool = False,
    ) -> None:
        super().__init__(message)
        self.name = name
        self.arguments = arguments
        self.stacks = stacks
        self.executor = executor
        self.request_id = request_id
        self.retryable = retryable
        self.retry_after = retry_after
        self.for_item = for_item
        self.sent = sent
        self.shared = shared
        self.too_large = too_large


class AuthError(ServerError, PermissionError):
    """The server refused the credential."""


class OverloadedError(ServerError):
    """The server is overloaded and asked to wait: 429, RESOURCE_EXHAUSTED, or a websocket closed with 1013.

    The server has not begun with the request. If it asked for longer than a call waits (see `Retry`), or for something
    that is no number of seconds, the call ends at once.
    """


class NotSupportedError(ServerError):
    """The flow behind the server has no executor for that verb."""


class ReplyError(CasdkError, ValueError):
    """The server's answer breaks the protocol."""


class CallbackError(CasdkError):
    """The caller's callback raised an exception, which is the ``__cause__``."""


class BulkError(CasdkError):
    """A bulk run stopped, or did not begin because its target or its input has changed.

    If an error of another kind stopped the run (a server that is away, a full disk), that error is the ``__cause__``.
    Unless the message says that something has changed, the same call continues where the run stopped.

    Attributes:
        target: The target, as the caller named it.
        rows: Number of rows that the target holds.
        failed: Number of these rows without an embedding.
    """

    target: str = ""
    rows: int = 0
    failed: int = 0
