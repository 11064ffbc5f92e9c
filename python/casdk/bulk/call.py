"""Makes a `Run` of the arguments of ``encode_to``; `Client.encode_to` and the command line call it.

Everything that can be checked before the run begins is checked here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from casdk._calls.bulk_options import BulkDefaults, read_bulk_options
from casdk._calls.options import AUTO
from casdk.bulk.folders import EMBEDDING
from casdk.bulk.layouts import columns_of, open_folder
from casdk.bulk.manifest import EXACT, Settings, Share
from casdk.bulk.matrix import MatrixTarget
from casdk.bulk.object_storage import suffix_of
from casdk.bulk.report import Report
from casdk.bulk.run import Run
from casdk.bulk.sources import Holds, open_source
from casdk.bulk.stores import is_url
from casdk.bulk.targets import FillableTarget, Target
from casdk.errors import ConfigError, InputTypeError

__all__ = ["make_run", "open_target"]


def make_run(client: Any, target: object, content: Any, options: Mapping[str, Any], *, holds: Holds = ()) -> Run:
    """Return a run, after all checks that are possible before it begins.

    Args:
        client: The client that encodes the items.
        target: Path of a ``.npy`` file, or of a folder; or the URL of one in a store.
        content: The items.
        options: The options of ``encode_to``.
        holds: What the items hold, if the content does not say so itself.

    Raises:
        InputTypeError: The content is no iterable of items, or an option has a wrong type.
        InputValueError: An option has a wrong value.
        ConfigError: The target's name stands for no kind of target, or its library is missing; or it cannot hold this
            content or layout, or options contradict each other.
        TypeError: There is no option of that name.
    """
    run_options, stream_options = read_bulk_options(options)
    source = open_source(content, holds=holds, captions=run_options.layout is not None)
    images = stream_options["images"]
    has_loss = images not in ("original", EXACT)
    settings = Settings(
        shard_rows=run_options.shard_rows,
        batch_size=stream_options["batch_size"],
        dtype=stream_options["dtype"],
        normalize=run_options.normalize,
        parameters=_plain(run_options.parameters),
        hash=run_options.hash,
        columns=columns_of(run_options.layout, source.holds),
        layout=run_options.layout,
        images=images if has_loss else EXACT,
        min_fidelity=stream_options["min_fidelity"] if has_loss else None,
    )
    if run_options.normalize:
        stream_options["dtype"] = "float32"  # lengths are those of the rows that the server has sent
    if run_options.shard is not None and run_options.overwrite:
        raise ConfigError("overwrite=True takes from other runs with shard= what they made: remove the folder")
    share = None if run_options.shard is None else Share(index=run_options.shard[0], of=run_options.shard[1])
    opened = open_target(target, settings.dtype, share, layout=run_options.layout, columns=settings.columns)
    _check_combination(run_options, opened)
    return Run(
        client,
        opened,
        source,
        settings,
        stream_options,
        tunes=run_options.batch_size == AUTO,
        share=share,
        resume=run_options.resume,
        overwrite=run_options.overwrite,
        update=run_options.update,
        retry_errors=run_options.retry_errors,
        report=None if run_options.report is None else Report(run_options.report, opened.name),
        errors=run_options.errors,
        timeout=run_options.timeout,
        show_progress=run_options.show_progress,
    )


def _check_combination(options: BulkDefaults, target: Target) -> None:
    """Check that the options about an existing target do not contradict each other, and suit the target.

    Raises:
        ConfigError: They do not.
    """
    if options.overwrite and (options.update or options.retry_errors):
        other = "update=True" if options.update else "retry_errors=True"
        raise ConfigError(f"overwrite=True begins again, and {other} goes on with what is there: choose one")
    if options.retry_errors and not isinstance(target, FillableTarget):
        raise ConfigError(f"{target.name}: retry_errors=True is for a .npy file or a folder of Parquet files")
    if options.update and options.shard is not None:
        raise ConfigError("update=True is for a folder that is whole: casdk.bulk.merge joins what runs have made")
    if options.update and not isinstance(target, FillableTarget):
        raise ConfigError(f"{target.name}: update=True is for a .npy file or a folder of Parquet files")


def open_target(
    target: object,
    dtype: str,
    share: Share | None = None,
    *,
    layout: str | None = None,
    columns: tuple[str, ...] = EMBEDDING,
) -> Target:
    """Return the target that a path names.

    Args:
        target: The path.
        dtype: ``float32`` or ``float16``.
        share: The shards of this run, if other runs make the others.
        layout: The layout of a folder; ``None`` for casdk's own.
        columns: The names of the target's matrices.

    Raises:
        InputTypeError: ``target`` is no path.
        ConfigError: The path stands for no kind of target, or for none that has this layout; or a library is missing.
    """
    if not isinstance(target, str | os.PathLike):
        raise InputTypeError(f"target must be a path, not {type(target).__name__}")
    path = os.fsdecode(target)
    suffix = suffix_of(path).lower()
    if not suffix:
        return open_folder(path, dtype, layout=layout, columns=columns, share=share)
    if share is not None:
        raise ConfigError(f"{path}: shard= is for a folder of Parquet files, whose name has no suffix")
    if layout is not None:
        raise ConfigError(f"{path}: layout={layout!r} is for a folder, whose name has no suffix")
    if suffix != ".npy":
        raise ConfigError(f"{path}: a target is a .npy file, or a folder for Parquet files, whose name has no suffix")
    if is_url(path):
        raise ConfigError(
            f"{path}: a matrix is written row by row, and a store takes whole files alone: give a name "
            "without a suffix, for Parquet files"
        )
    if len(columns) > 1:
        raise ConfigError(
            f"{path}: an image and its caption are two embeddings, and a .npy has one for each row: give a folder, "
            "whose name has no suffix, for Parquet files or with layout='clip-retrieval'"
        )
    return MatrixTarget(path, dtype)


def _plain(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return parameters as the manifest stores them, so that they can be compared.

    Raises:
        InputTypeError: The parameters cannot be written as JSON.
    """
    try:
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dict(parameters or {})))
    except Exception as error:
        raise InputTypeError(f"parameters cannot be written into the manifest of a bulk run: {error}") from error
    return plain
