"""Arrays and structs of messages against NumPy, JSON and google protobuf."""

import json

import numpy as np
import pytest
from casdk.wire.docarray_pb2 import NdArrayProto
from casdk.wire.values import array_of, plain, put_array, shown
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

NUMBERS = st.sampled_from(["|b1", "|u1", "|i1", "<u2", "<i4", ">i8", "<f2", "<f4", ">f4", "<f8"])
arrays = hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=0, max_dims=8, min_side=0, max_side=3))
values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


@given(arrays)
def test_an_array_comes_back(array):
    proto = NdArrayProto()
    put_array(proto, array)
    found = array_of(NdArrayProto.FromString(proto.SerializeToString()))
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)
    assert not found.flags.writeable


def dense(dtype="<f4", shape=(1,), buffer=bytes(4)):
    proto = NdArrayProto()
    proto.dense.dtype, proto.dense.buffer = dtype, buffer
    proto.dense.shape.extend(shape)
    return proto


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (NdArrayProto(), "the array is not dense"),
        (dense(shape=[1] * 9), "an array of 9 axes; at most 8 are read"),
        (dense("f4,f4"), "no dtype 'f4,f4'"),
        (dense("(2,3)f4"), "no dtype"),
        (dense("O" * 500), "no dtype 'OOO"),
        (dense("nothing"), "no dtype 'nothing': "),
        (dense("|O8"), "an array of dtype '|O8' holds no numbers"),
        (dense("<c8", buffer=bytes(8)), "holds no numbers"),
        (dense("<U4"), "holds no numbers"),
        (dense(buffer=bytes(3)), "buffer size"),
        (dense(shape=[2]), "cannot reshape"),
    ],
)
def test_what_is_no_array_of_numbers(proto, words):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        array_of(proto)
    assert words in str(refusal.value)
    assert len(str(refusal.value)) < 300


@given(st.dictionaries(st.text(max_size=9), values, max_size=4))
def test_a_struct_is_what_google_reads_in_it(parameters):
    struct = Struct()
    struct.update(parameters)
    assert plain(struct) == MessageToDict(struct) == json.loads(json.dumps(parameters))


@pytest.mark.parametrize("value", ["x" * 10**6, ["x"] * 10**6, {"x" * 10**6: 1}, "short", 7])
def test_a_value_is_shown_as_far_as_it_is_short(value):
    text = shown(value)
    assert len(text) <= 103
    assert text.startswith(repr(value)[:90])
    assert text.endswith("...") is (len(repr(value)) > 100)
