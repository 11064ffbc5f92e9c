"""The console of the bar may block, fail or be the caller's code: no call fails, or is delayed beyond its deadline."""

import asyncio
import logging
import os
import subprocess
import sys
import threading
from io import StringIO

import numpy as np
import pytest
import rich
from bars import end_of_bar
from casdk import Client, DeadlineError
from casdk._calls import progress as _progress
from casdk._engine.logging import flush
from casdk.testing import Never
from rich.console import Console

PATIENCE = 30
OVERRUN = 0.1
TRIES = 10
"""A busy machine may pause us; what is held up, is held up every time."""


def show_on(monkeypatch, file):
    monkeypatch.setattr(rich, "_console", Console(file=file, force_terminal=True, width=100))


class Gated(StringIO):
    """A terminal that was stopped."""

    def __init__(self):
        super().__init__()
        self.gate, self.entered, self.threads = threading.Event(), threading.Event(), set()

    def write(self, text):
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        return super().write(text)


@pytest.fixture
def full():
    """The end of a pipe that is full and that nobody reads, and its other end."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    try:
        while True:
            os.write(theirs, bytes(4096))
    except BlockingIOError:
        os.set_blocking(theirs, True)
    yield ours, theirs
    os.close(ours)


def test_a_full_pipe_holds_up_no_call(make_server, connect_to, scheme, call, full, monkeypatch, stopwatch, figure):
    """Neither its own call's end nor the deadline of another client's."""
    reading, writing = full
    with open(writing, "w") as file:
        show_on(monkeypatch, file)
        client = connect_to(make_server(), scheme)
        other = connect_to(make_server(Never()), scheme)
        monkeypatch.setattr(_progress, "END_SECONDS", 0.2)
        assert len(call(client, "encode", ["a"] * 5, batch_size=1, show_progress=True)) == 5
        for left in reversed(range(TRIES)):
            with stopwatch() as watch, pytest.raises(DeadlineError):
                call(other, "encode", ["a"], timeout=0.3)
            if watch.seconds <= 0.3 + OVERRUN or not left:
                break
        drain = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(reading, 4096), b"")], daemon=True)
        drain.start()
        end_of_bar()
    drain.join(PATIENCE)
    assert watch.seconds <= 0.3 + OVERRUN
    figure("deadline beside a bar that blocks: worst overrun, ms", round((watch.seconds - 0.3) * 1000, 1))


def test_the_final_state_is_drawn_when_the_terminal_goes_on(connect, call, monkeypatch):
    terminal = Gated()
    show_on(monkeypatch, terminal)
    monkeypatch.setattr(_progress, "END_SECONDS", 0.05)
    client = connect("grpc")
    for _ in range(3):
        call(client, "encode", ["a"] * 7, batch_size=2, show_progress=True)
    assert terminal.entered.wait(PATIENCE)
    assert terminal.getvalue() == ""
    terminal.gate.set()
    end_of_bar()
    assert terminal.threads == {"casdk-bar"}
    rows = [line for line in terminal.getvalue().splitlines() if "items/s" in line]
    assert ["7/7" in row for row in rows[-3:]] == [True] * 3
    assert "\x1b[?25h" in terminal.getvalue()  # the cursor is back


def test_a_terminal_that_blocks_is_waited_for_once(connect, monkeypatch, stopwatch):
    terminal = Gated()
    show_on(monkeypatch, terminal)
    monkeypatch.setattr(_progress, "END_SECONDS", 1.0)
    client = connect("grpc")
    client.encode(["warm"])
    with stopwatch() as watch:
        for _ in range(20):
            client.encode(["a"], show_progress=True)
    terminal.gate.set()
    end_of_bar()
    assert watch.seconds < 20 * 1.0 / 2


def test_a_deadline_waits_for_no_terminal(make_server, connect_to, call, monkeypatch, stopwatch):
    terminal = Gated()
    show_on(monkeypatch, terminal)
    monkeypatch.setattr(_progress, "END_SECONDS", PATIENCE)
    client = connect_to(make_server(), "grpc")
    try:
        with stopwatch() as watch:
            call(client, "encode", ["a"], show_progress=True, timeout=2)
    finally:
        terminal.gate.set()
    end_of_bar()
    assert watch.seconds < PATIENCE / 2
    assert "1/1" in terminal.getvalue()


@pytest.mark.parametrize("raised", [OSError, ValueError, SystemExit, KeyboardInterrupt])
def test_what_a_console_raises_ends_the_bar_and_no_call(connect, call, scheme, monkeypatch, caplog, raised, expected):
    class Broken(StringIO):
        def write(self, text):
            raise raised("no terminal any more")

    show_on(monkeypatch, Broken())
    client = connect(scheme)
    with caplog.at_level(logging.WARNING, "casdk.progress"):
        rows = call(client, "encode", ["a", "b"], batch_size=1, show_progress=True)
        end_of_bar()
    np.testing.assert_array_equal(rows, expected(["a", "b"]))
    assert flush(PATIENCE)
    assert [record.getMessage() for record in caplog.records] == [
        f"the bar cannot be drawn: {raised.__name__}: no terminal any more"
    ]
    terminal = StringIO()
    show_on(monkeypatch, terminal)
    call(client, "encode", ["a"], show_progress=True)
    end_of_bar()
    assert "1/1" in terminal.getvalue()


def test_a_console_that_encodes(connect, call, scheme, monkeypatch):
    client, found = connect(scheme), []

    class Calling(StringIO):
        def write(self, text):
            if not found:
                found.append(client.encode(["b"]).shape)
            return super().write(text)

    terminal = Calling()
    show_on(monkeypatch, terminal)
    assert len(call(client, "encode", ["a"], show_progress=True)) == 1
    assert found == [(1, 512)]
    assert "1/1" in terminal.getvalue()


def test_a_call_that_was_cancelled_closes_its_bar(make_server, connect_to, monkeypatch):
    terminal = StringIO()
    show_on(monkeypatch, terminal)
    client = connect_to(make_server(Never()), "grpc")

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.aencode(["a"], show_progress=True), 0.3)

    asyncio.run(main())
    end_of_bar()
    assert "0/1" in terminal.getvalue()
    assert "\x1b[?25h" in terminal.getvalue()


AT_EXIT = """
import atexit, sys
from casdk import Client

