"""A folder as a target: in every layout, runs remove only files that runs have made."""

import pytest
from casdk import BulkError
from casdk.bulk.folders import RUN_FILES
from casdk.bulk.layouts import open_folder
from casdk.bulk.manifest import Manifest, Settings, Shard

SETTINGS = Settings(shard_rows=4, batch_size=2, dtype="float32", normalize=False)


def shard(number, *names):
    return Shard(number=number, rows=4, failed=0, items="", files=dict.fromkeys(names, 1), checksum="")


def fill(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


OF_RUNS = [
    "part-00000.parquet",
    "_part-00001.parquet.tmp",
    "_begun-00001-3.parquet",
    "_begun-00001-3.bin.tmp",
    "_begun-00001-3.img_emb",
    "_errors.parquet",
    "img_emb/img_emb_0.npy",
    "text_emb/text_emb_12.npy",
    "metadata/metadata_0.parquet",
    "_failed/failed_0.parquet",
    "_metadata_0.parquet.tmp",
    "_rows_0.jsonl.tmp",
]
OF_OTHERS = ["part-1.parquet", "img_emb/mine.npy", "img_emb", "other/img_emb_0.npy", "metadata/0.parquet", "x.parquet"]


@pytest.mark.parametrize("name", [*OF_RUNS, "_casdk.json", "_casdk.0-of-2.json", "_lock.0-of-2"])
def test_what_is_ours(name):
    assert RUN_FILES.fullmatch(name)


@pytest.mark.parametrize("name", OF_OTHERS)
def test_what_is_of_others(name, tmp_path):
    assert not RUN_FILES.fullmatch(name)
    folder = open_folder(str(tmp_path), "float32")
    fill(tmp_path, name)
    assert len(list(folder.foreign_files())) == 1
    with pytest.raises(BulkError, match="files that are not of a bulk run"):
        folder.clear()


def test_a_folder_that_is_cleared_is_empty(tmp_path):
    fill(tmp_path, *OF_RUNS, "_casdk.json")
    open_folder(str(tmp_path), "float32").clear()
    assert list(tmp_path.iterdir()) == []


def test_a_finished_folder_holds_what_its_manifest_says(tmp_path):
    """Also where a killed run had made a shard that the input, which is shorter now, does not have any more."""
    whole = ["img_emb/img_emb_0.npy", "metadata/metadata_0.parquet"]
    left = ["img_emb/img_emb_1.npy", "_begun-00001-3.img_emb", "_rows_1.jsonl.tmp"]
    fill(tmp_path, *whole, *left, "_casdk.json", "_lock")
    folder = open_folder(str(tmp_path), "float16", layout="clip-retrieval", columns=("img_emb",))
    folder.complete(Manifest(settings=SETTINGS, shards=(shard(0, *whole),), finished=True))
    found = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert found == ["_casdk.json", "_errors.parquet", "_lock", *whole]


def test_a_file_that_is_gone_or_was_changed_is_noticed(tmp_path):
    fill(tmp_path, "part-00000.parquet")
    folder = open_folder(str(tmp_path), "float32")
    manifest = Manifest(settings=SETTINGS, shards=(shard(0, "part-00000.parquet"),))
    folder.check(manifest)
    (tmp_path / "part-00000.parquet").write_bytes(b"xx")
    with pytest.raises(BulkError, match="has 2 bytes"):
        folder.check(manifest)
