"""One client from many threads, loops and tasks: no crossed row, no error, no more connections than the pool has."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from casdk import Limits, Timeouts
from casdk.testing import Reorder

THREADS, LOOPS, TASKS = 64, 4, 2000


def pool_of(scheme, client_limit):
    """The most connections of a client; over grpc, one more serves short calls while the server is quick."""
    return client_limit if scheme.startswith("http") else 1 + (scheme == "grpc")


def test_threads_loops_and_tasks_at_once(make_server, connect_to, scheme, rows, figure, tally):
    server = make_server(Reorder(4))
    # Beside so many threads, the one connection may take longer to make than a call waits for it by default.
    client = connect_to(server, scheme, limits=Limits(connections=8), timeouts=Timeouts(connect=60))
    crossed, lock = [], threading.Lock()

    def check(texts, found):
        if not np.array_equal(found, rows(texts)):
            with lock:
                crossed.append(texts)

    def from_thread(number):
        for turn in range(2):
            texts = [f"thread {number} {turn} {item}" for item in range(6)]
            check(texts, client.encode(texts, batch_size=4))

    async def task(loop, number):
        texts = [f"loop {loop} task {number}"]
        check(texts, await client.aencode(texts))

    async def tasks(loop):
        async with asyncio.TaskGroup() as group:
            for number in range(TASKS // LOOPS):
                group.create_task(task(loop, number))

    with ThreadPoolExecutor(THREADS + LOOPS) as pool:
        running = [pool.submit(asyncio.run, tasks(loop)) for loop in range(LOOPS)]
        running += [pool.submit(from_thread, number) for number in range(THREADS)]
        for future in running:
            future.result()

    assert crossed == []
    seen = server.counters
    assert seen.documents == TASKS + THREADS * 12
    assert seen.accepted <= pool_of(scheme, 8)
    tally("concurrency: crossed rows", len(crossed))
    figure(f"concurrency: connections, {scheme}", seen.accepted)


@pytest.mark.parametrize("window", [2, 7])
def test_order_is_the_inputs(make_server, connect_to, scheme, call, rows, window):
    texts = [f"text {number}" for number in range(203)]
    server = make_server(Reorder(window))
    client = connect_to(server, scheme)
    np.testing.assert_array_equal(call(client, "encode", texts, batch_size=4), rows(texts))
    assert server.counters.most_running > 1


def test_a_sync_call_inside_a_running_loop(make_server, connect_to, scheme, rows):
    client = connect_to(make_server(), scheme)

    async def main():
        return client.encode(["a"])

    np.testing.assert_array_equal(asyncio.run(main()), rows(["a"]))


@pytest.mark.tls
def test_many_clients_share_the_engine(make_server, connect_to, scheme, rows):
    server = make_server()
    clients = [connect_to(server, scheme) for _ in range(12)]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda client: client.encode(["a", "b"]), clients))
    for each in found:
        np.testing.assert_array_equal(each, rows(["a", "b"]))
    assert sum(thread.name == "casdk-engine" for thread in threading.enumerate()) == 1
