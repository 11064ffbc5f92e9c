"""Values between the tests and a reference environment: JSON with bytes and arrays in it.

The two sides have different numpys, so pickle would tie them together.
"""

import base64
import json

import numpy as np


def dumps(value):
    """Return one line of JSON."""
    return json.dumps(value, default=_tag, allow_nan=True)


def loads(line):
    """Return the value of `dumps`."""
    return json.loads(line, object_hook=_untag)


def _tag(value):
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value).tobytes()
        return {"$array": base64.b64encode(data).decode(), "shape": value.shape, "dtype": value.dtype.str}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not exchanged")


def _untag(found):
    if "$bytes" in found:
        return base64.b64decode(found["$bytes"])
    if "$array" in found:
        data = np.frombuffer(base64.b64decode(found["$array"]), found["dtype"])
        return data.reshape(found["shape"]).copy()
    return found
