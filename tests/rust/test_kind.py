import pytest
from casdk._rust import Kind, classify

NAMES = ("TEXT", "PATH", "DATA_URI", "FILE_URL", "WEB_URL", "BLOB", "TENSOR", "DOCUMENT", "UNCLEAR")


def test_each_kind_is_a_byte_of_its_own():
    kinds = [getattr(Kind, name) for name in NAMES]
    assert len(set(kinds)) == len(NAMES)
    assert bytes(kinds)
    assert {name for name in vars(Kind) if name.isupper()} == set(NAMES)


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ("a sentence", Kind.TEXT),
        ("./cat.png", Kind.PATH),
        ("data:,a", Kind.DATA_URI),
        ("file:///cat.png", Kind.FILE_URL),
        ("https://host/cat.png", Kind.WEB_URL),
        ("https://host/my cat.png", Kind.UNCLEAR),
    ],
)
def test_strings_are_told_by_kind(item, kind):
    assert classify([item], look=False) == bytes([kind])
