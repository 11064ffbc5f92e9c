"""Ray: a column of embeddings for a ``Dataset``, and bulk runs that Ray's tasks make, one connection per worker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Unpack

from casdk._calls.bulk_options import BulkOptions
from casdk._extras import missing_extra
from casdk.errors import CasdkError
from casdk.interop._bulk_tasks import ShareTask, encode_in_tasks
from casdk.interop.batches import BatchEncoder

if TYPE_CHECKING:
    import os

    from casdk.bulk import BulkResult
    from casdk.client import Client

__all__ = ["encode", "encode_to"]

STOP_SECONDS: Final = 10
"""How long cancelled tasks may take to write the rows that they have."""


def encode(dataset: Any, client: Client, column: str, *, batch_size: int = 1024, **options: Any) -> Any:
    """Return the dataset with its embeddings, lazily as Ray has it; a FixedSizeList column.

    Args:
        dataset: A ``ray.data.Dataset``.
        client: A client of the server; its configuration is pickled for the workers.
        column: Name of the column to encode.
        batch_size: Rows that a worker gets at a time; it sends them in requests of its own.
        **options: Options of `BatchEncoder`.
    """
    function = BatchEncoder(client, column, **options)
    return dataset.map_batches(function.__call__, batch_size=batch_size, batch_format="pyarrow")


def encode_to(
    client: Client,
    target: str | os.PathLike[str],
    content: Any,
    *,
    tasks: int | None = None,
    retries: int = 3,
    **options: Unpack[BulkOptions],
) -> BulkResult:
    """Run `Client.encode_to` in Ray's tasks; the folder is byte for byte that of a single run, which may continue it.

    Args:
        client: A client of the server; its configuration is pickled for the workers.
        target: A folder that all workers see.
        content: A source of `casdk.bulk`, a list, or anything else that every task can unpickle and read from its first
            item; paths are those that the workers see.
        tasks: Number of tasks, each of which makes a share of the shards; by default the number of the cluster's CPUs.
        retries: How often Ray repeats a task that failed or whose worker died; the task continues where it stopped.
        **options: The fields of `BulkOptions`, except ``shard`` and ``show_progress``.

    Raises:
        BulkError: A task failed for good, and the same call continues there; or the target or the input has changed.
        InputError: The content cannot be pickled, or an option has a wrong value.
        ConfigError: An option is for single runs.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
        from ray import cloudpickle  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise missing_extra("casdk.interop.ray", "ray", error) from error
    if not ray.is_initialized():
        ray.init()

    def run(task: ShareTask) -> Iterable[int]:
        function = ray.remote(max_retries=retries, retry_exceptions=True)(_make_share)
        shared = ray.put(task)
        making = [function.remote(shared, index) for index in range(task.shares)]
        try:
            made: list[int] = ray.get(making)
        except BaseException as error:
            for one in making:
                ray.cancel(one)
            ray.wait(making, num_returns=len(making), timeout=STOP_SECONDS)
            cause = getattr(error, "cause", None)  # Ray's own error has the text of the worker's traceback
            if isinstance(cause, CasdkError):
                raise cause from error
            raise
        return made

    tasks = int(ray.cluster_resources().get("CPU", 1)) if tasks is None else tasks
    return encode_in_tasks(client, target, content, options, tasks=tasks, dumps=cloudpickle.dumps, run=run)


def _make_share(task: ShareTask, index: int) -> int:
    return task(index)
