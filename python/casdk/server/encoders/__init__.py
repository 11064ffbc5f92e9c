"""What turns texts and images into rows: `Features` without weights, or CLIP itself as ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from casdk._extras import missing_extra
from casdk.server.encoders.features import Features

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Encoder", "Features", "Prepared", "Rows", "load"]

Rows = NDArray[np.float32]
"""Embeddings ``[N, D]``."""
Prepared = NDArray[np.generic]
"""The part of one image that an encoder reads; it is small, whatever the image's size."""


class Encoder(Protocol):
    """Maps texts and images into one space; called from several threads at once."""

    @property
    def name(self) -> str:
        """The name that distinguishes this encoder from others; an index does not accept rows of two encoders."""
        ...

    @property
    def dim(self) -> int:
        """Numbers in a row."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Rows:
        """Return one row ``[N, D]`` float32 per text."""
        ...

    def prepare(self, image: Image) -> Prepared:
        """Return the part of an image that is encoded, so that the image itself need not stay in memory."""
        ...

    def encode_prepared(self, images: Sequence[Prepared]) -> Rows:
        """Return one row ``[N, D]`` float32 per image."""
        ...

    def for_model(self, model: str) -> Encoder:
        """Return the encoder behind ``/encode/{model}``."""
        ...


def load(name: str) -> Encoder:
    """Return the encoder called ``features``, or ``onnx:DIRECTORY``.

    Raises:
        ValueError: There is no such encoder, or the directory has no model.
        ImportError: The ``casdk[onnx]`` extra is not installed.
    """
    if name == "features":
        return Features()
    kind, _, directory = name.partition(":")
    if kind == "onnx" and directory:
        try:
            from casdk.server.encoders.onnx import Onnx
        except ImportError as error:
            raise missing_extra("the encoder onnx", "onnx", error) from error

        return Onnx(Path(directory))
    raise ValueError(f"no encoder {name!r}; there are 'features' and 'onnx:DIRECTORY'")
