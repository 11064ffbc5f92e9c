"""The base classes of the fault server's protocols, as custom faults see them."""

import asyncio
import threading

import pytest
from casdk.testing import ConnectionFault, Fault, FaultServer
from casdk.wire.values import array_of


class Seen(Fault):
    """Notes what a fault of one's own is told, and when."""

    def __init__(self):
        self.order, self.exchanges = [], []

    async def wait(self, exchange):
        self.order.append("wait")
        self.exchanges.append(exchange)
        await asyncio.sleep(0)

    def change(self, reply, exchange):
        self.order.append("change")
        reply.data.docs.docs[0].text += f", {len(array_of(reply.data.docs.docs[0].embedding))} wide"

    def corrupt(self, payload, exchange):
        self.order.append("corrupt")
        return payload

    async def deliver(self, exchange, payload):
        self.order.append("deliver")
        return False


def test_a_fault_acts_in_the_order_of_a_requests_life(ask, request_for):
    seen = Seen()
    with FaultServer(seen, width=8) as server:
        reply = ask(server, request_for("a"))
    assert seen.order == ["wait", "change", "corrupt", "deliver"]
    assert reply.data.docs.docs[0].text == "a, 8 wide"
    (exchange,) = seen.exchanges
    assert ask.__name__ == f"ask_{exchange.family}"
    assert (exchange.request.texts, exchange.message.data.docs.docs[0].text) == (("a",), "a")
    assert exchange.connection.received > len("a")


def test_several_faults_act_one_after_the_other_in_each_step(ask, request_for):
    class Said(Fault):
        def __init__(self, word):
            self.word = word

        def change(self, reply, exchange):
            reply.data.docs.docs[0].text += self.word

    with FaultServer([(Said(" b"), Said(" c"))], width=8) as server:
        assert ask(server, request_for("a")).data.docs.docs[0].text == "a b c"


def test_a_fault_of_a_connection_sees_its_bytes(ask, request_for):
    class Spy(ConnectionFault):
        opened_on, sizes = [], []

        def opened(self, connection):
            Spy.opened_on.append((connection.number, threading.current_thread().name))

        def received(self, connection, data):
            Spy.sizes.append(len(data))
            return False

    Spy.opened_on, Spy.sizes = [], []
    with FaultServer(connections=Spy(), width=8) as server:
        ask(server, request_for("a"))
    assert Spy.opened_on == [(0, "casdk-fault-server")]
    assert sum(Spy.sizes) > len("a")


@pytest.mark.parametrize("count", [1, 5])
def test_each_client_has_a_connection_of_its_own(ask, request_for, count):
    with FaultServer(width=8) as server:
        for _ in range(count):
            ask(server, request_for("a"))
        counters = server.wait_for(lambda counters: counters.open == 0)
    assert counters.connected == count
    assert [request.connection for request in server.requests] == list(range(count))
