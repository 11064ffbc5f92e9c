"""Parameters and tags as a struct: Python's values there and back, and what a struct cannot hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from casdk._rust import Packer
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from oracle import (
    CODECS,
    pack,
    parameters,
    read,
)


@given(parameters)
def test_parameters_are_a_struct(values: dict[str, Any]) -> None:
    request = read(pack(["a"], parameters=values).message)
    assert MessageToDict(request.parameters) == values
    assert request.HasField("parameters") == bool(values)
    assert json.loads(bytes(pack(["a"], "json", parameters=values).message)).get("parameters", {}) == values


@pytest.mark.parametrize("codec", CODECS)
def test_numpy_scalars_and_tuples_are_taken(codec: str) -> None:
    given = {"limit": np.int64(3), "rate": np.float32(0.5), "on": np.bool_(True), "pair": (1, [2, (3,)])}
    message = pack(["a"], codec, parameters=given).message
    known = {"limit": 3, "rate": 0.5, "on": True, "pair": [1, [2, [3]]]}
    assert (MessageToDict(read(message).parameters) if codec == "proto" else json.loads(message)["parameters"]) == known


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        ({"a": object()}, "a"),
        ({"a": {"b": [0, b"bytes"]}}, r"a\.b\[1\]"),
        ({1: 2}, "1"),
        ({"a": {None: 2}}, "a"),
        ({"a": {1, 2}}, "a"),
        ({"a": np.zeros(3)}, "a"),
        ({"a": 10**400}, "a"),
        ({"a": "\ud800"}, "a"),
    ],
)
@pytest.mark.parametrize("codec", CODECS)
def test_what_no_struct_holds_is_a_type_error_that_names_it(codec: Any, bad: Any, path: str) -> None:
    with pytest.raises(TypeError, match=path):
        Packer(codec, "/encode", bad)


def test_parameters_that_hold_themselves_are_a_type_error() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(TypeError, match="loop"):
        Packer("proto", "/encode", loop)


def test_parameters_are_a_mapping() -> None:
    with pytest.raises(TypeError, match="mapping"):
        Packer("proto", "/encode", [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="xml"):
        Packer("xml", "/encode", {})  # type: ignore[arg-type]
