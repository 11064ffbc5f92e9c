"""Thrift's compact protocol, read back by rules that are written down here once more."""

import pytest
from casdk.bulk.thrift import Long, varint, write_struct
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.recursive(
    st.integers(0, (1 << 31) - 1) | st.integers(0, (1 << 63) - 1).map(Long) | st.binary(max_size=200),
    lambda values: (
        st.dictionaries(st.integers(1, 15), values, max_size=3).map(lambda fields: dict(sorted(fields.items())))
        | st.lists(st.integers(0, 300), max_size=20)
        | st.lists(st.dictionaries(st.just(1), values, max_size=1), max_size=20)
    ),
    max_leaves=8,
)


class Reader:
    """Reads what was written."""

    def __init__(self, data):
        self.data, self.place = data, 0

    def byte(self):
        self.place += 1
        return self.data[self.place - 1]

    def varint(self):
        number = shift = 0
        while (byte := self.byte()) & 0x80:
            number, shift = number | (byte & 0x7F) << shift, shift + 7
        return number | byte << shift

    def value(self, kind):
        if kind in (5, 6):
            number = self.varint()
            return (Long if kind == 6 else int)(number >> 1 ^ -(number & 1))
        if kind == 8:
            size = self.varint()
            self.place += size
            return self.data[self.place - size : self.place]
        if kind == 9:
            head = self.byte()
            count = head >> 4 if head >> 4 < 15 else self.varint()
            return [self.value(head & 15) for _ in range(count)]
        assert kind == 12
        return self.struct()

    def struct(self):
        fields, number = {}, 0
        while head := self.byte():
            number += head >> 4
            fields[number] = self.value(head & 15)
        return fields


def kinds_of(value):
    if isinstance(value, dict):
        return {number: kinds_of(one) for number, one in value.items()}
    return [kinds_of(one) for one in value] if isinstance(value, list) else type(value)


@given(st.dictionaries(st.integers(1, 15), VALUES, max_size=4).map(lambda fields: dict(sorted(fields.items()))))
def test_what_is_written_can_be_read(fields):
    written = write_struct(fields)
    reader = Reader(written)
    found = reader.struct()
    assert (found, kinds_of(found), reader.place) == (fields, kinds_of(fields), len(written))


def test_what_is_not_there_is_left_out():
    assert write_struct({1: None, 2: "é", 3: None, 4: 1}) == bytes([0x28, 2]) + "é".encode() + bytes([0x25, 2, 0])


def test_a_number_of_more_bits_says_so():
    with pytest.raises(OverflowError, match="2147483648 is no number of 32 bits"):
        write_struct({1: {2: 1 << 31}})


@pytest.mark.parametrize(("number", "written"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\1"), (16384, b"\x80\x80\1")])
def test_a_number_has_groups_of_7_bits(number, written):
    assert varint(number) == written