def last():
    print(len(client.encode(["a", "b"], show_progress=True)), file=sys.stderr)

client = Client({address!r})
atexit.register(last)
"""


def test_a_bar_in_an_exit_handler(server):
    ran = subprocess.run(
        [sys.executable, "-c", AT_EXIT.format(address=server.address("grpc"))],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (ran.returncode, ran.stderr.strip()) == (0, "2")
    assert "2/2" in ran.stdout


IN_A_CHILD = """
import os
from casdk import Client

client = Client({address!r})
shown = []

def forked(response):
    if not shown:
        shown.append(os.fork())
        if shown == [0]:
            os._exit(0)

client.encode(["a"] * 4, batch_size=1, on_done=forked, show_progress=True)
assert os.waitpid(shown[0], 0)[1] == 0
if os.fork() == 0:
    print(len(client.encode(["a"] * 3, show_progress=True)), flush=True)
    os._exit(0)
assert os.wait()[1] == 0
"""


def test_a_forked_child_draws_its_own(server):
    ran = subprocess.run(
        [sys.executable, "-c", IN_A_CHILD.format(address=server.address("http"))],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "4/4" in ran.stdout
    assert "3/3" in ran.stdout


BROKEN = """
import logging, sys
from casdk import Client

logging.basicConfig(level="WARNING", format="%(message)s")
print(len(Client({address!r}).encode(["a"] * 3, show_progress=True)), file=sys.stderr)
"""


def test_a_pipe_whose_reader_is_gone(server):
    """For which rich has the process exit."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as gone:
        ran = subprocess.run(
            [sys.executable, "-c", BROKEN.format(address=server.address("grpc"))],
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
    assert (ran.returncode, ran.stderr.splitlines()) == (
        0,
        ["the bar cannot be drawn: BrokenPipeError: [Errno 32] Broken pipe", "3"],
    )


def test_a_client_is_closed_beside_a_terminal_that_blocks(server, monkeypatch, stopwatch):
    terminal = Gated()
    show_on(monkeypatch, terminal)
    monkeypatch.setattr(_progress, "END_SECONDS", 0.2)
    with stopwatch() as watch, Client(server.address("grpc")) as client:
        client.encode(["a"], show_progress=True)
    terminal.gate.set()
    end_of_bar()
    assert watch.seconds < PATIENCE
