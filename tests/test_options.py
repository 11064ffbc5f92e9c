"""The value of each option is checked when the call is made."""

import math
from collections.abc import Mapping
from enum import Enum, StrEnum

import numpy as np
import pytest
from casdk import Client, Document, InputTypeError, InputValueError
from casdk._calls.options import (
    CHECKS,
    DEFAULTS,
    CallOptions,
    EncodeOptions,
    Options,
    StreamOptions,
    check_limit,
    read_options,
)


class Hostile:
    """Can be neither shown, compared nor asked for anything."""

    def _refuse(self, *_):
        raise RuntimeError("hostile")

    __repr__ = __str__ = __eq__ = __bool__ = __len__ = __iter__ = __int__ = __float__ = __index__ = _refuse
    __hash__ = object.__hash__
    dtype = property(_refuse)


class Word(StrEnum):
    SKIP = "skip"


class Odd(str):
    """A ``str`` that compares as it likes."""

    __slots__ = ()

    def __eq__(self, other):
        raise RuntimeError("hostile")

    __hash__ = str.__hash__


OF_A_WRONG_TYPE = {
    "batch_size": [True, "8", 8.0, math.nan, Hostile(), np.float64(8), np.array([1, 2])],
    "prefetch": ["8", False, Hostile()],
    "timeout": [True, "1", 1j, [1], Hostile(), np.datetime64("2020-01-01"), np.array([1.0, 2.0])],
    "parameters": [7, [("a", 1)], "a", Hostile()],
    "show_progress": ["yes", None, Hostile(), np.array([True, False])],
    "check_images": [None, 1.0, Hostile()],
    "image_size": [True, "336", 336.0, Hostile()],
    "min_fidelity": [True, "0.9", None, Hostile()],
    "return_responses": ["no", Hostile()],
    "dedupe": [[], Hostile()],
    "patience": [True, "60", Hostile()],
    "on_done": [7, Hostile()],
    "on_error": ["print"],
    "on_always": [b"print"],
    "out": [[[0.0]], Hostile(), np.float32(0)],
}
OF_A_WRONG_VALUE = {
    "batch_size": [0, -1, 2**63, np.uint64(2**63), -(10**400), 10**400],
    "prefetch": [0, 2**63, 2**64],
    "timeout": [0, -1, math.nan, math.inf, -math.inf, 10**400, np.float32("inf"), np.float16("nan")],
    "reader": ["", "loop", None, 7, "CALLER", b"caller", Hostile(), Odd("nobody")],
    "images": ["crop", None, 7, "EXACT", b"exact", Hostile(), Odd("nobody")],
    "image_size": [0, -1, 4097, 336],
    "min_fidelity": [-0.1, 1.1, math.nan, math.inf, 0.5],
    "errors": ["ignore", None, 7, Hostile(), np.array(["raise", "skip"])],
    "result": ["pandas", 7, Hostile(), np.array(["arrow"])],
    "dtype": ["int8", "nonsense", None, 7, Hostile(), np.float64, "f4,f4", object],
    "out": [np.zeros(3, np.float32), np.zeros((3, 3)), np.zeros((3, 3), np.float32).T[::2], np.zeros((2, 2), "f4,f4")],
}


def cases(table):
    return [pytest.param(name, value, id=f"{name}-{at}") for name in table for at, value in enumerate(table[name])]


@pytest.mark.parametrize(("name", "value"), cases(OF_A_WRONG_TYPE))
def test_a_value_of_a_wrong_type_is_refused_under_its_name(name, value):
    with pytest.raises(InputTypeError, match=name):
        read_options({name: value})


@pytest.mark.parametrize(("name", "value"), cases(OF_A_WRONG_VALUE))
def test_a_value_that_cannot_be_used_is_refused_under_its_name(name, value):
    with pytest.raises(InputValueError, match=name):
        read_options({name: value})


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("batch_size", np.int64(8), 8),
        ("batch_size", np.uint8(8), 8),
        ("batch_size", None, None),
        ("batch_size", "auto", "auto"),
        ("batch_size", Odd("auto"), "auto"),
        ("batch_size", 2**63 - 1, 2**63 - 1),
        ("timeout", np.float32(0.5), 0.5),
        ("timeout", 3, 3.0),
        ("timeout", None, None),
        ("check_images", np.True_, True),
        ("show_progress", 0, False),
        ("images", Odd("exact"), "exact"),
        ("errors", Word.SKIP, "skip"),
        ("errors", Odd("return"), "return"),
        ("reader", np.str_("thread"), "thread"),
        ("result", Enum("Kind", {"ARROW": "arrow"}, type=str).ARROW, "arrow"),
    ],
)
def test_a_value_of_another_class_is_read_as_what_it_is(name, value, read):
    found = getattr(read_options({name: value}), name)
    assert found == read
    assert type(found) is type(read)


