"""The bar of ``show_progress=True`` (rich).

A thread of its own draws the bar, and every wait for that thread has a limit: the console may block (a stopped
terminal, a pipe that is not read, a file of the caller's), and may be the caller's own code. A call only counts; the
thread reads the counts a few times a second, and once more when the call is over.
"""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import suppress
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Final

from casdk._engine.logging import logger_of
from casdk._engine.threads import check_process, start, wait_for_thread
from casdk.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from casdk._calls.outcome import Sent

__all__ = ["Progress"]

LOG: Final = logger_of("casdk.progress")
TICK_SECONDS: Final = 0.1
"""How often the bar is drawn."""
END_SECONDS: Final = 1.0
"""How long the end of a call, and of the process, waits until the bar shows how it ended. If drawing takes longer, no
call waits for it again until it has succeeded."""


class Progress:
    """One call's row in the display.

    It shows items done, of all if known, items per second, bytes out and in, the smallest cosine that was measured of
    crops with loss, time elapsed and remaining.

    Args:
        title: The text before the bar.
        total: Items in all, if known.
        sent: How much the call has sent.
    """

    def __init__(self, title: str, total: int | None, sent: Sent | None = None) -> None:
        self.title: Final = title
        self.total = total
        self.done = 0
        self.over = False
        self._sent = sent
        self._out = self._in = 0
        self._waits = False
        self._display: _Display | None = None

    def __enter__(self) -> Progress:
        self._display = _display_of_process()
        self._display.open(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.total is None:
            self.total = self.done
        self._waits = False
        self.over = True
        if self._display is not None:
            self._display.hurry()

    def advance(self, items: int, sent: int, got: int) -> None:
        """Count one reply."""
        self._out += sent
        self._in += got
        self.done += items

    def wait(self, waits: bool) -> None:
        """Show that the server is away and the call waits for it, or that it waits no longer."""
        self._waits = waits

    async def shown(self, deadline: float | None = None) -> None:
        """Wait until the bar shows how the call ended, for `END_SECONDS` at most.

        Args:
            deadline: When the call has to end, in the loop's time.
        """
        if self._display is not None:
            await self._display.shown(deadline)

    def traffic(self) -> str:
        """Return the row's text beside the count of items: bytes out and in, the cosine, or that the call waits."""
        from rich.filesize import decimal

        if self._waits:
            return "waiting for the server"
        fidelity = None if self._sent is None else self._sent.fidelity
        exactness = "" if fidelity is None else f" cosine {fidelity:.4f}"
        return f"out {decimal(self._out)} in {decimal(self._in)}{exactness}"


class _Display:
    """All rows of a process, and the thread that draws them while there are any: a terminal has room for one display.

    The lock is held while rows and callbacks are passed to the thread, and never while something is drawn.
    """

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._wakeup: Final = threading.Event()
        self._new: list[Progress] = []
        self._when_drawn: list[Callable[[], object]] = []
        self._running = self._late = False

    def open(self, row: Progress) -> None:
        """Show a row until its call is over."""
        with self._lock:
            self._new.append(row)
            if self._running:
                return
            self._running = True
        try:
            start(self._run, "casdk-bar")
        except TransportError as error:
            # A bar is no reason to end a call.
            LOG.warning("no bar is shown: %s", error)
            with self._lock:
                self._running = False
                self._new.clear()

    def hurry(self) -> None:
        """Draw at once."""
        self._wakeup.set()

    def call_when_drawn(self, function: Callable[[], object]) -> bool:
        """Call a function when all that was counted so far has been drawn; return whether it will be called."""
        with self._lock:
            if not self._running or self._late:
                return False
            self._when_drawn.append(function)
        self._wakeup.set()
        return True

    def mark_late(self) -> None:
        """Note that drawing was too slow, so that no call waits for it until it has succeeded again."""
        self._late = True

    async def shown(self, deadline: float | None) -> None:
        """Wait until all that was counted so far has been drawn, as `Progress.shown` does."""
        await wait_for_thread(self.call_when_drawn, END_SECONDS, deadline, self.mark_late)

    def _run(self) -> None:
        process = os.getpid()
        drawing = _Drawing()
        while True:
            self._wakeup.wait(TICK_SECONDS)
            self._wakeup.clear()
            with self._lock:
                new, self._new = self._new, []
                when_drawn, self._when_drawn = self._when_drawn, []
            try:
                drawing.draw(new)
            except BaseException as error:  # raised by the console, which may be the caller's own code
                if os.getpid() != process:
                    raise
                drawing.fail(error)
            check_process(process)
            self._late = False
            with self._lock:
                # Rows and callbacks that were added while it drew need another turn.
                ended = not (drawing.rows or self._new or self._when_drawn)
                if ended:
                    self._running = False
            for function in when_drawn:
                function()
            if ended:
                return


class _Drawing:
    """The rows that the display's thread draws, and rich's bars for them; used on that thread only."""

    def __init__(self) -> None:
        self.rows: dict[Progress, TaskID | None] = {}
        self._bars: Bars | None = None
        self._failed = False

    def draw(self, new: list[Progress]) -> None:
        """Draw all rows as they are now, and the new ones; close the display when the last call is over."""
        self.rows |= dict.fromkeys(new)
        over = [row for row in self.rows if row.over]
        left = self.rows
        try:
            if not self._failed:
                self._draw(over)
        finally:
            self.rows = {row: place for row, place in left.items() if row not in over}
        if not self.rows and self._bars is not None:
            bars, self._bars = self._bars, None
            bars.stop()

    def _draw(self, over: list[Progress]) -> None:
        if self._bars is None:
            self._bars = _make_bars()
            self._bars.start()
        bars = self._bars
        for row, known in self.rows.items():
            place = known
            if place is None:
                self.rows[row] = place = bars.add_task(row.title, total=row.total, traffic=row.traffic())
            bars.update(place, total=row.total, completed=row.done, traffic=row.traffic())
            if row in over:
                bars.stop_task(place)
        bars.refresh()

    def fail(self, error: BaseException) -> None:
        """Draw no more until all calls are over, since the console cannot be written to."""
        if not self._failed:
            self._failed = True
            if isinstance(error, SystemExit) and error.__context__ is not None:  # rich raises it for a broken pipe
                error = error.__context__
            LOG.warning("the bar cannot be drawn: %s: %s", type(error).__name__, error)
        bars, self._bars = self._bars, None
        if bars is not None:
            with suppress(BaseException):  # it fails for the same reason as drawing, which was logged
                bars.stop()


_displays: dict[int, _Display] = {}
"""The display of this process, by its id: a forked child makes its own, and draws none of its parent's rows."""


def _display_of_process() -> _Display:
    return _displays.setdefault(os.getpid(), _Display())


def _flush() -> None:
    display = _displays.get(os.getpid())
    done = threading.Event()
    if display is not None and display.call_when_drawn(done.set):
        done.wait(END_SECONDS)


atexit.register(_flush)


def _make_bars() -> Bars:
    import rich
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import (
        Progress as Bars,
    )
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("- items/s" if speed is None else f"{speed:,.0f} items/s", style="progress.data.speed")

    console = rich.get_console()
    if console.is_jupyter and find_spec("ipywidgets") is None:
        # In Jupyter without ipywidgets, rich shows a warning and no bar; as text, it shows the last state of the bar.
        console = Console(force_jupyter=False)
    return Bars(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        Rate(Column(no_wrap=True)),
        TextColumn("{task.fields[traffic]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        auto_refresh=False,
    )
