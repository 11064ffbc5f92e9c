"""Which server of a pool a request goes to, and which are left out for a while; there is no I/O here, and no clock.

A request is sent to the server that is expected to finish it first. That is calculated from the bytes that the server
has not answered yet, this request included, times its latest seconds per byte, divided by its weight. Idle servers that
come close to the best one take turns. A server that is passed over `PROBE_REQUESTS` times in a row gets a request all
the same, so that it is noticed when it has become fast again.

A server that cannot be reached, refuses with 503 or does not answer in time is away: it is left out for a pause, which
is longer each time. Then it is asked by a dry run; if that succeeds it gets one request; and if that is answered the
server is back, with a small share at first. If all servers are away, requests are sent to them all the same, one server
after the other; the calls decide how often, since they wait for a server by `casdk._calls.outages`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from casdk._calls.allowance import Ticket
from casdk._calls.outages import ServerState
from casdk._calls.pace import Pace

if TYPE_CHECKING:
    from casdk._rust import Codec

__all__ = ["Assignment", "Choice", "PoolState", "ServerRecord", "State"]

State: TypeAlias = Literal["ready", "away", "returning", "draining"]
"""A server that gets requests; that is left out; that gets one request, to see whether it is back; that gets no more
requests, since its name was looked up again and has other addresses now."""

REQUEST_BYTES: Final = 16 << 10
"""The fixed cost of a request for a server, in bytes, so that the times of small and large requests can be compared."""
GUESSED_SECONDS_PER_BYTE: Final = 1e-6
"""Assumed while no server has answered; a small request then takes 16 ms."""
PROBE_REQUESTS: Final = 128
"""A server that is passed over so many times in a row gets the next request: under 1 % of them go to a slow one."""
NEAR_RATIO: Final = 1.25
"""Idle servers take turns if they are expected to take at most so many times as long as the best one."""
LATEST_ANSWER_SHARE: Final = 0.25
"""The weight of the last answer in the moving average of the seconds per byte."""
LARGEST_STEP_RATIO: Final = 3.0
"""One answer counts as at most so many times slower, or faster, than the average, since it may be an exception."""
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 10.0
"""How long a server is left out the first time, and at most; each pause is twice as long as the one before."""
MOST_DOUBLINGS: Final = 10
"""The most doublings of the first pause, more than the longest one needs."""
LONGEST_BUSY_SECONDS: Final = 60.0
"""The longest time that a server gets no requests because it asked for a wait, if there are other servers."""
TRUSTED_ANSWERS: Final = 16
"""After so many answers in a row, the next pause of the server is as short as the first one."""
SLOW_START_SECONDS: Final = 5.0
"""A server that is back gets its full share only after this time."""
LEAST_SHARE: Final = 0.1
"""The part of its share that a server gets right after it came back."""


class ServerRecord(msgspec.Struct, eq=False, kw_only=True):
    """What a client has found out about one server of its pool; `Choice` reads and updates it.

    Attributes:
        weight: Its share of requests, compared with servers of the same speed.
        pace: How fast requests to it may follow each other.
        codec: The form that its requests are written in.
        state: Whether it gets requests.
        seconds_per_byte: The moving average of its seconds per byte; ``None`` before its first answer.
        waiting_bytes: Bytes that it has not answered, with `REQUEST_BYTES` for each request.
        in_flight: Requests that it has not answered.
        chosen: Requests that it was chosen for.
        turn: Number of the latest of these requests, counted over all servers.
        passed: Requests that other servers got since then.
        pauses: How many times in a row it was left out.
        ask_at: While it is away, when it may be asked whether it is back.
        asking: Whether it is being asked, by a dry run or by one request.
        back_at: When it came back the last time.
        answers: Its answers since it failed the last time.
        spell: How many times it went away. A request that was sent in an earlier spell shows nothing about this one.
        busy_until: Until when it gets no requests, because it asked for a wait.
    """

    weight: float = 1.0
    pace: Pace = msgspec.field(default_factory=Pace)
    codec: Codec = "proto"
    state: State = "ready"
    seconds_per_byte: float | None = None
    waiting_bytes: int = 0
    in_flight: int = 0
    chosen: int = 0
    turn: int = 0
    passed: int = 0
    pauses: int = 0
    ask_at: float = -inf
    asking: bool = False
    back_at: float = -inf
    answers: int = 0
    spell: int = 0
    busy_until: float = -inf

    @property
    def may_return(self) -> bool:
        """Whether it may get the one request that shows whether it is back."""
        return self.state == "returning" and not self.asking

    def may_take(self, now: float) -> bool:
        """Whether it gets requests like any other server."""
        return self.state == "ready" and now >= self.busy_until

    def expected(self, now: float, size: int, guess: float) -> float:
        """Return in how many seconds it is expected to finish a request.

        Args:
            now: The time.
            size: Bytes of the request, `REQUEST_BYTES` included.
            guess: Seconds per byte, if its own average is not known.
        """
        per_byte = guess if self.seconds_per_byte is None else self.seconds_per_byte
        share = min(1.0, max(LEAST_SHARE, (now - self.back_at) / SLOW_START_SECONDS))
        return max(0.0, self.pace.next_at - now) + (self.waiting_bytes + size) * per_byte / (self.weight * share)


class Assignment(msgspec.Struct, eq=False):
    """A request that was assigned to a server; `Choice.send` makes it.

    Attributes:
        record: The record of the server.
        size: Bytes of the request, `REQUEST_BYTES` included.
        load: Bytes that the server had not answered when this was sent, its own included.
        began: When it is sent.
        spell: The server's spell when it was assigned.
        asks: Whether it is the one request that shows whether the server is back.
        ticket: The ticket of the server's pace, while the server refuses requests.
    """

    record: ServerRecord
    size: int
    load: int
    began: float
    spell: int
    asks: bool
    ticket: Ticket | None = None


class Choice:
    """Chooses a server of the pool for each request; a `PooledWay` has one.

    Attributes:
        records: The records of the servers.
    """

    def __init__(self, records: list[ServerRecord]) -> None:
        self.records = records
        self._turns = 0

    # What is asked

    def is_ready(self, now: float, codec: Codec | None = None) -> bool:
        """Whether some server may take a request now; with ``codec``, a server that reads this form."""
        return any(
            record.may_take(now) or record.may_return
            for record in self.records
            if codec is None or record.codec == codec
        )

    def due(self, now: float) -> list[ServerRecord]:
        """Return the servers that are to be asked by a dry run now, and note that they are being asked."""
        found = [
            record for record in self.records if record.state == "away" and not record.asking and now >= record.ask_at
        ]
        for record in found:
            record.asking = True
        return found

    def next(
        self, now: float, size: int, avoid: ServerRecord | None = None, codec: Codec | None = None
    ) -> ServerRecord:
        """Return the server that a request is to be sent to.

        Args:
            now: The time.
            size: Bytes of the request.
            avoid: The server that has just failed on it, which is taken only if there is no other.
            codec: The form of the request, if only servers that read this form can take it.
        """
        records = self.records if codec is None else [record for record in self.records if record.codec == codec]
        for record in records:
            if record.may_return:
                return record
        ready = [record for record in records if record.may_take(now)]
        if avoid in ready and len(ready) > 1:
            ready.remove(avoid)
        if not ready:
            return _least_bad(records)
        most_passed = max(ready, key=lambda record: record.passed)
        if most_passed.passed >= PROBE_REQUESTS:
            return most_passed
        known = [record.seconds_per_byte for record in ready if record.seconds_per_byte is not None]
        guess = min(known, default=GUESSED_SECONDS_PER_BYTE)
        times = [record.expected(now, size + REQUEST_BYTES, guess) for record in ready]
        best = min(times)
        idle = [record for record, seconds in zip(ready, times, strict=True) if _is_idle(record, seconds, best)]
        near = idle or [record for record, seconds in zip(ready, times, strict=True) if seconds == best]
        return min(near, key=lambda record: record.turn)

    def second(self, now: float, size: int, assignment: Assignment) -> ServerRecord | None:
        """Return the best second server for a request, if there is one that reads its form and can take it at once.

        Args:
            now: The time.
            size: Bytes of the request.
            assignment: The assignment to the first server, which has not answered.
        """
        first = assignment.record
        others = [
            record
            for record in self.records
            if record is not first
            and record.codec == first.codec
            and record.may_take(now)
            and record.pace.next_at <= now
        ]
        known = [record.seconds_per_byte for record in others if record.seconds_per_byte is not None]
        guess = min(known, default=GUESSED_SECONDS_PER_BYTE)
        return min(others, key=lambda record: record.expected(now, size + REQUEST_BYTES, guess), default=None)

    # What happens

    def send(self, record: ServerRecord, now: float, size: int, items: int) -> Assignment:
        """Assign a request to a server; it is sent at once, or when the server's pace allows it.

        Args:
            record: The record of the server.
            now: The time.
            size: Bytes of the request.
            items: Items in the request.
        """
        self._turns += 1
        for other in self.records:
            other.passed += other.may_take(now)
        record.passed = 0
        record.turn = self._turns
        record.chosen += 1
        began = now
        if record.pace.slows:
            began = record.pace.take_turn(now, items)
        asks = record.may_return
        record.asking |= asks
        record.in_flight += 1
        record.waiting_bytes += size + REQUEST_BYTES
        ticket = record.pace.allowance.send(began) if record.pace.allowance.watches else None
        return Assignment(record, size + REQUEST_BYTES, record.waiting_bytes, began, record.spell, asks, ticket)

    def answer(self, assignment: Assignment, now: float, *, learn: bool = True) -> bool:
        """Note that a request was answered, by a result or an error; return whether its server is back by that.

        Args:
            assignment: The request.
            now: The time.
            learn: Whether its time counts for the seconds per byte: an error may come sooner than a result.
        """
        record = assignment.record
        self._end(assignment)
        if learn:
            _learn(record, (now - assignment.began) / assignment.load)
        if record.pace.allowance.watches:
            record.pace.accept(assignment.ticket, now)
        record.answers += 1
        if record.answers == TRUSTED_ANSWERS:
            record.pauses = 0
        if assignment.spell != record.spell or record.state not in ("away", "returning"):
            return False
        record.state, record.asking, record.back_at = "ready", False, now
        return True

    def take_back(self, assignment: Assignment, now: float) -> None:
        """Note that a request was taken back, or failed for a reason that is not the server's fault."""
        self._end(assignment)
        record = assignment.record
        seconds = (now - assignment.began) / assignment.load
        # The answer would have taken at least as long as this, so the average may only grow.
        if record.seconds_per_byte is not None and seconds > record.seconds_per_byte:
            _learn(record, seconds)

    def refuse(self, assignment: Assignment, now: float, seconds: float) -> None:
        """Note that a server refused a request, and asked for a wait of so many seconds."""
        self._end(assignment)
        record = assignment.record
        record.pace.refuse(assignment.ticket, now, seconds)
        # If requests are slowed down to a rate, the server gets no other pause than it has asked for.
        least = FIRST_PAUSE_SECONDS if record.pace.allowance.rate is None else 0.0
        seconds = min(max(seconds, least), LONGEST_BUSY_SECONDS)
        record.busy_until = max(record.busy_until, now + seconds)

    def fail(self, assignment: Assignment, now: float, asked: float = 0.0) -> float | None:
        """Note that a request failed since its server is away; return for how long it is left out, if it was not yet.

        Args:
            assignment: The request.
            now: The time.
            asked: Seconds that the server, or a proxy before it, asked to wait.
        """
        record = assignment.record
        self._end(assignment)
        # Requests that were sent before it went away fail, too, which shows nothing new.
        if assignment.spell != record.spell or record.state == "draining":
            return None
        was_away = record.state == "away"
        seconds = self._leave_out(record, now, asked)
        return None if was_away else seconds

    def _leave_out(self, record: ServerRecord, now: float, asked: float = 0.0) -> float:
        seconds = FIRST_PAUSE_SECONDS * 2.0 ** min(record.pauses, MOST_DOUBLINGS)
        seconds = max(min(LONGEST_PAUSE_SECONDS, seconds), min(asked, LONGEST_PAUSE_SECONDS))
        record.state, record.asking, record.ask_at = "away", False, now + seconds
        record.pauses += 1
        record.spell += 1
        record.answers = 0
        return seconds

    def asked(self, record: ServerRecord, now: float, *, there: bool) -> None:
        """Note the result of a dry run.

        Args:
            record: The record of the server that was asked.
            now: The time.
            there: Whether the server says that it is ready.
        """
        if record.state != "away":
            return
        record.asking = False
        if there:
            record.state = "returning"
        else:
            self._leave_out(record, now)

    def _end(self, assignment: Assignment) -> None:
        record = assignment.record
        record.in_flight -= 1
        record.waiting_bytes -= assignment.size
        if assignment.asks and assignment.spell == record.spell:
            record.asking = False


