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
"""How long tasks that are no longer wanted may take to write down what they have."""


def encode(dataset: Any, client: Client, column: str, *, batch_size: int = 1024, **options: Any) -> Any:
    """Return the dataset with its embeddings, lazily as Ray has it; a FixedSizeList column.

    Args:
        dataset: A ``ray.data.Dataset``.
        client: A client of the server; its configuration travels.
        column: What to encode.
        batch_size: Rows a worker is handed at a time; it sends them in requests of its own.
        **options: Of `BatchEncoder`.
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
    """`Client.encode_to` by Ray's tasks: the same folder, byte for byte, whoever began it and whoever ends it.

    Args:
        client: A client of the server; its configuration travels.
        target: A folder, which all workers see.
        content: What `casdk.bulk` reads, a list, or what else can be pickled and read from the first item on, by every
            task; its paths are those of the workers.
        tasks: How many make it, each a share of its shards; by default as many as the cluster has CPUs.
        retries: How often a task that failed, or whose worker died, is made again; it goes on where it was.
        **options: Those of `BulkOptions`, but ``shard`` and ``show_progress``.

    Raises:
        BulkError: A task failed for good, and the same call goes on there; or target or input are not what they were.
        InputError: The content cannot travel, or an option is none.
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
