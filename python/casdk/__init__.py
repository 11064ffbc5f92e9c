"""The Python SDK for CLIP-as-service."""

import logging
import warnings

from casdk import _rust
from casdk._rust import __version__
from casdk.client import ArrowArray, ArrowStream, BulkOptions, CallOptions, Client, EncodeOptions, Item, StreamOptions
from casdk.config import TLS, Limits, Retry, Telemetry, Timeouts
from casdk.documents import Document, DocumentArray, NamedScore
from casdk.errors import (
    AuthError,
    BulkError,
    CallbackError,
    CasdkError,
    ClosedError,
    ConfigError,
    DataURIError,
    DeadlineError,
    DownloadError,
    EmptyItemError,
    FileMissingError,
    FileUnreadableError,
    InputError,
    InputTypeError,
    InputValueError,
    ItemError,
    ItemTooLargeError,
    ItemTypeError,
    ModelMismatchError,
    NoEmbeddingError,
    NotAllowedError,
    NotAnImageError,
    NotDoneError,
    NotSupportedError,
    OverloadedError,
    ProtocolMismatchError,
    ProxyError,
    RejectedError,
    ReplyError,
    ServerError,
    TLSError,
    TransportError,
)
from casdk.models import EncodeResult, Header, Image, Profile, Response, Route, Status, Text, Timings
from casdk.servers import Pool, Server, ServerStatus

__all__ = [
    "TLS",
    "ArrowArray",
    "ArrowStream",
    "AuthError",
    "BulkError",
    "BulkOptions",
    "CallOptions",
    "CallbackError",
    "CasdkError",
    "Client",
    "ClosedError",
    "ConfigError",
    "DataURIError",
    "DeadlineError",
    "Document",
    "DocumentArray",
    "DownloadError",
    "EmptyItemError",
    "EncodeOptions",
    "EncodeResult",
    "FileMissingError",
    "FileUnreadableError",
    "Header",
    "Image",
    "InputError",
    "InputTypeError",
    "InputValueError",
    "Item",
    "ItemError",
    "ItemTooLargeError",
    "ItemTypeError",
    "Limits",
    "ModelMismatchError",
    "NamedScore",
    "NoEmbeddingError",
    "NotAllowedError",
    "NotAnImageError",
    "NotDoneError",
    "NotSupportedError",
    "OverloadedError",
    "Pool",
    "Profile",
    "ProtocolMismatchError",
    "ProxyError",
    "RejectedError",
    "ReplyError",
    "Response",
    "Retry",
    "Route",
    "Server",
    "ServerError",
    "ServerStatus",
    "Status",
    "StreamOptions",
    "TLSError",
    "Telemetry",
    "Text",
    "Timeouts",
    "Timings",
    "TransportError",
    "__version__",
]

if _rust.DEBUG:
    warnings.warn(
        "casdk was built without optimisation: it is many times slower than it should be; use `make build`",
        RuntimeWarning,
        stacklevel=2,
    )

# Quiet until the program says otherwise: without a handler of its own, warnings would go to stderr.
logging.getLogger("casdk").addHandler(logging.NullHandler())
