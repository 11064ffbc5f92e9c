"""A cancelled call leaves nothing behind: no task, socket, thread or descriptor, and the next call works."""

import asyncio
import contextlib
import gc
import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from casdk import TLS, Client, ClosedError, Limits
from casdk._engine.process import engine
from casdk.testing import Delay, Gate, Hold, Silent


def tasks_on_the_engine():
    async def count():
        return len(asyncio.all_tasks()) - 1

    return asyncio.run_coroutine_threadsafe(count(), engine().loop).result(10)


def held():
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count(), tasks_on_the_engine()


def test_a_cancelled_task(make_server, connect_to, scheme, rows):
    gate = Gate()
    server = make_server([Hold(gate)])
    client = connect_to(server, scheme, timeout=30)

    async def main():
        task = asyncio.create_task(client.aencode(["a"]))
        await asyncio.to_thread(gate.wait_for, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await client.aencode(["b"])

    np.testing.assert_array_equal(asyncio.run(main()), rows(["b"]))
    if scheme.startswith("grpc"):
        server.wait_for(lambda seen: seen.taken_back == 1 and seen.running == 0)
    elif scheme.startswith("http"):
        server.wait_for(lambda seen: seen.running == 0)
    gate.open()


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c(make_server, connect_to, scheme, rows, times):
    gate = Gate()
    server = make_server([Hold(gate)] * times)
    client = connect_to(server, scheme, timeout=30)
    main = threading.main_thread().ident

    def interrupt(count):
        gate.wait_for(count)
        signal.pthread_kill(main, signal.SIGINT)

    for number in range(times):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(interrupt, number + 1)
            with pytest.raises(KeyboardInterrupt):
                client.encode(["a"])
    np.testing.assert_array_equal(client.encode(["b"]), rows(["b"]))
    if scheme.startswith("grpc"):
        server.wait_for(lambda seen: seen.taken_back == times)
    gate.open()


@pytest.mark.tls
def test_close_from_another_thread(make_server, connect_to, scheme):
    gate = Gate()
    server = make_server(Hold(gate))
    client = connect_to(server, scheme, timeout=30)
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(client.encode, ["a"]) for _ in range(2)]
        running.append(pool.submit(asyncio.run, client.aencode(["a"])))
        gate.wait_for(3)
        client.close()
        for future in running:
            with pytest.raises(ClosedError):
                future.result(10)
    # grpcio's connection lives as long as a call on it, and the futures hold the calls by their tracebacks.
    del running, future
    gc.collect()
    server.wait_for(lambda seen: seen.open == 0)
    with pytest.raises(ClosedError):
        client.encode(["b"])
    gate.open()


def test_a_call_keeps_a_client_that_nobody_has_any_more(make_server, scheme, rows):
    """It would be closed under the call as it is collected."""
    server, texts = make_server(), [f"text {number}" for number in range(9)]
    options = {"tls": TLS(ca=server.ca)} if scheme.endswith("s") else {}

    def connect():  # the fixture keeps its clients
        return Client(server.address(scheme), timeout=20, **options)

    client = connect()
    pieces = client.stream(iter(texts), batch_size=1, prefetch=1)
    found = [next(pieces)]
    del client
    gc.collect()
    np.testing.assert_array_equal(np.concatenate(found + list(pieces)), rows(texts))

    async def later():
        client = connect()
        pieces = client.astream(iter(texts), batch_size=1, prefetch=1)
        found = [await anext(pieces)]
        del client
        gc.collect()
        found += [piece async for piece in pieces]
        return np.concatenate(found), await connect().aencode(iter(texts), batch_size=1, prefetch=1)

    for matrix in asyncio.run(later()):
        np.testing.assert_array_equal(matrix, rows(texts))


