"""CLIP itself, as the ONNX models that clip_server exports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL.Image import Resampling

from casdk.server.encoders.tokens import ClipTokens

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Onnx"]

BATCH = 32
LONGEST = 16
"""How many times longer than wide an image may be to be resized whole: only the square in its middle is looked at."""
CONTEXT = 77
SIDE = 224
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
DTYPES: dict[str, type[np.generic]] = {
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class Onnx:
    """Runs ``textual.onnx`` and ``visual.onnx`` on the CPU.

    The textual model takes ``input_ids`` and, if it likes, ``attention_mask``, both integers ``[N, 77]``; the visual
    one ``pixel_values`` ``[N, 3, 224, 224]``. Another length or side is read from the model.

    Args:
        directory: Directory of the two files. A ``bpe_simple_vocab_16e6.txt.gz`` in it is the vocabulary, else
            that of ``instant-clip-tokenizer`` is used.

    Raises:
        ValueError: A file is missing, or the two models give rows of different widths.
    """

    def __init__(self, directory: Path) -> None:
        self.name: str = f"onnx/{directory.resolve().name}"
        self._tokens = ClipTokens(directory)
        self._textual = _session(directory / "textual.onnx")
        self._visual = _session(directory / "visual.onnx")
        self._length = _fixed(self._textual.get_inputs()[0].shape, -1, CONTEXT)
        self._side = _fixed(self._visual.get_inputs()[0].shape, -1, SIDE)
        self.dim: int = self._width(self.encode_texts([""]), _blank(self._side))

    def for_model(self, model: str) -> Onnx:
        """Return this encoder: a directory holds one model, and clip_server ignores the name too."""
        return self

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return rows ``[N, D]`` float32, as the model gives them."""
        parts = [self._encode_texts(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def encode_images(self, images: Iterable[Image]) -> NDArray[np.float32]:
        """Return rows ``[N, D]`` float32, as the model gives them."""
        return self.encode_prepared([self.prepare(image) for image in images])

    def prepare(self, image: Image) -> NDArray[np.float32]:
        """Return CLIP's pixels ``[3, side, side]`` of an image."""
        return _pixels(image, self._side)

    def encode_prepared(self, images: Sequence[NDArray[np.generic]]) -> NDArray[np.float32]:
        """Return rows ``[N, D]`` float32 of CLIP's pixels, as the model gives them."""
        parts = [
            _run(self._visual, [np.stack(images[start : start + BATCH])]) for start in range(0, len(images), BATCH)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def _encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        numbers, mask = self._tokens(texts, self._length)
        by_name = {"attention_mask": mask}
        return _run(self._textual, [by_name.get(node.name, numbers) for node in self._textual.get_inputs()])

    def _width(self, text_rows: NDArray[np.float32], blank: Image) -> int:
        width, of_images = int(text_rows.shape[1]), int(self.encode_images([blank]).shape[1])
        if of_images != width:
            raise ValueError(f"textual.onnx gives rows of {width} numbers, visual.onnx of {of_images}")
        return width


def _session(file: Path) -> Any:
    if not file.is_file():
        raise ValueError(f"{file.parent} holds no {file.name}")
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def _fixed(shape: Sequence[object], axis: int, default: int) -> int:
    """Return the model's size along an axis, or the default where it takes any."""
    size = shape[axis]
    return size if isinstance(size, int) else default


def _run(session: Any, inputs: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    feeds = {
        node.name: value.astype(DTYPES[node.type], copy=False)
        for node, value in zip(session.get_inputs(), inputs, strict=True)
    }
    rows: NDArray[np.float32] = np.asarray(session.run(None, feeds)[0], np.float32)
    return rows


def _pixels(image: Image, side: int) -> NDArray[np.float32]:
    """Return CLIP's ``[3, side, side]``: the shorter side resized, the centre cut out, normalised."""
    width, height = image.size
    shorter = min(width, height)
    if max(width, height) > LONGEST * shorter:  # resized whole, a line of a million pixels would become 50 gigapixels
        left, top = (max(0, (length - LONGEST * shorter) // 2) for length in image.size)
        image = image.crop((left, top, width - left, height - top))
        width, height = image.size
    size = (side * width // shorter, side * height // shorter)
    resized = image.resize(size, Resampling.BICUBIC)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    square = resized.crop((left, top, left + side, top + side)).convert("RGB")
    pixels = np.asarray(square, np.float32) / np.float32(255)
    planes: NDArray[np.float32] = ((pixels - MEAN) / DEVIATION).astype(np.float32, copy=False)
    return np.ascontiguousarray(planes.transpose(2, 0, 1))


def _blank(side: int) -> Image:
    from PIL import Image

    return Image.new("RGB", (side, side))
