"""Tiny CLIP-shaped ONNX models for clip_server's ``model_path``: real feeds, real arithmetic, random weights.

Runs inside the reference environment.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write(directory: Path, seed: int = 7) -> Path:
    """Write ``visual.onnx`` and ``textual.onnx`` (512-d, weights of that seed) and return their directory."""
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    _save(  # the mean of each 16 x 16 patch, through a matrix
        directory / "visual.onnx",
        [
            helper.make_node("AveragePool", ["pixel_values"], ["p"], kernel_shape=[16, 16], strides=[16, 16]),
            helper.make_node("Flatten", ["p"], ["f"], axis=1),
            helper.make_node("MatMul", ["f", "W"], ["y"]),
        ],
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["N", 3, 224, 224])],
        {"W": random.standard_normal((588, 512)) / 24},
    )
    _save(  # the token numbers, scaled to [0, 1], through a matrix
        directory / "textual.onnx",
        [
            helper.make_node("Mul", ["input_ids", "attention_mask"], ["m"]),
            helper.make_node("Cast", ["m"], ["c"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["c", "S"], ["d"]),
            helper.make_node("MatMul", ["d", "W"], ["y"]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.INT32, ["N", 77]) for name in ("input_ids", "attention_mask")],
        {"W": random.standard_normal((77, 512)) / 2, "S": np.array(49408.0)},
    )
    return directory


def _save(path, nodes, inputs, constants):
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 512])
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, path.stem, inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
