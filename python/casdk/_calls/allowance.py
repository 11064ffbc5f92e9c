"""How many requests a second a server accepts, found out from those that it refuses; there is no I/O and no clock here.

A server that limits the rate of its clients accepts requests up to that rate, and refuses those that come faster. So if
it refuses some, requests are sent at a lower rate, which is raised from time to time:

- This begins when at least `LEAST_REFUSED_REQUESTS` of the last `LATEST_OUTCOMES` requests were refused. The first rate
  is that of the requests that were accepted meanwhile.
- When enough requests were accepted at a rate, it is raised. The next refusal undoes that raise, and the next raise is
  smaller; once the smallest is refused, the rate stays the same for a while.
- At each refusal, the server's limit was used up. So the requests that were accepted between two refusals, less one,
  are no more than the limit allows in that time. The rate is never made lower than that.
- A limit may count by whole seconds or minutes: when its number is used up, it accepts nothing until the next one
  begins. So if nothing was accepted since a refusal, the next refusals do not change the rate. Requests are sent more
  and more slowly until one is accepted, and then as fast as before.
- A server that refuses requests even at such a rate has another reason, refuses at random, or has become slower. So
  the rate is lowered once more. If that does not help, there is no rate any more, and refusals do not slow requests
  down for a while. There is also no rate any more once requests come so slowly that none waits for it.

Nothing is noted about requests before the server refuses one for the first time.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final, NamedTuple

__all__ = ["Allowance", "Ticket"]

LATEST_OUTCOMES: Final = 16
LEAST_REFUSED_REQUESTS: Final = 2
"""Requests are slowed down once `LEAST_REFUSED_REQUESTS` of the latest `LATEST_OUTCOMES` requests were refused."""
FEW_REQUESTS: Final = 4
"""If fewer requests were accepted, they do not show a rate; then at least so many have to be refused."""
BURST_SECONDS: Final = 0.02
"""The rate of few requests is calculated over at least this time: most limits accept some at once, which would look
like a high rate."""
LEAST_REQUESTS_PER_SECOND: Final = 1.0
"""The lowest rate: calls to a server that refuses all requests have to find that out soon."""
ASKED_PER_SECOND: Final = 2.0
"""The lowest rate while a server accepts nothing after a refusal, to find out when it accepts requests again."""
FIRST_STEP: Final = 1.0
"""While nothing is known about the limit, each raise adds this part of the rate, and so doubles it."""
FIRST_JUDGED_REQUESTS: Final = 4
"""Such a raise is made when so many requests were accepted since the last change of the rate."""
LARGEST_STEP: Final = 0.25
LEAST_STEP: Final = 0.05
"""The largest and the smallest later raise, as parts of the rate; after a refused raise, the next is a quarter."""
JUDGED_REQUESTS: Final = 8
"""A later raise is made when so many requests, divided by its part of the rate, were accepted. By then, the last raise
has let through this many more requests than the rate before it. If that was too much, a limit that accepts fewer
requests at once has refused one."""
JUDGED_SECONDS: Final = 0.05
"""The least time between a change of the rate and a raise."""
HOLD_SECONDS: Final = 10.0
LONGEST_HOLD_SECONDS: Final = 80.0
"""How long the rate stays the same when the smallest raise was refused; each time in a row, this is twice as long."""
REMEMBERED_REFUSALS: Final = 8
"""How many of the latest refusals show what the limit allows at least."""
PRECISE_REQUESTS: Final = 8
"""If so many requests were accepted between two refusals, one more or less makes little difference to their rate."""
MOST_UNEXPLAINED_REFUSALS: Final = 4
"""After so many refusals at a rate that a limit would have to allow, the server counts as one without a limit."""
MOST_LOWERING_REFUSALS: Final = 10
"""The same holds after so many refusals that each lowered the rate, unless `QUIET_REQUESTS` requests in a row were
accepted in between."""
QUIET_REQUESTS: Final = 100
UNHURRIED_RATIO: Final = 4.0
"""Requests that come so many times more slowly than the rate allows do not wait for it. Then it is not raised, and
there is no rate any more once enough of them were accepted, one after the other."""
IDLE_SECONDS: Final = 1.0
"""After a pause that is longer than this, and longer than the rate requires, earlier requests do not show how fast
requests come."""
DISTRUST_SECONDS: Final = 60.0
LONGEST_DISTRUST_SECONDS: Final = 600.0
"""How long refusals do not slow requests down after the server seems to have no limit. Each time this is twice as
long, unless a limit held for longer than that."""


class Ticket(NamedTuple):
    """A request that was sent to a server.

    Attributes:
        number: Its number among the requests that were noted.
        at: When it was sent.
    """

    number: int
    at: float


class Allowance:
    """Finds out how many requests a second one server accepts.

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
        """Note that the server has accepted a request.

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
        accepted = self._limit.refuse(ticket, now)
        if self._limit.is_unlikely:
            self._distrust_for_a_while(now)
        return accepted == 0

    def _suspect(self, ticket: Ticket | None, now: float) -> None:
        """Decide whether a limit is the reason of the refusal; if so, begin with the rate of the accepted requests."""
        if not self.watches:
            self.watches, self._watched_at = True, now
            self._outcomes.clear()
            self._refusals = _Refusals(Ticket(self._sent, now))
        elif ticket is not None:
            self._refusals.add(ticket)
        self._outcomes.append(True)
        refused = sum(self._outcomes)
        accepted, seconds = len(self._outcomes) - refused, now - self._watched_at
        if refused < (LEAST_REFUSED_REQUESTS if accepted >= FEW_REQUESTS else FEW_REQUESTS):
            return
        if accepted < FEW_REQUESTS:
            accepted, seconds = max(1, accepted), max(BURST_SECONDS, seconds)
        self._began_at = now
        self._limit = _Limit(accepted / seconds, self._refusals, self._sent)

    def _distrust_for_a_while(self, now: float) -> None:
        """Stop slowing requests down, and do not begin again for a while, unless the limit held for long."""
        self._limit, self.watches = None, False
        if now - self._began_at > self._distrust:
            self._distrust = DISTRUST_SECONDS
            return
        self._trusted_at = now + self._distrust
        self._distrust = min(2 * self._distrust, LONGEST_DISTRUST_SECONDS)


class _Refusals:
    """The latest refusals, and how many requests were accepted between them; an `Allowance` counts them.

    Args:
        first: The first refused request.
    """

    def __init__(self, first: Ticket) -> None:
        self._refused = 0
        """Refused since the first."""
        self._latest = deque([(first.at, first.number)], maxlen=REMEMBERED_REFUSALS)
        """When each was sent, and how many had been accepted by then."""

    def is_followed_by(self, ticket: Ticket) -> bool:
        """Whether a request that is refused now was sent after the last of these, and none was accepted in between."""
        at, accepted = self._latest[-1]
        return ticket.at > at and ticket.number - self._refused - 1 == accepted

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
        """How many requests were accepted between the last two refusals, and in how many seconds."""
        if len(self._latest) < 2:
            return 0, inf
        (before, accepted_before), (at, accepted) = self._latest[-2], self._latest[-1]
        return accepted - accepted_before, at - before

    @property
    def allowed(self) -> float:
        """Requests a second that the limit allows at least, if it is one: it had nothing left at each refusal."""
        at, accepted = self._latest[-1]
        # One less, as it may have had a part of one left at the earlier of the two.
        return max(
            (max(0, accepted - earlier - 1) / (at - before) for before, earlier in self._latest if before < at),
            default=0.0,
        )


class _Limit:
    """The search for the rate that a server accepts; an `Allowance` has one while it slows requests down.

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
        """The rate before requests were sent more slowly because the server accepts none."""
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
        """Note that a request was accepted; return whether requests come fast enough for the rate to matter."""
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
        """Note a refused request; return how many were accepted since the last refusal, ``None`` if that is unknown."""
        if ticket.number < self._first:  # it was sent at another rate
            self._refusals.count()
            return None
        if self._refusals.is_followed_by(ticket):
            self._refusals.count()
            self._rate_before = self._rate_before or self.rate
            self._change(max(self.rate / 2, min(self.rate, ASKED_PER_SECOND)))
            return 0
        self._refusals.add(ticket)
        accepted, seconds = self._refusals.last
        self._lowered += accepted > 1
        if self._raised:
            self._undo()
        else:
            self._lower(accepted, seconds)
        self._raise_at = -inf
        if self._step == LEAST_STEP:
            self._raise_at, self._hold = now + self._hold, min(2 * self._hold, LONGEST_HOLD_SECONDS)
        self.is_unlikely = self._unexplained >= MOST_UNEXPLAINED_REFUSALS or self._lowered >= MOST_LOWERING_REFUSALS
        return accepted

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

    def _lower(self, accepted: int, seconds: float) -> None:
        """Lower the rate to that of the requests accepted since the last refusal, but not below the limit's own."""
        allowed = self._refusals.allowed
        if self.rate <= (1 + LEAST_STEP) * allowed:
            self._unexplained += 1
            if self._unexplained > 1:  # if there is a limit, it does not allow any more what it did
                self._refusals.forget()
                self._held, allowed = inf, 0.0
        if accepted > 1:
            lower = (accepted - (accepted >= PRECISE_REQUESTS)) / seconds
            self._step = max(
                LEAST_STEP, min(LARGEST_STEP, self._step, 1 / accepted if accepted >= PRECISE_REQUESTS else inf)
            )
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
