"""The value of an option, of whatever class, is read once, or refused before anything is sent."""

import collections
import decimal
import enum
import fractions
import functools
import math
import types
from unittest.mock import MagicMock

import numpy as np
import pytest
from casdk import Client
from odd import OwnError, alike, turns_of


@pytest.fixture(scope="module")
def turns(server, expected):
    yield from turns_of(lambda scheme: Client(server.address(scheme)), expected)


class Lying(int):
    def __lt__(self, other):
        return False

    __gt__ = __lt__


class Raising(int):
    def __int__(self):
        raise OwnError


class NoNumber(float):
    def __float__(self):
        return math.nan

    def __gt__(self, other):
        return True


NUMBERS = {
    "a number of numpy": (np.int8(2), True),
    "a member of an enum": (enum.IntEnum("Odd", {"TWO": 2}).TWO, True),
    "more than a number of numpy holds": (np.uint64(2**64 - 1), False),
    "an array": (np.array(2), False),
    "a Decimal": (decimal.Decimal(2), False),
    "a Fraction": (fractions.Fraction(2), False),
    "an int that compares as it likes": (Lying(-5), False),
    "an int that raises": (Raising(2), False),
    "5,000 digits": (10**5000, False),
    "as many below 0": (-(10**5000), False),
    "a float that is none": (NoNumber(-2), False),
    "NaN": (np.float32("nan"), False),
    "a long double": (np.longdouble("1e4000"), False),
    "a time": (np.timedelta64(2, "s"), False),
    "a mock": (MagicMock(), False),
    "a text": ("2", False),
}


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("option", ["batch_size", "prefetch", "timeout", "limit"])
def test_odd_numbers(turns, kind, option):
    number, fits = NUMBERS[kind]
    if option == "timeout" and kind in ("an int that raises", "more than a number of numpy holds"):
        fits = True  # it is a number of seconds

    def act(turn):
        if option == "limit":
            return len(turn.call("search", ["a"], limit=number))
        return len(turn.call("encode", ["a"], **{option: number}))

    found = alike(turns, act)
    assert found == 1 if fits else found in ("InputTypeError", "InputValueError")


class Once:
    """Says what its dtype is one time, and something else the next."""

    asked = 0

    @property
    def dtype(self):
        self.asked += 1
        if self.asked > 1:
            raise OwnError
        return np.dtype(np.float16)


def test_a_dtype_is_asked_once(turns):
    assert alike(turns, lambda turn: str(turn.call("encode", ["a"], dtype=Once()).dtype)) == "float16"


def matrix(**named):
    return np.zeros((3, 512), np.float32).view(type("Odd", (np.ndarray,), named))


def failing(*_, **__):
    raise OwnError


OUT = {
    "masked": lambda: np.ma.zeros((3, 512), np.float32),
    "a matrix": lambda: np.zeros((3, 512), np.float32).view(np.matrix),
    "records": lambda: np.zeros((3, 512), np.float32).view(np.recarray),
    "items that raise": lambda: matrix(__getitem__=failing, __setitem__=failing, __len__=failing),
    "a shape that lies": lambda: matrix(shape=(10**6, 512)),
    "dimensions that lie": lambda: matrix(ndim=5),
    "a dtype that lies": lambda: matrix(dtype=np.dtype("f8")),
    "flags that lie": lambda: matrix(flags=types.SimpleNamespace(carray=False)),
    "part of another": lambda: np.zeros((6, 512), np.float32)[2:5],
}
NO_OUT = {
    "read-only": lambda: np.broadcast_to(np.float32(0), (3, 512)),
    "over itself": lambda: np.lib.stride_tricks.as_strided(np.zeros(512, np.float32), (3, 512), (0, 4)),
    "unaligned": lambda: np.frombuffer(bytearray(3 * 2048 + 1), np.float32, 3 * 512, 1).reshape(3, 512),
    "stepped": lambda: np.zeros((6, 512), np.float32)[::2],
    "turned": lambda: np.zeros((3, 512), np.float32)[::-1],
    "fortran": lambda: np.zeros((3, 512), np.float32, order="F"),
    "big-endian": lambda: np.zeros((3, 512), ">f4"),
    "records of one": lambda: np.zeros((3, 512), [("f0", "f4")]),
    "double, and says float": lambda: np.zeros((3, 512)).view(type("Odd", (np.ndarray,), {"dtype": np.dtype("f4")})),
    "with gaps, and says none": lambda: np.zeros((3, 1024), np.float32)[:, ::2].view(
        type("Odd", (np.ndarray,), {"flags": types.SimpleNamespace(c_contiguous=True, writeable=True, carray=True)})
    ),
    "no rows": lambda: np.zeros((0, 512), np.float32),
    "narrow": lambda: np.zeros((3, 511), np.float32),
}


