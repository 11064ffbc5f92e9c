"""How many requests a second a server takes, as what it refuses shows; there is no I/O here, and no clock.

A server that limits the rate of its clients takes what comes slowly enough, and refuses what comes faster. So where it
refuses, requests are sent at a rate at which it does not, and that is raised from time to time:

- It begins when at least `LEAST_REFUSED_REQUESTS` of the last `LATEST_OUTCOMES` requests were refused, at the rate of
  those that were taken meanwhile.
- When enough requests were taken at a rate, it is raised. The next refusal undoes that raise, and the next raise is
  smaller; once the smallest is refused, the rate is held for a while.
- At each refusal the limit had nothing left. What was taken between two of them, less one, is no more than what it
  allows in that time: a rate that is never gone below, as it cannot be what is refused.
- A limit by whole seconds, or minutes, takes requests as they come, and then none until its next one begins. So a
  refusal since which nothing was taken says nothing of the rate: requests are sent ever more slowly until one is taken,
  and then as fast as before.
- A server that refuses requests at such a rate refuses for another reason, or at random, or has become slower. So the
  rate is lowered once more; if that does not help, it is dropped, and refusals slow nothing down for a while. A rate
  that no request waits for is dropped, too.

Nothing is noted about requests before the server refuses one for the first time.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final, NamedTuple

__all__ = ["Allowance", "Ticket"]

LATEST_OUTCOMES: Final = 16
LEAST_REFUSED_REQUESTS: Final = 2
"""A rate is looked for once so many of so many requests in a row were refused."""
FEW_REQUESTS: Final = 4
"""Fewer requests that were taken say nothing of a rate: then as many have to be refused."""
BURST_SECONDS: Final = 0.02
"""The least time that the rate of fewer requests is worked out over: most limits take some at once, which would look
like a high rate."""
LEAST_REQUESTS_PER_SECOND: Final = 1.0
"""Sent in any case: calls to a server that refuses all requests have to find that out soon."""
ASKED_PER_SECOND: Final = 2.0
"""Sent while a server has taken none since the last refusal, at least, to see whether it takes some again."""
FIRST_STEP: Final = 1.0
"""While nothing is known of the limit, a raise doubles the rate..."""
FIRST_JUDGED_REQUESTS: Final = 4
"""...and is made when so many requests were taken since the last change."""
LARGEST_STEP: Final = 0.25
LEAST_STEP: Final = 0.05
"""Later raises, as parts of the rate: each that is refused makes the next one a quarter."""
JUDGED_REQUESTS: Final = 8
"""They are made when so many requests were taken, divided by that part: then the last raise has let through this many
more than the rate before it, and a limit that takes fewer at once has refused one, if it was too much."""
JUDGED_SECONDS: Final = 0.05
"""No raise is made sooner after a change."""
HOLD_SECONDS: Final = 10.0
LONGEST_HOLD_SECONDS: Final = 80.0
"""How long a rate is held when the least raise was refused; each time in a row twice as long."""
REMEMBERED_REFUSALS: Final = 8
"""So many refusals, the latest, say what a limit allows at least."""
PRECISE_REQUESTS: Final = 8
"""With so many requests taken between two refusals, one more or less of them makes little difference."""
MOST_UNEXPLAINED_REFUSALS: Final = 4
"""After so many refusals at a rate that a limit would have to allow, the server is no longer taken to have one..."""
MOST_LOWERING_REFUSALS: Final = 10
"""...nor after so many that each lowered the rate, without `QUIET_REQUESTS` requests in a row taken in between."""
QUIET_REQUESTS: Final = 100
UNHURRIED_RATIO: Final = 4.0
"""Requests that come so many times slower than the rate allows do not wait for it: it is not raised any more, and is
let go if so many of them are taken, one after the other."""
IDLE_SECONDS: Final = 1.0
"""After a pause that is longer than this, and than the rate makes it, the requests before it say nothing of that."""
DISTRUST_SECONDS: Final = 60.0
LONGEST_DISTRUST_SECONDS: Final = 600.0
"""How long refusals slow nothing down once they were those of no limit; each time twice as long, unless there was one
for longer."""


class Ticket(NamedTuple):
    """A request that was sent to a server.

    Attributes:
        number: Its number among the requests that were noted.
        at: When it was sent.
    """

    number: int
    at: float


class Allowance:
    """Finds out how many requests a second one server takes.

    Attributes:
        watches: Whether `send` and `accept` are to be called for requests; `refuse` always is.
    """

    def __init__(self) -> None:
        self.watches = False
        self._sent = 0
        self._limit: _Limit | None = None
        self._outcomes: deque[bool] = deque(maxlen=LATEST_OUTCOMES)
        """Whether the latest requests were refused, since one was."""
        self._refusals = _Refusals(Ticket(0, -inf))
        self._watched_at = self._began_at = self._trusted_at = -inf
        self._distrust = DISTRUST_SECONDS

    @property
    def rate(self) -> float | None:
        """Requests a second; ``None`` while the server is not known to limit them."""
        return None if self._limit is None else self._limit.rate

    def send(self, now: float) -> Ticket:
        """Note that a request is sent; return its ticket."""
        self._sent += 1
        ticket = Ticket(self._sent, now)
        if self._limit is not None:
            self._limit.send(ticket)
        return ticket

    def accept(self, ticket: Ticket | None, now: float) -> None:
        """Note that the server has taken a request.

        Args:
            ticket: The request's ticket; ``None`` if it was sent before the server was watched.
            now: The time.
        """
        if ticket is None:
            return
        if self._limit is None:
            self._outcomes.append(False)
            self.watches = any(self._outcomes)
        elif not self._limit.accept(ticket, now):
            self._limit, self.watches = None, False

    def refuse(self, ticket: Ticket | None, now: float) -> bool:
        """Note that the server has refused a request because there are too many.

        Args:
            ticket: As for `accept`.
            now: The time.

        Returns:
            Whether the server seems to take no requests at all at present.
        """
        if self._limit is None:
            if now >= self._trusted_at:
                self._suspect(ticket, now)
            return self._limit is not None and all(self._outcomes)
        if ticket is None:
            return False
        taken = self._limit.refuse(ticket, now)
        if self._limit.is_unlikely:
            self._distrust_for_a_while(now)
        return taken == 0

    def _suspect(self, ticket: Ticket | None, now: float) -> None:
        """Decide whether a limit is the reason of the refusal; if so, begin with the rate of the requests taken."""
        if not self.watches:
            self.watches, self._watched_at = True, now
            self._outcomes.clear()
            self._refusals = _Refusals(Ticket(self._sent, now))
        elif ticket is not None:
            self._refusals.add(ticket)
        self._outcomes.append(True)
        refused = sum(self._outcomes)
        taken, seconds = len(self._outcomes) - refused, now - self._watched_at
        if refused < (LEAST_REFUSED_REQUESTS if taken >= FEW_REQUESTS else FEW_REQUESTS):
            return
        if taken < FEW_REQUESTS:
            taken, seconds = max(1, taken), max(BURST_SECONDS, seconds)
        self._began_at = now
        self._limit = _Limit(taken / seconds, self._refusals, self._sent)

    def _distrust_for_a_while(self, now: float) -> None:
        """Stop slowing requests down, and do not begin again for a while, unless the limit held for long."""
        self._limit, self.watches = None, False
        if now - self._began_at > self._distrust:
            self._distrust = DISTRUST_SECONDS
            return
        self._trusted_at = now + self._distrust
        self._distrust = min(2 * self._distrust, LONGEST_DISTRUST_SECONDS)


class _Refusals:
    """The latest refusals, and how many requests were taken between them; an `Allowance` counts them.

    Args:
        first: The first refused request.
    """

    def __init__(self, first: Ticket) -> None:
        self._refused = 0
        """Refused since the first."""
        self._latest = deque([(first.at, first.number)], maxlen=REMEMBERED_REFUSALS)
        """When each was sent, and how many had been taken by then."""

    def is_followed_by(self, ticket: Ticket) -> bool:
        """Whether a request that is refused now was sent after the last of these, and nothing was taken in between."""
        at, taken = self._latest[-1]
        return ticket.at > at and ticket.number - self._refused - 1 == taken

    def count(self) -> None:
        """Count a refused request that shows nothing about the limit."""
        self._refused += 1

    def add(self, ticket: Ticket) -> None:
        """Add a refused request."""
        self._refused += 1
        if ticket.at > self._latest[-1][0]:
            self._latest.append((ticket.at, ticket.number - self._refused))

    def forget(self) -> None:
        """Remember only the last two."""
        self._latest = deque([*self._latest][-2:], maxlen=REMEMBERED_REFUSALS)

    @property
    def last(self) -> tuple[int, float]:
        """How many requests were taken between the last two refusals, and in how many seconds."""
        if len(self._latest) < 2:
            return 0, inf
        (before, taken_before), (at, taken) = self._latest[-2], self._latest[-1]
        return taken - taken_before, at - before

    @property
    def allowed(self) -> float:
        """Requests a second that the limit allows at least, if it is one: it had nothing left at each refusal."""
        at, taken = self._latest[-1]
        # One less, as it may have had a part of one left at the earlier of the two.
        return max(
            (max(0, taken - earlier - 1) / (at - before) for before, earlier in self._latest if before < at),
            default=0.0,
        )


class _Limit:
    """The search for the rate that a server takes; an `Allowance` has one while it slows requests down.

    Args:
        rate: The first rate to try, in requests a second.
        refusals: The refusals that have shown that there is a limit.
        sent: How many requests were sent so far.

    Attributes:
        rate: The rate that requests are to be sent at now, in requests a second.
        is_unlikely: Whether the server more likely refuses requests for another reason.
    """

    def __init__(self, rate: float, refusals: _Refusals, sent: int) -> None:
        self._refusals = refusals
        self._latest = Ticket(sent, -inf)
        self._step = FIRST_STEP
        self._held = inf
        """The rate before the first of the last raises in a row."""
        self._hold = HOLD_SECONDS
        self._raise_at = -inf
        self._unexplained = self._lowered = 0
        self._rate_before: float | None = None
        """The rate before requests were sent more slowly, since the server takes none."""
        self.is_unlikely = False
        self._change(rate)

    def send(self, ticket: Ticket) -> None:
        """Note that a request is sent."""
        if ticket.at - self._latest.at > max(IDLE_SECONDS, 2 / self.rate):
            self._judge_from(ticket.number)
        if ticket.number == self._first:
            self._first_at = ticket.at
        self._latest = ticket

    def accept(self, ticket: Ticket, now: float) -> bool:
        """Note that a request was taken; return whether requests come fast enough for the rate to matter."""
        if ticket.number < self._first:
            return True
        rate, self._rate_before = self._rate_before, None
        if rate is not None:
            self._change(rate)
            return True
        self._accepted += 1
        judged = FIRST_JUDGED_REQUESTS if self._step == FIRST_STEP else JUDGED_REQUESTS / self._step
        if self._accepted < judged or now < max(self._raise_at, self._first_at + JUDGED_SECONDS):
            return True
        came_in = self._latest.at - self._first_at
        if came_in > UNHURRIED_RATIO * (self._latest.number - self._first) / self.rate:
            return self._accepted < QUIET_REQUESTS
        self._raise()
        return True

    def refuse(self, ticket: Ticket, now: float) -> int | None:
        """Note that a request was refused; return how many were taken since the last refusal, ``None`` if unknown."""
        if ticket.number < self._first:  # it was sent at another rate
            self._refusals.count()
            return None
        if self._refusals.is_followed_by(ticket):
            self._refusals.count()
            self._rate_before = self._rate_before or self.rate
            self._change(max(self.rate / 2, min(self.rate, ASKED_PER_SECOND)))
            return 0
        self._refusals.add(ticket)
        taken, seconds = self._refusals.last
        self._lowered += taken > 1
        if self._raised:
            self._undo()
        else:
            self._lower(taken, seconds)
        self._raise_at = -inf
        if self._step == LEAST_STEP:
            self._raise_at, self._hold = now + self._hold, min(2 * self._hold, LONGEST_HOLD_SECONDS)
        self.is_unlikely = self._unexplained >= MOST_UNEXPLAINED_REFUSALS or self._lowered >= MOST_LOWERING_REFUSALS
        return taken

    def _raise(self) -> None:
        if not self._raised:
            self._held = self.rate
        elif self._step < LARGEST_STEP and self._hold > HOLD_SECONDS:
            # The limit was known, and the server has raised it since, so larger steps follow it.
            self._step = min(LARGEST_STEP, 2 * self._step)
        if self._accepted >= QUIET_REQUESTS:
            self._unexplained = self._lowered = 0
        self._change(self.rate * (1 + self._step), raised=self._step)

    def _undo(self) -> None:
        """Go back to the rate before the last raise; or, if that is near, to the one before all raises."""
        before = self.rate / (1 + self._raised)
        if before <= self._held * (1 + LARGEST_STEP):
            before = self._held
        else:
            self._hold = HOLD_SECONDS
        self._step = max(LEAST_STEP, self._step / 4)
        self._change(max(before, min(self.rate, self._refusals.allowed)))

    def _lower(self, taken: int, seconds: float) -> None:
        """Lower the rate to that of the requests taken since the last refusal, but not below what the limit allows."""
        allowed = self._refusals.allowed
        if self.rate <= (1 + LEAST_STEP) * allowed:
            self._unexplained += 1
            if self._unexplained > 1:  # if there is a limit, it does not allow any more what it did
                self._refusals.forget()
                self._held, allowed = inf, 0.0
        if taken > 1:
            lower = (taken - (taken >= PRECISE_REQUESTS)) / seconds
            self._step = max(LEAST_STEP, min(LARGEST_STEP, self._step, 1 / taken if taken >= PRECISE_REQUESTS else inf))
        else:
            lower = self._held if self._held < self.rate else self.rate / 2
            self._step = min(LARGEST_STEP, self._step) if allowed else FIRST_STEP
        self._change(min(self.rate, max(allowed, lower)))

    def _change(self, rate: float, *, raised: float = 0.0) -> None:
        self.rate = max(LEAST_REQUESTS_PER_SECOND, rate)
        self._raised = raised
        """By which part of itself the rate was raised; 0 if it was not raised."""
        self._judge_from(self._latest.number + 1)

    def _judge_from(self, number: int) -> None:
        """Judge the rate by this request and those after it."""
        self._first, self._first_at, self._accepted = number, inf, 0
