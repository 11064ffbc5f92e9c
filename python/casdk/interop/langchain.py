"""LangChain's ``Embeddings`` on a CLIP server: texts, and images beside them in the same space."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

from casdk._calls.options import EncodeOptions
from casdk._extras import missing_extra
from casdk.client import Client
from casdk.models import Image, Text

try:
    from langchain_core.embeddings import Embeddings  # pyright: ignore[reportMissingImports]
except ImportError as _error:
    raise missing_extra("casdk.interop.langchain", "langchain", _error) from _error

__all__ = ["ClipEmbeddings"]


class ClipEmbeddings(Embeddings):
    """Embeddings for the vector stores, retrievers and chains that take an ``Embeddings``.

    Args:
        client: The client; the caller has to close it.
        **options: Options of every `Client.encode`, e.g. ``batch_size``, ``parameters={"model_name": ...}``.
    """

    def __init__(self, client: Client, **options: Unpack[EncodeOptions]) -> None:
        self.client = client
        self.options: Any = options

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one embedding per text; a text that looks like a path or a URL is still a text."""
        rows: list[list[float]] = self.client.encode(map(Text, texts), **self.options).tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        """Return the embedding of a text."""
        return self.embed_documents([text])[0]

    def embed_image(self, uris: Iterable[Any]) -> list[list[float]]:
        """Return one embedding per image: path, URL, data URI or bytes."""
        rows: list[list[float]] = self.client.encode(map(Image, uris), **self.options).tolist()
        return rows

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents`, asynchronously."""
        rows: list[list[float]] = (await self.client.aencode(map(Text, texts), **self.options)).tolist()
        return rows

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query`, asynchronously."""
        return (await self.aembed_documents([text]))[0]
