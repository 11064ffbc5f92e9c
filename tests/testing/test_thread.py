"""An event loop in a thread of its own, and the sockets of the servers on it."""

import asyncio
import os
import socket
import threading

import pytest
from casdk.testing._thread import LoopThread, end_socket, listen, reserve


@pytest.fixture
def thread():
    made = LoopThread("of a test")
    yield made
    made.errors.clear()
    made.stop()


def test_work_runs_there_and_its_result_comes_back(thread):
    async def where():
        return threading.current_thread().name

    async def fail():
        raise KeyError("x")

    assert thread.run(where()) == "of a test"
    with pytest.raises(KeyError, match="x"):
        thread.run(fail())


def test_stopping_cancels_what_runs_and_closes_what_is_open():
    made, ended = LoopThread("of a test"), []
    sock = listen()
    made.sockets.add(sock)

    async def wait():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(threading.current_thread().name)

    async def begin():
        asyncio.get_running_loop().tasks = asyncio.create_task(wait())
        await asyncio.sleep(0)

    made.run(begin())
    made.stop()
    assert ended == ["of a test"]
    assert sock.fileno() == -1
    assert made.loop.is_closed()
    made.stop()  # once more is nothing


def test_what_nothing_caught_is_raised_at_the_end():
    def fail():
        raise KeyError("nobody caught this")

    made = LoopThread("of a test")
    made.loop.call_soon_threadsafe(fail)
    with pytest.raises(KeyError, match="nobody caught this"):
        made.stop()


def test_a_connection_that_broke_is_no_error_of_the_servers():
    def fail():
        raise ConnectionResetError

    made = LoopThread("of a test")
    made.loop.call_soon_threadsafe(fail)
    made.stop()
    assert made.errors == []


def test_a_reserved_port_refuses_and_can_be_listened_on():
    with reserve() as reserved:
        port = reserved.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with listen(port=port), socket.create_connection(("127.0.0.1", port)):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
def test_the_other_end_sees_how_a_socket_ends(how):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as other:
        accepted, _ = listener.accept()
        other.settimeout(20)
        end_socket(accepted, how)
        if how != "half-close":
            accepted.close()
        if how == "reset":
            with pytest.raises(ConnectionResetError):
                other.recv(1)
        else:
            assert other.recv(1) == b""
        if how == "half-close":
            other.sendall(b"x")
            assert accepted.recv(1) == b"x"
        accepted.close()
        end_socket(accepted, how)  # a closed one is left alone


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_none_of_the_sockets(thread):
    sock = listen()
    thread.sockets.add(sock)
    child = os.fork()
    if child == 0:
        os._exit(0 if sock.fileno() == -1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert sock.fileno() != -1
