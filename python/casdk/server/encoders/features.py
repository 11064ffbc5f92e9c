"""An encoder without weights: hashed n-grams of texts, colours and gradients of images. It is not CLIP.

Every step up to the division by the norm is on whole numbers, so a row does not depend on its batch, on the
order of additions or on the machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Features"]

BUCKETS = 8192
GRAM = 3
SIDE = 32
CELLS = 4
ORIENTATIONS = 8
HUES = 4
IMAGE_FEATURES = 3 * (SIDE // 4) ** 2 + HUES**3 + CELLS**2 * ORIENTATIONS
SCALE = 1023.0
"""Image features are rounded to this many steps."""
MODELS = 8
"""The most projections that are kept, since a client may ask for any number of models."""
TEXT_CHARACTERS = 65_536
"""Characters of a text that are read, which limits the memory and the time that a text takes."""
GRAMS_AT_ONCE = 4096
"""So many n-grams are added at a time, so that the sums stay within int16."""

_WORD = re.compile(r"\w+")


class Features:
    """Deterministic embeddings for tests, demos and development.

    Texts that share words, neighbouring words or three letters in a row lie close, and so do images of like
    colours and edges; a text and an image have nothing to do with each other.

    Args:
        dim: Numbers in a row.
        model: Name that draws another projection, so that two models disagree as real ones would.
    """

    def __init__(self, dim: int = 512, model: str = "") -> None:
        self.dim = dim
        self.model = model
        self._texts = _projection(BUCKETS, dim, f"texts {model}")
        self._images = _projection(IMAGE_FEATURES, dim, f"images {model}").astype(np.float64)

    @property
    def name(self) -> str:
        """``features``, and the model if it is not the default one."""
        return f"features/{self.model}" if self.model else "features"

    def for_model(self, model: str) -> Features:
        """Return the encoder of that name."""
        return _model(self.dim, model)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit rows ``[N, D]`` float32; a text without a single feature is a row of zeros.

        Of a longer text the first 65,536 characters count: CLIP sees no more than its first 77 tokens.
        """
        sums = np.zeros((len(texts), self.dim), np.int64)
        for position, text in enumerate(texts):
            buckets = _buckets(text[:TEXT_CHARACTERS])
            for start in range(0, buckets.size, GRAMS_AT_ONCE):
                signs = self._texts[buckets[start : start + GRAMS_AT_ONCE]]
                sums[position] += np.add.reduce(signs, axis=0, dtype=np.int16)
        return _unit(sums)

    def encode_images(self, images: Iterable[Image]) -> NDArray[np.float32]:
        """Return unit rows ``[N, D]`` float32."""
        return self.encode_prepared([self.prepare(image) for image in images])

    def prepare(self, image: Image) -> NDArray[np.float64]:
        """Return the features ``[IMAGE_FEATURES]`` of an image."""
        return _image_features(image)

    def encode_prepared(self, images: Sequence[NDArray[np.generic]]) -> NDArray[np.float32]:
        """Return unit rows ``[N, D]`` float32 of features."""
        if not images:
            return np.zeros((0, self.dim), np.float32)
        return _unit(np.rint(np.stack(images).astype(np.float64) @ self._images).astype(np.int64))


@lru_cache(MODELS)
def _model(dim: int, model: str) -> Features:
    return Features(dim, model)


def _projection(rows: int, dim: int, seed: str) -> NDArray[np.int8]:
    """Return a fixed matrix ``[rows, dim]`` of -1 and 1."""
    bits = np.frombuffer(hashlib.shake_128(seed.encode()).digest((rows * dim + 7) // 8), np.uint8)
    signs = np.unpackbits(bits, count=rows * dim).reshape(rows, dim)
    return signs.view(np.int8) * np.int8(2) - np.int8(1)


def _unit(sums: NDArray[np.int64]) -> NDArray[np.float32]:
    wide = sums.astype(np.float64)
    norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    unit: NDArray[np.float32] = (wide / np.maximum(norms, 1.0)[:, None]).astype(np.float32)
    return unit


def _buckets(text: str) -> NDArray[np.int64]:
    """Return the bucket of each feature: words (twice), neighbouring words, letters in a row."""
    words = _WORD.findall(text.lower())
    pairs = map(" ".join, pairwise(words))
    padded = f" {' '.join(words)} " if words else text
    letters = [padded[start : start + GRAM] for start in range(max(len(padded) - GRAM + 1, min(len(padded), 1)))]
    grams = (*words, *words, *pairs, *letters)
    codes = (crc32(gram.encode("utf-8", "surrogatepass")) for gram in grams)
    return np.fromiter(codes, np.int64, len(grams)) % BUCKETS


def _image_features(image: Image) -> NDArray[np.float64]:
    """Return whole numbers ``[IMAGE_FEATURES]``: mean colours, a histogram of colours, edges by cell."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    small = rgb.resize((SIDE, SIDE), resample=4, reducing_gap=2.0)
    pixels = np.asarray(small, np.int64)
    block = SIDE // 8
    means = pixels.reshape(8, block, 8, block, 3).sum(axis=(1, 3)).ravel() / (block * block * 255.0) - 0.5
    coarse = pixels * HUES // 256
    codes = coarse[..., 0] * HUES * HUES + coarse[..., 1] * HUES + coarse[..., 2]
    histogram = np.bincount(codes.ravel(), minlength=HUES**3) / float(SIDE * SIDE)
    return np.rint(np.concatenate((means, histogram, _edges(pixels.sum(axis=2)))) * SCALE)


def _edges(grey: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each orientation in each cell, by strength of the gradient."""
    across = np.zeros_like(grey)
    down = np.zeros_like(grey)
    across[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    down[1:-1, :] = grey[2:, :] - grey[:-2, :]
    strength = np.abs(across) + np.abs(down)
    octant = (across > 0) * 4 + (down > 0) * 2 + (np.abs(across) > np.abs(down))
    rows, columns = np.indices(grey.shape) * CELLS // SIDE
    slots = (rows * CELLS + columns) * ORIENTATIONS + octant
    sums = np.bincount(slots.ravel(), strength.ravel(), CELLS * CELLS * ORIENTATIONS)
    return sums / max(float(strength.sum()), 1.0)
