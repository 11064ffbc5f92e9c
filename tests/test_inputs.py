"""What each item is, a sentence or an image, by the table at the top of `casdk._content.inputs`."""

import enum
import os
import pathlib
import re

import numpy as np
import pytest
from casdk import Document, Image, ItemError, Text
from casdk._content import inputs as _inputs
from casdk._content.inputs import Sources, as_document, check_content, read_chunk, urls_of
from casdk._rust import IMAGE_EXTENSIONS, Kind, classify
from casdk.errors import EmptyItemError, FileMissingError, InputTypeError, ItemTypeError, NotAnImageError
from PIL import Image as Pillow

SENTENCES = """
she smiled, with pain
hello
hello world
setup
README.md
apple
apple.
png
.png
a photo of cat.png
a photo of a cat.jpg
look at https://example.com/a.png
http://example.com/with space
see /etc/passwd
and/or
either/or/neither
1/2
50% of data: what now?
data
data:
data: the new oil, they say
data:the new oil
ftp://example.com/a
gopher://example.com
httpx://example.com
https:/example.com
http:example.com
mailto:someone@example.com
C
C:
c:drive
cat.pngs
cat.png.txt
cat.svg
cat.pdf
cat.mp4
cat.jpg?
cat.png!
cat .png
~
~tilde
.
..
...
.hidden
#hashtag
@mention
100%
🙂
🙂 .png
naïve café
日本語の文章
日本語。
\\\\server
a\\b
tab\there
line\\nbreak
What is a .png file?
the .jpg
png jpg gif
O'Neill's
"quoted"
(parenthesis)
[bracket]
{brace}
<tag>
a=b
a&b
a;b
a,b
x.y.z
v1.2.3
3.14
-1
1e10
None
null
true
SELECT * FROM cats;
import numpy as np
    leading spaces
trailing spaces
""".strip("\n").split("\n")

IMAGES = [
    *((path, Kind.PATH) for path in (
        "apple.png", "..png", "apple.PNG",
        "apple.jpg", "apple.jpeg", "apple.JPE", "apple.jfif", "apple.gif", "apple.webp",
        "apple.bmp", "apple.dib", "apple.tif", "apple.tiff", "apple.avif", "apple.heic", "apple.heif", "nosuch.png",
        "dir/apple.png", "dir.d/apple.png", "a.b.c.png", "日本語.png", "🙂.webp", "/apple", "/no/such/file", "/a.png",
        "./apple", "./setup", "../apple", "../../x.jpg", "~/pictures/cat", "~/cat.png", "C:\\cat.png", "C:/cat.png",
        "d:\\x", "Z:/x",
        "photos/my holiday.png", "./my holiday.JPG", "/a b/c d.webp", "s3://bucket/my cat.png",
    )),
    *((uri, Kind.DATA_URI) for uri in (
        "data:,hello", "data:;base64,aGk=", "data:image/png;base64,aGk=", "DATA:image/png;base64,aGk=",
        "Data:text/plain,hi", "data:text/plain;charset=utf-8,hi", "data:image/svg+xml,%3Csvg/%3E",
        "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7",
    )),
    *((url, Kind.WEB_URL) for url in (
        "http://example.com/a.png", "https://example.com/a.png", "HTTPS://EXAMPLE.COM/A.PNG", "http://127.0.0.1:8000/x",
        "https://picsum.photos/200", "https://a/b.jpg?w=100", "http://a/b.png#frag", "https://a/b?img=x.jpg",
        "http://[::1]/x", "http://例え.jp/猫.png",
    )),
    *((url, Kind.FILE_URL) for url in (
        "file:///tmp/a.png", "FILE:///tmp/a", "file://localhost/tmp/a", "file:///tmp/with%20space.png",
    )),
]  # fmt: skip


def test_the_table_is_long_enough():
    assert len(set(SENTENCES)) + len({string for string, _ in IMAGES}) >= 120


