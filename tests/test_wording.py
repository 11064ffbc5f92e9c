"""The parts that the messages of errors are built from."""

import pytest
from casdk._wording import class_name, message_of, shown


class OddError(Exception):
    """What cannot say anything of itself."""

    def __repr__(self):
        raise RuntimeError

    __str__ = __repr__


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        ("a", "'a'"),
        (b"ab", "b'ab'"),
        (b"a" * 61, "<61 bytes>"),
        (bytearray(61), "<61 bytes>"),
        ("a" * 1000, "'" + "a" * 59 + "…"),
        (OddError(), "a OddError"),
        (["\ud800"], "['\\ud800']"),
    ],
    ids=["number", "text", "bytes", "many bytes", "many bytes that change", "long text", "odd", "surrogate"],
)
def test_a_value_is_shown_short(value, text):
    assert shown(value) == text


def test_only_the_beginning_of_a_long_text_is_looked_at():
    assert len(shown("ä" * 10_000_000)) == 61


@pytest.mark.parametrize(
    ("error", "message"),
    [(ValueError("wrong"), "wrong"), (OddError(), "OddError"), (ValueError("\ud800"), "ValueError")],
)
def test_the_message_of_an_error(error, message):
    assert message_of(error) == message


def test_a_class_that_does_not_tell_its_name_is_an_object():
    class Nameless(type):
        __name__ = property(lambda self: 1 / 0)

    assert class_name(Nameless("Any", (), {})()) == "object"
