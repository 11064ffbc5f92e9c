"""Nested documents and tags are sent as deep as servers read them; deeper ones are errors, on every scheme."""

import pytest
from casdk import Document, ItemTypeError


def nested(kind, depth):
    document = Document(text="a")
    for _ in range(depth):
        document = Document(text="a", **{kind: [document]})
    return document


def tagged(depth, outer=0):
    tags = {"leaf": 1}
    for _ in range(depth):
        tags = {"a": tags}
    document = Document(text="a", tags=tags)
    for _ in range(outer):
        document = Document(text="a", chunks=[document])
    return document


@pytest.mark.parametrize("kind", ["matches", "chunks"])
@pytest.mark.parametrize("depth", [32, 33, 64])
def test_documents_in_documents(client, call, kind, depth):
    [found] = call(client, "index", [nested(kind, depth)])
    assert found.embedding is not None


@pytest.mark.parametrize("kind", ["matches", "chunks"])
def test_documents_too_deep(client, call, kind):
    with pytest.raises(ItemTypeError, match="item 0: documents nested more than 64 deep"):
        call(client, "index", [nested(kind, 65)])


@pytest.mark.parametrize(("depth", "outer"), [(27, 0), (16, 33), (6, 64)])
def test_tags(client, call, depth, outer):
    [found] = call(client, "index", [tagged(depth, outer)])
    assert found.embedding is not None


@pytest.mark.parametrize(("depth", "outer"), [(29, 0), (64, 0), (18, 33), (8, 64), (500, 0)])
def test_tags_too_deep(client, call, depth, outer):
    with pytest.raises(ItemTypeError, match=r"item 0: .*tags\.a.*: is nested too deeply"):
        call(client, "index", [tagged(depth, outer)])
