import pytest
from casdk._rust import Kind, kind_of_uri, read_uri


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("cat.png", Kind.PATH),
        ("two words", Kind.PATH),
        ("data:,a", Kind.DATA_URI),
        ("file:///cat.png", Kind.FILE_URL),
        ("HTTP://host/cat.png", Kind.WEB_URL),
        ("\udcff.png", Kind.PATH),
    ],
)
def test_what_a_uri_leads_to(uri, kind):
    assert kind_of_uri(uri) == kind


def test_a_file_is_read_within_its_limit(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_uri(str(file), 5) == b"12345"
    assert read_uri(file.as_uri(), 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes, more than the 4 of max_bytes"):
        read_uri(str(file), 4)
    with pytest.raises(FileNotFoundError):
        read_uri(str(tmp_path / "none"), 5)
    assert read_uri("data:,12345", 5) == b"12345"
