"""With `local_files=False` and `fetch_urls=False`, strangers cannot choose a file or a URL."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from casdk import Client, ConfigError, Document, Image, NotAllowedError, Text

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
DATA_URI = "data:image/png;base64,iVBORw0KGgo="


class Named(os.PathLike):
    """A path that says when it is asked for its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __fspath__(self) -> str:
        return self.name


FILES = {
    "path": lambda path: str(path),
    "relative path": lambda path: os.path.relpath(path),
    "word with an extension": lambda path: path.name,
    "name with white space": lambda path: str(path.with_name("my cat.png")),
    "PathLike": lambda path: path,
    "another PathLike": lambda path: Named(str(path)),
    "file URL": lambda path: path.as_uri(),
    "Image of a path": lambda path: Image(str(path)),
    "Image of a word": lambda path: Image("cat"),
    "Document": lambda path: Document(uri=str(path)),
    "Document of a file URL": lambda path: Document(uri=path.as_uri()),
    "home": lambda path: "~/cat.png",
}
URLS = {
    "URL": lambda url: url,
    "Image of a URL": lambda url: Image(url),
    "Document": lambda url: Document(uri=url),
    "URL in capitals": lambda url: url.replace("http", "HTTP"),
}


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    (tmp_path / "my cat.png").write_bytes(PNG)
    return path


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """What would be connected to, if anybody did."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.mark.parametrize("verb", ["encode", "index", "search"])
def test_no_file_is_opened(make_server, connect_to, scheme, call, cat, verb):
    client = connect_to(make_server(), scheme, local_files=False)
    for item in [make(cat) for make in FILES.values()]:
        with pytest.raises(NotAllowedError, match="local_files=False") as caught:
            call(client, verb, [Text("a"), item])
        assert caught.value.index == 1


@pytest.mark.parametrize("verb", ["encode", "index", "search"])
def test_no_url_is_fetched(make_server, connect_to, scheme, call, listener, verb):
    client = connect_to(make_server(), scheme, fetch_urls=False)
    for make in URLS.values():
        with pytest.raises(NotAllowedError, match="fetch_urls=False") as caught:
            call(client, verb, [Text("a"), make(f"http://127.0.0.1:{listener.getsockname()[1]}/cat.png")])
        assert caught.value.index == 1
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize("kind", ["matches", "chunks"])
def test_candidates_neither(make_server, connect_to, scheme, call, cat, kind):
    server = make_server()
    client = connect_to(server, scheme, local_files=False, fetch_urls=False)
    for uri, says in ((str(cat), "local_files=False"), ("http://127.0.0.1:9/", "fetch_urls=False")):
        query = Document(text="a", **{kind: [Document(text="b"), Document(uri=uri)]})
        with pytest.raises(NotAllowedError, match=f"match 1: .*{says}"):
            call(client, "rank", [query], source=kind)


def test_all_else_passes(make_server, connect_to, scheme, call, cat, monkeypatch):
    """Sentences, bytes, arrays and data URIs; some of the sentences name a folder beside the program."""
    monkeypatch.chdir(cat.parent)
    (cat.parent / "my dir").mkdir()
    client = connect_to(make_server(), scheme, local_files=False, fetch_urls=False)
    items = ["a cat", "my dir", "./my dir", "and/or", Text(str(cat)), PNG, Image(PNG), np.zeros((2, 2, 3), np.uint8)]
    items += [DATA_URI, Document(uri=DATA_URI), Document(blob=PNG)]
    assert np.isfinite(call(client, "encode", items)).all()


def test_no_string_is_looked_up(make_server, connect_to, scheme, call, cat, monkeypatch):
    """What exists and what does not are answered alike, so that nobody learns what files there are."""
    client = connect_to(make_server(), scheme, local_files=False)
    there, missing = str(cat), str(cat.with_name("no.png"))
    said = []
    for item in (there, missing, str(cat.parent), str(cat.parent / "nothing")):
        found = call(client, "encode", [Text("a"), item], errors="return")
        said.append([(type(error), str(error).replace(item, "")) for error in found.errors])
    assert said[0] == said[1]
    assert said[2] == said[3]


def test_other_items_get_their_rows(make_server, connect_to, scheme, call, cat, rows):
    client = connect_to(make_server(), scheme, local_files=False, coalesce=True)
    found = call(client, "encode", ["a", str(cat), "b"], errors="return")
    [error] = found.errors
    assert type(error) is NotAllowedError
    assert (error.index, error.item) == (1, str(cat))
    np.testing.assert_array_equal(found.embeddings[[0, 2]], rows(["a", "b"]))


@pytest.mark.parametrize("name", ["local_files", "fetch_urls"])
@pytest.mark.parametrize("value", [None, 0, 1, "no"])
def test_only_true_and_false(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be True or False"):
        Client("grpc://127.0.0.1:1", **{name: value})
