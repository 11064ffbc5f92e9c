import asyncio
import contextvars
import gc
import weakref

from casdk._engine.mailbox import mailbox_of


def test_a_closed_loop_is_let_go_with_what_it_never_read():
    loop = asyncio.new_event_loop()
    mailbox_of(loop).post(loop, contextvars.copy_context(), loop.stop)
    loop.close()
    gone = weakref.ref(loop)
    del loop
    with asyncio.Runner() as runner:
        mailbox_of(runner.get_loop())
    gc.collect()
    assert gone() is None
