"""``casdk bench``: measures how fast a server answers this client."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
import numpy as np
from cyclopts import Parameter
from cyclopts.validators import Number

from casdk import Client
from casdk.cli.access import Access
from casdk.cli.exits import Exit

__all__ = ["Figures", "bench"]

LATENCY_SENTENCES: Final = 50
"""Sentences that are encoded one by one to measure the latency."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Attributes:
        width: Numbers in an embedding.
        latency_ms: Milliseconds for one sentence, encoded one after the other: median, 95th and 99th percentile.
        items: Sentences that were encoded by one stream.
        seconds: Seconds that the stream took.
        items_per_second: Sentences per second of the stream.
        batch_size: Items per request.
        prefetch: Requests in flight.
    """

    width: int
    latency_ms: dict[str, float]
    items: int
    seconds: float
    items_per_second: float
    batch_size: int
    prefetch: int


def bench(
    url: str,
    /,
    *,
    seconds: Annotated[float, Parameter(validator=Number(gt=0))] = 5.0,
    batch_size: Annotated[int, Parameter(validator=Number(gte=1))] = 32,
    prefetch: Annotated[int, Parameter(validator=Number(gte=1))] = 8,
    json: Annotated[bool, Parameter(negative="", help="Print JSON.")] = False,
    access: Access | None = None,
) -> int:
    """Measure a server: latency of single sentences, then how many a second.

    Args:
        url: The server.
        seconds: Time to encode for.
        batch_size: Items per request.
        prefetch: Requests in flight.
    """
    with (access or Access()).client(url) as client:
        figures = measure(client, seconds, batch_size, prefetch)
    if json:
        print(msgspec.json.encode(figures).decode())
        return Exit.OK
    latency = ", ".join(f"{name} {value:.2f} ms" for name, value in figures.latency_ms.items())
    print(f"one sentence: {latency}")
    print(
        f"in a row: {figures.items_per_second:,.0f} sentences/s "
        f"({figures.items} in {figures.seconds:.2f} s, {batch_size} per request, {prefetch} requests in flight)"
    )
    return Exit.OK


def measure(client: Client, seconds: float, batch_size: int, prefetch: int) -> Figures:
    """Measure for about so many seconds, after one sentence that opens the connection."""
    sentences = _sentences()
    width = client.encode([next(sentences)]).shape[1]
    latencies = []
    for sentence in itertools.islice(sentences, LATENCY_SENTENCES):
        start = time.perf_counter()
        client.encode([sentence])
        latencies.append((time.perf_counter() - start) * 1e3)
    start = time.perf_counter()
    ending = start + seconds
    timed = itertools.takewhile(lambda _: time.perf_counter() < ending, sentences)
    items = sum(len(rows) for rows in client.stream(timed, batch_size=batch_size, prefetch=prefetch))
    took = time.perf_counter() - start
    return Figures(
        width=width,
        latency_ms={f"p{share}": float(np.percentile(latencies, share)) for share in (50, 95, 99)},
        items=items,
        seconds=took,
        items_per_second=items / took,
        batch_size=batch_size,
        prefetch=prefetch,
    )


def _sentences() -> Iterator[str]:
    """Yield sentences that never repeat, because a server may answer repeated ones from a cache."""
    return (f"a photo of {number} apples on a table" for number in itertools.count())
