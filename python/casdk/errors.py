"""The one error tree.

    CasdkError
    ├── ConfigError (ValueError)            an address, option or credential that cannot work
    ├── ClosedError (RuntimeError)          the client was closed
    ├── InputError
    │   ├── InputTypeError (TypeError)      content of a type no one can encode, a bare str
    │   ├── InputValueError (ValueError)    content of the right type that cannot be used
    │   └── ItemError                       one item failed: .index .item .cause .partial
    │       ├── FileMissingError (FileNotFoundError)
    │       ├── FileUnreadableError (OSError)   directory, device, FIFO, no permission
    │       ├── NotAnImageError (ValueError)
    │       ├── DataURIError (ValueError)
    │       ├── ItemTooLargeError (ValueError)
    │       ├── EmptyItemError (ValueError)
    │       ├── ItemTypeError (TypeError)
    │       ├── DownloadError (ConnectionError)
    │       ├── RejectedError               the server fails whenever this item is in the batch
    │       └── NoEmbeddingError            the server answered without a row for this item
    ├── TransportError (ConnectionError)    refused, reset, unreachable, closed
    │   ├── TLSError
    │   ├── ProxyError
    │   └── ProtocolMismatchError           another protocol speaks on that port
    ├── DeadlineError (TimeoutError)        the time given to a call, or to one silence, ran out
    ├── ServerError                         the server answered with an error
    │   ├── AuthError (PermissionError)
    │   ├── OverloadedError                 429, 503, RESOURCE_EXHAUSTED
    │   └── NotSupportedError               the flow has no executor for that verb
    ├── ReplyError (ValueError)             an answer that breaks the protocol
    └── CallbackError                       a callback of the caller's raised

Data live in attributes; the text is made of them in ``__str__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "AuthError",
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
    "NoEmbeddingError",
    "NotAnImageError",
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

    Attributes:
        code: Status the server or its proxy refused with, as the protocol writes it: ``"503"``, ``"UNAVAILABLE"``;
            ``""`` where there was none.
    """

    code: str = ""


class ConfigError(CasdkError, ValueError):
    """An address, an option or a credential that cannot work."""


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
        partial: With ``errors='raise'``, the rows ``[N, D]`` finished before the call stopped, NaN where
            there is none; else ``None``.
    """

    def __init__(self, index: int, item: object, reason: str, cause: BaseException | None = None) -> None:
        super().__init__(index, item, reason, cause)
        self.index = index
        self.item = item
        self.reason = reason
        self.cause = cause
        self.partial: np.ndarray[Any, Any] | None = None

    def __str__(self) -> str:
        return f"item {self.index}: {self.reason}"


class FileMissingError(ItemError, FileNotFoundError):
    """The image file does not exist."""


class FileUnreadableError(ItemError, OSError):
    """The image path is a directory, a device or a FIFO, or may not be read."""


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
    """The server fails whenever this item is in the batch."""


class NoEmbeddingError(ItemError):
    """The server answered without an embedding for this item."""


class TransportError(CasdkError, ConnectionError):
    """The server could not be reached, or the connection broke.

    Attributes:
        retryable: Whether sending again can help.
        sent: Whether bytes of the request may have reached the server.
    """

    def __init__(self, message: str, *, retryable: bool = True, sent: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.sent = sent


class TLSError(TransportError):
    """The TLS handshake failed, or the certificate was refused."""


class ProxyError(TransportError):
    """The proxy refused or broke the connection."""


class ProtocolMismatchError(TransportError):
    """Another protocol speaks on that port."""


class DeadlineError(CasdkError, TimeoutError):
    """The time given to the call, or to one silence of the server, ran out.

    Attributes:
        done: Items finished by then.
        total: Items in all, if known.
    """

    def __init__(self, message: str, *, done: int = 0, total: int | None = None) -> None:
        super().__init__(message)
        self.done = done
        self.total = total

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total}"
        return f"{self.args[0]} ({self.done}{of} items were done)"


class ServerError(CasdkError):
    """The server answered with an error.

    Attributes:
        name: Class name of the exception on the server, e.g. ``ValueError``; ``''`` if unknown.
        arguments: Its arguments as strings.
        stacks: Lines of the server's traceback.
        executor: The executor that raised.
        request_id: Id of the failed request.
        retryable: Whether sending again can help.
        retry_after: Seconds the server asked to wait, if it did.
        for_item: Whether the executor failed on what was in the batch, so that splitting it can help.
    """

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


class AuthError(ServerError, PermissionError):
    """The server refused the credential."""


class OverloadedError(ServerError):
    """The server asked to be left alone for a while."""


class NotSupportedError(ServerError):
    """The flow behind the server has no executor for that verb."""


class ReplyError(CasdkError, ValueError):
    """The server's answer breaks the protocol."""


class CallbackError(CasdkError):
    """A callback of the caller's raised; its exception is the ``__cause__``."""
