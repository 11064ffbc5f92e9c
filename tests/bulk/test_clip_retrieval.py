"""The layout of clip-retrieval: what its readers find in it, and the same bytes however a shard was made."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from casdk import BulkError, Client, ConfigError, FileMissingError, InputValueError, bulk
from casdk.bulk.clip_retrieval import ClipRetrievalTarget
from casdk.bulk.manifest import Manifest, Settings, Shard
from casdk.bulk.work import Labels
from casdk.testing import FaultServer, embed
from hypothesis import given
from hypothesis import strategies as st

LAYOUT = {"layout": "clip-retrieval"}
BOTH = ("img_emb", "text_emb")
SETTINGS = Settings(shard_rows=60, batch_size=2, dtype="float16", normalize=True, columns=BOTH, **LAYOUT)
ROWS = np.random.default_rng(7).standard_normal((60, 2, 3), np.float32)
GONE = FileMissingError(0, "x", "gone \udcff")
ERRORS = {2 * 17: GONE, 2 * 40 + 1: GONE, 2 * 59: GONE, 2 * 59 + 1: GONE}
WIDTH = 8


@pytest.fixture(scope="module")
def client():
    with FaultServer(width=WIDTH, poison=["poison"]) as server, Client(server.address("grpc")) as client:
        yield client


def read(folder, column):
    """Return a matrix, or the metadata, as autofaiss and clip-back do: of all files in the order of their names."""
    if column == "metadata":
        return pd.concat([pd.read_parquet(path) for path in sorted((folder / column).glob("*.parquet"))])
    return np.concatenate([np.load(path) for path in sorted((folder / column).glob("*.npy"))])


def normalized(texts):
    rows = np.stack([embed(text, WIDTH) for text in texts])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def lines(tmp_path, texts):
    (tmp_path / "lines.txt").write_text("".join(f"{text}\n" for text in texts))
    return bulk.lines(tmp_path / "lines.txt", text=True)


def test_rows_of_all_folders_belong_together(client, tmp_path):
    """Also where the order of the names is not that of the numbers: there are 13 shards."""
    texts = [f"caption {row}" if row % 7 else "poison" for row in range(50)]
    result = client.encode_to(tmp_path / "out", lines(tmp_path, texts), shard_rows=4, batch_size=2, **LAYOUT)
    assert (result.rows, result.failed) == (50, 8)
    found, metadata = read(tmp_path / "out", "text_emb"), read(tmp_path / "out", "metadata")
    assert (found.dtype, found.shape) == (np.float16, (42, WIDTH))
    assert list(metadata) == ["name", "caption"]
    assert sorted(metadata["caption"]) == sorted(text for text in texts if text != "poison")
    np.testing.assert_array_equal(found, normalized(metadata["caption"]))
    errors = pyarrow.parquet.read_table(tmp_path / "out" / "_errors.parquet").to_pydict()
    assert errors["row"] == [row for row in range(50) if row % 7 == 0]
    assert set(errors["name"]) == {"poison"}
    assert not (tmp_path / "out" / "img_emb").exists()
    assert client.encode_to(tmp_path / "out", lines(tmp_path, texts), shard_rows=4, batch_size=2, **LAYOUT).encoded == 0


def test_images_are_called_by_their_paths(client, tmp_path, photos):
    result = client.encode_to(tmp_path / "out", bulk.files(photos), shard_rows=16, batch_size=4, **LAYOUT)
    assert result.failed == 2
    metadata = read(tmp_path / "out", "metadata")
    assert list(metadata) == ["image_path"]
    pictures = [Path(path).read_bytes() for path in metadata["image_path"]]
    np.testing.assert_array_equal(read(tmp_path / "out", "img_emb"), normalized(pictures))


def test_a_row_of_which_one_item_failed_is_in_none_of_the_files(client, tmp_path, pairs):
    source = bulk.tars(pairs.partition(":")[2], columns=("png", "txt"))
    result = client.encode_to(tmp_path / "out", source, shard_rows=16, batch_size=4, **LAYOUT)
    assert (result.rows, result.failed) == (60, 3)
    metadata = read(tmp_path / "out", "metadata")
    assert list(metadata) == ["image_path", "caption"]
    assert len(metadata) == 57
    np.testing.assert_array_equal(read(tmp_path / "out", "text_emb"), normalized(metadata["caption"]))
    assert read(tmp_path / "out", "img_emb").shape == (57, WIDTH)
    errors = pyarrow.parquet.read_table(tmp_path / "out" / "_errors.parquet").to_pydict()
    assert [error.partition(":")[0] for error in errors["error"]] == ["image", "text", "image"]
    assert errors["name"] == ["005", "121", "122"]


def test_a_shard_that_failed_as_a_whole_has_no_files(client, tmp_path):
    texts = ["poison"] * 4 + ["one", "two", "three", "four"] + ["poison"]
    client.encode_to(tmp_path / "out", lines(tmp_path, texts), shard_rows=4, batch_size=2, **LAYOUT)
    assert [path.name for path in (tmp_path / "out" / "text_emb").iterdir()] == ["text_emb_1.npy"]
    assert [path.name for path in (tmp_path / "out" / "metadata").iterdir()] == ["metadata_1.parquet"]
    with pytest.raises(BulkError, match="item 8 is 'five' now, and was 'poison'"):
        client.encode_to(tmp_path / "out", lines(tmp_path, [*texts[:-1], "five"]), shard_rows=4, batch_size=2, **LAYOUT)


def test_what_is_refused(client, tmp_path):
    source = lines(tmp_path, ["one"])
    with pytest.raises(ConfigError, match="is for a folder"):
        client.encode_to(tmp_path / "out.npy", source, **LAYOUT)
    with pytest.raises(ConfigError, match="does not say which of them it holds"):
        client.encode_to(tmp_path / "out", ["one"], **LAYOUT)
    with pytest.raises(InputValueError, match="leave out dtype and normalize"):
        client.encode_to(tmp_path / "out", source, dtype="float32", **LAYOUT)
    client.encode_to(tmp_path / "out", source)
    with pytest.raises(BulkError, match="begun with"):
        client.encode_to(tmp_path / "out", source, **LAYOUT)
    assert client.encode_to(tmp_path / "out", source, overwrite=True, **LAYOUT).encoded == 1
    assert not list((tmp_path / "out").glob("part-*"))


def entry(rows):
    failed = len({place // 2 for place in ERRORS if place // 2 < rows})
    return Shard(number=0, rows=rows, failed=failed, items="", files={}, checksum="")


def add(target, start, stop):
    errors = {place - 2 * start: error for place, error in ERRORS.items() if start <= place // 2 < stop}
    names, captions = ([f"{word} {row}" for row in range(start, stop)] for word in ("name", "caption"))
    target.add(ROWS[start:stop].reshape(-1, 3), errors)
    target.add_labels(Labels.of(names, captions))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with one shard that was made in one piece, and its entry."""
    path = tmp_path_factory.mktemp("whole")
    target = ClipRetrievalTarget(str(path), "float16", BOTH)
    target.begin(Manifest(settings=SETTINGS), 3)
    add(target, 0, 60)
    return path, target.commit(entry(60))


