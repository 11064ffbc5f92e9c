"""Which items the paths and words of a command line name."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from casdk import Document, Image, Text
from casdk.cli.content import Content, Entry, read_document, stored
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
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(InputValueError, match=r"link\.png: a link to .*gone\.png, which does not exist"):
        Content([str(tmp_path / "link.png")])


def test_links_in_a_directory(tmp_path):
    """Links to directories are followed, loops are not, and what is broken is an item that fails by its name."""
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    (photos / "deep").mkdir(parents=True)
    elsewhere.mkdir()
    for path in (photos / "a.png", photos / "deep/b.png", elsewhere / "c.png"):
        path.touch()
    (photos / "album").symlink_to(elsewhere)
    (photos / "deep/loop").symlink_to(photos)
    (elsewhere / "loop").symlink_to(elsewhere)
    (photos / "itself").symlink_to(photos / "itself")
    (photos / "gone.png").symlink_to(tmp_path / "gone.png")
    (photos / "unmounted").symlink_to(tmp_path / "unmounted")
    for name in (".#lock.file", "notes.txt"):
        (photos / name).symlink_to("of no image")
    names = [str(Path(entry.name).relative_to(photos)) for entry in Content([str(photos)])]
    assert names == ["a.png", "album/c.png", "deep/b.png", "gone.png", "itself", "unmounted"]


@pytest.fixture
def locked():
    """A directory with an image and a directory that nobody may look into; root, who may, is somebody else here."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "a.png").touch()
    (folder / "locked").mkdir(mode=0o000)
    us = os.geteuid()
    if us == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(us)
    (folder / "locked").chmod(0o700)
    shutil.rmtree(folder)


def test_a_directory_that_may_not_be_read(locked):
    with pytest.raises(InputValueError, match="locked: this directory cannot be read: Permission denied"):
        Content([str(locked)])
    content = Content([str(locked)], skip=True)
    assert [entry.name for entry in content] == [str(locked / "a.png")]
    assert [str(error) for error in content.unread] == [
        f"{locked / 'locked'}: this directory cannot be read: Permission denied"
    ]
    for name in ("locked", "locked/a.png"):
        with pytest.raises(InputValueError, match="Permission denied"):
            Content([str(locked / name)])


def test_a_directory_that_is_too_deep(too_deep):
    with pytest.raises(InputValueError, match="this directory cannot be read: File name too long"):
        Content([str(too_deep)])
    content = Content([str(too_deep)], skip=True)
    assert [Path(entry.name).name for entry in content] == ["a.png"]
    assert len(content.unread) == 1


@pytest.mark.parametrize(
    "word", ["a red apple", "black and/or white", "w/ a\tred apple", "why, apple.png?", "a " * 3000]
)
def test_a_sentence_among_paths(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [entry] = Content([word])
    assert entry == Entry(word, Text(word))
    Path(word[:200]).parent.mkdir(exist_ok=True)
    Path(word[:200]).touch()
    if len(word) < 200:
        [entry] = Content([word])
        assert isinstance(entry.item, Image)


@pytest.mark.parametrize(
    "word",
    [
        *("apple", "apple.png", "photos/", "my holiday.png", "photos/my holiday.png", "my photos/", "/data/my photos"),
        *("./my photos", "../my photos", "~/my photos", "~nobody/my photos", "my list.txt", "my items.jsonl"),
    ],
)
def test_what_looks_like_a_path_is_no_sentence(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputValueError, match=r"no such file; .* standard input"):
        Content([word])


@pytest.mark.parametrize("word", ["http://there/apple", "https://there/a.png?x=1", "data:image/png;base64,AAAA"])
def test_an_url_among_paths(word):
    [entry] = Content([word])
    assert entry == Entry(word, word)


def test_what_is_indexed_has_the_same_id_each_time(tmp_path, monkeypatch, pipe):
    """However it is named; a record's own id stays."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").touch()
    (tmp_path / "items.jsonl").write_text('{"text": "a cat", "id": "c1"}\n{"text": "a cat"}\n{"uri": "photos/a.png"}\n')
    (tmp_path / "lines.txt").write_text("a cat\nphotos/a.png\nhttps://there/a.png\ndata:image/png;base64,AAAA\n")

    def ids(*words, **options):
        return [stored(entry).id for entry in Content(list(words), **options)]

    picture = str(tmp_path / "photos/a.png")
    for word in ("photos", "photos/a.png", "./photos/../photos/", picture):
        assert ids(word) == [picture]
    given, cat, same_picture = ids("items.jsonl")
    assert (given, same_picture) == ("c1", picture)
    assert ids("a cat") != [picture]
    assert len(cat) == 32
    lines = ids("lines.txt")
    assert lines[:3] == [cat, picture, "https://there/a.png"]
    assert len(set(lines)) == 4
    assert ids("lines.txt") == lines
    sentences = ids("lines.txt", sentences=True)
    assert sentences[0] == cat
    assert picture not in sentences
    (odd,) = [stored(Entry("", Image(Path(os.fsdecode(b"/caf\xe9.png"))))).id]
    assert odd == "/caf\\xe9.png"


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


def test_what_all_items_are(tmp_path, images):
    (tmp_path / "lines.txt").write_text("a cat\n")
    (tmp_path / "records.jsonl").write_text('{"text": "a cat"}\n')
    image, lines, records = str(images["png"]), str(tmp_path / "lines.txt"), str(tmp_path / "records.jsonl")
    assert Content([image, "https://example.com/a.png"]).holds == ("image",)
    assert Content(["a red apple"]).holds == ("text",)
    assert Content([lines, "-"], sentences=True).holds == ("text",)
    for words, sentences in (([lines], False), ([records], True), ([image, "a red apple"], False), (["-"], False)):
        assert Content(words, sentences=sentences).holds == ()
