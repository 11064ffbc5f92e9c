"""ONNX models whose server prepares images as clip_server does, and photos that are larger than their crops."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image


def write_models(path: Path, side: int) -> Path:
    """Write a model of the means of squares of four pixels, so that every pixel counts, and one of texts."""
    random = np.random.default_rng(5)
    image = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["N", 3, side, side])
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["N", 77])
    pool = helper.make_node("AveragePool", ["pixel_values"], ["p"], kernel_shape=[4, 4], strides=[4, 4])
    flat, product = helper.make_node("Flatten", ["p"], ["f"], axis=1), helper.make_node("MatMul", ["f", "W"], ["y"])
    cast = helper.make_node("Cast", ["input_ids"], ["f"], to=TensorProto.FLOAT)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16])
    for name, nodes, given, width in (
        ("visual", [pool, flat, product], image, 3 * (side // 4) ** 2),
        ("textual", [cast, product], ids, 77),
    ):
        weights = numpy_helper.from_array(random.standard_normal((width, 16)).astype(np.float32), "W")
        graph = helper.make_graph(nodes, name, [given], [output], [weights])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.save(model, str(path / f"{name}.onnx"))
    return path


def photo(width: int = 900, height: int = 701, seed: int = 1) -> Image.Image:
    """Return a picture with shades and noise."""
    random = np.random.default_rng(seed)
    shades = np.add.outer(np.arange(height), np.arange(width))[:, :, None] // np.array([5, 6, 7])
    return Image.fromarray(((shades + random.integers(0, 60, (height, width, 3))) % 256).astype(np.uint8))


def file(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Return a picture as the bytes of a file."""
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


PHOTOS = 8


@cache
def jpegs() -> tuple[bytes, ...]:
    """Return photos, each of them several times as large as its crop."""
    return tuple(file(photo(seed=seed)) for seed in range(PHOTOS))
