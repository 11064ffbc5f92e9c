"""If a library chooses the connections, each new one is checked before its first reply counts, and before an index."""

import pytest
from casdk import TLS, Limits, ServerError, Timeouts
from casdk._transport.address import parse_address
from casdk._transport.channels.libraries.counting import CountingChannel
from casdk._transport.channels.options import DEFAULTS, ExchangeOptions


class Scripted(CountingChannel):
    """A channel that opens a given number of connections before each of its requests."""

    def __init__(self, *opens):
        super().__init__(parse_address("http://host"), TLS(), Timeouts(), Limits(), None)
        self.opens = list(opens)
        self.sent = []

    async def _exchange(self, request_id, message, headers, options=DEFAULTS):
        self.sent.append(request_id)
        for _ in range(self.opens.pop(0) if self.opens else 0):
            self.connected()
        return message

    async def dry_run(self, headers):
        raise NotImplementedError

    async def aclose(self):
        pass


class Recorded:
    """A check of one request, which takes note of whether the request that it is for was answered by then."""

    def __init__(self, fails=False):
        self.passed, self.sent, self.fails = [], [], fails

    def has_passed(self, connection):
        return connection in self.passed

    async def inspect(self, connection, ask, *, sent=False):
        await ask("canary", b"")
        self.sent.append(sent)
        if sent and self.fails:
            raise ServerError("it fails", sent=False)
        self.passed.append(connection)


async def ask(channel, check, *, repeatable=True):
    options = ExchangeOptions(repeatable=repeatable, check=check)
    assert await channel.exchange("request", b"it", (), options) == b"it"


@pytest.mark.parametrize(
    ("opens", "sent"),
    [
        ([1], ["canary", "request", "request"]),
        ([0, 1], ["canary", "request", "request"]),
        ([1, 1], ["canary", "request", "canary", "request"]),
        ([2], ["canary", "request", "canary", "request"]),
        ([1, 0, 1], ["canary", "request", "request", "canary"]),
    ],
)
async def test_each_new_connection_is_followed_by_a_check(opens, sent):
    channel, check = Scripted(*opens), Recorded()
    for _ in range(2):
        await ask(channel, check)
    assert channel.sent == sent


async def test_what_must_not_be_repeated_is_preceded_by_a_check_each_time():
    channel, check = Scripted(1), Recorded()
    for _ in range(2):
        await ask(channel, check, repeatable=False)
    assert channel.sent == ["canary", "request"] * 2
    assert check.sent == [False, False]


async def test_a_check_that_fails_behind_the_answer_says_that_the_request_was_sent():
    channel = Scripted(1, 1)
    with pytest.raises(ServerError, match="it fails") as failed:
        await ask(channel, Recorded(fails=True))
    assert failed.value.sent


async def test_nothing_is_checked_without_a_wish():
    channel = Scripted(1, 1)
    await ask(channel, None)
    assert channel.sent == ["request"]
