"""Requests that may end a connection take turns with those that must not be sent twice."""

import asyncio

from casdk._transport.channels.separation import Separation

UNTRIED, ONCE, NEITHER = (True, False), (False, True), (False, False)


async def entered(separation, kind):
    """Return the task of a request that enters, and whether it has done so at once."""
    task = asyncio.create_task(separation.enter(*kind))
    await asyncio.sleep(0)
    return task, task.done()


async def test_what_may_end_the_connection_and_what_must_not_be_repeated_take_turns():
    for first, second in ((UNTRIED, ONCE), (ONCE, UNTRIED)):
        separation = Separation()
        await separation.enter(*first)
        task, at_once = await entered(separation, second)
        assert not at_once
        separation.leave(*first)
        await task


async def test_all_others_share_it():
    for first, second in ((UNTRIED, UNTRIED), (ONCE, ONCE), (NEITHER, ONCE), (NEITHER, UNTRIED)):
        separation = Separation()
        await separation.enter(*first)
        _, at_once = await entered(separation, second)
        assert at_once


async def test_a_cancelled_wait_delays_no_other_request():
    separation = Separation()
    await separation.enter(*ONCE)
    task, _ = await entered(separation, UNTRIED)
    task.cancel()
    separation.leave(*ONCE)
    await asyncio.wait([task])
    assert task.cancelled()
    _, at_once = await entered(separation, ONCE)
    assert at_once
