"""`Client.profile` of one server or of several: it makes a call for each server, and a result from their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, TypeAlias

from msgspec import UnsetType

from casdk._calls.run import Run
from casdk._calls.session import Session
from casdk._calls.verbs import profile
from casdk._calls.ways import Way
from casdk._engine.waiting import run_call, run_call_async
from casdk.models import Profile, Response

__all__ = ["profiles", "run", "run_async"]

Profiled: TypeAlias = Profile | dict[str, Profile]
"""The profile of the server; or, if the client was made for several, of each server by its address."""


def run(session: Session, content: Any, timeout: float | UnsetType | None, *, quiet: bool) -> Profiled:
    """Profile each server; print and return the profiles.

    Args:
        session: The client's session.
        content: The text or image that is encoded; ``None`` sends an empty Document.
        timeout: Seconds for the call.
        quiet: Whether nothing is printed.
    """
    if monotonic() >= session.way.open_until:
        run_call(profile(session, content, timeout))
    responses = {address: run_call(call) for address, call in profiles(session, content, timeout)}
    return _show(responses, session.are_several, quiet)


async def run_async(session: Session, content: Any, timeout: float | UnsetType | None, *, quiet: bool) -> Profiled:
    """`run`, asynchronously."""
    if monotonic() >= session.way.open_until:
        await run_call_async(profile(session, content, timeout))
    calls = profiles(session, content, timeout)
    return _show({address: await run_call_async(call) for address, call in calls}, session.are_several, quiet)


def profiles(session: Session, content: Any, timeout: float | UnsetType | None) -> list[tuple[str, Run]]:
    """Return a call of `profile` for each server, with its address."""
    ways = [Way.to(transport, session.way.state) for transport in session.way.transports]
    return [(way.address, profile(session, content, timeout, way)) for way in ways]


def _show(responses: Mapping[str, Sequence[Response]], several: bool, quiet: bool) -> Profiled:
    found = {address: Profile.from_response(of_one[0]) for address, of_one in responses.items()}
    for address, measured in found.items():
        if not quiet and several:
            print(address)
        if not quiet:
            measured.print()
    return found if several else next(iter(found.values()))
