"""Keys of items, and the index of those that a target has."""

from collections import Counter

from casdk.bulk.items import CONTENT_BYTES, Contents, Index, contents_of, keys_of
from hypothesis import given
from hypothesis import strategies as st

ITEMS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["", "1 2", "1 3"])), max_size=12)


def noted(items):
    contents = Contents()
    for place, (_, content) in enumerate(items):
        if content:
            contents.note(place, content)
    assert contents_of({place: content for place, (_, content) in enumerate(items) if content}, len(items)) == (
        contents.of(len(items))
    )
    return contents.of(len(items))


def split(items):
    return [name for name, _ in items], noted(items)


def test_what_is_noted_has_its_place():
    contents = Contents()
    assert contents.of(3) == b""
    contents.note(1, "x")
    contents.note(4, "y\udcff")
    found = contents.of(6)
    assert len(found) == 6 * CONTENT_BYTES
    known = [any(found[place * CONTENT_BYTES :][:CONTENT_BYTES]) for place in range(6)]
    assert known == [False, True, False, False, True, False]


@given(ITEMS, ITEMS)
def test_an_index_knows_as_many_as_there_are(there, now):
    """Against a multiset: an item that is there twice and once in the input is kept once, in its first row."""
    index = Index(keys_of(*split(there)))
    rows = index.look_up(*split(now))
    missing = [item for item, row in zip(now, rows, strict=True) if row is None]
    assert all(there[row] == item for item, row in zip(now, rows, strict=True) if row is not None)
    assert Counter(missing) == Counter(now) - Counter(there)
    staying = [item for item, stays in zip(there, index.stays, strict=True) if stays]
    assert Counter(staying) == Counter(now) & Counter(there)
    for item in set(there):
        rows = [stays for one, stays in zip(there, index.stays, strict=True) if one == item]
        assert rows == sorted(rows, reverse=True)
    left = Counter(name for name, _ in there) - Counter(name for name, _ in staying)
    assert index.replaced == (left & Counter(name for name, _ in missing)).total()
