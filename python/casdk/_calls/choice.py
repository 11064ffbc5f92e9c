"""Which server of a pool a request goes to, and which are left out for a while; there is no I/O here, and no clock.

A request goes where it is expected to be done first: by the bytes that the server has not answered yet, this request's
among them, times the seconds that it took for a byte lately, over its weight. Servers that have nothing to do and come
close to the best take turns. One that is passed over `PROBE_REQUESTS` times in a row gets a request all the same, so
that it is noticed when it has become quick again.

A server that cannot be reached, refuses with 503 or sends no answer in time is away: it is left out for a pause that
grows from one time to the next. Then it is asked by a dry run, after that it gets one request, and if that is answered
it is back, with a small share at first. If all are away they are asked all the same, one after the other: how often is
for the calls to say, which wait for a server by `casdk._calls.outages`.
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

__all__ = ["Assignment", "Choice", "Place", "PoolState", "State"]

State: TypeAlias = Literal["ready", "away", "returning", "draining"]
"""In this order: it gets requests; it is left out; it gets one request, to see whether it is back; it gets none any
more, since the name that it was found by does not stand for its address any more."""

REQUEST_BYTES: Final = 16 << 10
"""What a request costs a server beside its bytes, in bytes, so that the times of small and of large ones compare."""
GUESSED_SECONDS_PER_BYTE: Final = 1e-6
"""What a byte is taken to cost while no server has answered: 16 ms for a small request."""
PROBE_REQUESTS: Final = 128
"""A server that is passed over so many times in a row gets the next request: under 1 % of them go to a slow one."""
NEAR_RATIO: Final = 1.25
"""Servers with nothing to do whose expected finish is at most so many times the best one's take turns."""
LATEST_ANSWER_SHARE: Final = 0.25
"""How much of the seconds per byte is that of the last answer."""
LARGEST_STEP_RATIO: Final = 3.0
"""One answer counts as at most so many times slower, or faster, than those before, as it may be an exception."""
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 10.0
"""How long a server is left out the first time, and at most; each time is twice as long as the one before."""
MOST_DOUBLINGS: Final = 10
LONGEST_BUSY_SECONDS: Final = 60.0
"""How long a server is left alone at most, whatever it asked for, while others are there."""
TRUSTED_ANSWERS: Final = 16
"""After so many answers in a row, the pause of a server that fails again is the first one."""
SLOW_START_SECONDS: Final = 5.0
"""A server that is back gets its whole share only after this time."""
LEAST_SHARE: Final = 0.1
"""What it has of its share at first."""


