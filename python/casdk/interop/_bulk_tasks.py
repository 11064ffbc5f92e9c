"""A bulk run in the tasks of an engine: each task makes a share of the shards, and the calling process merges them.

`casdk.interop.ray`, ``dask`` and ``spark`` pass `encode_in_tasks` a function that runs a `ShareTask` for each share.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import msgspec

from casdk._calls.bulk_options import read_bulk_options
from casdk._calls.options import AUTO
from casdk.bulk import merge
from casdk.bulk.object_storage import open_storage, suffix_of
from casdk.bulk.regrouping import hand_out
from casdk.bulk.shares import read_shares
from casdk.bulk.stores import is_url
from casdk.errors import ConfigError, InputTypeError, InputValueError
from casdk.interop import batches

if TYPE_CHECKING:
    from casdk.bulk import BulkResult
    from casdk.client import Client

__all__ = ["ShareTask", "encode_in_tasks"]

NOT_FOR_TASKS: Final = {
    "shard": "each task gets its own",
    "show_progress": "`casdk bulk status` says how far they are",
}
"""Options that only single runs have, and the reason in the error."""


class ShareTask:
    """Makes one share of a bulk run, or the missing rest of it; a function that can be pickled, and called again.

    Args:
        client: A client, whose configuration is pickled.
        target: The folder, which all workers see.
        content: The items, pickled.
        shares: How many tasks there are.
        options: The options of ``encode_to`` for one run.
    """

    def __init__(self, client: Client, target: str, content: bytes, shares: int, options: Mapping[str, Any]) -> None:
        self.shares = shares
        self._settings = pickle.dumps(client)
        self._target = target
        self._content = content
        self._options = dict(options)

    def __call__(self, index: int) -> int:
        """Make the share of a number, from 0.

        Returns:
            Rows that were encoded.

        Raises:
            BulkError: The run was stopped; another call continues there.
        """
        client, content = batches.client_of(self._settings), pickle.loads(self._content)
        return client.encode_to(self._target, content, shard=(index, self.shares), **self._options).encoded


def encode_in_tasks(
    client: Client,
    target: str | os.PathLike[str],
    content: Any,
    options: Mapping[str, Any],
    *,
    tasks: int,
    dumps: Callable[[Any], bytes],
    run: Callable[[ShareTask], Iterable[int]],
) -> BulkResult:
    """Run the tasks of a bulk run, and merge the shares that they have made.

    Args:
        client: A client of the server.
        target: The folder, which an earlier run may have begun.
        content: What each task reads.
        options: The options of ``encode_to``.
        tasks: The number of tasks.
        dumps: The engine's function for pickling, which can pickle more functions than Python's.
        run: Runs a task for each share, and returns the results of all tasks.

    Raises:
        BulkError: A task failed for good; the same call continues from there.
        InputTypeError: The content cannot be read more than once, or cannot be pickled.
        InputValueError: There are no tasks, or ``encode_to`` has no such option.
        ConfigError: An option is for single runs.
    """
    begun_at = monotonic()
    run_options, _ = read_bulk_options(options)
    for name, why in NOT_FOR_TASKS.items():
        if name in options:
            raise ConfigError(f"{name}= is for a single run: {why}")
    if tasks < 1:
        raise InputValueError(f"tasks must be at least 1, not {tasks}")
    if not isinstance(target, str | os.PathLike):
        raise InputTypeError(f"target must be a path, not {type(target).__name__}")
    path = os.fsdecode(target)
    if not is_url(path):
        # The working directory of a worker may be another one.
        path = os.path.abspath(os.path.expanduser(path))
    if suffix_of(path):
        raise ConfigError(f"{os.fsdecode(target)}: tasks make a folder of Parquet files, whose name has no suffix")
    for_tasks = {name: value for name, value in options.items() if name not in ("resume", "overwrite")}
    pickled = _pickled(content, dumps)
    if hand_out(path, tasks, resume=run_options.resume, overwrite=run_options.overwrite):
        if run_options.batch_size == AUTO and (begun := read_shares(open_storage(path))) and begun[0].prefetch is None:
            # A task that has made nothing yet would begin with another one.
            for_tasks["batch_size"] = begun[0].settings.batch_size
        encoded = sum(run(ShareTask(client, path, pickled, tasks, for_tasks)))
        result = merge(path)
    else:
        # It is finished, which this finds out without a task if the input is what it was.
        encoded, result = 0, client.encode_to(path, content, **for_tasks)
    return msgspec.structs.replace(result, target=os.fsdecode(target), encoded=encoded, seconds=monotonic() - begun_at)


def _pickled(content: Any, dumps: Callable[[Any], bytes]) -> bytes:
    """Return pickled content.

    Raises:
        InputTypeError: It cannot be read more than once, or cannot be pickled.
    """
    if hasattr(content, "__next__") or hasattr(content, "__anext__"):
        raise InputTypeError(
            f"each task reads all of the content, and a {type(content).__name__} can be read once: give what "
            "casdk.bulk reads, a list, or an object whose __iter__ begins at the first item"
        )
    try:
        return dumps(content)
    except Exception as error:
        raise InputTypeError(f"the content cannot travel to the workers: {error}") from error
