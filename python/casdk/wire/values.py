"""Arrays and structs of the wire's messages as NumPy and Python have them, and the limits that hold for both forms."""

from __future__ import annotations

import re

import numpy as np
from google.protobuf.struct_pb2 import Struct, Value
from numpy.typing import NDArray

from casdk.wire.docarray_pb2 import DenseNdArrayProto, NdArrayProto

__all__ = ["DEEPEST", "MOST", "array_of", "plain", "put_array", "shown"]

DEEPEST = 90
"""The most levels of messages in a request: protobuf reads 100, and a result nests an indexed document deeper."""
MOST = 2**32 - 1
"""The largest ``uint32``."""
AXES = 8
"""The most axes of an array; an image has three."""
SHOWN_CHARACTERS = 100
"""Characters of a client's value that an error repeats."""
_DTYPE = re.compile(r"[<>=|]?[biufUSOVcMm]\d{0,2}|[a-z]+\d{0,3}")


def shown(value: object) -> str:
    """Return a client's value as an error repeats it."""
    text = repr(value[: SHOWN_CHARACTERS + 1] if isinstance(value, (str, list)) else value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def array_of(proto: NdArrayProto) -> NDArray[np.generic]:
    """Return the array of a dense message, read-only, without a copy.

    Raises:
        ValueError: The array is sparse, of a dtype that holds no numbers, or its bytes do not fill its shape.
    """
    if proto.WhichOneof("content") != "dense":
        raise ValueError("the array is not dense")
    dense = proto.dense
    if len(dense.shape) > AXES:
        raise ValueError(f"an array of {len(dense.shape)} axes; at most {AXES} are read")
    if not _DTYPE.fullmatch(dense.dtype):  # NumPy would read structured dtypes, too
        raise ValueError(f"no dtype {shown(dense.dtype)}")
    try:
        dtype = np.dtype(dense.dtype)
    except TypeError as error:
        raise ValueError(f"no dtype {shown(dense.dtype)}: {error}") from None
    if dtype.kind not in "biuf":
        raise ValueError(f"an array of dtype {shown(dense.dtype)} holds no numbers")
    return np.frombuffer(dense.buffer, dtype).reshape(tuple(dense.shape))


def put_array(proto: NdArrayProto, array: NDArray[np.generic]) -> None:
    """Write an array of any shape into a message."""
    proto.dense.CopyFrom(
        DenseNdArrayProto(buffer=array.tobytes(), shape=array.shape, dtype=array.dtype.str),
    )
    proto.cls_name = "numpy"


def plain(parameters: Struct) -> dict[str, object]:
    """Return a Struct as Python values; every number is a float."""
    return {key: _value(value) for key, value in parameters.fields.items()}


def _value(value: Value) -> object:
    match value.WhichOneof("kind"):
        case "struct_value":
            return plain(value.struct_value)
        case "list_value":
            return [_value(item) for item in value.list_value.values]
        case "number_value":
            return value.number_value
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
    return None
