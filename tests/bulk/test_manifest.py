"""What a manifest says, and what follows from it: held to a model of a disk that is cut off at any step."""

import msgspec
import numpy as np
import pytest
from casdk import BulkError
from casdk._calls.space import Space
from casdk.bulk.manifest import FORMAT, Digest, Manifest, Settings, Shard, read_manifest, write_manifest
from casdk.bulk.sources import to_lines
from hypothesis import given
from hypothesis import strategies as st

SETTINGS = Settings(shard_rows=10, batch_size=2, dtype="float32", normalize=False)


ROW = np.arange(1, 9, dtype=np.float32)
SPACE = str(Space.of({"text": ROW}))


def digest_of(items):
    digest = Digest()
    digest.add(to_lines(items), b"")
    return digest.text


def shard(number, items, failed=0):
    return Shard(number=number, rows=len(items), failed=failed, items=digest_of(items), files={}, checksum="")


def run(items, size, disk, steps):
    """Run over a list, for so many steps at most; returns the items that were encoded.

    A step encodes an item, names a shard's file, or writes the manifest: what a kill may come between.
    """
    encoded = 0
    manifest = read_manifest(disk["manifest"], "m") if "manifest" in disk else None
    if manifest is None:
        manifest = Manifest(settings=msgspec.structs.replace(SETTINGS, shard_rows=size))
    place = 0
    for done in manifest.shards:
        part = items[place : place + done.rows]
        manifest.check_items(done, len(part), digest_of(part), "", "t")
        place += done.rows
    while not manifest.finished:
        number = manifest.next_number
        assert manifest.start_of(number) == place or manifest.ended
        part = [] if manifest.ended else items[place : place + size]
        for _ in part:
            if not steps:
                return encoded
            steps -= 1
            encoded += 1
        if part:
            if not steps:
                return encoded
            steps -= 1
            disk[f"part-{number}"] = part
            manifest = manifest.with_shard(shard(number, part), 1)
        else:
            manifest = manifest.with_end()
        if not steps:
            return encoded
        steps -= 1
        disk["manifest"] = write_manifest(manifest)
        place += len(part)
    return encoded


@given(
    items=st.lists(st.text(max_size=2), max_size=40),
    size=st.integers(1, 12),
    kills=st.lists(st.integers(0, 30), max_size=6),
)
def test_a_run_that_is_killed_ends_as_one_that_is_not(items, size, kills):
    undisturbed, disk = {}, {}
    assert run(items, size, undisturbed, 1000) == len(items)
    encoded = sum(run(items, size, disk, steps) for steps in kills) + run(items, size, disk, 1000)
    assert disk == undisturbed
    assert encoded <= len(items) + len(kills) * size
    assert read_manifest(disk["manifest"], "m").rows == len(items)


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(["", "1 2"])), max_size=30), st.data())
def test_a_digest_is_the_same_in_pieces(items, data):
    def digest(cuts):
        found = Digest()
        for start, stop in zip([0, *cuts], [*cuts, len(items)], strict=True):
            part = items[start:stop]
            known = [(start + place, content) for place, (_, content) in enumerate(part) if content]
            found.add(to_lines([name for name, _ in part]), to_lines(known) if known else b"")
        return found.text

    cuts = sorted(data.draw(st.lists(st.integers(0, len(items)), max_size=4)))
    assert digest(cuts) == digest([])


@given(st.lists(st.text(max_size=3), max_size=8), st.lists(st.text(max_size=3), max_size=8))
def test_other_items_have_another_digest(one, other):
    assert (digest_of(one) == digest_of(other)) is (one == other)


shards = st.lists(st.integers(0, 10), max_size=5).map(
    lambda failed: tuple(shard(number, [str(number)] * 10, bad) for number, bad in enumerate(failed))
)