@pytest.mark.parametrize("kind", OUT)
def test_odd_matrices_are_filled(turns, kind):
    def act(turn):
        out = OUT[kind]()
        found = turn.call("encode", ["a", "b", "c"], out=out)
        assert found is out
        return [turn.name_of(row) for row in np.ndarray.view(out, np.ndarray)]

    assert alike(turns, act) == ["a", "b", "c"]


@pytest.mark.parametrize("kind", NO_OUT)
def test_others_are_refused(turns, kind):
    assert alike(turns, lambda turn: turn.call("encode", ["a", "b", "c"], out=NO_OUT[kind]())) == "InputValueError"


def test_a_mock_of_a_matrix(turns):
    out = MagicMock(spec=np.zeros((3, 512), np.float32))
    assert alike(turns, lambda turn: turn.call("encode", ["a"], out=out)) == "InputTypeError"


def nested_in(depth, wrap):
    return {"a": functools.reduce(lambda inner, _: wrap(inner), range(depth), 1)}


def cycle():
    found = {}
    found["a"] = [found]
    return found


class Endless(collections.abc.Mapping):
    def __iter__(self):
        return iter("a")

    def __len__(self):
        return 1

    def __getitem__(self, key):
        return Endless()


class Key(str):
    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other):
        raise OwnError


PARAMETERS = {
    "a cycle": (cycle, False),
    "100,000 deep": (lambda: nested_in(100_000, lambda inner: {"a": inner}), False),
    "100,000 lists deep": (lambda: nested_in(100_000, lambda inner: [inner]), False),
    "endless": (Endless, False),
    "NaN": (lambda: {"a": [math.nan]}, False),
    "keys of bytes": (lambda: {b"a": 1}, False),
    "keys of numbers inside": (lambda: {"a": {1: 2}}, False),
    "400 digits": (lambda: {"a": 10**400}, False),
    "a set": (lambda: {"a": {1}}, False),
    "a mock": (lambda: {"a": MagicMock()}, False),
    "an array": (lambda: {"a": np.zeros(2)}, False),
    "a surrogate": (lambda: {"a": "\ud800"}, False),
    "a key that raises": (lambda: {Key("drop_image_content"): 1}, False),
    "65 bits": (lambda: {"a": 2**64}, True),
    "numbers of numpy": (lambda: {"a": np.int64(3), "b": np.float32(1), "c": np.bool_(True)}, True),
    "an enum": (lambda: {"a": enum.StrEnum("Odd", {"A": "b"}).A}, True),
    "a chain": (lambda: collections.ChainMap({"a": 1}), True),
    "keys that lie": (
        lambda: type("Odd", (dict,), {"keys": lambda _: ["x"], "__getitem__": lambda *_: "y"})(a=1),
        True,
    ),
    "a length that lies": (lambda: type("Odd", (dict,), {"__len__": lambda _: 0})(a=1), True),
    "a mock of a dict": (lambda: MagicMock(spec=dict), True),
}


@pytest.mark.parametrize("kind", PARAMETERS)
def test_odd_parameters(turns, kind):
    make, fits = PARAMETERS[kind]
    found = alike(turns, lambda turn: turn.encode(["a"], parameters=make()))
    assert found == (["a"] if fits else "InputTypeError")


@pytest.mark.parametrize("kind", PARAMETERS)
def test_odd_parameters_of_merged_calls(server, expected, kind):
    make, fits = PARAMETERS[kind]
    connect = functools.partial(Client, coalesce=True)
    for turns in turns_of(lambda scheme: connect(server.address(scheme)), expected):
        found = alike(turns, lambda turn: turn.encode(["a"], parameters=make()))
        assert found == (["a"] if fits else "InputTypeError")


def test_a_models_name_of_a_class_of_its_own(turns):
    named = type("Odd", (str,), {"encode": failing, "__format__": failing, "__str__": failing})
    plain = alike(turns, lambda turn: turn.call("encode", ["a"], parameters={"model_name": "m"}).tolist())
    assert (
        alike(turns, lambda turn: turn.call("encode", ["a"], parameters={"model_name": named("m")}).tolist()) == plain
    )