def test_a_loop_closed_under_its_calls(make_server, connect_to, scheme, rows):
    """Without a word to its tasks. What they asked for is taken back, and keeps no room."""
    gate = Gate()
    server = make_server(lambda request: Hold(gate) if request.texts == ("held",) else None)
    client = connect_to(server, scheme, limits=Limits(requests=2), timeout=60)

    async def begin():
        tasks = [asyncio.ensure_future(client.aencode(["held"])) for _ in range(4)]
        await asyncio.to_thread(gate.wait_for, 2)
        return tasks

    loop = asyncio.new_event_loop()
    tasks = loop.run_until_complete(begin())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    for task in tasks:
        task._log_destroy_pending = False  # asyncio is right: they are ours
    np.testing.assert_array_equal(client.encode(["a"], timeout=10), rows(["a"]))
    gate.open()


@pytest.mark.tls
def test_close_while_connecting(make_server, connect_to, scheme):
    server = make_server(connections=Silent())
    before = tasks_on_the_engine()
    client = connect_to(server, scheme, timeout=30)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.encode, ["a"])
        server.wait_for(lambda seen: seen.accepted == 1)
        client.close()
        with pytest.raises(ClosedError):
            running.result(10)
    assert tasks_on_the_engine() <= before


def test_a_closed_generator(make_server, connect_to, scheme, rows):
    gate, first = Gate(), Gate()
    server = make_server(lambda request: Hold(gate if request.texts[0] >= "c" else first))
    client = connect_to(server, scheme, timeout=30)
    stream = client.stream(iter("abcdefgh"), batch_size=1, prefetch=4)
    with ThreadPoolExecutor(1) as pool:
        # Only while a piece is asked for is the iterator read: so the first reply waits until more was read.
        piece = pool.submit(next, stream)
        gate.wait_for(1)
        first.open()
        np.testing.assert_array_equal(piece.result(), rows(["a"]))
    stream.close()
    if scheme.startswith("grpc"):
        server.wait_for(lambda seen: seen.taken_back >= 1 and seen.running == 0)
    gate.open()
    server.play(None)
    np.testing.assert_array_equal(client.encode(["z"]), rows(["z"]))


def test_an_async_generator_left_by_break(make_server, connect_to, scheme, rows):
    server = make_server(lambda request: Delay(0.01))
    client = connect_to(server, scheme, timeout=30)

    async def main():
        logged = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: logged.append(context))
        stream = client.astream(iter("abcdefgh"), batch_size=1, prefetch=2)
        async for piece in stream:
            np.testing.assert_array_equal(piece, rows(["a"]))
            break
        await stream.aclose()
        found = await client.aencode(["z"])
        del stream
        gc.collect()
        assert logged == []
        return found

    np.testing.assert_array_equal(asyncio.run(main()), rows(["z"]))