def test_every_option_is_checked_and_documented():
    assert set(CHECKS) == set(Options.__struct_fields__)
    inherited = set()
    for kind in (CallOptions, StreamOptions, EncodeOptions):
        names = set(kind.__annotations__)
        assert names <= set(CHECKS)
        assert all(f"{name}:" in kind.__doc__ for name in names - inherited)
        inherited |= names
    assert read_options({}) == DEFAULTS


@pytest.mark.parametrize("limit", [True, "3", 3.0, math.nan, None, Hostile()])
def test_a_limit_of_a_wrong_type(limit):
    with pytest.raises(InputTypeError, match="limit"):
        check_limit(limit)


@pytest.mark.parametrize("limit", [0, -1, 2**31, 2**63, 10**400, np.uint64(2**63)])
def test_a_limit_that_no_server_can_take(limit):
    with pytest.raises(InputValueError, match="limit"):
        check_limit(limit)
    assert check_limit(np.int64(7)) == 7


class Broken(Mapping):
    def __init__(self, **values):
        self._values = values

    def __getitem__(self, key):
        raise RuntimeError("hostile")

    def __iter__(self):
        return iter(self._values)

    def __len__(self):
        return len(self._values)


@pytest.mark.parametrize(
    "parameters",
    [
        {"model_name": "\ud800"},
        {"model_name": "ViT\udcff"},
        {"key\ud800": 1},
        {"key": "\udfff"},
        {"key": [{"inner": "\ud800"}]},
        {"key": object()},
        {"key": Hostile()},
        {7: "seven"},
        {"key": 10**400},
        {"key": math.nan},
        {"key": [math.inf]},
        {"key": {"inner": {1, 2}}},
        {"key": Broken(inner=1)},
        {"key": np.array([1])},
        Broken(key=1),
    ],
)
def test_parameters_that_cannot_be_sent_are_one_error_on_every_scheme(client, parameters):
    for verb in ("encode", "index", "search", "rank", "stream"):
        content = [Document(text="a", matches=[Document(text="b")])] if verb == "rank" else ["a"]
        with pytest.raises(InputTypeError, match="parameters"):
            list(getattr(client, verb)(content, parameters=parameters))


def test_an_out_of_another_width_is_to_blame_itself(client, call):
    for wide, dtype in ((0, "float32"), (1, "float16"), (511, "float32"), (513, "float16")):
        out = np.zeros((2, wide), dtype)
        with pytest.raises(InputValueError, match=rf"out has rows of {wide} numbers, the server's have 512"):
            call(client, "encode", ["a", "b"], out=out)


def test_an_out_with_too_few_rows_is_to_blame_itself(client, call):
    with pytest.raises(InputValueError, match="out has 1 rows"):
        call(client, "encode", iter(["a", "b"]), out=np.zeros((1, 512), np.float32))


def test_profile_checks_its_time():
    with Client("grpc://127.0.0.1:9") as client, pytest.raises(InputTypeError, match="timeout"):
        client.profile("a", timeout="soon")


def test_a_size_goes_with_crops_alone():
    assert read_options({"images": "exact", "image_size": np.int64(336)}).image_size == 336
    with pytest.raises(InputValueError, match=r"image_size= goes with images='exact', 'jpeg95' or 'webp90'"):
        read_options({"images": "original", "image_size": 336})


def test_a_cosine_goes_with_loss_alone():
    assert read_options({"images": "webp90", "min_fidelity": np.float32(0.5)}).min_fidelity == 0.5
    assert read_options({"images": "jpeg95"}).min_fidelity == 0.999
    for images in ("original", "exact"):
        with pytest.raises(InputValueError, match=r"min_fidelity= goes with images='jpeg95' or 'webp90'"):
            read_options({"images": images, "min_fidelity": 0.5})
