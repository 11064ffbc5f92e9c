"""How many items a request has and how many requests are in flight, found by measuring; there is no I/O here, no clock.

The search begins with what a call does that says nothing, and goes on in steps of two: more requests in flight, or as
few as are enough, then more or fewer items in each; as long as that gives more items per second, and again until
neither does. Each point that it tries is a trial, measured from the first reply on. What the routes of the replies say
of the server's own time says how many requests are on their way, and so how few in flight may be enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Final, NamedTuple, Self, TypeAlias

import msgspec

from casdk._calls.window import GROWN_WINDOW_REQUESTS, WINDOW_REQUESTS, Window

__all__ = ["FEWEST_ITEMS", "Point", "Tuning"]

FEWEST_ITEMS: Final = 4096
"""An input that is known to have fewer items is done before a search could pay: nothing is tried."""
FIRST_ITEMS: Final = 1024
"""Items that are done before a second point is tried, as nobody may know how many there are."""
MOST_BATCH_ITEMS: Final = 512
"""The most that a request is tried with."""
LEAST_WINDOW_DIVISOR: Final = 4
"""The window may become the first one divided by this: two requests for each server, one computed and one waiting."""
TRIAL_SECONDS: Final = 0.2
"""A trial takes so long at least, and goes on to the end of a window: replies may come in bursts of so many."""
LONG_TRIAL_SECONDS: Final = 2.0
"""A trial ends after this time all the same, if there were `FEWEST_REPLIES` by then."""
FEWEST_REPLIES: Final = 3
MOST_TRIALS: Final = 40
"""The search ends after so many, whatever it has found; those that were broken off count, too."""
GAIN_RATIO: Final = 1.01
"""A step is taken if it gives so many times the items per second of the best trial so far."""
LOSS_RATIO: Final = 0.995
"""A step to fewer requests in flight is taken if it still gives so many times: they cost memory, and the server's other
clients wait for them."""
IN_FLIGHT_SECONDS: Final = 4.0
"""No more is tried than the server does in this time: a bulk run that is to stop waits for what is in flight."""


class Point(NamedTuple):
    """What is tried.

    Attributes:
        batch_size: Items per request.
        window: Requests in flight.
    """

    batch_size: int
    window: int


Trials: TypeAlias = Generator[Point, float, None]
"""Points to try, one after the other; it is sent the items per second of each."""


class Tuning(Window):
    """A window that also says how many items the next request has, and searches for the best of both.

    Like any window it gets every reply, and of those that belong to the current trial all that was measured. When
    the search is over, requests keep their size; the window gets smaller when the server refuses one, and grows back.

    Args:
        batch_size: Items per request, to begin with.
        window: Requests in flight, the same.

    Attributes:
        batch_size: Items of the next request.
        size: Requests in flight.
        trial: Counts the trials: what is read while it is n belongs to trial n.
        is_over: Whether the search is.
    """

    def __init__(self, batch_size: int, window: int = WINDOW_REQUESTS) -> None:
        super().__init__(window)
        self.batch_size: int = batch_size
        self.size: int = window
        self.trial: int = 0
        self.is_over: bool = False
        self._search = _Search(Point(batch_size, window))
        self._trials: Trials | None = None
        self._answered = True
        self._growth = 0
        self._backed_off_at = -math.inf
        self._tally: _Tally | None = None
        self._go_to(self._search.best)

    @classmethod
    def known(cls, batch_size: int, window: int) -> Self:
        """Return one whose search was over before, with what it had found."""
        tuning = cls(batch_size, window)
        tuning.end()
        return tuning

    def begin(self, window: int, most_window: int = GROWN_WINDOW_REQUESTS, most_bytes: float = math.inf) -> None:
        """A call begins to use it; a search is that of the first one, which ends it.

        Args:
            window: Requests in flight at first.
            most_window: The most of them; if it is ``window``, it stays at that.
            most_bytes: Of a request.
        """
        search, is_fixed = self._search, window == most_window
        if self.is_over:
            self._go_to(search.best._replace(window=window if is_fixed else min(search.best.window, most_window)))
            return
        search.best = search.best._replace(window=window)
        search.least_window = window if is_fixed else max(1, window // LEAST_WINDOW_DIVISOR)
        search.most_window, search.most_bytes = most_window, most_bytes
        self._trials = search.trials()
        self._go_to(next(self._trials))

    @property
    def best(self) -> Point:
        """What the search has found so far; the window may be smaller at the moment."""
        return self._search.best

    @property
    def has_compared(self) -> bool:
        """Whether more than the first point was tried, so that there was something to choose from."""
        return len(self._search.rates) > 1

    def answered(self, took: float, size: int) -> None:
        self._answered = True
        if self.size < self._point.window:
            self._growth += 1
            if self._growth >= self.size:
                self.size, self._growth = self.size + 1, 0

    def failed(self) -> None:
        """A request failed. Whether that says something of the window, `refused` says."""

    def measured(self, now: float, items: int, took: float, served: float, size: int) -> None:
        """A request of the current trial was answered.

        Args:
            now: When, in seconds of any clock.
            items: In the request.
            took: Seconds from sending it to its reply.
            served: Those of them that the server accounts for; 0 if it does not say.
            size: Bytes of the request.
        """
        if self.is_over:
            return
        tally, search = self._tally, self._search
        search.item_bytes = max(search.item_bytes, size / items)
        if tally is None:  # the first one has paid for what is new to the server in requests of this size
            self._tally = _Tally(now)
            return
        tally.items += items
        tally.replies += 1
        tally.on_the_way += took - served
        seconds = now - tally.began_at
        is_whole = seconds >= TRIAL_SECONDS and tally.replies % self._point.window == 0
        is_late = seconds >= LONG_TRIAL_SECONDS and tally.replies >= FEWEST_REPLIES
        if (is_whole or is_late) and (search.rates or tally.items >= FIRST_ITEMS):
            # By Little's law: requests per second, times the seconds that each of them is on its way.
            search.on_the_way[self._point] = tally.on_the_way / seconds
            self._try_next(tally.items / seconds)

    def disturbed(self) -> None:
        """What was measured of the current trial says nothing, as something has come between: it begins again."""
        if not self.is_over:
            self._go_to(self._point)
            self._count_trial()

    def refused(self, sent_at: float, now: float) -> None:
        """The server, or somebody before it, has refused a request because there are too many.

        All that are refused of those that were in flight together count as one; so do those that are sent again until
        one of them is answered.

        Args:
            sent_at: When the request was sent, by the clock of `measured`.
            now: When the refusal came.
        """
        if sent_at < self._backed_off_at or not self._answered:
            return
        self._backed_off_at, self._answered, self._growth = now, False, 0
        if self.is_over:
            self.size = max(1, self.size // 2)
            return
        search, window = self._search, self._point.window
        search.most_window = max(search.least_window, window // 2)
        if window > search.most_window:
            self._try_next(0.0)
        else:
            self.disturbed()

    def refused_size(self, items: int) -> None:
        """A request of so many items was too large for the server, or for somebody before it."""
        if self.is_over or items == 1:
            return
        self._search.most_batch_size = min(self._search.most_batch_size, items // 2)
        if self._point.batch_size > self._search.most_batch_size:
            self._try_next(0.0)

    def end(self) -> None:
        """End the search with the best that it has found so far."""
        if self.is_over:
            return
        self.is_over = True
        self.trial += 1
        if self._trials is not None:
            self._trials.close()
            self._trials = None
        self._search.best = self._search.within_bounds(self._search.best)
        self._go_to(self._search.best)

    def _go_to(self, point: Point) -> None:
        """Have the next requests sent as a point says, and measure them."""
        self._point = point
        self.batch_size, self.size = point
        self._tally = None

    def _try_next(self, rate: float) -> None:
        """Go on to the next point.

        Args:
            rate: Items per second of this one.
        """
        assert self._trials is not None
        try:
            self._go_to(self._trials.send(rate))
        except StopIteration:
            self.end()
        else:
            self._count_trial()

    def _count_trial(self) -> None:
        self.trial += 1
        if self.trial >= MOST_TRIALS:
            self.end()


class _Tally(msgspec.Struct):
    """What was measured of a trial so far.

    Attributes:
        began_at: When the first reply came, which is not counted in.
        items: Those of the replies after that.
        replies: How many there were.
        on_the_way: Seconds for which they were not with the server, in all.
    """

    began_at: float
    items: int = 0
    replies: int = 0
    on_the_way: float = 0.0


class _Search:
    """Which point is tried next.

    Args:
        first: Where it begins.

    Attributes:
        best: What is to be used, as far as is known.
        rates: Items per second of each point that was tried.
        on_the_way: Requests that are not with the server at a time, on the mean, of each point.
        least_window: Fewer requests in flight are not tried.
        most_window: Nor are more.
        most_batch_size: Nor are more items in a request.
        most_bytes: Nor is a request of more bytes.
        item_bytes: Bytes of an item, in the request that had the largest.
    """

    def __init__(self, first: Point) -> None:
        self.best = first
        self.rates: dict[Point, float] = {}
        self.on_the_way: dict[Point, float] = {}
        self.least_window = self.most_window = first.window
        self.most_batch_size = max(first.batch_size, MOST_BATCH_ITEMS)
        self.most_bytes = math.inf
        self.item_bytes = 0.0

    def trials(self) -> Trials:
        """Yield the points to try, from the first one to where no step helps; it is sent the rate of each."""
        yield from self._measure(self.best)
        before = None
        while self.best != before:
            before = self.best
            yield from self._find_window()
            yield from self._find_batch_size()

    def within_bounds(self, point: Point) -> Point:
        """Return the nearest point that may be tried: refusals make the bounds narrower."""
        return Point(min(point.batch_size, self.most_batch_size), min(point.window, self.most_window))

    def _find_window(self) -> Trials:
        if (yield from self._climb(lambda point: point._replace(window=min(2 * point.window, self.most_window)))):
            return
        on_the_way = self.on_the_way.get(self.best, math.inf)
        if on_the_way + self.least_window < self.best.window:
            yield from self._take(self.best._replace(window=math.ceil(on_the_way) + self.least_window), LOSS_RATIO)

    def _find_batch_size(self) -> Trials:
        if not (yield from self._climb(lambda point: point._replace(batch_size=2 * point.batch_size))):
            yield from self._climb(lambda point: point._replace(batch_size=point.batch_size // 2))

    def _climb(self, step: Callable[[Point], Point]) -> Generator[Point, float, bool]:
        """Take steps as long as they help; return whether the first one did."""
        helped = False
        while (yield from self._take(step(self.best), GAIN_RATIO)):
            helped = True
        return helped

    def _take(self, point: Point, share: float) -> Generator[Point, float, bool]:
        """Try a point; return whether it is the best from now on.

        Args:
            point: The point.
            share: How many times the highest rate it has to reach.
        """
        if point == self.best or not self._may_try(point):
            return False
        highest = max(rate for tried, rate in self.rates.items() if self.within_bounds(tried) == tried)
        rate = yield from self._measure(point)
        if rate < share * highest or self.within_bounds(point) != point:
            return False
        self.best = point
        return True

    def _measure(self, point: Point) -> Generator[Point, float, float]:
        """Return the rate of a point, which is tried unless it was before; leave the best one within the bounds."""
        if point not in self.rates:
            self.rates[point] = yield point
            # A refusal may have come instead, and made the bounds so narrow that the best one is to be found anew.
            while (best := self.within_bounds(self.best)) != self.best:
                self.best = best
                if best not in self.rates:
                    self.rates[best] = yield best
        return self.rates[point]

    def _may_try(self, point: Point) -> bool:
        if point.batch_size < 1 or self.within_bounds(point) != point:
            return False
        if point.batch_size > self.best.batch_size and point.batch_size * self.item_bytes > self.most_bytes:
            return False
        items, items_now = (one.batch_size * one.window for one in (point, self.best))
        return items <= max(items_now, IN_FLIGHT_SECONDS * self.rates[self.best])
