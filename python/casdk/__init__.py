"""The Python SDK for CLIP-as-service."""

from casdk._rust import __version__
from casdk.client import Client, Item
from casdk.config import TLS, Limits, Retry, Timeouts
from casdk.documents import Document, DocumentArray, NamedScore
from casdk.errors import *  # noqa: F403 - the one error tree, named in its own __all__
from casdk.errors import __all__ as _errors
from casdk.models import EncodeResult, Header, Image, Profile, Response, Route, Status, Text

__all__ = [
    "TLS",
    "Client",
    "Document",
    "DocumentArray",
    "EncodeResult",
    "Header",
    "Image",
    "Item",
    "Limits",
    "NamedScore",
    "Profile",
    "Response",
    "Retry",
    "Route",
    "Status",
    "Text",
    "Timeouts",
    "__version__",
    *_errors,
]
