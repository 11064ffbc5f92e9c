"""The page on moving from clip_client names all that a program of docarray's would miss."""

import re

from casdk import DocumentArray
from pages import PAGES

THEIRS = """
append apply apply_batch batch batch_ids blobs clear cloud_delete cloud_list cloud_pull cloud_push contents count
dataloader embed embed_and_evaluate embeddings empty evaluate extend find flatten from_base64 from_bytes from_csv
from_dataframe from_dict from_files from_huggingface_datasets from_json from_lines from_list from_ndarray from_ndjson
from_protobuf from_pydantic_model from_strawberry_type get_json_schema get_vocabulary index insert load load_binary
load_csv load_json map map_batch match plot_embeddings plot_image_sprites pop post pull push reduce reduce_all remove
reverse sample save save_binary save_csv save_embeddings_csv save_gif save_json shuffle split_by_tag summary tensors
texts to_base64 to_bytes to_dataframe to_dict to_json to_list to_protobuf to_pydantic_model to_strawberry_type traverse
traverse_flat traverse_flat_per_path
"""
"""What a DocumentArray of docarray 0.21 has."""


def test_all_that_an_array_has_not_is_named():
    _, _, section = PAGES["docs/moving.md"].partition("## What Document and DocumentArray do not have")
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named - {"sync"} == {name for name in THEIRS.split() if not hasattr(DocumentArray, name)}
