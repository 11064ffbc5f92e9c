"""What several runs have made of a folder, joined: the bytes of a single run, or one sentence that says why not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from casdk import BulkError, Client, ConfigError, bulk
from casdk.bulk.shares import read_shares
from casdk.bulk.storage import DiskStorage
from casdk.testing import FaultServer

VICTIM = Path(__file__).with_name("victim.py")
TEXTS = [f"sentence {number}" if number % 20 else "" for number in range(50)]
SMALL = {"shard_rows": 8, "batch_size": 4}


def test_three_processes_at_once_leave_the_bytes_of_one_run(server, encoder, tmp_path, held, captions):
    """One of them is killed, and made again."""
    orders = {"url": server.address("grpc"), "source": f"lines:{captions}", "target": str(tmp_path / "many")}
    orders = [{**orders, "options": {**SMALL, "shard": [index, 3]}} for index in range(3)]
    orders[1]["item"] = 30
    runs = [subprocess.Popen([sys.executable, VICTIM, json.dumps(one)], stderr=subprocess.PIPE) for one in orders]
    said = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, -9, 0], said
    with pytest.raises(BulkError, match=r"the run of shard 1/3 is not finished, it has [0-9]+ rows"):
        bulk.merge(tmp_path / "many")
    encoder.encode_to(tmp_path / "many", bulk.lines(captions), shard=(1, 3), **SMALL)
    merged = bulk.merge(tmp_path / "many")
    single = encoder.encode_to(tmp_path / "one", bulk.lines(captions), **SMALL)
    assert held(tmp_path / "many") == held(tmp_path / "one")
    assert (
        (merged.rows, merged.failed, merged.space)
        == (single.rows, single.failed, single.space)
        == (70, 1, single.space)
    )


@pytest.mark.parametrize(("items", "of"), [(0, 2), (5, 3), (16, 2), (30, 3)])
def test_any_number_of_items_and_runs(client, tmp_path, held, items, of):
    for index in reversed(range(of)):
        client.encode_to(tmp_path / "many", TEXTS[:items], shard=(index, of), **SMALL)
    assert bulk.merge(tmp_path / "many").rows == items
    client.encode_to(tmp_path / "one", TEXTS[:items], **SMALL)
    assert held(tmp_path / "many") == held(tmp_path / "one")
    assert bulk.merge(tmp_path / "many").rows == items
    assert client.encode_to(tmp_path / "many", TEXTS[:items], **SMALL).encoded == 0


def test_a_merge_that_was_killed_is_made_again(client, tmp_path, held, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    for index in range(2):
        client.encode_to(tmp_path / "many", TEXTS, shard=(index, 2), **SMALL)
    with monkeypatch.context() as patched:
        patched.setattr("casdk.bulk.shards.ParquetTarget.complete", die)
        with pytest.raises(KeyboardInterrupt):
            bulk.merge(tmp_path / "many")
    bulk.merge(tmp_path / "many")
    client.encode_to(tmp_path / "one", TEXTS, **SMALL)
    assert held(tmp_path / "many") == held(tmp_path / "one")


def other_items(client, target):
    client.encode_to(target, [*TEXTS[:-1], "another"], shard=(1, 2), **SMALL)


def other_options(client, target):
    client.encode_to(target, TEXTS, shard=(1, 2), shard_rows=8, batch_size=2)


def other_model(client, target):
    with FaultServer(width=9) as server, Client(server.address("grpc")) as other:
        other.encode_to(target, TEXTS, shard=(1, 2), **SMALL)


def nothing(client, target):
    """The other run has not begun."""


def damage(client, target):
    client.encode_to(target, TEXTS, shard=(1, 2), **SMALL)
    data = bytearray((target / "part-00001.parquet").read_bytes())
    data[100] ^= 1
    (target / "part-00001.parquet").write_bytes(data)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (other_items, "the run of shard 1/2 has read another input than that of shard 0/2"),
        (other_options, "shard 0/2 was made with batch_size=4, and shard 1/2 with 2"),
        (other_model, "shard 0/2 was made with another model than shard 1/2: its rows have 9 numbers"),
        (nothing, "the run of shard 1/2 has not begun"),
        (damage, r"part-00001\.parquet is damaged"),
    ],
)
def test_what_does_not_fit_together(client, tmp_path, held, make, said):
    target = tmp_path / "rows"
    client.encode_to(target, TEXTS, shard=(0, 2), **SMALL)
    make(client, target)
    before = held(target)
    with pytest.raises(BulkError, match=said):
        bulk.merge(target)
    assert {name: data for name, data in before.items() if name != "_lock"} == held(target)
    assert all(manifest.finished for manifest in read_shares(DiskStorage(str(target))))


def test_a_run_that_goes_on_keeps_the_merge_away(client, tmp_path):
    def items():
        with pytest.raises(BulkError, match="is being written by another process"):
            bulk.merge(tmp_path / "rows")
        yield from TEXTS

    assert client.encode_to(tmp_path / "rows", items(), shard=(0, 1), **SMALL).rows == 50


def test_what_cannot_be_merged(client, tmp_path):
    with pytest.raises(ConfigError, match="only folders"):
        bulk.merge(tmp_path / "rows.npy")
    with pytest.raises(BulkError, match="there is no such folder"):
        bulk.merge(tmp_path / "rows")
    (tmp_path / "rows").mkdir()
    with pytest.raises(BulkError, match="there is no run with a shard in it"):
        bulk.merge(tmp_path / "rows")
