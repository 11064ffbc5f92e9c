"""How many items a request has and how many requests are in flight, found by measuring; there is no I/O here, no clock.

The search begins with the defaults, and doubles or halves one number at a time: first the requests in flight, then the
items in each request. It takes each step that gives more items per second, and ends when neither number has such a
step. Each point that it tries is a trial, measured from the first reply on. The routes of the replies show how long the
server worked, so how many requests are on their way at a time, and so how few in flight may be enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Final, NamedTuple, Self, TypeAlias

import msgspec

from casdk._calls.window import GROWN_WINDOW_REQUESTS, WINDOW_REQUESTS, Window

__all__ = ["FEWEST_ITEMS", "Point", "Tuning"]

FEWEST_ITEMS: Final = 4096
"""There is no search for an input that is known to have fewer items, because it would end before a search could pay."""
FIRST_ITEMS: Final = 1024
"""Items that are done before a second point is tried, since the input may turn out to be short."""
MOST_BATCH_ITEMS: Final = 512
"""The most items that a request is tried with."""
LEAST_WINDOW_DIVISOR: Final = 4
"""The window may become the first one divided by this: two requests for each server, one computed and one waiting."""
TRIAL_SECONDS: Final = 0.2
"""A trial takes at least so long, and then ends with a whole window of replies, as they may come in such bursts."""
LONG_TRIAL_SECONDS: Final = 2.0
"""A trial ends after this time also within a window, if there were `FEWEST_REPLIES` by then."""
FEWEST_REPLIES: Final = 3
MOST_TRIALS: Final = 40
"""The search ends after so many trials in any case; trials that were broken off count, too."""
GAIN_RATIO: Final = 1.01
"""A step is taken if it gives so many times the items per second of the best trial so far."""
LOSS_RATIO: Final = 0.995
"""A step to fewer requests in flight is taken if it still gives so many times the items per second of the best trial.
Requests in flight cost memory, and the server's other clients wait for them."""
IN_FLIGHT_SECONDS: Final = 4.0
"""Only so many items in flight are tried as the server encodes in this time, for which a run that stops has to wait."""


class Point(NamedTuple):
    """A point of the search, which is tried and measured.

    Attributes:
        batch_size: Rows per request, each of one item or of several that travel together.
        window: Requests in flight.
    """

    batch_size: int
    window: int


Trials: TypeAlias = Generator[Point, float, None]
"""Yields points to try, one after the other; the rows per second of each are sent to it."""


