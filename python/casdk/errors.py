"""The one error tree.

    CasdkError
    ├── ConfigError (ValueError)            an address, option or credential that cannot work
    │   └── ModelMismatchError              a server holds another model than it should: .servers
    ├── ClosedError (RuntimeError)          the client was closed
    ├── InputError
    │   ├── InputTypeError (TypeError)      content of a type no one can encode, a bare str
    │   ├── InputValueError (ValueError)    content of the right type that cannot be used
    │   └── ItemError                       one item failed: .index .item .cause
    │       ├── FileMissingError (FileNotFoundError)
    │       ├── FileUnreadableError (OSError)   directory, device, FIFO, no permission
    │       ├── NotAllowedError (PermissionError)  a file or a URL, which this client does not read
    │       ├── NotAnImageError (ValueError)
    │       ├── DataURIError (ValueError)
    │       ├── ItemTooLargeError (ValueError)
    │       ├── EmptyItemError (ValueError)
    │       ├── ItemTypeError (TypeError)
    │       ├── DownloadError (ConnectionError)
    │       ├── RejectedError               the server fails on this item, or takes none as large
    │       ├── NoEmbeddingError            the server answered without a row for this item
    │       └── NotDoneError                the call was stopped before this item was done
    ├── TransportError (ConnectionError)    refused, reset, closed; 502, 503, 504, UNAVAILABLE
    │   ├── TLSError
    │   ├── ProxyError
    │   └── ProtocolMismatchError           another protocol speaks on that port
    ├── DeadlineError (TimeoutError)        the time given to a call, or to one silence, ran out
    ├── ServerError                         the server answered with an error
    │   ├── AuthError (PermissionError)
    │   ├── OverloadedError                 429, RESOURCE_EXHAUSTED, a websocket closed with 1013
    │   └── NotSupportedError               the flow has no executor for that verb
    ├── ReplyError (ValueError)             an answer that breaks the protocol
    ├── BulkError                           a bulk run that stopped, or that was refused
    └── CallbackError                       a callback of the caller's raised

Data live in attributes; the text is made of them in ``__str__``. An error that stops a call carries what the call had
finished: `casdk._calls.run` puts it there, in one place for all verbs.
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
    """Everything casdk raises on purpose.

    One that stopped a call says how far the call came, so that nothing finished is lost. Where no call was running (a
    bad option, a client that is closed already) these attributes keep their defaults.

    Attributes:
        code: Status the server or its proxy refused with, as the protocol writes it: ``"503"``, ``"UNAVAILABLE"``, of
            a websocket also the code it was closed with: ``"1012"``; ``""`` where there was none.
        partial: Rows ``[M, D]``, float32 or the call's ``dtype``, of the M items that were read: NaN where there is no
            row. With ``out=`` a view of it. ``None`` where every item is a Document, which keeps its embedding; where
            no row has come yet, so that D is not known; and where callbacks take the replies. Of a stream, the rows
            that were finished and not handed out.
        start: Index of the first row of ``partial``: 0, but for a stream the number of items handed out.
        documents: What the call would have returned of the M items that were read, where that is Documents; those that
            were done have their results. ``None`` where it is rows, and where callbacks take the replies.
        responses: With ``return_responses=True``, the Responses so far, in input order; else ``None``.
        done: Items that have a result: the finite rows of ``partial``, the Documents that were done; of a stream,
            those handed out as well; of an `index`, the items that were stored for sure.
        total: Items in all, if known.
        attempts: Times that the request was sent which ended the call; where none did (the call's time ran out, the
            client was closed), the most times that one of those without an answer was.
        server: The server's address, ``scheme://host:port``; ``""`` where no call was running.
        unconfirmed: Of an `index`, indices of the items that may have been stored, ascending: they were sent, and no
            answer says what became of them. ``None`` for the other verbs.
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
        """Return how far the call came, to be put behind the message; ``""`` where nothing was done."""
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
        # Not of the arguments: an item may be an image of many megabytes.
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: value if name == "partial" else _portable(value) for name, value in self.__dict__.items()}
        return type(self), self._arguments(), state

    def _arguments(self) -> tuple[Any, ...]:
        """Return what makes an error of this class, and of the same text, again."""
        return self.args

    def __copy__(self) -> Self:
        copied = type(self)(*self._arguments())
        copied.__dict__.update(self.__dict__)
        copied.__cause__ = self.__cause__
        return copied


