"""The layouts of a folder: what each calls its matrices, and which target writes it."""

from __future__ import annotations

from typing import Final

from casdk.bulk.clip_retrieval import ClipRetrievalTarget
from casdk.bulk.folders import EMBEDDING, FolderTarget
from casdk.bulk.manifest import Share
from casdk.bulk.regrouping import WholeFolder, WholeTarget
from casdk.bulk.shares import SharedFolder, ShareTarget
from casdk.bulk.sources import Holds
from casdk.bulk.storage import Storage
from casdk.errors import ConfigError

__all__ = ["columns_of", "open_folder"]

PAIR: Final = ("image_embedding", "text_embedding")
CLIP_RETRIEVAL: Final = {"image": "img_emb", "text": "text_emb"}


class ClipRetrievalWhole(WholeFolder, ClipRetrievalTarget):
    """A folder in the layout of clip-retrieval that one run makes."""


class ClipRetrievalShare(SharedFolder, ClipRetrievalTarget):
    """A share of a folder in the layout of clip-retrieval."""


def columns_of(layout: str | None, holds: Holds) -> tuple[str, ...]:
    """Return the names of the matrices of a target.

    Args:
        layout: The layout of a folder; ``None`` for our own.
        holds: What each row of the source holds.

    Raises:
        ConfigError: The layout keeps images and texts apart, and the source does not say which of them it has.
    """
    if layout is None:
        return PAIR if len(holds) == 2 else EMBEDDING
    if not holds:
        raise ConfigError(
            f"layout={layout!r} keeps images and texts apart, and this content does not say which of them it holds: "
            "bulk.files, bulk.lines(..., text=True), bulk.parquet and bulk.tars do"
        )
    return tuple(CLIP_RETRIEVAL[kind] for kind in holds)


def open_folder(
    storage: str | Storage,
    dtype: str,
    *,
    layout: str | None = None,
    columns: tuple[str, ...] = EMBEDDING,
    share: Share | None = None,
) -> FolderTarget:
    """Return the folder of a layout.

    Args:
        storage: The storage of the folder, or its path or URL.
        dtype: ``float32`` or ``float16``.
        layout: ``"clip-retrieval"``; ``None`` for our own.
        columns: The names of its matrices.
        share: Which shards are made, if other runs make the others.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    if share is not None:
        return (ClipRetrievalShare if layout else ShareTarget)(storage, dtype, share, columns)
    return (ClipRetrievalWhole if layout else WholeTarget)(storage, dtype, columns)
