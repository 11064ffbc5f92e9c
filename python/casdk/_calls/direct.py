"""The direct way of a short call: its thread itself sends the one request, and receives and places the reply.

The steps are those of `Run`, with the same objects: read, pack, send, place, finish. Whatever else comes than a good
reply within a moment, the call goes on as a `Run` on the engine, with what was sent as its first attempt. So attempts,
deadlines and errors are decided in one place.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from casdk._calls.batches import Request
from casdk._calls.run import Run
from casdk._engine.logging import handled, logger_of
from casdk._engine.process import engine
from casdk._engine.waiting import run_call
from casdk._rust import Kind, Message, classify, new_id
from casdk._transport.channels.http2_direct import Begun
from casdk._transport.codecs import scan
from casdk._transport.direct import QUICK_CALLS, QUICK_SECONDS
from casdk._transport.transport import Received
from casdk.errors import ClosedError, ReplyError

if TYPE_CHECKING:
    from casdk._calls.merging import MergedEncode
    from casdk._transport.transport import Transport

__all__ = ["run_directly"]

LOG: Final = logger_of("casdk.calls")

MOST_ITEMS: Final = 32
"""The most items of a call that goes directly: with more of them, the wake-ups are a small part of its time."""
MOST_BYTES: Final = 1 << 14
"""The most bytes of its request, which an idle socket takes at once."""


def run_directly(call: Run | MergedEncode, content: object) -> Any:
    """Run a call for the thread that waits for it: directly, if that can be done and pays, else on the engine.

    Args:
        call: The call.
        content: The content that it was made of.
    """
    transport = call.way.direct if type(call) is Run else None
    direct = None if transport is None else transport.direct
    if type(call) is not Run or transport is None or direct is None:
        return run_call(call)
    if not direct.free:
        began = monotonic()
        result = run_call(call)
        direct.quick_calls = direct.quick_calls + 1 if monotonic() - began <= QUICK_SECONDS else 0
        if direct.quick_calls >= QUICK_CALLS and _may_go(call, content):
            direct.ask_for_connection()
        return result
    if type(content) is not list or not _may_go(call, content):
        return run_call(call)
    current = engine()
    current.check_caller()
    items = content.copy()  # since another thread may change the list
    kinds = classify(items, look=call.session.sources.local_files)
    if kinds is None or kinds.count(Kind.TEXT) != len(items):
        return run_call(call)
    call.reading.take_sentences(items, kinds)
    end = _attempt(call, transport)
    if end is True:
        return call.result()
    current.check()  # since a signal's handler may have forked, and the call goes on in the parent only
    result = run_call(call)
    if end is not False:
        try:
            raise end  # by a signal's handler: the engine has found nothing wrong with the same reply
        finally:
            del end
    return result


def _may_go(run: Run, content: object) -> bool:
    """Whether a call is one small request of sentences, perhaps, of which nothing but the result is wanted."""
    options = run.options
    if type(content) is not list or not 0 < len(content) <= min(run.reading.feed.size, MOST_ITEMS):
        return False
    if options.images != "original" or options.out is not None or options.dedupe or options.show_progress:
        return False
    if not run.is_plain or run.way.state.is_awaited or run.session.closed:
        return False
    return not LOG.isEnabledFor(logging.DEBUG) and handled.get() is None


def _attempt(run: Run, transport: Transport) -> ReplyError | bool:
    """Send the request of a call whose content was read, and place the reply.

    Returns:
        Whether the call is over; or an error of its reply. If it is not over, it can go on on the engine.
    """
    call, direct, batch = run.call, transport.direct, run.call.next_batch(monotonic())
    assert direct is not None
    assert batch is not None
    request, left = Request(batch, new_id(), transport, transport.codec), _seconds_left(run)
    packed = run.packing.packers[request.codec].pack_sentences(request.id, batch.items, batch.kinds)
    connection = None
    if packed is not None and packed.rows == len(batch) and len(packed.message) <= MOST_BYTES and left != 0.0:
        request.size = len(packed.message)
        connection = transport.find_direct(request.size)
    if packed is None or connection is None:
        call.interrupt(batch)
        return False
    try:
        found = connection.exchange(request.id, packed.message, left)
        end = type(found) is Message and _place(run, request, found)
    except BaseException:  # raised by a signal's handler
        connection.close()
        raise
    if end is not True:
        if type(found) is Message:
            found = Begun(request.id, connection, found)
        if run.session.closed:
            connection.close()
            run.stopped = ClosedError("the client was closed during the call")
            return True
        call.interrupt(batch)
        run.exchange_options = replace(run.exchange_options, begun=found)
    if found is None or type(found) is Message or found.outcome is not None:  # else the engine goes on with it
        direct.give_back(connection, monotonic() - connection.used_at)
    return end


def _seconds_left(run: Run) -> float | None:
    """Return the seconds that the call has left, if they are fewer than a request may take."""
    if run.deadline is None:
        return None
    left = max(run.deadline - monotonic(), 0.0)
    return left if left < run.session.timeouts.read else None


def _place(run: Run, request: Request, message: Message) -> ReplyError | bool:
    """Place a reply; return whether each item got its row, or the error because of which none did."""
    try:
        reply, batch = scan(request.codec, message), request.batch
        if reply.failed or reply.request_id not in ("", request.id):
            return False
        missing = run.receiver.place(batch.indices, batch.items, reply, None, request.id)
    except ReplyError as error:
        return error
    if missing:
        return False
    run.call.succeed(batch, run.place(request, Received(reply, len(message), 0.0, 0.0, 0.0), missing))
    return True
