"""The endpoint of a request has the model's name, and the caller's parameters stay unchanged."""

from collections import UserDict

import pytest
from casdk._calls.routes import route
from casdk.errors import InputTypeError


def test_the_name_of_a_model_is_the_end_of_the_endpoint():
    given = {"model_name": "ViT-B/32", "other": 1}
    assert route("/encode", given) == ("/encode/ViT-B/32", {"drop_image_content": True, "other": 1})
    assert given == {"model_name": "ViT-B/32", "other": 1}
    assert route("/index", given, limit=3)[0] == "/index"
    assert route("/rank", None, limit=3) == ("/rank", {"drop_image_content": True, "limit": 3})


class Broken(UserDict):
    def __getitem__(self, key):
        raise RuntimeError("hostile")


def test_parameters_that_cannot_be_read():
    with pytest.raises(InputTypeError, match="parameters cannot be read") as caught:
        route("/encode", Broken(a=1))
    assert type(caught.value.__cause__) is RuntimeError
