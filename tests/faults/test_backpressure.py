"""The input is read no further than the window allows, waiting costs no CPU, and streams do not grow."""

import asyncio
import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from casdk import Limits
from casdk.testing import Gate, Hold, Reorder

PNG = b"\x89PNG\r\n\x1a\n"


def test_nothing_is_read_ahead_of_the_window(make_server, connect_to, scheme, rows):
    gate = Gate()
    server = make_server(Hold(gate))
    client = connect_to(server, scheme, timeout=30)
    taken = 0

    def texts():
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield f"text {number}"

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.encode, texts(), batch_size=5, prefetch=4)
        gate.wait_for(4)
        assert taken <= 5 * 5
        assert server.counters.running == 4
        gate.open()
        np.testing.assert_array_equal(running.result(), rows([f"text {number}" for number in range(1000)]))
    assert server.counters.most_running == 4


@pytest.mark.parametrize(("quick", "grown"), [(60.0, 32), (0.0, 8)])
def test_the_window_grows_only_for_a_server_that_answers_at_once(
    make_server, connect_to, scheme, rows, monkeypatch, quick, grown
):
    monkeypatch.setattr("casdk._calls.window.QUICK_SECONDS", quick)
    if scheme.startswith("http"):
        grown = min(grown, Limits().connections)
    gate = Gate()
    server = make_server(Hold(gate))
    client = connect_to(server, scheme, timeout=30)
    texts = [f"text {number}" for number in range(200)]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.encode, texts, batch_size=1)
        answered, in_flight = 0, 8
        gate.wait_for(in_flight)
        for _ in range(3):
            assert server.counters.running == in_flight
            gate.let(in_flight)
            answered += in_flight
            in_flight = min(2 * in_flight, grown)
            gate.wait_for(answered + in_flight)
        assert in_flight == grown
        gate.open()
        np.testing.assert_array_equal(running.result(), rows(texts))
    assert server.counters.most_running == grown


@pytest.mark.tls
def test_bytes_in_flight_have_a_limit_over_all_calls(make_server, connect_to, scheme, figure):
    size, most, calls = 200_000, 1_000_000, 4
    gate = Gate()
    server = make_server(Hold(gate))
    client = connect_to(server, scheme, limits=Limits(max_inflight_bytes=most), timeout=50)
    images = [PNG + bytes([number]) * size for number in range(16)]
    held = []
    with ThreadPoolExecutor(calls) as pool:
        running = [pool.submit(client.encode, images, batch_size=1) for _ in range(calls)]
        try:
            gate.wait_for(calls)
            for answered in range(48):
                gate.wait_for(answered + 1)
                held.append(sum(each.nbytes for each in list(server.requests)[answered:]))
                gate.let(1)
                server.wait_for(lambda seen, answered=answered: seen.replies > answered)
        finally:
            gate.open()
        for future in running:
            assert future.result().shape == (16, 32)
    # Each call may have one message beyond the budget, so that none is starved by the others.
    assert max(held) <= most + calls * max(each.nbytes for each in server.requests)
    figure("backpressure: most bytes in flight of 1,000,000", max(held))


@pytest.mark.tls
def test_waiting_costs_no_cpu(make_server, connect_to, scheme, figure):
    gate = Gate()
    client = connect_to(make_server(Hold(gate)), scheme, timeout=30)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.encode, map(str, itertools.repeat("x", 100)), batch_size=1, prefetch=4)
        gate.wait_for(4)
        before = time.process_time()
        with pytest.raises(TimeoutError):
            running.result(0.3)
        spent = time.process_time() - before
        gate.open()
        running.result()
    assert spent < 0.05
    figure("backpressure: CPU of 0.3 s of waiting, ms", round(spent * 1000, 1))


