"""The options of ``encode_to`` and ``aencode_to``, and the checks of their values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Literal, TypedDict

import msgspec

from casdk._calls.options import AUTO, MIN_FIDELITY, MINIBATCH, Images, Known, read_options
from casdk._wording import shown
from casdk.errors import InputTypeError, InputValueError

__all__ = ["BulkDefaults", "BulkOptions", "read_bulk_options"]


class BulkOptions(TypedDict, total=False):
    """Options of ``encode_to``.

    Attributes:
        resume: Whether to continue a target that was begun; ``False`` refuses it.
        overwrite: Whether to begin again. This also replaces a file of the target's name that no bulk run has made.
        update: Whether to bring the target up to date with a changed input: encode what is new or has changed, and
            remove what is gone. In a folder, new rows go into new shards behind the others, and shards without a
            changed item keep their bytes. A matrix is made anew beside the old one, from rows that are copied or
            encoded. A target that does not exist is made.
        retry_errors: Whether to encode failed items again; all other rows stay as they are.
        hash: Whether to compare files by a digest of their bytes, and not by size and time; the same for all runs into
            a target.
        report: Path of an HTML page with the throughput over time and the errors; it needs no network. It is written
            when the run ends or is stopped.
        shard_rows: Rows in a shard: what a killed run may have to encode again and, in a folder, the rows of a file.
            100,000 by default.
        shard: ``(i, n)`` if n runs make one folder together, on any number of machines: this run makes every n-th
            shard, beginning with shard i, counted from 0. `casdk.bulk.merge` joins them.
        batch_size: Items per request. ``"auto"``, the default, finds out while the first shard is made, as for
            `Client.encode`; every run that goes on takes what was found, and each run with ``shard`` finds its own. It
            is 32 for fewer than 4,096 items. Of images with their captions it is the number of pairs.
        dtype: ``float32`` or ``float16``.
        normalize: Divide each row by its length.
        layout: ``"clip-retrieval"`` makes a folder that autofaiss and clip-back read, of images, texts or both:
            ``img_emb/img_emb_0.npy``, ``text_emb/text_emb_0.npy`` and ``metadata/metadata_0.parquet``, float16 and each
            row divided by its length, without the rows of failed items.
        errors: ``"record"`` records an item that cannot be encoded, and goes on; ``"raise"`` stops the run at it, and
            the same call continues there.
        patience: Seconds that the run waits for a server that has answered before and is away. 600 by default.
        timeout: Seconds for the whole run; no limit by default, whatever the client's own timeout is.
        parameters: Sent to the executors; ``model_name`` in it selects ``/encode/{model_name}``. Never changed.
        prefetch: Requests in flight; ``Limits.prefetch`` by default.
        check_images: Whether to refuse items that are no images before they are sent.
        images: What is sent of them, as for `Client.encode`: the ``"original"``, ``"exact"`` crops, or such with loss,
            ``"jpeg95"`` or ``"webp90"``. Loss is measured on the first 32 images of each shard, which are sent without;
            the manifest has the result, so a run that was killed leaves the same bytes. Items that are tried
            again are sent without loss.
        image_size: The model's side in pixels, for crops; found out by default.
        min_fidelity: The smallest cosine between the rows of crops without and with loss: if that of a shard's first
            images is smaller, all of its images go without loss. 0.999.
        show_progress: Show a bar.
    """

    resume: bool
    overwrite: bool
    update: bool
    retry_errors: bool
    hash: bool
    report: str | os.PathLike[str] | None
    shard_rows: int
    shard: tuple[int, int] | None
    batch_size: int | Literal["auto"] | None
    dtype: Any
    normalize: bool
    layout: Literal["clip-retrieval"] | None
    errors: Literal["record", "raise"]
    patience: float
    timeout: float | None
    parameters: Mapping[str, Any] | None
    prefetch: int | None
    check_images: bool
    images: Images
    image_size: int | None
    min_fidelity: float
    show_progress: bool


class BulkDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a run with their defaults; `read_bulk_options` makes it for `casdk.bulk.call`."""

    resume: bool = True
    overwrite: bool = False
    update: bool = False
    retry_errors: bool = False
    hash: bool = False
    report: str | os.PathLike[str] | None = None
    shard_rows: int = 100_000
    shard: tuple[int, int] | None = None
    batch_size: int | Literal["auto"] | None = AUTO
    dtype: Any = "float32"
    normalize: bool = False
    layout: Literal["clip-retrieval"] | None = None
    errors: Literal["record", "raise"] = "record"
    patience: float = 600.0
    timeout: float | None = None
    parameters: Mapping[str, Any] | None = None
    prefetch: int | None = None
    check_images: bool = True
    images: Images = "original"
    image_size: int | None = None
    min_fidelity: float = MIN_FIDELITY
    show_progress: bool = False


