"""The end of grpc.aio's calls, waited for also by a task that is cancelled."""

import asyncio
import gc
import weakref

import grpc
import pytest
from casdk._transport.channels.ends import PendingReply, without_frames

METHOD = "/test/method"


class Handler(grpc.GenericRpcHandler):
    """Answers in the way that the request names."""

    def __init__(self):
        self.arrived, self.ended = asyncio.Event(), asyncio.Event()

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.answer)

    async def answer(self, request, context):
        if request == b"wait":
            self.arrived.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.ended.set()
        if request == b"refuse":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")
        return request


async def reply_of(call):
    return await PendingReply(call)


@pytest.fixture
async def served():
    """A handler, and a channel to its server."""
    handler, server = Handler(), grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield handler, channel.unary_unary(METHOD)
    await server.stop(0)


async def test_a_reply_comes_as_it_was_sent(served):
    _, method = served
    assert await PendingReply(method(b"a reply")) == b"a reply"
    assert await PendingReply(method(b"")) == b""


async def test_a_refusal_is_grpcs_own(served):
    _, method = served
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await PendingReply(method(b"refuse"))
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal.value.details() == "too much"


async def test_a_task_that_is_cancelled_ends_its_call_before_itself(served):
    handler, method = served
    call = method(b"wait")
    task = asyncio.create_task(reply_of(call))
    await handler.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.done()
    assert await call.code() is grpc.StatusCode.CANCELLED
    await asyncio.wait_for(handler.ended.wait(), 10)


def test_an_error_without_frames_holds_nothing_of_where_it_came_through():
    class Held:
        pass

    def fail():
        held = Held()
        seen.append(weakref.ref(held))
        raise KeyError(len(seen))

    def chain():
        try:
            fail()
        except KeyError as first:
            try:
                fail()
            except KeyError as second:
                raise ValueError("outer") from second
            finally:
                del first

    seen = []
    try:
        chain()
    except ValueError as error:
        found = without_frames(error)
    gc.collect()
    assert [reference() for reference in seen] == [None, None]
    assert found.__traceback__ is found.__cause__.__traceback__ is found.__cause__.__context__.__traceback__ is None
    assert repr(found.__cause__) == "KeyError(2)"
