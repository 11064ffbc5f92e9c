"""casdk: ``python ours.py ADDRESS CA``."""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import content
import numpy as np
from casdk import TLS, Client, Document
from loop import COUNTS, Call, Case, serve

ADDRESS, CA = sys.argv[1:]
TLS_OPTION = TLS(ca=CA) if CA else None
SHARED = Client(ADDRESS, tls=TLS_OPTION)


def items(case: Case) -> Any:
    """Return the content; a function that makes it anew where the call consumes or changes it."""
    kind, n = case["content"], case["n"]
    if kind == "texts":
        return content.texts(n)
    if kind == "generator":
        return lambda: content.generate_texts(n)
    if kind == "paths":
        return content.paths(case["images"], n)
    if kind == "data_uris":
        return content.data_uris(case["images"], n)
    if kind == "blobs":
        return [Document(blob=blob) for blob in content.blobs(case["images"], n)]
    if kind == "documents":
        return [Document(text=text) for text in content.texts(n)]
    if kind == "ranked":
        matches = content.texts(case["matches"])
        return lambda: [Document(text=text, matches=[Document(text=m) for m in matches]) for text in content.texts(n)]
    raise ValueError(kind)


def prepare(case: Case) -> Call:
    verb, mode, options = case["verb"], case.get("mode", "sync"), dict(case.get("options", {}))
    asked = {name: case[name] for name in ("coalesce", "transport") if name in case}
    client = Client(ADDRESS, tls=TLS_OPTION, **asked) if asked else SHARED
    sent = items(case)
    get = sent if callable(sent) else lambda: sent
    if verb != "profile" and mode != "tasks":  # where it would say that merged requests must not grow
        options["batch_size"] = case.get("batch", 32)
    if mode == "async":
        loop = asyncio.new_event_loop()
        averb = getattr(client, f"a{verb}")
        return lambda: rows_of(loop.run_until_complete(averb(get(), **options)), verb)
    if mode == "threads":
        return in_threads(lambda part: client.encode(part, **options), sent)
    if mode == "tasks":
        count_requests(client)
        loop = asyncio.new_event_loop()

        async def each() -> None:
            await asyncio.gather(*[client.aencode([item], **options) for item in sent])

        return lambda: loop.run_until_complete(each())
    bound = getattr(client, verb)
    if verb == "encode_to":
        return lambda: Target(bound(case["target"], get(), overwrite=True, **options).target)
    return lambda: rows_of(bound(get(), **options), verb)


def count_requests(client: Client) -> None:
    """Count what the client sends where all of it passes: no callback may be given to calls that are to be merged."""
    transport = client._session.way.transports[0]
    exchange = transport.exchange

    async def counted(*arguments: Any, **options: Any) -> Any:
        COUNTS["requests"] += 1
        return await exchange(*arguments, **options)

    transport.exchange = counted


def in_threads(encode: Callable[[list[Any]], Any], sent: list[Any], threads: int = 8) -> Call:
    pool = ThreadPoolExecutor(threads)
    parts = [sent[start::threads] for start in range(threads)]
    return lambda: np.concatenate(list(pool.map(encode, parts)))


class Target:
    """The rows of a bulk run, which are read only where they are compared with those of others."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if self.path.endswith(".npy"):
            return np.load(self.path)
        import pyarrow.parquet

        column = pyarrow.parquet.read_table(self.path)["embedding"]
        return np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks]).reshape(len(column), -1)


def rows_of(result: Any, verb: str) -> Any:
    if verb != "encode":
        return None
    return result if hasattr(result, "shape") else result.embeddings


if __name__ == "__main__":
    serve(prepare)