@pytest.mark.parametrize("string", SENTENCES)
def test_sentence(string, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert classify([string]) == bytes([Kind.TEXT])


@pytest.mark.parametrize(("string", "kind"), IMAGES)
def test_image(string, kind):
    assert classify([string]) == bytes([kind])


@pytest.mark.parametrize("name", ["setup", "README.md", "hello world", "a photo of a cat"])
def test_a_sentence_stays_one_whatever_files_lie_around(name, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert classify([name]) == bytes([Kind.TEXT])


@pytest.mark.parametrize(
    ("string", "says"),
    [
        ("https://example.com/a b.png", "percent-encode it"),
        ("http://example.com/a\u3000b.JPG", "percent-encode it"),
        ("file:///tmp/with space.png", "percent-encode it"),
        ("photos/", r"write sorted\(Path\('photos/'\).iterdir\(\)\)"),
        ("./photos", "the name of a directory"),
        ("photos/2024", "the name of a directory"),
        ("/", "the name of a directory"),
        ("../", "the name of a directory"),
    ],
)
def test_what_is_neither_says_what_to_write(string, says, tmp_path, monkeypatch):
    (tmp_path / "photos" / "2024").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert classify([string]) == bytes([Kind.UNCLEAR])
    chunk = read_chunk(["a", string], [7, 8])
    [error] = chunk.errors.values()
    assert (error.index, error.item) == (8, string)
    with pytest.raises(ItemError, match=says):
        raise error
    assert read_chunk([Text(string)], [0]).kinds == bytes([Kind.TEXT])


@pytest.mark.parametrize("word", ["photos", "2024", "cat.d", "my photos", "a photo of photos/"])
def test_a_word_is_never_looked_for(word, tmp_path, monkeypatch):
    (tmp_path / word).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert classify([word]) == bytes([Kind.TEXT])


def test_a_directory_for_content_says_how_to_list_it(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputTypeError, match=r"write sorted\(Path\('photos/'\).iterdir\(\)\)"):
        check_content("photos/")
    with pytest.raises(InputTypeError, match=r"write \['photos/'\]"):
        check_content("photos/", Sources(local_files=False))


def test_white_space_in_a_path_needs_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a photo of cat.png", "./my photo", str(tmp_path / "my photo")]
    assert classify(names) == bytes([Kind.TEXT]) * 3
    (tmp_path / "a photo of cat.png").write_bytes(b"x")
    (tmp_path / "my photo").write_bytes(b"x")
    assert classify(names) == bytes([Kind.PATH]) * 3


def test_a_directory_does_not_turn_a_sentence_into_an_image(tmp_path, monkeypatch):
    (tmp_path / "a photo of cat.png").mkdir()
    monkeypatch.chdir(tmp_path)
    assert classify(["a photo of cat.png"]) == bytes([Kind.TEXT])


def kind_of(item):
    chunk = read_chunk([item], [7])
    assert not chunk.errors
    return chunk.kinds[0], chunk.items[0]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (Text("apple.png"), (Kind.TEXT, "apple.png")),
        (Text("https://example.com/a.png"), (Kind.TEXT, "https://example.com/a.png")),
        (Image("setup"), (Kind.PATH, "setup")),
        (Image("a photo of cat.png"), (Kind.PATH, "a photo of cat.png")),
        (Image("data:,x"), (Kind.DATA_URI, "data:,x")),
        (Image("https://example.com/x"), (Kind.WEB_URL, "https://example.com/x")),
        (Image(b"abc"), (Kind.BLOB, b"abc")),
        (Image(pathlib.Path("x y")), (Kind.PATH, "x y")),
        (pathlib.Path("a") / "b", (Kind.PATH, os.path.join("a", "b"))),
        (b"abc", (Kind.BLOB, b"abc")),
        (bytearray(b"abc"), (Kind.BLOB, b"abc")),
        (memoryview(b"abc"), (Kind.BLOB, b"abc")),
        (np.str_("hello"), (Kind.TEXT, "hello")),
        (np.str_("apple.png"), (Kind.PATH, "apple.png")),
        (enum.Enum("Named", {"ONE": "hello"}, type=str).ONE, (Kind.TEXT, "hello")),
    ],
)
def test_explicit_items(item, expected):
    assert kind_of(item) == expected


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tensor(channels):
    array = np.arange(4 * 6 * channels, dtype=np.uint8).reshape(4, 6, channels)[::-1, ::2]
    kind, item = kind_of(array)
    assert kind == Kind.TENSOR
    assert item.flags.c_contiguous
    np.testing.assert_array_equal(item, array)


def test_pil_image_travels_losslessly():
    from io import BytesIO

    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    kind, item = kind_of(Pillow.fromarray(pixels))
    assert kind == Kind.BLOB
    np.testing.assert_array_equal(np.asarray(Pillow.open(BytesIO(item))), pixels)


def test_document_passes_as_it_is():
    document = Document(text="x")
    assert kind_of(document) == (Kind.DOCUMENT, document)
    assert kind_of(document)[1] is document


@pytest.mark.parametrize(
    ("item", "kind", "says"),
    [
        (None, EmptyItemError, "None"),
        (42, ItemTypeError, "a int cannot be encoded"),
        (["nested"], ItemTypeError, "a list cannot be encoded"),
        (np.zeros((2, 2, 3)), ItemTypeError, r"uint8 with C 1, 3 or 4, not \[2, 2, 3\] float64"),
        (np.zeros((2, 2), np.uint8), ItemTypeError, r"not \[2, 2\] uint8"),
        (np.zeros((2, 2, 5), np.uint8), ItemTypeError, r"not \[2, 2, 5\] uint8"),
        (np.zeros((0, 2, 3), np.uint8), EmptyItemError, "no pixels"),
    ],
)
def test_unfit_item_is_named_by_index(item, kind, says):
    chunk = read_chunk(["fine", item, "fine too"], range(7, 10))
    error = chunk.errors[1]
    assert isinstance(error, kind)
    assert error.index == 8
    assert error.item is item
    with pytest.raises(kind, match=f"item 8: .*{says}"):
        raise error
    assert len(chunk.items) == len(chunk.kinds) == 3


