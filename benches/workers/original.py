"""clip_client 0.8.3, in its own environment: ``python original.py ADDRESS CA``."""

import asyncio
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import content
import numpy as np
from clip_client import Client
from docarray import Document, DocumentArray
from loop import Call, Case, serve

ADDRESS, CA = sys.argv[1:]
warnings.filterwarnings("ignore")


def gather(response: Any, results: DocumentArray, attribute: str | None = None) -> None:
    """Read what jina 3.33 answers over http; the client's own line reads `response.data.docs`, which is empty."""
    docs = response.docs
    if attribute:
        results[docs[:, "id"]][:, attribute] = docs[:, attribute]


if ADDRESS.startswith("http"):
    Client._gather_result = staticmethod(gather)


def items(case: Case) -> Any:
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
        return DocumentArray([Document(blob=blob) for blob in content.blobs(case["images"], n)])
    if kind == "documents":
        return DocumentArray([Document(text=text) for text in content.texts(n)])
    if kind == "ranked":
        matches = content.texts(case["matches"])
        return lambda: [
            Document(text=text, matches=DocumentArray([Document(text=m) for m in matches])) for text in content.texts(n)
        ]
    raise ValueError(kind)


def prepare(case: Case) -> Call:
    verb, mode, options = case["verb"], case.get("mode", "sync"), {"batch_size": case.get("batch", 8)}
    client = Client(ADDRESS)
    sent = items(case)
    get = sent if callable(sent) else lambda: sent
    if mode == "async":
        loop = asyncio.new_event_loop()
        averb = getattr(client, f"a{verb}")
        return lambda: rows_of(loop.run_until_complete(averb(get(), **options)), verb)
    if mode == "threads":
        # One client for each: two calls at once on one share the progress bar's state and break.
        pool, clients = ThreadPoolExecutor(8), [Client(ADDRESS) for _ in range(8)]
        parts = [sent[start::8] for start in range(8)]
        return lambda: np.concatenate(list(pool.map(lambda c, part: c.encode(part, **options), clients, parts)))
    bound = getattr(client, verb)
    return lambda: rows_of(bound(get(), **options), verb)


def rows_of(result: Any, verb: str) -> Any:
    if verb != "encode":
        return None
    return result if hasattr(result, "shape") else result.embeddings


if __name__ == "__main__":
    serve(prepare)
