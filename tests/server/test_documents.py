"""Which documents of a request an access path selects, and which fields a server completes."""

import pytest
from casdk.server.documents import count, finish, select
from casdk.wire.docarray_pb2 import DocumentProto
from casdk.wire.jina_pb2 import DataRequestProto
from hypothesis import given
from hypothesis import strategies as st


def tree(depth, width=2):
    """Return a document with so many levels of chunks and matches; each text is the way to its document."""

    def grow(document, way, left):
        document.text = way
        for position in range(width if left else 0):
            grow(document.chunks.add(), f"{way}c{position}", left - 1)
            grow(document.matches.add(), f"{way}m{position}", left - 1)

    root = DocumentProto()
    grow(root, "r", depth)
    return root


paths = st.lists(st.text("rcm", min_size=1, max_size=4), min_size=1, max_size=3)


@given(paths)
def test_an_access_path_means_the_documents_at_the_end_of_its_steps(steps):
    roots = [tree(2), tree(1)]
    found = select(roots, "@" + ",".join(steps))
    wanted = [step.replace("r", "") for step in steps]

    def ends(document):
        yield document
        for inner in (*document.chunks, *document.matches):
            yield from ends(inner)

    def way(document):
        return "".join(letter for letter in document.text[1:] if letter.isalpha())

    expected = {id(each) for root in roots for each in ends(root) if way(each) in wanted}
    assert {id(document) for _, document in found} == expected
    assert len(found) == len(expected) or "," not in "".join(steps)


def test_a_place_names_the_way_to_its_document():
    roots = [tree(0), tree(2)]
    names = [name for name, _ in select(roots, "@cm")]
    assert names[:2] == ["document 1, chunk 0, match 0", "document 1, chunk 0, match 1"]
    assert len(names) == 4


@pytest.mark.parametrize("path", ["", "r", "@", "@x", "@r,", "@r,,m", "@R", "@r m", 7, None, "@" + ",".join("r" * 18)])
def test_what_is_no_access_path(path):
    with pytest.raises(ValueError, match="is not of the form @r, @m, @c, @cm or @r,m") as refusal:
        select([], path)
    assert len(str(refusal.value)) < 250


def test_a_path_deeper_than_any_document_ends():
    assert select([tree(1)], "@" + "c" * 100_000) == []


def test_a_server_fills_in_ids_and_depths():
    request = DataRequestProto()
    request.header.status.code = 1
    request.routes.add(executor="before")
    outer = request.data.docs.docs.add(id="mine", granularity=3)
    inner = outer.chunks.add().matches.add(adjacency=9)
    assert finish(request) == 3
    assert not request.header.HasField("status")
    assert not request.routes
    assert outer.id == "mine"
    assert len({outer.id, outer.chunks[0].id, inner.id, ""}) == 4
    assert (outer.chunks[0].granularity, outer.chunks[0].parent_id) == (4, "mine")
    assert inner.adjacency == 9


@pytest.mark.parametrize(("value", "number"), [(1, 1), (7.0, 7), (2**32 - 1, 2**32 - 1)])
def test_a_count_is_a_whole_number(value, number):
    assert count({"limit": value}, "limit", 5) == number
    assert count({}, "limit", 5) == 5


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", None, float("nan"), float("inf"), 2.0**32])
def test_what_is_no_count(value):
    with pytest.raises(ValueError, match=r"parameter 'limit' is .* must be a whole number of at least 1"):
        count({"limit": value}, "limit", 5)