class Place(msgspec.Struct, eq=False, kw_only=True):
    """What is known of one server of a pool.

    Attributes:
        weight: Its share compared with others that are as quick.
        pace: How fast requests to it may follow each other, as was said, and as it shows by what it refuses.
        codec: How its requests are written.
        state: Whether it gets requests.
        seconds_per_byte: What it took for a byte lately; ``None`` before its first answer.
        waiting_bytes: Bytes that it has not answered, `REQUEST_BYTES` for each request among them.
        in_flight: Requests that it has not answered.
        chosen: Requests that it was chosen for.
        turn: The number of its latest one among those of all servers.
        passed: Requests that were sent elsewhere since.
        pauses: Times that it was left out, one after the other.
        ask_at: While it is away, when it may be asked whether it is back.
        asking: Whether it is being asked, by a dry run or the one request.
        back_at: When it came back the last time.
        answers: Its answers since it failed.
        spell: Counts the times that it went away: what was sent before says nothing of it now.
        busy_until: When it may be sent something again, as it asked to be left alone.
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
        """Whether it waits for the one request by which it comes back."""
        return self.state == "returning" and not self.asking

    def may_take(self, now: float) -> bool:
        """Whether a request may go there as to any other."""
        return self.state == "ready" and now >= self.busy_until

    def expected(self, now: float, size: int, guess: float) -> float:
        """Return in how many seconds it is expected to be done with a request.

        Args:
            now: The time.
            size: Bytes of the request, `REQUEST_BYTES` included.
            guess: Seconds per byte, if its own are not known.
        """
        per_byte = guess if self.seconds_per_byte is None else self.seconds_per_byte
        share = min(1.0, max(LEAST_SHARE, (now - self.back_at) / SLOW_START_SECONDS))
        return max(0.0, self.pace.next_at - now) + (self.waiting_bytes + size) * per_byte / (self.weight * share)


class Assignment(msgspec.Struct, eq=False):
    """A request that is with a server.

    Attributes:
        place: Which.
        size: Its bytes, `REQUEST_BYTES` included.
        load: Bytes that the server had not answered when it was sent, its own included.
        began: When it was sent, or may be.
        spell: The server's, then.
        asks: Whether it is the one request by which a server comes back.
        ticket: What the server's pace noted of it, while that refuses requests.
    """

    place: Place
    size: int
    load: int
    began: float
    spell: int
    asks: bool
    ticket: Ticket | None = None


class Choice:
    """The servers of a pool, and which of them is next.

    Attributes:
        places: The servers.
    """

    def __init__(self, places: list[Place]) -> None:
        self.places = places
        self._turns = 0

    # What is asked

    def is_ready(self, now: float, codec: Codec | None = None) -> bool:
        """Whether some server may take a request now, one that is written so if that is said."""
        return any(
            place.may_take(now) or place.may_return for place in self.places if codec is None or place.codec == codec
        )

    def due(self, now: float) -> list[Place]:
        """Return the servers that are to be asked by a dry run now; each is noted as being asked."""
        found = [place for place in self.places if place.state == "away" and not place.asking and now >= place.ask_at]
        for place in found:
            place.asking = True
        return found

    def next(self, now: float, size: int, avoid: Place | None = None, codec: Codec | None = None) -> Place:
        """Return the server that a request is to go to.

        Args:
            now: The time.
            size: Bytes of the request.
            avoid: The server that has just failed on it, which is taken only if there is no other.
            codec: How it is written, if only servers are in question that read that.
        """
        places = self.places if codec is None else [place for place in self.places if place.codec == codec]
        for place in places:
            if place.may_return:
                return place
        ready = [place for place in places if place.may_take(now)]
        if avoid in ready and len(ready) > 1:
            ready.remove(avoid)
        if not ready:
            return _least_bad(places)
        most_passed = max(ready, key=lambda place: place.passed)
        if most_passed.passed >= PROBE_REQUESTS:
            return most_passed
        known = [place.seconds_per_byte for place in ready if place.seconds_per_byte is not None]
        guess = min(known, default=GUESSED_SECONDS_PER_BYTE)
        times = [place.expected(now, size + REQUEST_BYTES, guess) for place in ready]
        best = min(times)
        idle = [place for place, seconds in zip(ready, times, strict=True) if _is_idle(place, seconds, best)]
        near = idle or [place for place, seconds in zip(ready, times, strict=True) if seconds == best]
        return min(near, key=lambda place: place.turn)

    def second(self, now: float, size: int, assignment: Assignment) -> Place | None:
        """Return the server that a request may be sent to as well, if there is one that reads and can take it at once.

        Args:
            now: The time.
            size: Bytes of the request.
            assignment: The request, which its first server has not answered.
        """
        first = assignment.place
        others = [
            place
            for place in self.places
            if place is not first and place.codec == first.codec and place.may_take(now) and place.pace.next_at <= now
        ]
        known = [place.seconds_per_byte for place in others if place.seconds_per_byte is not None]
        guess = min(known, default=GUESSED_SECONDS_PER_BYTE)
        return min(others, key=lambda place: place.expected(now, size + REQUEST_BYTES, guess), default=None)

    # What happens

    def send(self, place: Place, now: float, size: int, items: int) -> Assignment:
        """A request is assigned to a server; it is sent at once, or when the server's pace allows.

        Args:
            place: Which.
            now: The time.
            size: Bytes of the request.
            items: In it.
        """
        self._turns += 1
        for other in self.places:
            other.passed += other.may_take(now)
        place.passed = 0
        place.turn = self._turns
        place.chosen += 1
        began = now
        if place.pace.slows:
            began = place.pace.take_turn(now, items)
        asks = place.may_return
        place.asking |= asks
        place.in_flight += 1
        place.waiting_bytes += size + REQUEST_BYTES
        ticket = place.pace.allowance.send(began) if place.pace.allowance.watches else None
        return Assignment(place, size + REQUEST_BYTES, place.waiting_bytes, began, place.spell, asks, ticket)

    def answer(self, assignment: Assignment, now: float, *, learn: bool = True) -> bool:
        """A request was answered, with whatever it was; return whether its server is back by that.

        Args:
            assignment: The request.
            now: The time.
            learn: Whether the time that it took says how fast the server is: an error may come sooner.
        """
        place = assignment.place
        self._end(assignment)
        if learn:
            _learn(place, (now - assignment.began) / assignment.load)
        if place.pace.allowance.watches:
            place.pace.accept(assignment.ticket, now)
        place.answers += 1
        if place.answers == TRUSTED_ANSWERS:
            place.pauses = 0
        if assignment.spell != place.spell or place.state not in ("away", "returning"):
            return False
        place.state, place.asking, place.back_at = "ready", False, now
        return True

    def take_back(self, assignment: Assignment, now: float) -> None:
        """A request was taken back, or failed on something that is not its server's fault."""
        self._end(assignment)
        place = assignment.place
        seconds = (now - assignment.began) / assignment.load
        # How long an answer would have taken is not known, but that it would have taken longer than this.
        if place.seconds_per_byte is not None and seconds > place.seconds_per_byte:
            _learn(place, seconds)

    def refuse(self, assignment: Assignment, now: float, seconds: float) -> None:
        """A server asks to be left alone for so many seconds."""
        self._end(assignment)
        place = assignment.place
        place.pace.refuse(assignment.ticket, now, seconds)
        # Where its pace slows down, no pause is made that it has not asked for.
        least = FIRST_PAUSE_SECONDS if place.pace.allowance.rate is None else 0.0
        seconds = min(max(seconds, least), LONGEST_BUSY_SECONDS)
        place.busy_until = max(place.busy_until, now + seconds)

    def fail(self, assignment: Assignment, now: float, asked: float = 0.0) -> float | None:
        """A request failed, and its server is away; return for how many seconds it is left out, if it was not by then.

        Args:
            assignment: The request.
            now: The time.
            asked: Seconds that the server, or a proxy before it, asked to wait.
        """
        place = assignment.place
        self._end(assignment)
        # What was sent before it went away fails, too, and says nothing new.
        if assignment.spell != place.spell or place.state == "draining":
            return None
        was_away = place.state == "away"
        seconds = self._leave_out(place, now, asked)
        return None if was_away else seconds

    def _leave_out(self, place: Place, now: float, asked: float = 0.0) -> float:
        seconds = FIRST_PAUSE_SECONDS * 2.0 ** min(place.pauses, MOST_DOUBLINGS)
        seconds = max(min(LONGEST_PAUSE_SECONDS, seconds), min(asked, LONGEST_PAUSE_SECONDS))
        place.state, place.asking, place.ask_at = "away", False, now + seconds
        place.pauses += 1
        place.spell += 1
        place.answers = 0
        return seconds

    def asked(self, place: Place, now: float, *, there: bool) -> None:
        """A dry run came to an end.

        Args:
            place: The server that it asked.
            now: The time.
            there: Whether it says that it is ready.
        """
        if place.state != "away":
            return
        place.asking = False
        if there:
            place.state = "returning"
        else:
            self._leave_out(place, now)

    def _end(self, assignment: Assignment) -> None:
        place = assignment.place
        place.in_flight -= 1
        place.waiting_bytes -= assignment.size
        if assignment.asks and assignment.spell == place.spell:
            place.asking = False