KNOWN: Final = Known([BulkOptions])
CLIP_RETRIEVAL: Final = "clip-retrieval"
OF_CLIP_RETRIEVAL: Final[dict[str, Any]] = {"dtype": "float16", "normalize": True}
"""Defaults of other options with ``layout="clip-retrieval"``."""
OF_STREAMS: Final = (
    "batch_size",
    "dtype",
    "parameters",
    "prefetch",
    "check_images",
    "images",
    "image_size",
    "min_fidelity",
    "patience",
    "timeout",
)
"""Options that `Client.stream` has, too."""


def read_bulk_options(options: Mapping[str, Any]) -> tuple[BulkDefaults, dict[str, Any]]:
    """Return the options of a run, each value of the caller's checked, and those of them that streams take.

    The ``batch_size`` of streams is a number: where the run is to find one, it begins with that.

    Raises:
        InputTypeError: A value is of a type that the option does not take.
        InputValueError: A value is none that the option takes.
        TypeError: There is no option of that name.
    """
    KNOWN.check(options)
    of_layout = {} if options.get("layout") is None else OF_CLIP_RETRIEVAL
    run_options = BulkDefaults(**{**of_layout, **options})
    checked = read_options({name: getattr(run_options, name) for name in (*OF_STREAMS, "show_progress")})
    for name in ("resume", "overwrite", "update", "retry_errors", "hash", "normalize"):
        if not isinstance(value := getattr(run_options, name), bool):
            raise InputTypeError(f"{name} must be True or False, not {shown(value)}")
    if run_options.report is not None and not isinstance(run_options.report, str | os.PathLike):
        raise InputTypeError(f"report must be a path, not {shown(run_options.report)}")
    if isinstance(run_options.shard_rows, bool) or not isinstance(run_options.shard_rows, int):
        raise InputTypeError(f"shard_rows must be an int, not {type(run_options.shard_rows).__name__}")
    if run_options.shard_rows < 1:
        raise InputValueError(f"shard_rows must be at least 1, not {run_options.shard_rows}")
    _check_shard(run_options.shard)
    if run_options.layout not in (None, CLIP_RETRIEVAL):
        raise InputValueError(f"layout must be {CLIP_RETRIEVAL!r} or None, not {shown(run_options.layout)}")
    if run_options.layout is not None and not (checked.dtype == "float16" and run_options.normalize):
        raise InputValueError(
            f"layout={run_options.layout!r} has float16, rows of length 1: leave out dtype and normalize"
        )
    if run_options.errors not in ("record", "raise"):
        raise InputValueError(f"errors must be 'record' or 'raise', not {shown(run_options.errors)}")
    first = MINIBATCH if checked.batch_size in (None, AUTO) else checked.batch_size
    return msgspec.structs.replace(run_options, batch_size=checked.batch_size), {
        **{name: getattr(checked, name) for name in OF_STREAMS},
        "batch_size": first,
    }


def _check_shard(shard: Any) -> None:
    if shard is None:
        return
    if not isinstance(shard, tuple) or len(shard) != 2 or any(type(number) is not int for number in shard):
        raise InputTypeError(f"shard must be two ints, as (0, 3), not {shown(shard)}")
    index, of = shard
    if not 0 <= index < of:
        raise InputValueError(f"shard must be from (0, {max(of, 1)}) to ({max(of, 1) - 1}, {max(of, 1)}), not {shard}")
