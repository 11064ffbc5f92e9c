"""The end of a bulk run: its `BulkResult`, or an error that says how far the run came."""

from __future__ import annotations

import msgspec

from casdk.bulk.manifest import Manifest
from casdk.errors import BulkError, CasdkError

__all__ = ["BulkResult", "reported"]


class BulkResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a bulk run.

    Attributes:
        target: The file or the folder, as the caller named it.
        rows: Number of rows in it: one for each item of the input.
        failed: Number of rows without an embedding; for images with captions, rows that lack one or both.
        encoded: Number of rows that this call has made; 0 if all were there.
        reencoded: Number of these rows that have replaced an older row, because the item had failed or has changed.
        dropped: Number of rows that an update has removed, because the input has no item for them any more.
        seconds: Seconds that this call took.
        batch_size: Items, or pairs, per request; while a run searches for this number, requests have other sizes.
        space: The vector space of the rows, as `Client.space` returned it before the first item was sent; ``None`` if
            the server encodes neither of the two items that `Client.space` sends.
        fidelity: With ``images="jpeg95"`` or ``"webp90"``, the smallest cosine between lossless and lossy rows over all
            shards; ``None`` if none was measured.
    """

    target: str
    rows: int
    failed: int
    encoded: int
    reencoded: int
    dropped: int
    seconds: float
    batch_size: int
    space: str | None
    fidelity: float | None = None


def reported(error: BaseException, target: str, manifest: Manifest) -> BaseException:
    """Return the error that the caller gets, which also says how far the run came and what to do.

    Args:
        error: The error that stopped the run.
        target: The name of the target.
        manifest: The manifest of the target.
    """
    rows = manifest.rows
    how_far = f"{target} holds {rows} rows" if rows else "no row was finished"
    if isinstance(error, BulkError):
        said = error
    elif isinstance(error, CasdkError | OSError):
        what = str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            what = f"{error.filename}: {error.strerror}"
        said = BulkError(f"{what}; {how_far}, and the same call goes on from there")
    else:
        error.add_note(f"{how_far}, and the same call goes on from there")
        return error
    said.target, said.rows, said.failed = target, rows, manifest.failed
    return said
