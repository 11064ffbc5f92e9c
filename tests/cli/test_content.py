"""What the paths of a command line stand for."""

from pathlib import Path

import pytest
from casdk import Document, Image, Text
from casdk.cli.content import Content, read_document
from casdk.errors import InputValueError


def test_lines_of_standard_input(pipe):
    pipe("a cat\n\n  apple.png \n")
    content = Content([])
    assert content.total is None
    assert [entry.item for entry in content] == ["a cat", "apple.png"]


def test_lines_as_sentences(pipe):
    pipe("apple.png\n")
    [entry] = Content(["-"], sentences=True)
    assert entry.item == Text("apple.png")


def test_a_terminal_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with pytest.raises(InputValueError, match="nothing to read"):
        Content([])


def test_files_directories_and_lines_in_order(tmp_path, images):
    (tmp_path / "deep").mkdir()
    for name in ("b.PNG", "a.jpeg", "deep/c.webp", "notes.md"):
        (tmp_path / name).touch()
    lines = tmp_path / "lines.txt"
    lines.write_text("a cat\n")
    content = Content([str(images["gif"]), str(tmp_path), str(lines)])
    assert [entry.name for entry in content] == [
        str(images["gif"]),
        *(str(tmp_path / name) for name in ("a.jpeg", "b.PNG", "deep/c.webp")),
        "a cat",
    ]
    assert content.total is None
    assert Content([str(tmp_path)]).total == 3


def test_a_file_named_is_an_image_whatever_it_is_called(tmp_path):
    (tmp_path / "picture").touch()
    [entry] = Content([str(tmp_path / "picture")])
    assert isinstance(entry.item, Image)
    assert entry.item.source == tmp_path / "picture"


def test_records(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"text": "a cat", "id": "c1", "tags": {"n": 1}}\n\n{"uri": "apple.png"}\n')
    first, second = Content([str(path)])
    assert isinstance(first.item, Document)
    assert (first.name, first.item.id, first.item.text, first.item.tags) == ("c1", "c1", "a cat", {"n": 1})
    assert isinstance(second.item, Document)
    assert (second.name, second.item.uri, len(second.item.id)) == ("apple.png", "apple.png", 32)


@pytest.mark.parametrize("line", ['{"text": 1}', "{", "[]", "{}", '{"text": "a", "uri": "b"}'])
def test_a_bad_record_is_named(tmp_path, line):
    path = tmp_path / "records.jsonl"
    path.write_text('{"text": "a cat"}\n' + line)
    with pytest.raises(InputValueError, match=r"records\.jsonl, line 2: "):
        list(Content([str(path)]))


def test_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(InputValueError, match="no such file"):
        Content([str(tmp_path / "missing.png")])
    with pytest.raises(InputValueError, match="no image in this directory"):
        Content([str(tmp_path)])


def test_bytes_that_are_no_lines(pipe):
    pipe(b"a cat\n\xff\xd8\xff\n")
    with pytest.raises(InputValueError, match="no UTF-8"):
        list(Content([]))


@pytest.mark.parametrize(
    ("words", "field"),
    [("a cat", "text"), ("apple.png", "uri"), ("https://there/apple", "uri"), ("why, apple.png?", "text")],
)
def test_words_are_read_as_encode_reads_them(words, field):
    assert getattr(read_document(words), field) == words


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.png").touch()
    [entry] = Content(["~/a.png"])
    assert Path(entry.name) == tmp_path / "a.png"
