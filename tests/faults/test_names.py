"""Images whose file names are not UTF-8 get their rows on every scheme."""

import os
from pathlib import Path

import numpy as np
import pytest
from casdk import Document, FileMissingError, Image, ItemTypeError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
KINDS = {
    "str": str,
    "relative str": os.path.relpath,
    "Path": Path,
    "Image": Image,
    "Document": lambda name: Document(uri=name),
    "file URL": lambda name: Path(name).as_uri(),
}


NAMES = (b"\xff\xfe.png", b"caf\xe9 with space.jpg", b"d\xe9/cat.png")


# A str with white space is a path by its separator or its file, which tests/test_inputs.py is about.
@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_encoded(make_server, connect_to, scheme, call, tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(PNG)
    client = connect_to(make_server(), scheme)
    [row] = call(client, "encode", [PNG])
    kinds = [kind for kind in KINDS if "str" not in kind or b" " not in name]
    items = [KINDS[kind](os.fsdecode(path)) for kind in kinds]
    for verb in ("encode", "index", "search"):
        for kind, found in zip(kinds, call(client, verb, items), strict=True):
            np.testing.assert_array_equal(found.embedding if isinstance(found, Document) else found, row, kind)


def test_a_missing_one_is_named(make_server, connect_to, scheme, call, tmp_path):
    client = connect_to(make_server(), scheme)
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/no\xff.png"))
    with pytest.raises(FileMissingError, match="item 1") as caught:
        call(client, "encode", ["a", path])
    assert caught.value.item == path


@pytest.mark.parametrize("text", ["a \udcff b", "\ud800", "\ud800.png"])
def test_a_sentence_has_no_half_characters(make_server, connect_to, scheme, call, text):
    client = connect_to(make_server(), scheme)
    with pytest.raises(ItemTypeError, match="surrogates not allowed"):
        call(client, "encode", [text])
