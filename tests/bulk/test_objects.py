"""Objects of a store: each is written under a condition, which is about the version that a store says."""

import pytest
from casdk.bulk.objects import Objects, is_same


@pytest.fixture
def objects(bucket):
    return Objects(f"{bucket.url}/deep/rows")


def test_an_object_is_written_under_a_condition(objects):
    first = objects.put("a", b"first", None)
    assert objects.put("a", b"second", None) is None
    second = objects.put("a", b"second", first)
    assert objects.put("a", b"third", first) is None
    assert objects.find("a") == (b"second", second)
    assert objects.head("a") == (6, second)
    objects.delete("a", "none")
    assert (objects.put("a", b"third", second), objects.find("a"), objects.head("a")) == (None, None, None)


def test_those_below_a_url(objects, bucket):
    """What is called as the URL itself, which consoles make of a folder, and what begins like it, is not below it."""
    for key in ("deep/rows/", "deep/rows2/a", "deep/rows", "deep/rows/b/c", "deep/rows/a"):
        bucket.put(key, b"xyz")
    assert objects.sizes() == {"a": 3, "b/c": 3}
    objects.copy("a", "b/c")
    assert objects.where("b/c") == f"{bucket.url}/deep/rows/b/c"
    assert Objects(bucket.url).sizes().keys() >= {"deep/rows/a", "deep/rows2/a"}


def test_a_bucket_that_is_not_there(bucket):
    objects = Objects(f"{bucket.url}-none/rows")
    with pytest.raises(FileNotFoundError, match="there is no such object"):
        objects.put("a", b"", None)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"e_tag": "a"}, {"e_tag": "a"}, True),
        ({"e_tag": "a"}, {"e_tag": "b"}, False),
        ({"e_tag": "a", "version": "1"}, {"e_tag": '"a"', "version": "1"}, True),
        ({"e_tag": "a", "version": "1"}, {"e_tag": "a", "version": "2"}, False),
        ({"e_tag": "a", "version": "1"}, {"e_tag": "a"}, True),
        ({"version": "1"}, {"e_tag": "a"}, False),
    ],
)
def test_what_is_the_same_version(one, other, same):
    assert is_same(one, other) is is_same(other, one) is same
