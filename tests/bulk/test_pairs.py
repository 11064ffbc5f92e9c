"""Image and caption of the same row: which column is which, both encoded, and a failure of one leaves the other."""

import asyncio

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from casdk import BulkError, Client, ConfigError, Image, InputValueError, Text, bulk
from casdk.bulk.call import make_run
from casdk.bulk.pairs import as_row, image_first, read_columns
from casdk.testing import FaultServer, embed

SMALL = {"shard_rows": 16, "batch_size": 4}
WIDTH = 8


@pytest.fixture(scope="module")
def peer():
    with FaultServer(width=WIDTH, poison=["poison"]) as server:
        yield server


@pytest.fixture(scope="module")
def client(peer):
    with Client(peer.address("grpc")) as client:
        yield client


@pytest.fixture
def table(images, tmp_path):
    """A Parquet file of 50 images and captions: image 7 is missing, caption 20 is poison, and 33 has neither."""
    pictures = [images["png"].read_bytes() + bytes([row]) for row in range(50)]
    captions = [f"caption {row}" for row in range(50)]
    pictures[7] = pictures[33] = captions[33] = None
    captions[20] = "poison"
    columns = {"id": list(range(50)), "image": pictures, "caption": captions}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "table.parquet")
    return tmp_path / "table.parquet"


def pairs_of(table):
    return bulk.parquet(table, columns=("caption", "image"), name="id")


def test_what_names_columns():
    assert read_columns("jpg") == ("jpg",)
    assert read_columns(["jpg", "txt"]) == ("jpg", "txt")
    for columns in (["jpg"], ["jpg", "jpg"], ["jpg", "txt", "json"], [1, 2], 7, None):
        with pytest.raises(InputValueError, match="columns must be one name, or two"):
            read_columns(columns)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("image", "text"), ("a", "b")),
        (("text", "image"), ("b", "a")),
        ((None, "image"), ("b", "a")),
        (("image", None), ("a", "b")),
    ],
)
def test_what_columns_hold_says_which_has_the_images(kinds, expected):
    assert image_first(("a", "b"), kinds) == (expected, ("image", "text"))


@pytest.mark.parametrize(
    ("kinds", "said"),
    [(("image", "image"), "both hold images"), (("text", "text"), "both hold texts"), ((None, None), "neither says")],
)
def test_two_columns_of_one_kind_are_refused(kinds, said):
    with pytest.raises(InputValueError, match=f"columns 'a' and 'b'.*{said}"):
        image_first(("a", "b"), kinds)


def test_one_column_stays_what_it_is():
    assert image_first(("a",), ["text"]) == (("a",), ("text",))
    assert image_first(("a",), [None]) == (("a",), ())
    assert as_row([("item", "x")]) == ("item", "x")
    assert as_row([("image", "x"), ("text", "y")]) == (("image", "text"), "x\ny")


def test_rows_of_a_source(table, pairs, client):
    found = pairs_of(table)
    assert (found.holds, found.total) == (("image", "text"), 50)
    name, (image, text) = next(iter(found))
    assert (name, type(image), text) == ("0", Image, Text("caption 0"))
    name, (image, text) = next(iter(bulk.tars(pairs.partition(":")[2], columns=("txt", "png"))))
    assert (name, type(image), text) == ("000", Image, Text("caption 00"))


def test_a_change_of_either_is_noticed(table):
    states = {content for _, _, content in pairs_of(table).entries()}
    assert len(states) == 50


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_both_are_encoded_and_a_failure_of_one_leaves_the_other(client, table, tmp_path, mode):
    target = tmp_path / "rows"
    if mode == "sync":
        result = client.encode_to(target, pairs_of(table), **SMALL)
    else:
        result = asyncio.run(client.aencode_to(target, pairs_of(table), **SMALL))
    assert (result.rows, result.encoded, result.failed, result.batch_size) == (50, 50, 3, 4)
    found = pyarrow.dataset.dataset(target).to_table()
    assert found.column_names == ["name", "image_embedding", "text_embedding", "error"]
    assert found["name"].to_pylist() == [str(row) for row in range(50)]
    for column, missing in (("image_embedding", [7, 33]), ("text_embedding", [20, 33])):
        valid = np.asarray(found[column].combine_chunks().is_valid())
        assert np.flatnonzero(~valid).tolist() == missing
    given = pyarrow.parquet.read_table(table).to_pydict()
    for row in (0, 6, 8, 19, 49):
        np.testing.assert_array_equal(found["image_embedding"][row].as_py(), embed(given["image"][row], WIDTH))
        np.testing.assert_array_equal(found["text_embedding"][row].as_py(), embed(given["caption"][row], WIDTH))
    np.testing.assert_array_equal(found["text_embedding"][7].as_py(), embed("caption 7", WIDTH))
    np.testing.assert_array_equal(found["image_embedding"][20].as_py(), embed(given["image"][20], WIDTH))
    errors = found["error"].to_pylist()
    assert [row for row in range(50) if errors[row] is not None] == [7, 20, 33]
    assert errors[7].startswith("image: ")
    assert errors[20].startswith("text: RejectedError: ")
    assert errors[33].startswith("image: ")
    assert "; text: " in errors[33]
    listed = pyarrow.parquet.read_table(target / "_errors.parquet").to_pydict()
    assert listed == {"row": [7, 20, 33], "name": ["7", "20", "33"], "error": [errors[row] for row in (7, 20, 33)]}