class Tuning(Window):
    """A window that also says how many items the next request has, and searches for the best of both.

    As a `Window` it is notified of every reply; `TunedRun` also reports what was measured on the replies of the current
    trial. When the search is over, requests keep their size; the window gets smaller when the server refuses one, and
    grows back.

    Args:
        batch_size: Rows per request, at first.
        window: Requests in flight, at first.
        row_items: Items of a row, which travel in one request: 1, or 2 for an image and its caption. The points of the
            search count rows.

    Attributes:
        row_items: Items of a row.
        batch_size: Items of the next request.
        size: Requests in flight.
        trial: Number of the current trial: chunks that are read while it is n belong to trial n.
        is_over: Whether the search is over.
    """

    def __init__(self, batch_size: int, window: int = WINDOW_REQUESTS, *, row_items: int = 1) -> None:
        super().__init__(window)
        self.row_items: Final = row_items
        self.batch_size: int = batch_size * row_items
        self.size: int = window
        self.trial: int = 0
        self.is_over: bool = False
        self._search = _Search(Point(batch_size, window), MOST_BATCH_ITEMS // row_items)
        self._trials: Trials | None = None
        self._answered = True
        self._growth = 0
        self._backed_off_at = -math.inf
        self._tally: _Tally | None = None
        self._go_to(self._search.best)

    @classmethod
    def known(cls, batch_size: int, window: int, *, row_items: int = 1) -> Self:
        """Return a tuning whose search is over, with the point that was found before."""
        tuning = cls(batch_size, window, row_items=row_items)
        tuning.end()
        return tuning

    def begin(self, window: int, most_window: int = GROWN_WINDOW_REQUESTS, most_bytes: float = math.inf) -> None:
        """Begin a call; the first call that uses this does the whole search.

        Args:
            window: Requests in flight at first.
            most_window: The most requests in flight; if it equals ``window``, their number stays fixed.
            most_bytes: The most bytes of a request.
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
        """The best point that was found so far, which counts rows; the window may be smaller at the moment."""
        return self._search.best

    @property
    def has_compared(self) -> bool:
        """Whether more than one point was tried, so that the best one was chosen from several."""
        return len(self._search.rates) > 1

    def answered(self, took: float, size: int) -> None:
        self._answered = True
        if self.size < self._point.window:
            self._growth += 1
            if self._growth >= self.size:
                self.size, self._growth = self.size + 1, 0

    def failed(self) -> None:
        """Do nothing: `refused` makes the window smaller, if the failure says that it should be."""

    def measured(self, now: float, items: int, took: float, served: float, size: int) -> None:
        """Note that a request of the current trial was answered.

        Args:
            now: When it was answered, in seconds of any clock.
            items: Items in the request.
            took: Seconds from sending it to its reply.
            served: Seconds of these that the server worked at it; 0 if that is not known.
            size: Size of the request in bytes.
        """
        if self.is_over:
            return
        tally, search, rows = self._tally, self._search, items // self.row_items
        search.row_bytes = max(search.row_bytes, size / rows)
        if tally is None:  # the first reply does not count: requests of a new size may need preparation in the server
            self._tally = _Tally(now)
            return
        tally.rows += rows
        tally.replies += 1
        tally.on_the_way += took - served
        seconds = now - tally.began_at
        is_whole = seconds >= TRIAL_SECONDS and tally.replies % self._point.window == 0
        is_late = seconds >= LONG_TRIAL_SECONDS and tally.replies >= FEWEST_REPLIES
        if (is_whole or is_late) and (search.rates or tally.rows * self.row_items >= FIRST_ITEMS):
            # By Little's law: requests per second, times the seconds that each of them is on its way.
            search.on_the_way[self._point] = tally.on_the_way / seconds
            self._try_next(tally.rows / seconds)

    def disturbed(self) -> None:
        """Begin the current trial again, since an error has disturbed its measurement."""
        if not self.is_over:
            self._go_to(self._point)
            self._count_trial()

    def refused(self, sent_at: float, now: float) -> None:
        """Note that the server, or a proxy, has refused a request because there are too many.

        All refusals of requests that were in flight together count as one. So do the refusals of those that are sent
        again, until one of them is answered.

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
        """Note that a request of so many items was too large for the server, or for a proxy."""
        rows = items // self.row_items
        if self.is_over or rows < 2:
            return
        self._search.most_batch_size = min(self._search.most_batch_size, rows // 2)
        if self._point.batch_size > self._search.most_batch_size:
            self._try_next(0.0)

    def end(self) -> None:
        """End the search with the best point that was found so far."""
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
        """Send the next requests with the numbers of a point, and measure them."""
        self._point = point
        self.batch_size, self.size = point.batch_size * self.row_items, point.window
        self._tally = None

    def _try_next(self, rate: float) -> None:
        """Go on to the next point.

        Args:
            rate: Rows per second of the current point.
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
    """The measurements of a trial so far; a `Tuning` has one during a trial.

    Attributes:
        began_at: When the first reply came, which does not count itself.
        rows: Rows of the replies after that one.
        replies: Number of these replies.
        on_the_way: Seconds that these requests and replies were on their way, in all.
    """

    began_at: float
    rows: int = 0
    replies: int = 0
    on_the_way: float = 0.0


class _Search:
    """The search of a `Tuning`: it decides which point is tried next.

    Args:
        first: The first point.
        most_batch_size: The most rows in a request that are tried, unless the first point has more.

    Attributes:
        best: The best point so far.
        rates: Rows per second of each point that was tried.
        on_the_way: For each point, how many requests were on their way at a time, on average.
        least_window: The fewest requests in flight that are tried.
        most_window: The most requests in flight that are tried.
        most_batch_size: The most rows in a request that are tried.
        most_bytes: The most bytes of a request that are tried.
        row_bytes: Bytes of a row, in the request with the largest rows.
    """

    def __init__(self, first: Point, most_batch_size: int) -> None:
        self.best = first
        self.rates: dict[Point, float] = {}
        self.on_the_way: dict[Point, float] = {}
        self.least_window = self.most_window = first.window
        self.most_batch_size = max(first.batch_size, most_batch_size)
        self.most_bytes = math.inf
        self.row_bytes = 0.0

    def trials(self) -> Trials:
        """Yield the points to try, until no step helps any more; the rate of each point is sent to it."""
        yield from self._measure(self.best)
        before = None
        while self.best != before:
            before = self.best
            yield from self._find_window()
            yield from self._find_batch_size()

    def within_bounds(self, point: Point) -> Point:
        """Return the nearest point within the bounds, which refusals make narrower."""
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
            share: The share of the highest rate so far that the point has to reach.
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
        """Return the rate of a point, and try it if it was not tried before; move the best point into the bounds."""
        if point not in self.rates:
            self.rates[point] = yield point
            # A refusal during the trial may have made the bounds so narrow that the best point lies outside of them.
            while (best := self.within_bounds(self.best)) != self.best:
                self.best = best
                if best not in self.rates:
                    self.rates[best] = yield best
        return self.rates[point]

    def _may_try(self, point: Point) -> bool:
        if point.batch_size < 1 or self.within_bounds(point) != point:
            return False
        if point.batch_size > self.best.batch_size and point.batch_size * self.row_bytes > self.most_bytes:
            return False
        rows, rows_now = (one.batch_size * one.window for one in (point, self.best))
        return rows <= max(rows_now, IN_FLIGHT_SECONDS * self.rates[self.best])
