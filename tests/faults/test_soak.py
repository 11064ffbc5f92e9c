"""Mixed traffic with faults for SOAK_SECONDS: this process does not grow, and no row is lost."""

import asyncio
import gc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from casdk import Retry
from casdk._engine.process import engine
from casdk.testing import Cut, Delay, Mix, Refuse, Reorder

SECONDS = float(os.environ.get("SOAK_SECONDS", "1800"))
LEAST_ROUNDS = 160
"""Pools of connections and memory grow for about eighty rounds, which take longer than a minute on a busy machine."""
pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS + 600)]
SCHEMES = ("grpc", "grpcs", "http", "https", "websocket", "websockets")
HELD = ("MiB", "MiB allocated", "descriptors", "threads", "tasks", "objects")
PERSISTENT = Retry(attempts=60, backoff=0.001, max_backoff=0.05, budget=1)


async def _tasks():
    return len(asyncio.all_tasks())


def held(allocated):
    """Return what this process holds, in the order of `HELD`; its MiB are those resident."""
    gc.collect()
    process = psutil.Process()
    tasks = asyncio.run_coroutine_threadsafe(_tasks(), engine().loop).result(30)
    memory = process.memory_info().rss / 2**20, allocated() / 2**20
    return np.array([*memory, process.num_fds(), threading.active_count(), tasks, len(gc.get_objects())])


def test_nothing_grows(make_server, connect_to, rows, allocated, figure, tally):
    faults = {Cut("after"): 0.01, Cut("middle", "reset"): 0.01, Refuse.overloaded(): 0.02, Delay(0.02): 0.05}
    script = Mix(6, {**faults, Reorder(2): 0.02})
    server = make_server(script, history=100)
    clients = [connect_to(server, scheme, retry=PERSISTENT, timeout=60) for scheme in SCHEMES]
    end, lost = time.monotonic() + SECONDS, []

    def check(texts, found):
        if not np.array_equal(found, rows(texts)):
            lost.append(texts)

    def encode(client, number):
        texts = [f"{number} {item}" for item in range(40)]
        check(texts, client.encode(texts, batch_size=8))

    def stream(client, number):
        texts = [f"{number} {item}" for item in range(40)]
        check(texts, np.concatenate(list(client.stream(iter(texts), batch_size=8))))

    def tasks(client, number):
        async def main():
            texts = [f"{number} {item}" for item in range(8)]
            found = await asyncio.gather(*(client.aencode([text]) for text in texts))
            check(texts, np.concatenate(found))
            task = asyncio.ensure_future(client.aencode(texts))
            await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(main())

    seen, number = [], 0
    with ThreadPoolExecutor(6) as pool:
        while time.monotonic() < end or number < LEAST_ROUNDS:
            turn = [pool.submit(act, client, number) for act in (encode, stream, tasks) for client in clients]
            number += 1
            if number % 20 == 0:
                server.restart("reset")
            for future in turn:
                future.result()
            if number % 10 == 0:
                seen.append(held(allocated))
    figures = np.array(seen)
    quarter = len(seen) // 4
    early, late = (np.median(part, 0) for part in (figures[-2 * quarter : -quarter], figures[-quarter:]))
    tally("soak: calls", number * 3 * len(SCHEMES))
    tally("soak: faults injected", script.injected)
    tally("soak: calls with wrong rows", len(lost))
    for name, grown in zip(HELD, late - early, strict=True):
        figure(f"soak: growth, {name}", float(grown))
    assert lost == []
    assert (late - early <= [4, 2, 12, 2, 12, 2000]).all(), (early, late)
