"""One of three servers is killed each second, for a minute: `python benches/pool.py` draws docs/pool.svg.

Each server is casdk's embedded one, in a process of its own that works at one request at a time and takes 20 ms for it.
One that was killed is started again at once, by a process that has imported all it needs, so that this takes a part of
a second and little of the machine. The client streams texts over grpc with its default options, and each row is
compared. All of them run on this machine, and share its cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import numpy as np
from casdk import Client
from casdk.server.__main__ import main as run_server
from casdk.server.encoders import Features

DOCS: Final = Path(__file__).parents[1] / "docs"
TOOK_SECONDS: Final = 0.02
SERVERS: Final = 3
ITEMS: Final = 4
"""In a request."""
ALONE_SECONDS: Final = 5
WINDOW_SECONDS: Final = 1.0
"""What is drawn is the throughput of the last second, at each tenth of one."""
TEXTS: Final = [f"text {number}" for number in range(ITEMS * 97)]


# The servers

PROCESSES: Final = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["casdk.server.gateway", "casdk.server.rpc", __name__])


def serve_slowly(port: int) -> None:
    """Run the embedded server in this process, such that each request takes its time."""
    encode = Features.encode_texts

    def encode_slowly(self: Features, texts: Sequence[str]) -> Any:
        time.sleep(TOOK_SECONDS)
        return encode(self, texts)

    Features.encode_texts = encode_slowly  # type: ignore[method-assign]
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as long as the process lives
    run_server(["--schemes=grpc", f"--port=grpc={port}", "--threads=1", "--no-index"])


class Process:
    """One of the servers, which may be killed and started again at the same address."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self._port = int(sock.getsockname()[1])
        self.address: Final = f"grpc://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start it."""
        self._process = PROCESSES.Process(target=serve_slowly, args=(self._port,), daemon=True)
        self._process.start()

    def wait(self) -> None:
        """Wait until it listens."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self._port)).close()
            except ConnectionRefusedError:
                time.sleep(0.05)
            else:
                return
        raise TimeoutError(f"{self.address} did not start")

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.join()


@contextmanager
def killed_each_second(servers: Sequence[Process], began: float, kills: list[float]) -> Iterator[None]:
    """Kill a server each second, or when the last one is back, and start it again at once; note when."""
    over = threading.Event()

    def kill() -> None:
        for server in cycle(servers):
            if over.wait(max(0.0, began + 1 + len(kills) - time.monotonic())):
                return
            kills.append(time.monotonic() - began)
            server.kill()
            server.start()
            server.wait()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        over.set()
        killer.join()


# What is measured


def stream_for(client: Client, seconds: float, rows: np.ndarray[Any, Any], began: float) -> list[float]:
    """Stream texts for so long, and compare each row; return when each request was answered."""
    answered = []
    for number, piece in enumerate(client.stream(cycle(TEXTS), batch_size=ITEMS)):
        at = number * ITEMS % len(TEXTS)
        assert np.array_equal(piece, rows[at : at + ITEMS])
        answered.append(time.monotonic() - began)
        if answered[-1] >= seconds:
            break
    return answered


def draw(answered: Sequence[float], kills: Sequence[float], alone: float, seconds: int, path: Path) -> None:
    """Draw the throughput over time, and when a server was killed."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "casdk"
    from matplotlib import pyplot

    ticks = np.arange(WINDOW_SECONDS, seconds + 0.05, 0.1)
    throughput = [sum(tick - WINDOW_SECONDS < at <= tick for at in answered) / WINDOW_SECONDS for tick in ticks]
    figure, axis = pyplot.subplots(figsize=(10, 3.6), layout="constrained")
    axis.plot(ticks, throughput, color="#1a7f5a", label=f"three servers: {len(answered)} requests, 0 errors")
    axis.axhline(alone, color="#b5482f", linestyle="--", label="one server, left alone")
    axis.plot(
        kills,
        [0.03] * len(kills),
        "|",
        color="#555555",
        markersize=8,
        label="a server is killed",
        transform=axis.get_xaxis_transform(),
    )
    axis.set(xlabel="seconds", ylabel="requests a second", xlim=(0, seconds), ylim=(0, None))
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main(seconds: int) -> None:
    """Measure, print what came of it, and draw the picture."""
    with ExitStack() as life:
        servers = [Process() for _ in range(SERVERS)]
        for server in servers:
            life.callback(server.kill)
            server.wait()
        with Client(servers[0].address) as client:
            rows = client.encode(TEXTS)
            alone = len(stream_for(client, ALONE_SECONDS, rows, time.monotonic())) / ALONE_SECONDS
        kills: list[float] = []
        with Client([server.address for server in servers]) as client:
            client.encode(TEXTS)  # from here on each of them has answered
            began = time.monotonic()
            with killed_each_second(servers, began, kills):
                answered = stream_for(client, seconds, rows, began)
    pooled = len(answered) / seconds
    print(f"one server: {alone:.1f} requests a second")
    print(f"three, of which {len(kills)} were killed in {seconds} s: {pooled:.1f}, {pooled / alone:.2f} times as many")
    draw(answered, kills, alone, seconds, DOCS / "pool.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60)
    main(parser.parse_args().seconds)
