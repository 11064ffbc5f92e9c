"""Lance: a folder of a bulk run becomes a dataset of its own, in which each row finds itself."""

import lance
import pyarrow.dataset


def test_a_folder_becomes_a_dataset(client, texts, tmp_path):
    """An item that failed is a row without an embedding there, too."""
    assert client.encode_to(tmp_path / "rows", [*texts[:3], ""], shard_rows=2).failed == 1
    made = lance.write_dataset(pyarrow.dataset.dataset(tmp_path / "rows"), str(tmp_path / "rows.lance"))
    table = made.to_table()
    assert table["name"].to_pylist() == [*texts[:3], ""]
    assert table["embedding"].null_count == 1
    for row in range(3):
        nearest = {"column": "embedding", "q": table["embedding"][row].as_py(), "k": 1}
        assert made.to_table(nearest=nearest)["name"].to_pylist() == [texts[row]]