class Broken:
    def __array__(self, dtype=None, copy=None):
        raise TypeError("no memory of mine to read")


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (np.zeros((3, 8, 9), np.uint8), "move the channels from the first to the last place"),
        (Broken(), "the Broken cannot be read as an array: no memory of mine to read"),
        (Image(Broken()), "no memory of mine"),
    ],
)
def test_arrays_that_are_no_pixels(item, says):
    with pytest.raises(ItemTypeError, match=f"item 0: .*{says}"):
        raise read_chunk([item], range(1)).errors[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("hello", r"write \['hello'\]"),
        (b"hello", r"write \[b'hello'\]"),
        (memoryview(b"hello"), r"write \[<memory"),
        (Pillow.new("RGB", (2, 2)), r"write \[(<PIL|Image)"),
        (pathlib.PurePosixPath("x.png"), r"write \[PurePosixPath\('x.png'\)\]"),
        (Text("x"), "write "),
        (Document(text="x"), "write "),
        ({"a": 1}, r"choose .keys\(\) or .values\(\)"),
        (np.zeros((2, 2, 3), np.uint8), r"write \[image\]"),
        (np.array("x"), "without dimensions"),
        (7, "not int"),
        (None, "not NoneType"),
    ],
)
def test_content_that_is_one_item(content, says):
    with pytest.raises(InputTypeError, match=says):
        check_content(content)


@pytest.mark.parametrize("kind", [Kind.TEXT, Kind.PATH, Kind.DATA_URI, Kind.FILE_URL, Kind.WEB_URL, Kind.BLOB])
def test_items_become_documents(kind):
    item = b"abc" if kind == Kind.BLOB else "abc"
    document = as_document(item, kind)
    field = {Kind.TEXT: "text", Kind.BLOB: "blob"}.get(kind, "uri")
    assert getattr(document, field) == item


def test_urls_are_found_once_each_also_in_candidates():
    documents = [
        "https://a/1",
        "https://a/1",
        "sentence",
        Document(uri="https://a/2", matches=[Document(uri="https://a/3"), Document(text="t", uri="https://a/4")]),
        Document(uri="https://a/5", blob=b"here already"),
    ]
    chunk = read_chunk(documents, range(5))
    assert urls_of(chunk.items, chunk.kinds, None) == ["https://a/1", "https://a/2"]
    assert urls_of(chunk.items, chunk.kinds, "matches") == ["https://a/1", "https://a/2", "https://a/3"]


def test_the_docstrings_table_is_the_rule():
    """The extensions and beginnings it lists are those that make a path, and no others of their kind."""
    table = _inputs.__doc__.split("=\n")
    cells = " ".join(line[:59] for line in table[2].splitlines())
    extensions = set(re.findall(r"\.[a-z]{3,4}\b", cells))
    beginnings = re.search(r"begins with (.*?) or a drive", cells)[1].replace("`", "").split()
    assert extensions == set(IMAGE_EXTENSIONS)
    assert beginnings == ["/", "./", "../", "~/"]
    assert classify([f"apple{extension}" for extension in extensions]) == bytes([Kind.PATH]) * len(extensions)
    assert classify([f"{beginning}apple" for beginning in beginnings]) == bytes([Kind.PATH]) * len(beginnings)
    listed = {pathlib.PurePath(string).suffix.lower() for string, kind in IMAGES if kind == Kind.PATH} - {""}
    assert listed <= extensions


@pytest.mark.parametrize("verb", ["encode", "index", "search"])
@pytest.mark.parametrize("name", ["cat.png", "/data/cat", "./my.png", "x" * 90 + ".png"])
def test_a_text_that_looks_like_a_file_is_told_how_to_be_one(connect, tmp_path, monkeypatch, verb, name):
    """A missing one, and one whose bytes are no image's; nothing is said of how to send it all the same."""
    monkeypatch.chdir(tmp_path)
    shown = name if len(name) < 60 else f"{name[:60]}..."
    with pytest.raises(FileMissingError) as caught:
        getattr(connect("grpc"), verb)([name])
    assert str(caught.value) == f'item 0: {name}: No such file or directory; if it is a sentence, write Text("{shown}")'
    if not name.startswith("/"):
        pathlib.Path(name).write_text("no image")
        with pytest.raises(NotAnImageError) as caught:
            getattr(connect("grpc"), verb)([name])
        assert str(caught.value).endswith(f' or heic; if it is a sentence, write Text("{shown}")')
        assert str(caught.value).count(name) == (1 if len(name) > 60 else 2)


@pytest.mark.parametrize("verb", ["encode", "index", "search"])
@pytest.mark.parametrize(
    "item",
    [
        pathlib.Path("cat.png"),
        Image("cat.png"),
        Image(pathlib.Path("cat.png")),
        Document(uri="cat.png"),
        "file:///nosuch.png",
    ],
)
def test_what_nobody_took_for_a_sentence_is_named_as_it_was_given(connect, verb, item):
    with pytest.raises(FileMissingError) as caught:
        getattr(connect("grpc"), verb)(["fine", item])
    assert caught.value.item is item
    assert "sentence" not in str(caught.value)
