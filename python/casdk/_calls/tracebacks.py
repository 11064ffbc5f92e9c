"""Drops frames from tracebacks, so that an error that the caller stores does not keep the call in memory.

`Run` uses it for the error that it raises, and `Answer` for the errors of Documents that do not take their results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from casdk.errors import CasdkError

if TYPE_CHECKING:
    from casdk._calls.decisions import Call

__all__ = ["drop_frames", "raise_stopped"]

DROPPED_PACKAGES: Final = frozenset(
    {"casdk", "asyncio", "grpc", "httpx", "httpcore", "anyio", "websockets", "ssl", "socket"}
)
"""Packages whose frames are dropped from the beginning of a traceback, up to the caller's own code, if there is any."""


def drop_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error and of its causes, whose frames refer to the call, its content and its rows.

    Frames of the caller's own code stay, since they show where a callback has failed.
    """
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        one = chain.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        at = None if isinstance(one, CasdkError) else one.__traceback__
        while at is not None and at.tb_frame.f_globals.get("__name__", "").partition(".")[0] in DROPPED_PACKAGES:
            at = at.tb_next
        one.__traceback__ = at
        chain += one.__cause__, one.__context__, getattr(one, "cause", None)


def raise_stopped(call: Call) -> NoReturn:
    """Raise the error that stopped a call, and drop it from the call: its traceback refers to this frame."""
    stopped, call.stopped = call.stopped, None
    assert stopped is not None
    try:
        raise stopped
    finally:
        del stopped
