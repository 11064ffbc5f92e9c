"""Hugging Face's datasets: `map` encodes batches, also in processes, and its cache finds the results again."""

import numpy as np
import pytest
from casdk.errors import EmptyItemError
from casdk.interop.batches import BatchEncoder
from datasets import Dataset, Image, disable_caching, disable_progress_bars

disable_progress_bars()
NULLS = ["a", None, "b"]


@pytest.fixture
def sentences(texts):
    return [text for text in texts if not text.endswith(".png")] * 20


def test_map(client, sentences):
    mapped = Dataset.from_dict({"text": sentences}).map(BatchEncoder(client, "text"), batched=True, batch_size=32)
    assert mapped.column_names == ["text", "embedding"]
    np.testing.assert_array_equal(mapped.with_format("numpy")["embedding"][:], client.encode(sentences))


def test_map_in_processes(client, sentences):
    data = Dataset.from_dict({"text": sentences})
    mapped = data.map(BatchEncoder(client, "text", into="row"), batched=True, batch_size=8, num_proc=2)
    np.testing.assert_array_equal(mapped.with_format("numpy")["row"][:], client.encode(sentences))


def test_a_function_of_ones_own(client, sentences):
    mapped = Dataset.from_dict({"text": sentences}).map(
        lambda batch: {"embedding": client.encode(batch["text"])}, batched=True
    )
    np.testing.assert_array_equal(mapped.with_format("numpy")["embedding"][:], client.encode(sentences))


def test_arrow_batches(client, sentences):
    data = Dataset.from_dict({"text": sentences}).with_format("arrow")
    mapped = data.map(BatchEncoder(client, "text"), batched=True, batch_size=50)
    rows = mapped.with_format("numpy")["embedding"][:]
    np.testing.assert_array_equal(rows, client.encode(sentences))
    assert mapped.features["embedding"].length == 512


def test_what_was_mapped_is_found_again(client, sentences, tmp_path):
    data = Dataset.from_dict({"text": sentences})
    data.save_to_disk(tmp_path / "data")
    ones = [Dataset.load_from_disk(tmp_path / "data").map(BatchEncoder(client, "text"), batched=True) for _ in "ab"]
    assert ones[0]._fingerprint == ones[1]._fingerprint
    assert ones[0].cache_files == ones[1].cache_files


def test_a_column_as_it_is(client, sentences):
    data = Dataset.from_dict({"text": sentences})
    np.testing.assert_array_equal(client.encode(data["text"]), client.encode(sentences))


def test_nulls(client):
    data = Dataset.from_dict({"text": NULLS})
    disable_caching()
    with pytest.raises(EmptyItemError, match="item 1"):
        data.map(BatchEncoder(client, "text"), batched=True)
    rows = data.map(BatchEncoder(client, "text", errors="return"), batched=True).with_format("numpy")["embedding"][:]
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, False]
    arrow = data.with_format("arrow").map(BatchEncoder(client, "text", errors="return"), batched=True)
    assert arrow.data["embedding"].is_null().to_pylist() == [False, True, False]


def test_images(client, picture):
    data = Dataset.from_dict({"image": [str(picture)] * 3}).cast_column("image", Image())
    mapped = data.map(BatchEncoder(client, "image"), batched=True)
    rows = mapped.select_columns("embedding").with_format("numpy")["embedding"][:]
    np.testing.assert_array_equal(rows, client.encode([picture] * 3))
