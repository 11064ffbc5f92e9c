"""LlamaIndex's ``BaseEmbedding`` on a CLIP server: texts, and images beside them in the same space."""

from __future__ import annotations

from typing import Any, Unpack

from casdk._calls.options import EncodeOptions
from casdk._extras import missing_extra
from casdk.client import Client
from casdk.models import Image, Text

try:
    from llama_index.core.bridge.pydantic import PrivateAttr  # pyright: ignore[reportMissingImports]
    from llama_index.core.embeddings import MultiModalEmbedding  # pyright: ignore[reportMissingImports]
except ImportError as _error:
    raise missing_extra("casdk.interop.llamaindex", "llamaindex", _error) from _error

__all__ = ["ClipEmbedding"]


class ClipEmbedding(MultiModalEmbedding):
    """An embedding model for the indexes that take an ``embed_model`` or an ``image_embed_model``.

    Args:
        client: The client; the caller has to close it.
        **options: Options of every `Client.encode`, e.g. ``batch_size``, ``parameters={"model_name": ...}``.
    """

    _client: Client = PrivateAttr()
    _options: Any = PrivateAttr()

    def __init__(self, client: Client, **options: Unpack[EncodeOptions]) -> None:
        model = (options.get("parameters") or {}).get("model_name", "clip")
        super().__init__(
            model_name=model, embed_batch_size=2048
        )  # the largest that LlamaIndex allows, since the client makes its own batches
        self._client, self._options = client, options

    def _get_text_embeddings(self, texts: list[str]) -> Any:
        return self._client.encode(map(Text, texts), **self._options).tolist()

    async def _aget_text_embeddings(self, texts: list[str]) -> Any:
        return (await self._client.aencode(map(Text, texts), **self._options)).tolist()

    def _get_text_embedding(self, text: str) -> Any:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> Any:
        return (await self._aget_text_embeddings([text]))[0]

    _get_query_embedding, _aget_query_embedding = _get_text_embedding, _aget_text_embedding

    def _get_image_embeddings(self, img_file_paths: list[Any]) -> Any:
        images = [Image(path.getvalue() if hasattr(path, "getvalue") else path) for path in img_file_paths]
        return self._client.encode(images, **self._options).tolist()

    def _get_image_embedding(self, img_file_path: Any) -> Any:
        return self._get_image_embeddings([img_file_path])[0]

    async def _aget_image_embedding(self, img_file_path: Any) -> Any:
        image = Image(img_file_path.getvalue() if hasattr(img_file_path, "getvalue") else img_file_path)
        return (await self._client.aencode([image], **self._options))[0].tolist()
