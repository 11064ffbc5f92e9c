"""A run that makes a share of the shards: which these are, what it refuses, and where it goes on."""

import asyncio

import pytest
from casdk import BulkError, ConfigError
from casdk.bulk.call import make_run
from casdk.bulk.manifest import Input, Share
from casdk.bulk.shares import Reading, shares_in
from casdk.bulk.storage import DiskStorage

TEXTS = [f"sentence {number}" for number in range(50)]
SMALL = {"shard_rows": 8, "batch_size": 4}


@pytest.mark.parametrize("items", [0, 1, 7, 8, 9, 24, 50])
def test_shares_are_all_of_it(items):
    shares = [Share(index=index, of=3) for index in range(3)]
    assert sum(share.rows_of(items, 8) for share in shares) == items
    for number in range(9):
        assert [str(share) for share in shares if share.makes(number)] == [f"{number % 3}/3"]


def test_reading_ends_at_a_shard_that_is_not_full():
    reading, other = Reading(8), Reading(8)
    for rows in (8, 8, 3):
        assert not reading.ended
        reading.add(rows, "digest")
        other.add(rows, "digest")
    assert (reading.ended, reading.shards, reading.input.items) == (True, 3, 19)
    assert reading.input == other.input != Input(items=19, digest="digest")


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_share_goes_on_and_then_all_of_it_is_there(client, tmp_path, mode):
    target = tmp_path / "rows"

    def go(run):
        return run.run() if mode == "sync" else asyncio.run(run.arun())

    def encode(items, share):
        return go(make_run(client, target, items, {"shard": share, **SMALL}))

    def items():
        yield from TEXTS[:27]
        stopped.stop(KeyboardInterrupt())
        yield from TEXTS[27:]

    stopped = make_run(client, target, items(), {"shard": (0, 3), **SMALL})
    with pytest.raises(KeyboardInterrupt):
        go(stopped)
    again = encode(TEXTS, (0, 3))
    assert (again.rows, again.encoded) == (18, 18 - 12)  # shards 0, 3 and 6, of 8, 8 and 2 rows
    assert encode(TEXTS, (0, 3)).encoded == 0
    assert encode(TEXTS, (2, 3)).encoded == 16
    assert sorted(path.name for path in target.glob("part-*")) == [f"part-{n:05d}.parquet" for n in (0, 2, 3, 5, 6)]
    assert shares_in(DiskStorage(str(target))) == [
        (f"_casdk.{index}-of-3.json", Share(index=index, of=3)) for index in (0, 2)
    ]


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([*TEXTS, "one more"], "the input has changed since .* among the 51 items"),
        ([*TEXTS[:8], "another", *TEXTS[9:]], "the input has changed since .* among the 50 items"),
        (["another", *TEXTS[1:]], "item 0 is 'another' now"),
        (TEXTS[:-20], "has become shorter"),
    ],
)
def test_another_input_is_refused_also_where_others_encode_it(client, tmp_path, items, said):
    client.encode_to(tmp_path / "rows", TEXTS, shard=(0, 3), **SMALL)
    with pytest.raises(BulkError, match=said):
        client.encode_to(tmp_path / "rows", items, shard=(0, 3), **SMALL)


def test_what_else_is_refused(client, tmp_path):
    target = tmp_path / "rows"
    client.encode_to(target, TEXTS, shard=(0, 3), **SMALL)
    with pytest.raises(BulkError, match=r"of a run that shares .* with 2 others"):
        client.encode_to(target, TEXTS, shard=(1, 4), **SMALL)
    with pytest.raises(ConfigError, match="remove the folder"):
        client.encode_to(target, TEXTS, shard=(0, 3), overwrite=True, **SMALL)
    with pytest.raises(ConfigError, match="is for a folder"):
        client.encode_to(tmp_path / "rows.npy", TEXTS, shard=(0, 3))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "part-00000.parquet").write_bytes(b"of others")
    with pytest.raises(BulkError, match=r"part-00000\.parquet is there, and of no bulk run"):
        client.encode_to(tmp_path / "other", TEXTS, shard=(0, 3), **SMALL)
    assert client.encode_to(target, TEXTS, overwrite=True, **SMALL).encoded == 50
    with pytest.raises(BulkError, match="is whole, or of a run without shard="):
        client.encode_to(target, TEXTS, shard=(0, 3), **SMALL)
