"""What a bulk run has come to: its result, or an error that says how far it came."""

from __future__ import annotations

import msgspec

from casdk.bulk.manifest import Manifest
from casdk.errors import BulkError, CasdkError

__all__ = ["BulkResult", "reported"]


class BulkResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a bulk run has come to.

    Attributes:
        target: The file or the folder, as it was named.
        rows: Rows in it: one for each item of the input.
        failed: How many of the items have no embedding; of images with captions, how many rows lack one or both.
        encoded: Rows that this call has made; the others were there. 0: all was there.
        reencoded: Those of them whose item the target had a row of, which was replaced: an item that had failed, or
            that has changed.
        dropped: Rows that an update has left out, as the input has no more item for them.
        seconds: That this call took.
        batch_size: Items, or pairs, per request, those of a search for this number aside.
        space: The vector space of its rows, as `Client.space` returned it before the first item was sent; ``None`` if
            the server encodes neither of the two items that this one sends.
        fidelity: With ``images="jpeg95"`` or ``"webp90"``, the smallest cosine that was measured between rows without
            and with loss, over all shards; ``None`` if none was measured.
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
    """Return what the caller gets of an error: it says how far the run came, and what to do.

    Args:
        error: What stopped the run.
        target: The target's name.
        manifest: What it holds.
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
