"""The addresses of one host name: which is tried first, and what happens to those that failed."""

import asyncio
import gc
import socket

import pytest
from casdk._transport.channels.addresses import Addresses
from casdk.testing import BlackHole

SECONDS = 0.4


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def resolve(monkeypatch):
    """A function that has the name ``clip.test`` stand for these addresses."""

    def resolve(*addresses):
        found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]
        numeric = socket.getaddrinfo

        def look_up(host, port, *arguments, **options):
            if options.get("flags", 0) & socket.AI_NUMERICHOST:
                return numeric(host, port, *arguments, **options)
            assert host == "clip.test"
            return found

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return resolve


async def reach(addresses, seconds=SECONDS):
    sock, address = await addresses.connect("clip.test", 80, seconds)
    with sock:
        assert sock.getpeername() == address
        assert not sock.getblocking()
    return address


async def test_one_that_failed_is_the_last_to_be_tried_again(listener, resolve):
    live, addresses = listener.getsockname(), Addresses()
    with BlackHole() as hole:
        revived = (hole.host, hole.port)
        resolve(revived, revived, live)  # a name server may say it twice
        assert await reach(addresses) == live
    with socket.create_server(revived):
        assert await reach(addresses) == live
        addresses.avoid(live)
        assert await reach(addresses) == revived


async def test_no_address_answers(resolve):
    with BlackHole() as one, BlackHole() as other:
        resolve((one.host, one.port), (other.host, other.port))
        with pytest.raises(TimeoutError):
            await reach(Addresses())
        resolve((one.host, one.port), ("127.0.0.1", 9))
        with pytest.raises(OSError, match=r"did not answer within 0\.\d+ s; .*Connect call failed"):
            await reach(Addresses())


async def test_a_literal_address_is_not_looked_up(listener, resolve):
    """A look-up takes a thread, and the process may be past starting one."""
    resolve()
    sock, address = await Addresses().connect(*listener.getsockname(), SECONDS)
    sock.close()
    assert address == listener.getsockname()


async def test_connecting_may_be_cancelled_at_any_turn_of_the_loop(listener, resolve):
    """Neither a socket nor a watch on one is left over."""
    with BlackHole() as hole:
        resolve((hole.host, hole.port), listener.getsockname())
        addresses = Addresses()
        for turns in range(8):
            task = asyncio.create_task(reach(addresses, 0.02))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await reach(Addresses()) == listener.getsockname()
        gc.collect()  # a socket that was left open warns, and a warning is an error


async def test_the_system_asks_whether_a_connection_still_is_one(listener, resolve):
    """After 20 seconds, five times within five; the constants are those of Linux."""
    resolve(listener.getsockname())
    sock, _ = await Addresses().connect("clip.test", 80, SECONDS)
    with sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [20, 1, 5]
