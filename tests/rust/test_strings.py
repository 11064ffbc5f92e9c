"""Lists of strings: which ones UTF-8 can express, and their plain encoding in Parquet, compared with Python's."""

import struct

import pytest
from casdk._rust import are_strings, pack_strings
from hypothesis import given
from hypothesis import strategies as st

ANY_TEXT = st.text(st.characters(codec=None))
"""Also with lone surrogates."""


class Named(str):
    """A subclass, which may have methods of its own."""


def is_plain(item):
    if type(item) is not str:
        return False
    try:
        item.encode()
    except UnicodeEncodeError:
        return False
    return True


@given(st.lists(st.one_of(st.text(), st.text(), ANY_TEXT, st.integers(), st.builds(Named, st.text()))))
def test_strings_are_told_from_everything_else(items):
    assert are_strings(items) is all(map(is_plain, items))


def test_only_lists_are_looked_at():
    with pytest.raises(TypeError):
        are_strings("abc")


@given(st.lists(st.text()))
def test_strings_are_packed_as_python_packs_them(strings):
    encoded = [string.encode() for string in strings]
    plain = b"".join(struct.pack("<I", len(string)) + string for string in encoded)
    bounds = (min(strings).encode(), max(strings).encode()) if strings else None
    assert pack_strings(strings) == (plain, bounds)


def test_what_is_no_string_is_not_packed():
    with pytest.raises(UnicodeEncodeError):
        pack_strings(["a", "\ud800"])
    with pytest.raises(TypeError):
        pack_strings(["a", 1])