def _is_idle(place: Place, seconds: float, best: float) -> bool:
    """Whether a server has nothing to do, and would be about as quick as the best one."""
    return place.waiting_bytes == 0 and seconds <= NEAR_RATIO * best


def _least_bad(places: list[Place]) -> Place:
    """Return a server although none is ready: a busy one, or else one that is away, each in its turn."""
    busy = [place for place in places if place.state == "ready"]
    if busy:
        return min(busy, key=lambda place: place.busy_until)
    away = [place for place in places if place.state != "draining"] or places
    return min(away, key=lambda place: place.turn)


def _learn(place: Place, seconds: float) -> None:
    """Take in what a byte has cost."""
    known = place.seconds_per_byte
    if known is None or known <= 0:
        place.seconds_per_byte = seconds
        return
    step = min(LARGEST_STEP_RATIO, max(1 / LARGEST_STEP_RATIO, seconds / known))
    place.seconds_per_byte = known * (1 + LATEST_ANSWER_SHARE * (step - 1))


class PoolState(ServerState):
    """What the calls of a client have found out about its pool, which counts as away if all of its servers are.

    Args:
        choice: The servers.
        answered: Whether one of them has ever answered.
    """

    def __init__(self, choice: Choice, answered: bool = False) -> None:
        super().__init__(answered)
        self._choice = choice

    def has_another(self, now: float) -> bool:
        """Whether another server may take what one has failed on."""
        return self._choice.is_ready(now)