def _is_idle(record: ServerRecord, seconds: float, best: float) -> bool:
    """Whether a server is idle, and about as fast as the best one."""
    return record.waiting_bytes == 0 and seconds <= NEAR_RATIO * best


def _least_bad(records: list[ServerRecord]) -> ServerRecord:
    """Return a server although none is ready: a busy one, or else one that is away, one after the other."""
    busy = [record for record in records if record.state == "ready"]
    if busy:
        return min(busy, key=lambda record: record.busy_until)
    away = [record for record in records if record.state != "draining"] or records
    return min(away, key=lambda record: record.turn)


def _learn(record: ServerRecord, seconds: float) -> None:
    """Add the seconds per byte of one answer to the moving average."""
    known = record.seconds_per_byte
    if known is None or known <= 0:
        record.seconds_per_byte = seconds
        return
    step = min(LARGEST_STEP_RATIO, max(1 / LARGEST_STEP_RATIO, seconds / known))
    record.seconds_per_byte = known * (1 + LATEST_ANSWER_SHARE * (step - 1))


class PoolState(ServerState):
    """What the calls of a client have found out about its pool, which counts as away if all of its servers are.

    Args:
        choice: The servers of the pool.
        answered: Whether one of them has ever answered.
    """

    def __init__(self, choice: Choice, answered: bool = False) -> None:
        super().__init__(answered)
        self._choice = choice

    def has_another(self, now: float) -> bool:
        """Whether another server may take a request that one has failed on."""
        return self._choice.is_ready(now)
