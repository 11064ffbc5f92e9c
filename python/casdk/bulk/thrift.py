"""Thrift's compact protocol, in which a Parquet file says what is in it: it is written here, and never read.

A struct is a mapping from the numbers of its fields, in ascending order, to their values; ``None`` is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

__all__ = ["Long", "Struct", "varint", "write_struct"]

Struct: TypeAlias = Mapping[int, Any]
INT32, INT64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12
SHORT_LIST: Final = 15
"""Lists of fewer values have their length in the first byte."""


MOST_INT32: Final = (1 << 31) - 1


class Long(int):
    """A number that a struct has as one of 64 bits; an ``int`` has 32."""


def varint(number: int) -> bytes:
    """Return a number, not below 0, in groups of 7 bits, the lowest ones first."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def write_struct(fields: Struct) -> bytes:
    """Return a struct as bytes.

    Raises:
        OverflowError: A number is none of 32 bits, and no `Long`.
    """
    written, last = bytearray(), 0
    for number, value in fields.items():
        if value is not None:
            written.append((number - last) << 4 | _type_of(value))
            written += _write(value)
            last = number
    written.append(0)
    return bytes(written)


def _type_of(value: Any) -> int:
    if isinstance(value, int):
        return INT64 if isinstance(value, Long) else INT32
    if isinstance(value, str | bytes):
        return BINARY
    return STRUCT if isinstance(value, Mapping) else LIST


def _write(value: Any) -> bytes:
    if isinstance(value, int):
        if value > MOST_INT32 and not isinstance(value, Long):
            raise OverflowError(f"{value} is no number of 32 bits")
        return varint(value << 1)  # with the sign in the lowest bit, which none of these has
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return varint(len(value)) + value
    return write_struct(value) if isinstance(value, Mapping) else _write_list(value)


def _write_list(values: Sequence[Any]) -> bytes:
    count, of = len(values), _type_of(values[0]) if values else STRUCT
    head = bytes([count << 4 | of]) if count < SHORT_LIST else bytes([SHORT_LIST << 4 | of]) + varint(count)
    return head + b"".join(map(_write, values))
