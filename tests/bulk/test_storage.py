"""Where the files of a folder target lie: the same contract wherever that is."""

import pyarrow
import pyarrow.parquet
import pytest
from casdk import BulkError
from casdk.bulk.disk import Checksum
from casdk.bulk.object_storage import open_storage as open_any


@pytest.fixture(params=["disk", "store"])
def open_storage(request, tmp_path):
    """A function that opens one and the same storage, as processes do that each know nothing of the others."""
    store = request.getfixturevalue("bucket").url if request.param == "store" else str(tmp_path)
    return lambda: open_any(f"{store}/rows")


@pytest.fixture
def storage(open_storage):
    """A storage that is locked."""
    storage = open_storage()
    lock = storage.lock()
    yield storage
    lock.release()


def take_in(storage, name, data):
    path = storage.scratch / "_under_way.tmp"
    path.write_bytes(data)
    storage.take_in(path, name)


def test_a_storage_with_nothing_in_it(open_storage):
    storage = open_storage()
    assert (storage.exists(), storage.names(), storage.beginning("part-")) == (False, [], [])


def test_a_file_that_is_taken_in(storage):
    data = bytes(range(256)) * 40
    checksum = Checksum()
    checksum.add(data)
    take_in(storage, "img_emb/img_emb_0.npy", data)
    assert storage.exists()
    assert (storage.size_of("img_emb/img_emb_0.npy"), storage.size_of("none")) == (len(data), None)
    assert storage.checksum_of("img_emb/img_emb_0.npy") == checksum.text
    with storage.open("img_emb/img_emb_0.npy") as file:
        assert file.read() == data
    assert storage.where("img_emb/img_emb_0.npy").startswith(storage.name)


def test_a_file_of_parquet(storage):
    table = pyarrow.table({"name": ["a", "b"]})
    pyarrow.parquet.write_table(table, storage.scratch / "_table.tmp")
    storage.take_in(storage.scratch / "_table.tmp", "part-00000.parquet")
    assert pyarrow.parquet.ParquetFile(storage.for_arrow("part-00000.parquet")).read() == table


def test_names(storage, open_storage):
    for name in ("part-00001.parquet", "part-00000.parquet", "metadata/metadata_0.parquet"):
        take_in(storage, name, b"x")
    storage.write("_contents-00000.bin", b"small")
    storage.rename("part-00001.parquet", "part-00002.parquet")
    others = ["_contents-00000.bin", "metadata/metadata_0.parquet", "part-00000.parquet", "part-00002.parquet"]
    for one in (storage, open_storage()):
        assert [name for name in one.names() if name != "_lock"] == others
        assert one.beginning("part-") == others[2:]
    storage.remove("part-00000.parquet", "metadata/metadata_0.parquet", "none")
    assert [name for name in storage.names() if name != "_lock"] == ["_contents-00000.bin", "part-00002.parquet"]


def test_a_file_that_is_there_already_gives_way(storage):
    """As that of a run which was killed between a shard and its line in the manifest."""
    take_in(storage, "part-00000.parquet", b"left behind")
    take_in(storage, "part-00000.parquet", b"made again")
    take_in(storage, "_again-00000.parquet", b"filled in")
    with storage.open("part-00000.parquet") as file:
        assert file.read() == b"made again"
    storage.rename("_again-00000.parquet", "part-00000.parquet")
    with storage.open("part-00000.parquet") as file:
        assert file.read() == b"filled in"


def test_a_manifest(storage, open_storage):
    with pytest.raises(FileNotFoundError):
        storage.read_manifest("_casdk.json")
    for data in (b"first", b"second", b"second"):
        storage.write_manifest("_casdk.json", data)
        assert open_storage().read_manifest("_casdk.json") == storage.read_manifest("_casdk.json") == data
    storage.remove("_casdk.json")
    storage.write_manifest("_casdk.json", b"third")


def test_one_process_writes(open_storage):
    lock = open_storage().lock()
    for refused in (open_storage().lock, lambda: open_storage().lock_share("0-of-2")):
        with pytest.raises(BulkError, match="is being written by another process"):
            refused()
    lock.release()
    open_storage().lock().release()


def test_shares_of_a_storage_are_written_at_once(open_storage):
    first, second = open_storage().lock_share("0-of-2"), open_storage().lock_share("1-of-2")
    for refused in (lambda: open_storage().lock_share("0-of-2"), open_storage().lock):
        with pytest.raises(BulkError, match="is being written by another process"):
            refused()
    first.release()
    second.release()
    open_storage().lock().release()
    assert open_storage().names() == []