def test_a_run_that_is_stopped_goes_on_in_the_middle_of_a_shard(client, table, tmp_path, held):
    def entries():
        for place, entry in enumerate(pairs_of(table).entries()):
            if place == 27:
                run.stop(KeyboardInterrupt())
            yield entry

    (tmp_path / "out").mkdir()
    run = make_run(client, tmp_path / "out" / "rows", bulk.Named(entries, holds=("image", "text")), SMALL)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    result = client.encode_to(tmp_path / "out" / "rows", pairs_of(table), **SMALL)
    assert 50 - 28 <= result.encoded <= 50 - 20
    (tmp_path / "undisturbed").mkdir()
    client.encode_to(tmp_path / "undisturbed" / "rows", pairs_of(table), **SMALL)
    assert held(tmp_path / "out") == held(tmp_path / "undisturbed")


@pytest.mark.parametrize("layout", [None, "clip-retrieval"])
def test_several_runs_make_one_folder(client, table, tmp_path, held, layout):
    for index in (1, 0):
        client.encode_to(tmp_path / "many", pairs_of(table), shard=(index, 2), layout=layout, **SMALL)
    assert bulk.merge(tmp_path / "many").failed == 3
    client.encode_to(tmp_path / "one", pairs_of(table), layout=layout, **SMALL)
    assert held(tmp_path / "many") == held(tmp_path / "one")
    assert client.encode_to(tmp_path / "many", pairs_of(table), layout=layout, **SMALL).encoded == 0


def test_a_bad_item_may_stop_the_run(client, table, tmp_path):
    said = r"the text of item 20, '20', cannot be encoded: RejectedError"
    with pytest.raises(BulkError, match=r"the image of item 7, '7', cannot be encoded"):
        client.encode_to(tmp_path / "rows", pairs_of(table), errors="raise", **SMALL)
    client.encode_to(tmp_path / "other", pairs_of(table), shard=(0, 2), **SMALL)
    with pytest.raises(BulkError, match=said):
        client.encode_to(tmp_path / "other", pairs_of(table), shard=(1, 2), errors="raise", **SMALL)


def test_what_is_refused_of_pairs(client, table, tmp_path):
    with pytest.raises(ConfigError, match=r"a \.npy has one for each row: give a folder") as caught:
        client.encode_to(tmp_path / "rows.npy", pairs_of(table))
    assert "layout='clip-retrieval'" in str(caught.value)
    client.encode_to(tmp_path / "rows", bulk.parquet(table, columns="caption", name="id"), **SMALL)
    with pytest.raises(BulkError, match=r"begun with columns=\('embedding',\), and now it is \('image_embedding', "):
        client.encode_to(tmp_path / "rows", pairs_of(table), **SMALL)
    pyarrow.parquet.write_table(pa.table({"image": ["a"], "caption": ["b"]}), tmp_path / "texts.parquet")
    with pytest.raises(InputValueError, match="both hold texts"):
        bulk.parquet(tmp_path / "texts.parquet", columns=("image", "caption"))
    with pytest.raises(InputValueError, match="holds images in some of these files, and strings in others"):
        bulk.parquet(tmp_path / "t*.parquet", columns=("image", "caption"))
    with pytest.raises(InputValueError, match="both hold images"):
        bulk.tars(table, columns=("jpg", "png"))


@pytest.fixture
def refusing():
    """A server that refuses a caption until its ``executor.poison`` is taken away."""
    with FaultServer(width=WIDTH, poison=["poison"]) as server, Client(server.address("grpc")) as client:
        yield server, client


def test_a_caption_that_failed_is_tried_again(refusing, table, tmp_path, held):
    server, client = refusing
    assert client.encode_to(tmp_path / "rows", pairs_of(table), **SMALL).failed == 3
    server.executor.poison = None
    result = client.encode_to(tmp_path / "rows", pairs_of(table), retry_errors=True, **SMALL)
    # The images of rows 7 and 33 are still missing.
    assert (result.rows, result.failed, result.encoded, result.reencoded) == (50, 2, 3, 3)
    client.encode_to(tmp_path / "undisturbed", pairs_of(table), **SMALL)
    assert held(tmp_path / "rows") == held(tmp_path / "undisturbed")


def test_an_update_encodes_rows_of_which_either_item_has_changed(client, table, tmp_path, mode):
    def update():
        options = {"update": True, **SMALL}
        if mode == "sync":
            return client.encode_to(tmp_path / "rows", pairs_of(table), **options)
        return asyncio.run(client.aencode_to(tmp_path / "rows", pairs_of(table), **options))

    assert update().encoded == 50
    columns = pyarrow.parquet.read_table(table).to_pydict()
    columns["caption"][5] = "another caption"
    columns["image"][9] = columns["image"][8] + b"another"
    for column in columns.values():
        del column[10]
    pyarrow.parquet.write_table(pa.table(columns), table)
    result = update()
    assert (result.rows, result.encoded, result.reencoded, result.dropped) == (49, 2, 2, 1)
    found = pyarrow.dataset.dataset(tmp_path / "rows").to_table().to_pydict()
    rows = {name: place for place, name in enumerate(found["name"])}
    assert sorted(rows) == sorted(map(str, columns["id"]))
    for row in (5, 9, 0):
        place = rows[str(row)]
        np.testing.assert_array_equal(found["image_embedding"][place], embed(columns["image"][row], WIDTH))
        np.testing.assert_array_equal(found["text_embedding"][place], embed(columns["caption"][row], WIDTH))