@pytest.mark.tls
@pytest.mark.parametrize("points", [60, pytest.param(170, marks=pytest.mark.soak)])  # six schemes: 1,020 in a soak
def test_cancelled_at_random_points(make_server, connect_to, scheme, rows, points, tally, figure):
    """Each call is cancelled after a random number of turns of its loop, or of milliseconds."""
    server = make_server(Delay(0.002))
    client = connect_to(server, scheme, timeout=60)
    drawn = random.Random(f"{scheme} {points}")
    texts = [f"text {number}" for number in range(24)]

    async def once():
        task = asyncio.create_task(client.aencode(iter(texts), batch_size=4, prefetch=4))
        if drawn.random() < 0.5:
            for _ in range(drawn.randrange(12)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(drawn.random() * 0.01)
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return None

    async def main(count):
        for _ in range(count):
            done = await once()
            if done is not None:
                np.testing.assert_array_equal(done, rows(texts))

    asyncio.run(main(20))
    np.testing.assert_array_equal(client.encode(texts), rows(texts))
    server.wait_for(lambda seen: seen.running == 0)
    before = held()
    asyncio.run(main(points))
    np.testing.assert_array_equal(client.encode(texts), rows(texts))
    server.wait_for(lambda seen: seen.running == 0)
    after = held()
    # http's pool may hold a few connections more or less; each is a descriptor here and one at the server.
    slack = 2 * 16 if scheme.startswith("http") else 2
    assert after[0] <= before[0] + slack
    assert after[1] <= before[1] + 1
    assert after[2] <= before[2] + (16 if scheme.startswith("http") else 1)
    tally("cancellation: calls cancelled at random points", points)
    figure("cancellation: descriptors left over", after[0] - before[0])


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_nothing_stays_allocated(make_server, connect_to, scheme, allocated, figure):
    """In grpc.aio, each call that is cancelled leaves a kilobyte (https://github.com/grpc/grpc/issues/43360)."""
    gate = Gate()
    server = make_server(Hold(gate), history=1)
    client = connect_to(server, scheme, timeout=30, transport="own")

    async def take_back(rounds):
        for _ in range(rounds):
            tasks = [asyncio.create_task(client.aencode(["a"])) for _ in range(20)]
            await asyncio.to_thread(gate.wait_for, gate.arrived + len(tasks))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(server.wait_for, lambda seen: seen.running == 0)

    asyncio.run(take_back(20))
    before = allocated()
    asyncio.run(take_back(50))
    grown = (allocated() - before) / 1000
    figure("cancellation: bytes that stay, of a call", grown)
    assert grown < 300


def interrupted(act, waits):
    """Do it over and over until as many Ctrl-C came, that long after each other."""
    over = False

    def end(*_):
        nonlocal over
        over = True

    def send(main, started):
        started.wait(10)
        for wait in waits:
            started.clear()
            started.wait(wait)
            signal.pthread_kill(main, signal.SIGINT)
        signal.pthread_kill(main, signal.SIGUSR1)  # handled after all the others

    before = signal.signal(signal.SIGUSR1, end)
    try:
        with ThreadPoolExecutor(1) as pool:
            started = threading.Event()
            pool.submit(send, threading.main_thread().ident, started)
            while not over:
                with contextlib.suppress(KeyboardInterrupt):
                    started.set()
                    act()
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("points", [10, pytest.param(170, marks=pytest.mark.soak)])
@pytest.mark.parametrize("how", ["ctrl-c", "close", "generator", "async generator"])
def test_taken_back_at_random_points(make_server, connect_to, scheme, rows, how, points, tally, figure):
    """By Ctrl-C one to three times in a row, by close() from another thread, by leaving a generator."""
    server = make_server(Delay(0.002))
    client = connect_to(server, scheme, timeout=60)
    drawn = random.Random(f"{scheme} {how} {points}")
    texts = [f"text {number}" for number in range(24)]
    expected = rows(texts)

    def encode(client):
        np.testing.assert_array_equal(client.encode(iter(texts), batch_size=4, prefetch=4), expected)

    def once():
        if how == "ctrl-c":
            interrupted(lambda: encode(client), [drawn.random() * 0.01 for _ in range(drawn.randint(1, 3))])
        elif how == "close":
            closed = connect_to(server, scheme, timeout=60)
            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(encode, closed)
                threading.Event().wait(drawn.random() * 0.02)
                closed.close()
                with contextlib.suppress(ClosedError):
                    running.result()
        elif how == "generator":
            stream = client.stream(iter(texts), batch_size=2, prefetch=4)
            for _ in range(drawn.randrange(12)):
                next(stream)
            stream.close()
        else:
            asyncio.run(leave(drawn.randrange(12)))

    async def leave(pieces):
        stream = client.astream(iter(texts), batch_size=2, prefetch=4)
        for _ in range(pieces):
            await anext(stream)
        await stream.aclose()

    def settled():
        encode(client)
        server.wait_for(lambda seen: seen.running == 0)
        return held()

    encode(client)
    for _ in range(5):
        once()
    before = settled()
    for _ in range(points):
        once()
    after = settled()
    slack = 2 * 16 if scheme.startswith("http") else 2
    assert after[0] <= before[0] + slack
    assert after[1] <= before[1] + 1
    assert after[2] <= before[2] + (16 if scheme.startswith("http") else 1)
    tally(f"cancellation: calls taken back by {how}", points)
    figure("cancellation: descriptors left over", after[0] - before[0])
