"""Functions that other threads post to a loop are run, with and without an eventfd."""

import asyncio
import contextvars
import errno
import gc
import os
import threading
import weakref

import pytest
from casdk._engine.mailbox import Mailbox, mailbox_of


def test_the_mailbox_of_a_closed_loop_is_dropped():
    loop = asyncio.new_event_loop()
    mailbox_of(loop).post(loop, contextvars.copy_context(), loop.stop)
    loop.close()
    gone = weakref.ref(loop)
    del loop
    with asyncio.Runner() as runner:
        mailbox_of(runner.get_loop())
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("is_there", [True, False])
def test_functions_that_other_threads_post_are_run(monkeypatch, is_there):
    """Whether the system has an eventfd to give or not; and whether or not somebody else has read it."""

    def refuse(*_):
        raise OSError(errno.EMFILE, "too many open files")

    if not is_there:
        monkeypatch.setattr(os, "eventfd", refuse)
    loop, mailbox, posted = asyncio.new_event_loop(), Mailbox(), []
    mailbox.listen(loop)
    assert (mailbox._event is not None) is is_there

    def post():
        mailbox.post(loop, contextvars.copy_context(), posted.append, 1)
        mailbox.post(loop, contextvars.copy_context(), posted.append, 2)
        mailbox.post(loop, contextvars.copy_context(), loop.stop)

    for _ in range(2):
        thread = threading.Thread(target=post)
        loop.call_soon(thread.start)
        loop.run_forever()
        thread.join()
    assert posted == [1, 2, 1, 2]
    mailbox._on_event(loop)
    loop.close()
    if mailbox._event is not None:
        os.close(mailbox._event)
