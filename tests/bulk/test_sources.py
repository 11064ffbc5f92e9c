"""Sources: every item has a name, and something that tells whether its content is what it was."""

import os

import numpy as np
import pytest
from casdk import BulkError, Document, Image, InputTypeError, InputValueError, Text, bulk
from casdk.bulk.sources import AsyncSource, Block, open_source, read_block, to_lines
from PIL import Image as Pillow


def taken(content, most=100):
    return open_source(content).take(most)


def test_texts_are_named_by_themselves():
    block = taken(["a", "b", "\ud800"])
    assert block == Block(["a", "b", "\ud800"], ["a", "b", "\\ud800"], {})
    to_lines(block.names)


def test_what_has_no_name_gets_its_place():
    pixels = np.zeros((2, 2, 3), np.uint8)
    source = open_source(iter(["a", b"1", pixels, Pillow.new("RGB", (1, 1)), Text("b"), object()]))
    assert source.total is None
    assert source.take(1).names == ["a"]
    block = source.take(10)
    assert block.names == ["1", "2", "3", "b", "5"]
    assert set(block.contents) == {0, 1, 2}
    assert source.take(1).items == []


def test_pairs_have_their_names():
    block = taken([("x", "a"), ("y", b"1"), ("z", Text("c"))])
    assert block.names == ["x", "y", "z"]
    assert block.items == ["a", b"1", Text("c")]
    assert set(block.contents) == {0, 1, 2}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"a", b"b"),
        (np.zeros((1, 2, 3), np.uint8), np.zeros((2, 1, 3), np.uint8)),
        (Pillow.new("L", (1, 1), 3), Pillow.new("L", (1, 1), 4)),
        (("n", "a"), ("n", "b")),
        (Document(blob=b"a"), Document(blob=b"b")),
        (Image(b"a"), Image(b"b")),
        (("n", Document(text="a")), ("n", Document(text="b"))),
    ],
)
def test_another_content_is_told_under_the_same_name(one, other):
    before, now = read_block([one], 0), read_block([other], 0)
    assert before.names == now.names
    assert before.contents != now.contents
    assert read_block([one], 0).contents == before.contents


def test_files_are_told_by_size_and_time(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"12")
    os.utime(path, ns=(5, 7))
    before = [taken([content]).contents for content in (path, Image(path), Image(str(path)))]
    assert before == [{0: "2 7"}] * 3
    os.utime(path, ns=(5, 8))
    assert taken([path]).contents == {0: "2 8"}
    assert taken([tmp_path / "none.png"]).contents == {0: "FileNotFoundError"}


def test_a_folder_of_files(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/2.jpg", "a.jpg", "c.png"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "b" / "lost.jpg").symlink_to("nowhere")
    found = bulk.files(tmp_path / "**" / "*.jpg")
    names = [str(tmp_path / name) for name in ("a.jpg", "b/2.jpg", "b/lost.jpg")]
    assert found.total == 3
    assert [name for name, _ in found] == names
    assert all(isinstance(item, Image) and item.source == name for name, item in found)
    assert [content for _, _, content in found.entries()][2] == "FileNotFoundError"
    assert taken(found).names == names
    both = bulk.files([tmp_path / "c.png", str(tmp_path / "*.jpg")])
    assert [name for name, _ in both] == [str(tmp_path / "a.jpg"), str(tmp_path / "c.png")]
    with pytest.raises(InputValueError, match=r"no file is called .*\.gif"):
        bulk.files(tmp_path / "*.gif")


def test_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n\n two.png \n")
    assert [item for _, item in bulk.lines(path)] == ["one", "two.png"]
    assert [item for _, item in bulk.lines(path, text=True)] == [Text("one"), Text("two.png")]
    records = tmp_path / "a.jsonl"
    records.write_text('{"text": "one"}\n{"uri": "two.png", "id": "2"}\n{"text": "a", "uri": "b"}\nnone\n')
    entries = list(bulk.lines(records).entries())
    assert [name for name, _, _ in entries] == ["one", "2", "line 3", "line 4"]
    assert entries[0][1] == Text("one")
    assert [type(item).__name__ for _, item, _ in entries[1:]] == ["Image", "Unreadable", "Unreadable"]
    assert entries[1][2] == '{"uri": "two.png", "id": "2"}'


@pytest.mark.parametrize(("name", "said"), [("a.csv", "reads .txt and .jsonl"), ("none.txt", "no such file")])
def test_what_is_no_file_of_lines_is_refused(tmp_path, name, said):
    with pytest.raises(InputValueError, match=said):
        bulk.lines(tmp_path / name)


def test_lines_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\n\xff\xfe\n")
    with pytest.raises(BulkError, match="is no UTF-8"):
        list(bulk.lines(tmp_path / "a.txt"))


@pytest.mark.parametrize("content", ["one", b"one", Text("a"), Document(text="a"), np.zeros((1, 1, 3)), 7])
def test_one_item_is_no_content(content):
    with pytest.raises(InputTypeError, match="must be an iterable of items"):
        open_source(content)


async def test_an_async_iterable():
    async def items():
        for number in range(5):
            yield b"%d" % number

    source = open_source(items())
    assert isinstance(source, AsyncSource)
    assert (await source.take(3)).names == ["0", "1", "2"]
    assert (await source.take(3)).names == ["3", "4"]
    assert (await source.take(3)).names == []


def test_pairs_are_rows_of_two_items():
    entries = [("1", (Image(b"x"), Text("a")), "x"), ("2", (Image(b"y"), object()), "y")]
    named = bulk.Named(lambda: iter(entries), 2, ("image", "text"))
    plain, captioned = named.open().take(10), named.open(captions=True).take(10)
    assert len(plain) == len(captioned) == 2
    assert plain.items == [part for _, pair, _ in entries for part in pair]
    assert (plain.names, plain.contents, plain.captions) == (["1", "2"], {0: "x", 1: "y"}, [])
    assert captioned.captions == ["a", ""]


@pytest.mark.parametrize(
    ("content", "holds"),
    [("a.txt", ()), ("a.jsonl", ()), ("a.png", ("image",))],
)
def test_what_a_source_holds(tmp_path, content, holds):
    (tmp_path / content).write_text("a\n")
    read = bulk.files if content.endswith(".png") else bulk.lines
    assert read(tmp_path / content).holds == open_source(read(tmp_path / content)).holds == holds
    assert open_source(["a"]).holds == ()


def test_captions_are_the_texts(tmp_path):
    (tmp_path / "a.txt").write_text("one.png\ntwo\n")
    source = open_source(bulk.lines(tmp_path / "a.txt", text=True), captions=True)
    assert (source.holds, source.take(9).captions) == (("text",), ["one.png", "two"])
    source = open_source([("1", Text("\ud800")), ("2", Text("b"))], holds=("text",), captions=True)
    assert (source.holds, source.take(9).captions) == (("text",), ["\\ud800", "b"])
    assert open_source([Image("a.png")], holds=("image",), captions=True).take(9).captions == []
