"""What the matrices of a folder are called, and who writes it."""

import pytest
from casdk import ConfigError
from casdk.bulk.clip_retrieval import ClipRetrievalTarget
from casdk.bulk.layouts import columns_of, open_folder
from casdk.bulk.manifest import Share
from casdk.bulk.shards import ParquetTarget
from casdk.bulk.shares import SharedFolder

CLIP = "clip-retrieval"


@pytest.mark.parametrize(
    ("layout", "holds", "columns"),
    [
        (None, (), ("embedding",)),
        (None, ("image",), ("embedding",)),
        (None, ("image", "text"), ("image_embedding", "text_embedding")),
        (CLIP, ("image",), ("img_emb",)),
        (CLIP, ("text",), ("text_emb",)),
        (CLIP, ("image", "text"), ("img_emb", "text_emb")),
    ],
)
def test_columns(layout, holds, columns):
    assert columns_of(layout, holds) == columns


def test_a_layout_has_to_know_what_there_is():
    with pytest.raises(ConfigError, match=r"keeps images and texts apart.* bulk\.lines\(\.\.\., text=True\)"):
        columns_of(CLIP, ())


@pytest.mark.parametrize("layout", [None, CLIP])
def test_each_layout_has_its_target_also_for_a_share(tmp_path, layout):
    kind = ParquetTarget if layout is None else ClipRetrievalTarget
    columns = columns_of(layout, ("image",))
    assert isinstance(open_folder(str(tmp_path), "float16", layout=layout, columns=columns), kind)
    share = open_folder(str(tmp_path), "float16", layout=layout, columns=columns, share=Share(index=1, of=2))
    assert isinstance(share, kind)
    assert isinstance(share, SharedFolder)
    assert share.manifest_name == "_casdk.1-of-2.json"
