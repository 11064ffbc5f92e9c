"""`profile` of one server or of several: a call for each, and what the caller gets of their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from msgspec import UnsetType

from casdk._calls.run import Run
from casdk._calls.session import Session
from casdk._calls.verbs import profile
from casdk._calls.ways import Way
from casdk._engine.waiting import run_call, run_call_async
from casdk.models import Profile, Response

__all__ = ["profiles", "run", "run_async"]


def run(session: Session, content: Any, timeout: float | UnsetType | None, *, quiet: bool) -> Profile:
    """Run `profile` of each server; return what was measured, and print it.

    Args:
        session: The client's.
        content: What is encoded, if anything is.
        timeout: Seconds for the call.
        quiet: Whether nothing is printed.
    """
    if not session.way.is_open:
        run_call(profile(session, content, timeout))
    responses = {address: run_call(call) for address, call in profiles(session, content, timeout)}
    return _show(responses, session.is_pooled, quiet)


async def run_async(session: Session, content: Any, timeout: float | UnsetType | None, *, quiet: bool) -> Profile:
    """`run`, asynchronously."""
    if not session.way.is_open:
        await run_call_async(profile(session, content, timeout))
    calls = profiles(session, content, timeout)
    return _show({address: await run_call_async(call) for address, call in calls}, session.is_pooled, quiet)


def profiles(session: Session, content: Any, timeout: float | UnsetType | None) -> list[tuple[str, Run]]:
    """Return a call of `profile` for each server, with its address."""
    ways = [Way.to(transport, session.way.state) for transport in session.way.transports]
    return [(way.address, profile(session, content, timeout, way)) for way in ways]


def _show(responses: Mapping[str, Sequence[Response]], pooled: bool, quiet: bool) -> Profile:
    found = {address: Profile.from_response(of_one[0]) for address, of_one in responses.items()}
    for address, measured in found.items():
        if not quiet and pooled:
            print(address)
        if not quiet:
            measured.print()
    return cast(Profile, found) if pooled else next(iter(found.values()))
