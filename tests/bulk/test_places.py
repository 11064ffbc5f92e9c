"""Where the files of a folder target lie: the same contract wherever that is."""

import pyarrow
import pyarrow.parquet
import pytest
from casdk import BulkError
from casdk.bulk.disk import Checksum
from casdk.bulk.store_places import open_place as open_any


@pytest.fixture(params=["disk", "store"])
def open_place(request, tmp_path):
    """A function that opens one and the same place, as processes do that each know nothing of the others."""
    store = request.getfixturevalue("bucket").url if request.param == "store" else str(tmp_path)
    return lambda: open_any(f"{store}/rows")


@pytest.fixture
def place(open_place):
    """A place that is locked."""
    place = open_place()
    lock = place.lock()
    yield place
    lock.release()


def take_in(place, name, data):
    path = place.scratch / "_under_way.tmp"
    path.write_bytes(data)
    place.take_in(path, name)


def test_a_place_where_nothing_is(open_place):
    place = open_place()
    assert (place.exists(), place.names(), place.beginning("part-")) == (False, [], [])


def test_a_file_that_is_taken_in(place):
    data = bytes(range(256)) * 40
    checksum = Checksum()
    checksum.add(data)
    take_in(place, "img_emb/img_emb_0.npy", data)
    assert place.exists()
    assert (place.size_of("img_emb/img_emb_0.npy"), place.size_of("none")) == (len(data), None)
    assert place.checksum_of("img_emb/img_emb_0.npy") == checksum.text
    with place.open("img_emb/img_emb_0.npy") as file:
        assert file.read() == data
    assert place.where("img_emb/img_emb_0.npy").startswith(place.name)


def test_a_file_of_parquet(place):
    table = pyarrow.table({"name": ["a", "b"]})
    pyarrow.parquet.write_table(table, place.scratch / "_table.tmp")
    place.take_in(place.scratch / "_table.tmp", "part-00000.parquet")
    assert pyarrow.parquet.ParquetFile(place.for_arrow("part-00000.parquet")).read() == table


def test_names(place, open_place):
    for name in ("part-00001.parquet", "part-00000.parquet", "metadata/metadata_0.parquet"):
        take_in(place, name, b"x")
    place.write("_contents-00000.bin", b"small")
    place.rename("part-00001.parquet", "part-00002.parquet")
    others = ["_contents-00000.bin", "metadata/metadata_0.parquet", "part-00000.parquet", "part-00002.parquet"]
    for one in (place, open_place()):
        assert [name for name in one.names() if name != "_lock"] == others
        assert one.beginning("part-") == others[2:]
    place.remove("part-00000.parquet", "metadata/metadata_0.parquet", "none")
    assert [name for name in place.names() if name != "_lock"] == ["_contents-00000.bin", "part-00002.parquet"]


def test_a_file_that_is_there_already_gives_way(place):
    """As that of a run which was killed between a shard and its line in the manifest."""
    take_in(place, "part-00000.parquet", b"left behind")
    take_in(place, "part-00000.parquet", b"made again")
    take_in(place, "_again-00000.parquet", b"filled in")
    with place.open("part-00000.parquet") as file:
        assert file.read() == b"made again"
    place.rename("_again-00000.parquet", "part-00000.parquet")
    with place.open("part-00000.parquet") as file:
        assert file.read() == b"filled in"


def test_a_manifest(place, open_place):
    with pytest.raises(FileNotFoundError):
        place.read_manifest("_casdk.json")
    for data in (b"first", b"second", b"second"):
        place.write_manifest("_casdk.json", data)
        assert open_place().read_manifest("_casdk.json") == place.read_manifest("_casdk.json") == data
    place.remove("_casdk.json")
    place.write_manifest("_casdk.json", b"third")


def test_one_process_writes(open_place):
    lock = open_place().lock()
    for refused in (open_place().lock, lambda: open_place().lock_share("0-of-2")):
        with pytest.raises(BulkError, match="is being written by another process"):
            refused()
    lock.release()
    open_place().lock().release()


def test_shares_of_a_place_are_written_at_once(open_place):
    first, second = open_place().lock_share("0-of-2"), open_place().lock_share("1-of-2")
    for refused in (lambda: open_place().lock_share("0-of-2"), open_place().lock):
        with pytest.raises(BulkError, match="is being written by another process"):
            refused()
    first.release()
    second.release()
    open_place().lock().release()
    assert open_place().names() == []