@given(shards, st.booleans(), st.none() | st.just(3), st.none() | st.just(SPACE), st.none() | st.just(16))
def test_it_is_read_as_it_was_written(shards, finished, begun, space, prefetch):
    manifest = Manifest(settings=SETTINGS, space=space, finished=finished, width=4, shards=shards)
    if prefetch is not None:
        manifest = msgspec.structs.replace(manifest, shards=()).with_requests(64, prefetch)
        assert manifest.settings == msgspec.structs.replace(SETTINGS, batch_size=64)
        manifest = msgspec.structs.replace(manifest, shards=shards)
    if begun is not None:
        manifest = manifest.with_begun(shard(len(shards), ["a"] * begun), 4)
    data = write_manifest(manifest)
    assert read_manifest(data, "m") == manifest
    assert data.count(b'"number"') == len(shards) + (begun is not None)
    assert manifest.rows == 10 * len(shards) + (begun or 0)
    assert manifest.failed == sum(one.failed for one in shards)


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 64), ("dtype", "float16"), ("parameters", {"model_name": "b"}), ("shard_rows", 1)],
)
def test_another_option_is_named(name, value):
    manifest = Manifest(settings=SETTINGS)
    manifest.check_settings(SETTINGS, "t")
    with pytest.raises(BulkError, match=f"begun with {name}=.*now it is .*overwrite=True"):
        manifest.check_settings(msgspec.structs.replace(SETTINGS, **{name: value}), "t")


def test_another_space_is_refused_and_one_that_is_near_is_not():
    unknown, manifest = Manifest(settings=SETTINGS), Manifest(settings=SETTINGS).with_space(SPACE)
    near = str(Space.of({"text": ROW + np.float32([0.1, 0, 0, 0, 0, 0, 0, 0])}))
    far = str(Space.of({"text": -ROW}))
    assert near != SPACE
    for now in (None, SPACE, near):
        manifest.check_space(now, "t")
    unknown.check_space(far, "t")
    with pytest.raises(BulkError, match=r"another model than the one that t was begun with: it.*overwrite=True"):
        manifest.check_space(far, "t")


@pytest.mark.parametrize(
    ("rows", "other", "said"),
    [
        (10, "item 3 is 'x' now, and was 'y'", "has changed since t was begun: item 3 is 'x'"),
        (7, "", "has become shorter: it ends after 7 items"),
        (10, "", "of the items 0 to 9, one has another content"),
    ],
)
def test_another_input_is_named(rows, other, said):
    done = shard(0, ["a"] * 10)
    manifest = Manifest(settings=SETTINGS, shards=(done,))
    manifest.check_items(done, 10, digest_of(["a"] * 10), "", "t")
    with pytest.raises(BulkError, match=said):
        manifest.check_items(done, rows, digest_of(["b"] * rows), other, "t")


def test_a_shard_that_is_not_full_is_the_last():
    assert not Manifest(settings=SETTINGS).ended
    assert not Manifest(settings=SETTINGS, shards=(shard(0, ["a"] * 10),)).ended
    assert Manifest(settings=SETTINGS, shards=(shard(0, ["a"] * 9),)).ended
    with pytest.raises(BulkError, match=r"has grown: t ends after 9 items.*update"):
        Manifest(settings=SETTINGS, shards=(shard(0, ["a"] * 9),)).refuse_growth("t")


def test_an_updated_target_has_shards_of_any_length():
    three = tuple(shard(number, ["a"] * rows) for number, rows in enumerate((10, 4, 10)))
    manifest = Manifest(settings=SETTINGS, shards=three, finished=True)
    assert [manifest.start_of(number) for number in range(4)] == [0, 10, 20, 30]
    manifest.check_order("t")
    updated = manifest.to_update()
    assert [updated.start_of(number) for number in range(4)] == [0, 10, 14, 24]
    assert not updated.ended
    assert read_manifest(write_manifest(updated.with_end()), "m").updated
    with pytest.raises(BulkError, match=r"t was updated, so .* update=True"):
        updated.check_order("t")


def test_a_shard_may_be_replaced():
    manifest = Manifest(settings=SETTINGS, shards=(shard(0, ["a"] * 10, 3), shard(1, ["b"] * 10, 2)))
    manifest = manifest.with_begun(shard(2, ["c"], 1), 4)
    for number in range(3):
        manifest = manifest.with_replaced(shard(number, ["a"] * 7))
    assert (manifest.rows, manifest.failed) == (21, 0)
    assert [one.number for one in manifest.entries] == [0, 1, 2]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "no manifest"),
        (b"[]", "no manifest"),
        (b'{"casdk": %d}' % (FORMAT + 1), "later version"),
        (b"{}", "no man"),
        (write_manifest(Manifest(settings=SETTINGS, space=SPACE[:-1])), "no manifest of a bulk run: space must be"),
    ],
)
def test_what_is_no_manifest_is_refused(data, said):
    with pytest.raises(BulkError, match=said):
        read_manifest(data, "rows.casdk.json")