@pytest.mark.parametrize("mode", ["sync", pytest.param("async", marks=pytest.mark.soak)])
def test_an_endless_generator_runs_in_flat_memory(make_server, connect_to, mode, figure):
    server = make_server(width=512, history=10)
    client = connect_to(server, "websocket", timeout=60)
    process = psutil.Process()
    seen = []

    def look(number):
        if number % 100 == 0:
            seen.append(process.memory_info().rss)

    texts = (f"text {number}" for number in itertools.count())

    async def follow():
        stream = client.astream(texts, batch_size=32)
        number = 0
        async for piece in stream:
            look(number)
            assert piece.shape == (32, 512)
            number += 1
            if number == 600:
                break
        await stream.aclose()

    if mode == "async":
        asyncio.run(follow())
    else:
        stream = client.stream(texts, batch_size=32)
        for number, piece in zip(range(600), stream, strict=False):
            look(number)
            assert piece.shape == (32, 512)
        stream.close()
    grown = max(seen[2:]) - seen[1]
    assert grown < 4 * 2**20  # 400 pieces are 26 MB
    figure("stream: growth over 400 pieces, MiB", round(grown / 2**20, 2))


def test_pieces_come_in_order_while_the_input_is_read(make_server, connect_to, scheme, rows):
    client = connect_to(make_server(Reorder(3)), scheme, timeout=30)
    taken = 0

    def texts():
        nonlocal taken
        for number in range(300):
            taken += 1
            yield f"text {number}"

    first = None
    for number, piece in enumerate(client.stream(texts(), batch_size=3, prefetch=4)):
        np.testing.assert_array_equal(piece, rows([f"text {3 * number + item}" for item in range(3)]))
        if first is None:
            first = taken
    assert number == 99
    assert first <= 3 * 10


@pytest.mark.parametrize(("most", "pieces"), [(64 * 2**20, 8), (8 * 256, 5)], ids=["by-count", "by-bytes"])
def test_a_late_reply_holds_the_input_back(make_server, connect_to, scheme, rows, most, pieces):
    """What came before its turn waits in memory: as many pieces as are in flight, or an eighth of the bytes."""
    gate = Gate()
    server = make_server(lambda request: Hold(gate) if "text 0" in request.texts else None)
    client = connect_to(server, scheme, limits=Limits(max_inflight_bytes=most), timeout=30)
    taken = itertools.count()
    stream = client.stream((f"text {next(taken)}" for _ in itertools.count()), batch_size=2, prefetch=4)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, stream)
        gate.wait_for(1)
        for number in range(50):  # time enough to read hundreds
            client.encode([f"{number}"])
        # One more is read before the generator's next is asked for.
        assert next(taken) <= 2 * pieces + 1
        gate.open()
        np.testing.assert_array_equal(first.result(), rows(["text 0", "text 1"]))
    for number, piece in zip(range(1, 3), stream, strict=False):
        np.testing.assert_array_equal(piece, rows([f"text {2 * number}", f"text {2 * number + 1}"]))
    stream.close()


def next_behind_others(server, stream, requests):
    """Take the first piece of a stream when so many requests are under way.

    The thread that takes pieces reads the input while it waits for one, so the first reply must not come before that.
    """
    gate = Gate()
    server.play(Hold(gate))

    def open_when_they_came():
        gate.wait_for(requests)
        gate.open()

    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(open_when_they_came)
        next(stream)
        opened.result()


def test_a_stream_that_is_left_gives_its_bytes_back(make_server, connect_to, scheme, rows):
    """Pieces that nobody took would fill the budget of all calls in time."""
    server = make_server()
    client = connect_to(server, scheme, limits=Limits(max_inflight_bytes=4096), timeout=20)
    texts = [f"text {number}" for number in range(40)]

    async def leave():
        stream = client.astream(texts, batch_size=2)
        await anext(stream)
        await stream.aclose()

    for _ in range(24):
        replies = server.counters.replies
        stream = client.stream(texts, batch_size=2)
        next_behind_others(server, stream, 2)
        server.wait_for(lambda seen, replies=replies: seen.replies >= replies + 2)
        stream.close()
        asyncio.run(leave())
    np.testing.assert_array_equal(client.encode(texts, batch_size=2), rows(texts))


def test_a_stream_nobody_reads_holds_the_input_back(make_server, connect_to, scheme):
    server = make_server()
    client = connect_to(server, scheme, timeout=30)
    taken = itertools.count()
    stream = client.stream((f"text {next(taken)}" for _ in itertools.count()), batch_size=2, prefetch=4)
    next_behind_others(server, stream, 4)
    server.wait_for(lambda seen: seen.replies >= 4)
    assert next(taken) <= 2 * 12
    stream.close()