def _portable(value: Any) -> Any:
    """Return a value if it comes out of a pickle again, else ``None``: an error must not fail to reach another process.

    A caller's item may be anything, e.g. a ``memoryview``, and so may the exception of a library.
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
    """The rows of a server are of another vector space than ``expect_space``, or than those of another server.

    No row of it was given to anybody, and nothing was sent to its index. With ``transport="libraries"``, an ``index``
    may go over another connection than the one that was asked: then ``unconfirmed`` says so.

    Attributes:
        servers: Addresses of the servers that differ; of the only one, where it differs from ``expect_space``.
    """

    def __init__(self, message: str, servers: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.servers: tuple[str, ...] = tuple(servers)


class ClosedError(CasdkError, RuntimeError):
    """The client was closed before or during the call."""


class InputError(CasdkError):
    """Something is wrong with what the caller handed over."""


class InputTypeError(InputError, TypeError):
    """Content of a type that cannot be encoded, or a bare ``str`` where an iterable belongs."""


class InputValueError(InputError, ValueError):
    """Content of the right type that cannot be used."""


class ItemError(InputError):
    """One item failed; the others are not to blame.

    Attributes:
        index: Position of the item in the content, from 0.
        item: The item as the caller gave it.
        reason: What was wrong and what to do, in one sentence.
        cause: The exception underneath, when there was one.

    What cannot be pickled, of ``item`` and ``cause``, is ``None`` in a copy that comes out of a pickle.
    """

    def __init__(self, index: int, item: object, reason: str, cause: BaseException | None = None) -> None:
        super().__init__(index, item, reason, cause)
        self.index = index
        self.item = item
        self.reason = reason
        self.cause = cause

    def _arguments(self) -> tuple[Any, ...]:
        # As few as there have to be: the others are in the error's state.
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
    """The bytes are of no image kind that CLIP servers read."""


class DataURIError(ItemError, ValueError):
    """The data URI is broken."""


class ItemTooLargeError(ItemError, ValueError):
    """The item is larger than ``Limits.max_item_bytes``."""


class EmptyItemError(ItemError, ValueError):
    """The item has no content; a server would answer without an embedding."""


class ItemTypeError(ItemError, TypeError):
    """The item is of a type, shape or dtype that cannot be sent."""


class DownloadError(ItemError, ConnectionError):
    """The image behind a URL could not be fetched."""


class RejectedError(ItemError):
    """The server fails whenever this item is in the batch, or takes no request as large as the item's."""


class NoEmbeddingError(ItemError):
    """The server answered without an embedding for this item."""


class NotDoneError(ItemError):
    """The item was read, and the call was stopped before it was done: by ``cause``."""


class TransportError(CasdkError, ConnectionError):
    """The server, or what is behind it, could not be reached, or the connection broke.

    So say refused and reset connections, and who stands before a server that is not there: UNAVAILABLE over gRPC, 502,
    503 and 504 over HTTP, and what a websocket is closed with for such a reason.

    Attributes:
        retryable: Whether sending again can help.
        sent: Whether bytes of the request may have reached the server.
        away: Whether it looks as if the server were away for a while, e.g. restarting: then a call waits for it as long
            as `Retry.patience` says. By default what ``retryable`` is.
        retry_after: Seconds the server, or a proxy before it, asked to wait, if it did; ``inf`` where it asked for more
            than a float can hold. One that asks for longer than a call waits (see `Retry`), or for no number of
            seconds, ends the call at once.
        blameless: Whether the connection was ended for another request that was in flight on it.
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
    """Another protocol speaks on that port."""


class DeadlineError(CasdkError, TimeoutError):
    """The time given to the call, or to one silence of the server, ran out.

    Args:
        message: What took too long.
        done: Items finished by then.
        total: Items in all, if known.
    """

    def __init__(self, message: str, *, done: int = 0, total: int | None = None) -> None:
        super().__init__(message)
        self.done = done
        self.total = total

    def _how_far(self) -> str:
        # Also where nothing was done: how far it came is what one wants to know of a deadline.
        if self.done or self.unconfirmed:
            return super()._how_far()
        return f" (0{'' if self.total is None else f' of {self.total}'} items were done)"


class ServerError(CasdkError):
    """The server answered with an error.

    Attributes:
        name: Class name of the exception on the server, e.g. ``ValueError``; ``''`` if unknown.
        arguments: Its arguments as strings.
        stacks: Lines of the server's traceback.
        executor: The executor that raised.
        request_id: Id of the failed request.
        retryable: Whether sending again can help.
        retry_after: Seconds the server asked to wait, if it did; ``inf`` where it asked for more than a float can hold.
        for_item: Whether the executor failed on what was in the batch, so that splitting it can help.
        sent: Whether bytes of the request may have reached the server.
        away: ``False``: it has answered.
        shared: Whether a websocket was closed for it with other requests in flight, so that nobody knows which one the
            server refused, and whether it has begun with the others.
        too_large: Whether the request, or what it would be answered with, is larger than the server or somebody before
            it takes, so that its halves may pass.
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
    """The server asked to be left alone for a while: 429, RESOURCE_EXHAUSTED, or a websocket closed with 1013.

    It has not begun with the request.

    One that asked for longer than a call waits (see `Retry`), or for no number of seconds, ends the call at once.
    """


class NotSupportedError(ServerError):
    """The flow behind the server has no executor for that verb."""


class ReplyError(CasdkError, ValueError):
    """The server's answer breaks the protocol."""


class CallbackError(CasdkError):
    """A callback of the caller's raised; its exception is the ``__cause__``."""


class BulkError(CasdkError):
    """A bulk run stopped, or did not begin, because its target or its input is not what it was.

    What stopped it, where that is an error of another kind (a server that is gone, a full disk), is the ``__cause__``.
    Unless the message says that something has changed, the same call goes on where it stopped.

    Attributes:
        target: The target, as it was named.
        rows: Rows that it holds.
        failed: How many of them have no embedding.
    """

    target: str = ""
    rows: int = 0
    failed: int = 0