def test_a_shard_is_four_files(whole, held):
    path, shard = whole
    assert shard.files == {name: len(data) for name, data in held(path).items()}
    assert set(shard.files) == {
        "img_emb/img_emb_0.npy",
        "text_emb/text_emb_0.npy",
        "metadata/metadata_0.parquet",
        "_failed/failed_0.parquet",
    }
    good = [row for row in range(60) if row not in (17, 40, 59)]
    np.testing.assert_array_equal(read(path, "img_emb"), ROWS[good, 0].astype(np.float16))
    np.testing.assert_array_equal(read(path, "text_emb"), ROWS[good, 1].astype(np.float16))
    assert read(path, "metadata")["image_path"].tolist() == [f"name {row}" for row in good]
    failed = pyarrow.parquet.read_table(path / "_failed" / "failed_0.parquet").to_pydict()
    assert failed["row"] == [17, 40, 59]
    assert failed["error"][2] == "image: FileMissingError: gone \\udcff; text: FileMissingError: gone \\udcff"
    manifest = Manifest(settings=SETTINGS, shards=(shard,))
    names = ClipRetrievalTarget(str(path), "float16", BOTH).names_of(manifest, shard)
    assert list(names) == [f"name {row}" for row in range(60)]


@given(cuts=st.lists(st.integers(1, 59), max_size=4, unique=True), kept=st.sets(st.integers(0, 3)))
def test_the_bytes_are_the_same_however_it_was_made(whole, cuts, kept, tmp_path_factory):
    path = tmp_path_factory.mktemp("parts")
    target, manifest = ClipRetrievalTarget(str(path), "float16", BOTH), Manifest(settings=SETTINGS)
    places = [0, *sorted(cuts), 60]
    target.begin(manifest, 3)
    for number, (start, stop) in enumerate(pairwise(places)):
        add(target, start, stop)
        if number in kept and stop < 60:
            manifest = manifest.with_begun(target.keep(entry(stop)), 3)
            target.check(manifest)
            assert list(target.names_of(manifest, manifest.begun))[-1] == f"name {stop - 1}"
            target.begin(manifest, 3)
    shard = target.commit(entry(60))
    assert shard == whole[1]
    for name in shard.files:
        assert (path / name).read_bytes() == (whole[0] / name).read_bytes()


def test_what_is_dropped_leaves_nothing(tmp_path):
    target = ClipRetrievalTarget(str(tmp_path), "float16", BOTH)
    target.begin(Manifest(settings=SETTINGS), 3)
    add(target, 0, 50)
    target.drop()
    target.drop()
    assert list(tmp_path.iterdir()) == []
