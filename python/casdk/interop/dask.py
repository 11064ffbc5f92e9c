"""Dask: a column of embeddings for a ``DataFrame``, and bulk runs that dask's tasks make, one connection per worker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Unpack, cast

from casdk._calls.bulk_options import BulkOptions
from casdk._extras import missing_extra
from casdk.interop._bulk_tasks import ShareTask, encode_in_tasks
from casdk.interop.batches import BatchEncoder

if TYPE_CHECKING:
    import os

    from casdk.bulk import BulkResult
    from casdk.client import Client

__all__ = ["encode", "encode_to"]


def encode(frame: Any, client: Client, column: str, **options: Any) -> Any:
    """Return the frame with its embeddings, lazily as dask has it; objects, one ndarray ``[D]`` per row.

    Args:
        frame: A ``dask.dataframe.DataFrame``.
        client: A client of the server; its configuration is pickled for the workers.
        column: Name of the column to encode.
        **options: Options of `BatchEncoder`.
    """
    function = BatchEncoder(client, column, **options)
    # Without a meta, dask would encode made-up texts to find out the columns.
    meta = frame._meta.assign(**{function.into: frame._meta[column].astype(object)})
    return frame.map_partitions(function, meta=meta)


def encode_to(
    client: Client,
    target: str | os.PathLike[str],
    content: Any,
    *,
    tasks: int | None = None,
    retries: int = 3,
    **options: Unpack[BulkOptions],
) -> BulkResult:
    """Run `Client.encode_to` in dask's tasks; the folder is byte for byte that of a single run, which may continue it.

    The tasks run where dask's computations do: on the cluster of the ``distributed.Client`` that is current, or on
    threads or processes of this machine.

    Args:
        client: A client of the server; its configuration is pickled for the workers.
        target: A folder that all workers see.
        content: A source of `casdk.bulk`, a list, or anything else that every task can unpickle and read from its first
            item; paths are those that the workers see.
        tasks: Number of tasks, each of which makes a share of the shards; by default the number of the workers'
            threads.
        retries: How often a cluster repeats a failed task, which then continues where it stopped. Threads and processes
            of this machine repeat none.
        **options: The fields of `BulkOptions`, except ``shard`` and ``show_progress``.

    Raises:
        BulkError: A task failed for good, and the same call continues there; or the target or the input has changed.
        InputError: The content cannot be pickled, or an option has a wrong value.
        ConfigError: An option is for single runs.
    """
    try:
        import cloudpickle  # pyright: ignore[reportMissingImports]
        import dask  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise missing_extra("casdk.interop.dask", "dask", error) from error

    def run(task: ShareTask) -> Iterable[int]:
        make = dask.delayed(task, pure=False)
        return cast("tuple[int, ...]", dask.compute(*map(make, range(task.shares)), retries=retries))

    tasks = _threads() if tasks is None else tasks
    return encode_in_tasks(client, target, content, options, tasks=tasks, dumps=cloudpickle.dumps, run=run)


def _threads() -> int:
    """Return how many tasks dask runs at once."""
    from dask.system import CPU_COUNT  # pyright: ignore[reportMissingImports]

    try:
        from distributed import get_client  # pyright: ignore[reportMissingImports]

        return int(sum(get_client().nthreads().values()))
    except (ImportError, ValueError):  # not installed, or no client is current
        return int(CPU_COUNT)
