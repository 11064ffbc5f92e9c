"""A folder that several runs have begun is finished by one or by others, and the other way round, with nothing lost."""

import msgspec
import pytest
from casdk import BulkError, bulk
from casdk.bulk.call import make_run
from casdk.bulk.manifest import Manifest, Settings, Shard
from casdk.bulk.regrouping import WholeTarget, hand_out
from casdk.bulk.shares import read_shares, remove_shares, shares_in
from casdk.bulk.storage import DiskStorage
from hypothesis import given
from hypothesis import strategies as st

TEXTS = [f"sentence {number}" if number % 20 else "" for number in range(50)]
SMALL = {"shard_rows": 8, "batch_size": 4}
SHARDS = 7


def begin(client, target, items, **share):
    """Begin a run, which is stopped after so many items, and finishes the request that the next one is in."""

    def stopping():
        yield from TEXTS[:items]
        run.stop(KeyboardInterrupt())
        yield from TEXTS[items:]

    run = make_run(client, target, stopping(), {**share, **SMALL})
    with pytest.raises(KeyboardInterrupt):
        run.run()


def finish(client, target, of):
    """Finish it, by so many runs, or by a single one; returns how many rows that encoded."""
    if of is None:
        return client.encode_to(target, TEXTS, **SMALL).encoded
    assert hand_out(str(target), of)
    encoded = [client.encode_to(target, TEXTS, shard=(index, of), **SMALL).encoded for index in range(of)]
    assert bulk.merge(target).rows == len(TEXTS)
    return sum(encoded)


@pytest.mark.parametrize("of", [None, 2, 5])
@pytest.mark.parametrize("begun", [{None: 26}, {0: 50, 2: 26}, {1: 20}], ids=["by one", "by two of three", "by 1/3"])
def test_begun_by_some_and_finished_by_others(client, tmp_path, held, begun, of):
    target, made = tmp_path / "rows", 0
    for index, items in begun.items():
        if items == len(TEXTS):
            made += client.encode_to(target, TEXTS, shard=(index, 3), **SMALL).encoded
            continue
        begin(client, target, items, **({} if index is None else {"shard": (index, 3)}))
        manifests = WholeTarget(str(target), "float32").read_manifests()
        made += sum(shard.rows for shard in manifests[-1].shards)
    # A run that was stopped in a shard may lose what it had of that.
    assert len(TEXTS) - made - SMALL["shard_rows"] <= finish(client, target, of) <= len(TEXTS) - made
    client.encode_to(tmp_path / "one", TEXTS, **SMALL)
    assert held(target) == held(tmp_path / "one")


def test_a_single_run_keeps_what_comes_behind_a_gap(client, tmp_path):
    target = tmp_path / "rows"
    client.encode_to(target, TEXTS, shard=(1, 2), **SMALL)
    begin(client, target, 18)  # it has shard 0, took over shard 1, and is in shard 2
    whole = WholeTarget(str(target), "float32").read_manifest()
    assert [shard.number for shard in (*whole.shards, whole.begun, *whole.ahead)] == [0, 1, 2, 3, 5]
    with pytest.raises(BulkError, match="item 24 is 'another' now"):
        client.encode_to(target, [*TEXTS[:24], "another", *TEXTS[25:]], **SMALL)
    with pytest.raises(BulkError, match=r"has become shorter: it ends after 32 items at most, and .* rows up to 48"):
        client.encode_to(target, TEXTS[:32], **SMALL)
    with pytest.raises(BulkError, match="is whole, or of a run without shard="):
        client.encode_to(target, TEXTS, shard=(1, 2), **SMALL)
    assert client.encode_to(target, TEXTS, **SMALL).encoded == 10  # shard 4, and the 2 rows of shard 6


def test_what_does_not_fit_together_is_left_alone(client, tmp_path, held):
    target = tmp_path / "rows"
    client.encode_to(target, TEXTS, shard=(0, 2), **SMALL)
    client.encode_to(target, TEXTS, shard=(1, 2), shard_rows=8, batch_size=2)
    before = held(target)
    with pytest.raises(BulkError, match="shard 0/2 was made with batch_size=4, and shard 1/2 with 2"):
        client.encode_to(target, TEXTS, **SMALL)
    with pytest.raises(BulkError, match="shard 0/2 was made with batch_size=4"):
        hand_out(str(target), 3)
    assert {**before, "_lock": b""} == {**held(target), "_lock": b""}


def test_what_is_handed_out_and_what_is_not(client, tmp_path):
    target = tmp_path / "rows"
    assert hand_out(str(target), 2)
    assert shares_in(DiskStorage(str(target))) == []
    begin(client, target, 26)
    with pytest.raises(BulkError, match="was begun before: resume=True goes on"):
        hand_out(str(target), 2, resume=False)
    assert hand_out(str(target), 2)
    assert hand_out(str(target), 2)
    assert [manifest.rows for manifest in read_shares(DiskStorage(str(target)))] == [16, 12]
    assert hand_out(str(target), 2, overwrite=True)
    assert shares_in(DiskStorage(str(target))) == []
    client.encode_to(target, TEXTS, **SMALL)
    assert not hand_out(str(target), 2)


def test_a_step_between_the_two_that_was_killed_is_made_again(client, tmp_path, monkeypatch):
    """The manifest of the whole is the last to go, and counts as long as it is there."""
    target = tmp_path / "rows"
    begin(client, target, 26)
    with monkeypatch.context() as patched:
        patched.setattr(WholeTarget, "forget", lambda target: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            hand_out(str(target), 2)
    assert len(shares_in(DiskStorage(str(target)))) == 2
    assert finish(client, target, 3) == 50 - 28
    remove_shares(DiskStorage(str(target)))


@given(
    made=st.sets(st.integers(0, SHARDS - 1)),
    begun=st.booleans(),
    counts=st.lists(st.one_of(st.none(), st.integers(1, 4)), min_size=1, max_size=4),
)
def test_no_shard_is_lost_however_often_it_is_regrouped(made, begun, counts, tmp_path_factory):
    settings = Settings(shard_rows=8, batch_size=4, dtype="float32", normalize=False)
    target = WholeTarget(str(tmp_path_factory.mktemp("rows")), "float32")
    shards = {
        number: Shard(number=number, rows=8, failed=0, items=str(number), files={}, checksum="") for number in range(9)
    }
    first = next(number for number in range(SHARDS + 1) if number not in made)
    start = Manifest(
        settings=settings,
        width=8,
        shards=tuple(shards[number] for number in range(first)),
        begun=msgspec.structs.replace(shards[first], rows=3) if begun else None,
        ahead=tuple(shards[number] for number in sorted(made) if number > first),
    )
    target.write_manifest(start)
    for of in counts:
        if of is None:
            target.write_manifest(target.read_manifest())
        else:
            assert hand_out(target.name, of)
            assert len(shares_in(target.storage)) == of
            assert not target.is_whole
        assert target.read_manifest() == start


def test_a_folder_that_is_being_updated_is_not_divided(client, tmp_path):
    client.encode_to(tmp_path / "rows", TEXTS, **SMALL)
    target = WholeTarget(str(tmp_path / "rows"), "float32")
    target.write_manifest(target.read_manifest().to_update())
    with pytest.raises(BulkError, match=r"was updated, .* update=True"):
        hand_out(str(tmp_path / "rows"), 2)
    assert client.encode_to(tmp_path / "rows", TEXTS, update=True, **SMALL).encoded == 0
