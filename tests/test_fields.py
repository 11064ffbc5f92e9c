"""What the fields of a Document hold, through the Documents that hold it."""

import numpy as np
import pytest
from casdk import Document, NamedScore
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

arrays = hnp.arrays(st.sampled_from(["<f4", "<i8", "|u1"]), hnp.array_shapes(max_dims=2, max_side=3))


class TestNamedScore:
    def test_repr(self):
        assert repr(NamedScore(0.09604918956756592)) == "{'value': 0.09604918956756592}"
        assert repr(NamedScore()) == "{'value': 0.0}"
        assert repr(NamedScore(1.0, "softmax", ref_id="7")) == "{'value': 1.0, 'op_name': 'softmax', 'ref_id': '7'}"

    def test_a_missing_score_is_a_key_error(self):
        with pytest.raises(KeyError):
            Document().scores["cosine"]


@given(arrays, arrays)
def test_arrays_are_equal_by_dtype_shape_and_values(mine, theirs):
    are_equal = mine.dtype == theirs.dtype and np.array_equal(mine, theirs, equal_nan=mine.dtype == np.float32)
    assert (Document(id="a", tensor=mine) == Document(id="a", tensor=theirs)) == are_equal
    assert Document(id="a", tensor=mine) == Document(id="a", tensor=mine.copy())


def test_an_array_is_no_list_and_no_other_type_of_array():
    rows = np.zeros(2, np.float32)
    assert Document(id="a", embedding=rows) != Document(id="a", embedding=rows.astype(np.float64))
    assert Document(id="a", embedding=rows) != Document(id="a", embedding=[0.0, 0.0])
    assert Document(id="a", embedding=rows) != Document(id="a")


@given(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1))
def test_a_repr_has_the_begin_of_a_long_value(text):
    shown = text if len(text) < 59 else f"{text[:59]}…"
    quote = "'" if len(text) < 59 else ""
    assert repr(Document(id="i", text=text)) == f"Document(id='i', text='{shown}{quote})"


def test_a_repr_has_the_size_of_what_cannot_be_read():
    document = Document(id="i", blob=b"abc", tensor=np.zeros((2, 3), np.uint8), chunks=[Document()])
    shown = "blob=<3 bytes>, tensor=uint8[2, 3], chunks=<DocumentArray of 1 Document>"
    assert repr(document) == f"Document(id='i', {shown})"
