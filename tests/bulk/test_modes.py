"""On an event loop the disk is waited for by a thread, and what was begun there is not left in the middle."""

import asyncio
import threading

import pytest
from casdk.bulk.modes import OnLoop, OnThread


async def test_a_step_on_the_disk_ends_before_the_task_does():
    begun, go_on, ended = threading.Event(), threading.Event(), []

    def step():
        begun.set()
        go_on.wait(10)
        ended.append(threading.current_thread())

    task = asyncio.create_task(OnLoop(None).do(step))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended != [threading.current_thread()]
    assert len(ended) == 1


def test_on_a_thread_nothing_is_suspended():
    step = OnThread(None).do(max, 1, 2)
    with pytest.raises(StopIteration) as ended:
        step.send(None)
    assert ended.value.value == 2
